"""Differences between classes: effect sizes and tests against scipy, and what patients do to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ddtl.audits.differences import class_differences, cliffs_delta
from ddtl.audits.file_metadata import FileMetadata
from ddtl.audits.views import VIEWS, Measurements
from ddtl.data.manifest import Manifest, Sample

RNG = np.random.default_rng(0)
QUANTITIES = 12


def a_look(width: int = 100, file_bytes: int = 5000, **marks: float) -> Measurements:
    numbers = {name: np.zeros(len(view.names), dtype=np.float32) for name, view in VIEWS.items() if view.names}
    for name, value in marks.items():
        numbers["marks"][VIEWS["marks"].names.index(name)] = value
    return Measurements(FileMetadata("PNG", "L", width, 100, file_bytes), numbers)


def a_manifest(labels: list[int], patients: list[int], classes: int = 2) -> Manifest:
    samples = (
        Sample(f"{i:04}", Path(f"{i}.png"), k, f"p{p}") for i, (k, p) in enumerate(zip(labels, patients, strict=True))
    )
    return Manifest("toy", ("healthy", "covid", "other")[:classes], tuple(samples), "patient")


@given(st.integers(0, 2**32 - 1), st.integers(4, 30), st.integers(4, 30), st.booleans())
@settings(max_examples=60, deadline=None)
def test_delta_and_its_test_are_those_of_scipy(seed: int, m: int, n: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.normal(0.4, 1, m), rng.normal(0, 2, n)
    if ties:
        one, other = np.round(one), np.round(other)
    labels = np.repeat([1, 0], [m, n])
    delta, tested = cliffs_delta(np.concatenate([one, other]), labels, np.arange(m + n))
    assert delta == pytest.approx(2 * stats.mannwhitneyu(one, other).statistic / (m * n) - 1)
    assert tested is not None
    low, high, p = tested
    assert -1 <= low <= delta <= high <= 1
    ranks = stats.rankdata(np.concatenate([one, other]))
    if min(m, n) >= 10 and 0 < abs(delta) < 1 and np.ptp(ranks) > 0:  # the same test, by permutation
        assert p == pytest.approx(stats.mannwhitneyu(one, other, method="asymptotic").pvalue, abs=0.05)


def test_few_groups_are_permuted_as_all_arrangements_are() -> None:
    values, labels = np.array([1.0, 2.0, 2.5, 4.0, 5.0, 7.0, 8.0, 9.0]), np.array([0, 0, 0, 1, 0, 1, 1, 1])
    tested = cliffs_delta(values, labels, np.arange(8))[1]
    assert tested is not None
    exact = stats.mannwhitneyu(values[labels == 1], values[labels == 0], method="exact").pvalue
    assert tested[2] == pytest.approx(exact, abs=0.015)


def test_groups_without_a_difference_are_rarely_told_apart() -> None:
    rng = np.random.default_rng(0)
    claims = []
    for _ in range(300):
        counts = rng.integers(1, 6, 8)
        groups = np.repeat(np.arange(8), counts)
        values = rng.normal(size=8)[groups] + rng.normal(size=len(groups))
        tested = cliffs_delta(values, (groups < 4).astype(int), groups)[1]
        assert tested is not None
        claims.append(tested[2] < 0.05)
    assert np.mean(claims) <= 0.06


def test_copies_of_a_patient_are_no_evidence() -> None:
    values, labels = RNG.normal(size=30), np.arange(30) % 2
    once = cliffs_delta(values, labels, np.arange(30))
    copied = cliffs_delta(np.tile(values, 5), np.tile(labels, 5), np.tile(np.arange(30), 5))
    assert copied[0] == pytest.approx(once[0])
    assert copied[1] == pytest.approx(once[1])


def test_what_does_not_vary() -> None:
    labels, groups = np.repeat([0, 1], 10), np.arange(20)
    delta, tested = cliffs_delta(np.ones(20), labels, groups)
    assert (delta, tested[2] if tested else None) == (0, 1)
    delta, tested = cliffs_delta(labels * 1.0, labels, groups)
    assert tested is not None
    low, high, p = tested
    assert (delta, high) == (1, 1)
    assert p == pytest.approx(2 * 0.5**10)
    assert 0.3 < low < 0.5  # ten pairs of patients that agree leave 31 % of exceptions possible


def test_a_difference_is_named_with_its_medians() -> None:
    labels = [0] * 12 + [1] * 12
    looks = [a_look(width=300 + 10 * k + i % 3) for i, k in enumerate(labels)]
    found = class_differences(a_manifest(labels, list(range(24))), looks)
    assert len(found) == QUANTITIES
    first = found[0]
    assert (first.of_class, first.others, first.size, first.delta) == ("covid", "healthy", "large", 1)
    width = next(one for one in found if one.quantity == "width")
    assert (width.median, width.median_others, width.unit) == (311, 301, "pixels")
    still = next(one for one in found if one.quantity == "height")
    assert (still.delta, still.p_adjusted, still.size) == (0, 1, "none")


def test_marks_are_measured_in_percent() -> None:
    labels = [0] * 12 + [1] * 12
    looks = [a_look(coloured=0.02 * k * (i % 4 != 0)) for i, k in enumerate(labels)]
    coloured = class_differences(a_manifest(labels, list(range(24))), looks)[0]
    assert coloured.quantity == "coloured pixels"
    assert coloured.mean == pytest.approx(1.5)
    assert coloured.delta == pytest.approx(0.75)


def test_the_correction_is_that_of_statsmodels() -> None:
    labels = [i % 2 for i in range(60)]
    looks = [a_look(int(RNG.integers(90, 110) + 3 * k), int(RNG.integers(4000, 6000))) for k in labels]
    found = class_differences(a_manifest(labels, list(range(60))), looks)
    adjusted = multipletests([one.p_value for one in found], method="holm")[1]
    assert [one.p_adjusted for one in found] == pytest.approx(adjusted.tolist())


@pytest.mark.slow
def test_chance_is_rarely_called_a_difference() -> None:
    """Patients differ and classes do not: with four slices each, a test by image would cry out far more often."""
    rng, called = np.random.default_rng(1), 0
    patients = np.repeat(np.arange(40), 4)
    manifest = a_manifest((patients % 2).tolist(), patients.tolist())
    for _ in range(40):
        sizes = rng.integers(100, 400, 40)[patients] + rng.integers(0, 5, 160)
        weights = rng.integers(1000, 9000, 40)[patients]
        looks = [a_look(int(w), int(b)) for w, b in zip(sizes, weights, strict=True)]
        called += any(one.size != "none" for one in class_differences(manifest, looks))
    assert called <= 6  # 2 are expected at most; more than 6 have a chance of 1 in 300


def test_three_classes_are_each_against_all_others() -> None:
    labels = [i % 3 for i in range(30)]
    looks = [a_look(width=100 + 50 * (k == 2) + i % 5) for i, k in enumerate(labels)]
    found = class_differences(a_manifest(labels, list(range(30)), 3), looks)
    assert len(found) == 3 * QUANTITIES
    assert (found[0].of_class, found[0].others, found[0].delta) == ("other", "all others", 1)


def test_one_class_few_patients_and_images_that_cannot_be_read() -> None:
    alike = a_manifest([0, 0, 0], [1, 2, 3])
    assert class_differences(alike, [a_look()] * 3) == []
    few = class_differences(a_manifest([0, 0, 1, 1], [1, 2, 3, 4]), [a_look(width=100 + i) for i in range(4)])
    assert all((one.low, one.p_value, one.p_adjusted, one.size) == (None, None, None, "none") for one in few)
    manifest, looks = a_manifest([0, 1, 0, 1], [1, 2, 3, 4]), [a_look()] * 4
    assert class_differences(manifest, [None] * 4) == []
    assert class_differences(manifest, [looks[0], None, looks[2], None]) == []
    wide = replace(looks[0], metadata=replace(looks[0].metadata, width=900))
    kept = class_differences(manifest, [looks[0], wide, None, wide])
    assert next(one for one in kept if one.quantity == "width").median_others == 100
