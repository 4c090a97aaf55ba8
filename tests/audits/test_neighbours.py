"""The search for near hashes: always what comparing each with each finds, and without its cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from ddtl.audits.neighbours import likely_near, near


def brute_force(index: np.ndarray, queries: np.ndarray, radius: int) -> set[tuple[int, int, int]]:
    as_ints = [[int.from_bytes(row.tobytes(), "big") for row in some] for some in (index, queries)]
    apart = {(i, j): (a ^ b).bit_count() for i, a in enumerate(as_ints[0]) for j, b in enumerate(as_ints[1])}
    return {(*pair, bits) for pair, bits in apart.items() if bits <= radius}


def hashes(rng: np.random.Generator, n: int, varying: int) -> np.ndarray:
    """Hashes of which only some bits vary, as in pictures with the same black corners."""
    bits = np.zeros((n, 256), dtype=np.uint8)
    bits[:, rng.choice(256, varying, replace=False)] = rng.integers(0, 2, (n, varying))
    return np.packbits(bits, axis=1).view(np.uint64)


def with_flips(rng: np.random.Generator, some: np.ndarray, flips: int) -> np.ndarray:
    bits = np.unpackbits(some.view(np.uint8), axis=1)
    for row in bits:
        row[rng.choice(256, flips, replace=False)] ^= 1
    return np.packbits(bits, axis=1).view(np.uint64)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(0, 40),
    m=st.integers(0, 30),
    varying=st.integers(0, 256),
    radius=st.integers(0, 60),
)
def test_it_finds_what_brute_force_finds(seed: int, n: int, m: int, varying: int, radius: int) -> None:
    rng = np.random.default_rng(seed)
    index = hashes(rng, n, varying)
    queries = hashes(rng, m, varying)
    if n and m:  # some just inside the radius and some just outside
        planted = index[rng.integers(0, n, m // 2)]
        queries[: m // 2] = with_flips(rng, planted, radius + int(rng.integers(0, 2)))
    found = list(zip(*(column.tolist() for column in near(index, queries, radius)), strict=True))
    assert set(found) == brute_force(index, queries, radius)
    assert len(set(found)) == len(found)
    assert found == sorted(found, key=lambda pair: (pair[1], pair[0]))


@pytest.mark.parametrize("radius", [0, 5, 20, 32])
def test_every_planted_neighbour_among_many_is_found(radius: int) -> None:
    rng = np.random.default_rng(radius)
    index = hashes(rng, 5000, 200)
    rows = rng.choice(5000, 200, replace=False)
    found_rows, asked, apart = near(index, with_flips(rng, index[rows], radius), radius)
    found = set(zip(found_rows.tolist(), asked.tolist(), strict=True))
    assert set(zip(rows.tolist(), range(200), strict=True)) <= found
    assert apart.max() <= radius


def test_the_quick_search_finds_what_it_promises() -> None:
    rng = np.random.default_rng(5)
    index = hashes(rng, 20_000, 256)
    for bits, least in ((0, 1.0), (10, 0.995), (20, 0.93), (28, 0.65)):
        rows = rng.choice(20_000, 1000, replace=False)
        found_rows, asked, apart = likely_near(index, with_flips(rng, index[rows], bits), 28)
        found = set(zip(found_rows.tolist(), asked.tolist(), strict=True))
        assert np.mean([pair in found for pair in zip(rows.tolist(), range(1000), strict=True)]) >= least
        assert set(apart.tolist()) == {bits}  # nothing but what was planted is as near


def test_many_equal_hashes_need_no_more_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddtl.audits.neighbours._BLOCK", 100)
    same = np.full((70, 4), 7, dtype=np.uint64)
    rows, asked, apart = near(same, same, 3)
    assert len(rows) == 70 * 70
    assert not apart.any()
    assert set(zip(rows.tolist(), asked.tolist(), strict=True)) == {(i, j) for i in range(70) for j in range(70)}
