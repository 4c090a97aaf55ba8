"""What must hold of any table of images, and of the decoded cache wherever its building is cut off."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings, strategies as st
from PIL import Image

from ddtl.data.images.cache import open_cache
from ddtl.data.images.decode import load_image
from ddtl.data.manifest import SPLITS, Manifest, Sample
from ddtl.data.splits.protocols import assign
from ddtl.utils.errors import UserError

SPAWN = multiprocessing.get_context("spawn")
MADE = ("grouped", "random", "kfold")


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Two to four classes; patients with images of one class or several, images without a patient, near-duplicates."""
    n_classes, least = draw(st.integers(2, 4)), draw(st.sampled_from([3, 30, 60]))
    label, number = st.integers(0, n_classes - 1), st.none() | st.integers(0, 40)
    row = st.tuples(label, number, number, st.text(max_size=3))
    rows = draw(st.lists(row, min_size=least, max_size=least + 20))
    samples = [
        Sample(
            sample_id=f"{text}-{i}",
            path=Path(f"{i}.png"),
            label=label,
            patient_id=None if patient is None else f"p{patient}",
            cluster_id=None if cluster is None else f"c{cluster}",
            site=f"s{i % 3}",
        )
        for i, (label, patient, cluster, text) in enumerate(rows)
    ]
    classes = tuple(f"class {label}" for label in range(n_classes))
    return Manifest("toy", classes, tuple(samples), draw(st.sampled_from(["patient", "near_duplicate", "none"])))


def hashes(manifest: Manifest) -> list[str]:
    """A made-up content of each file, which knows nothing of the file's row."""
    return [hashlib.sha256(sample.sample_id.encode()).hexdigest() for sample in manifest.samples]


def split_of(manifest: Manifest) -> dict[str, str | None]:
    return {sample.sample_id: sample.split for sample in manifest.samples}


def split(manifest: Manifest, protocol: str, seed: int, **folds: int) -> Manifest | None:
    """The manifest with a split; None where it has too few images or groups for one, which must be said."""
    try:
        return assign(manifest, protocol, seed=seed, val_fraction=0.2, test_fraction=0.2, **folds)
    except UserError as error:
        if "too few" in str(error):
            return None
        raise


# ---- splits and digests


@settings(deadline=None, max_examples=60)
@given(manifests(), st.sampled_from(MADE), st.integers(0, 9))
def test_any_split_holds_each_image_once_and_every_class(manifest: Manifest, protocol: str, seed: int) -> None:
    result = split(manifest, protocol, seed, n_folds=3, fold=1)
    event("split" if result else "too few")
    if result is None:
        return
    assert split_of(result).keys() == split_of(manifest).keys()
    assert sorted(i for name in SPLITS for i in result.rows(name)) == list(range(len(manifest)))
    for name in SPLITS:
        assert {result.samples[i].label for i in result.rows(name)} == set(range(len(manifest.classes)))


@settings(deadline=None, max_examples=60)
@given(manifests(), st.sampled_from(["grouped", "kfold"]), st.integers(0, 9))
def test_no_patient_and_no_cluster_of_images_without_one_is_torn(manifest: Manifest, protocol: str, seed: int) -> None:
    result = split(manifest, protocol, seed, n_folds=2, fold=0)
    where: dict[str, set[str | None]] = {}
    for sample in result.samples if result else ():
        where.setdefault(sample.patient_id or sample.cluster_id or sample.sample_id, set()).add(sample.split)
    assert all(len(splits) == 1 for splits in where.values())


@settings(deadline=None, max_examples=25)
@given(manifests(), st.integers(2, 4), st.integers(0, 9))
def test_every_image_is_in_the_test_of_one_fold(manifest: Manifest, n_folds: int, seed: int) -> None:
    folds = [split(manifest, "kfold", seed, n_folds=n_folds, fold=fold) for fold in range(n_folds)]
    tests = [sample.sample_id for fold in folds if fold for sample in fold.samples if sample.split == "test"]
    assert len(set(tests)) == len(tests)
    if all(folds):
        assert len(tests) == len(manifest)


@settings(deadline=None, max_examples=40)
@given(manifests(), st.randoms(use_true_random=False), st.sampled_from(MADE))
def test_the_order_of_rows_changes_nothing(manifest: Manifest, rng: random.Random, protocol: str) -> None:
    rows = list(manifest.samples)
    rng.shuffle(rows)
    shuffled = replace(manifest, samples=tuple(rows))
    assert shuffled.samples == manifest.samples  # so training, which goes by row, is the same, too
    assert shuffled.digest(hashes(shuffled)) == manifest.digest(hashes(manifest))
    first, second = (split(m, protocol, 0, n_folds=2, fold=0) for m in (manifest, shuffled))
    assert first == second


CHANGES: list[Callable[[Sample], dict[str, Any]]] = [
    lambda s: {"label": 1 - s.label if s.label < 2 else 0},
    lambda s: {"patient_id": f"{s.group}x"},
    lambda s: {"site": "elsewhere"},
    lambda s: {"split": "val" if s.split == "train" else "train"},
    lambda s: {"sample_id": f"{s.sample_id}x", "patient_id": s.group},
]


@settings(deadline=None, max_examples=80)
@given(manifests(), st.data())
def test_whatever_changes_a_result_changes_the_digest(manifest: Manifest, data: st.DataObject) -> None:
    where = st.sampled_from([*SPLITS, None])
    manifest = manifest.with_splits({s.sample_id: data.draw(where) for s in manifest.samples}, "official")
    row = data.draw(st.integers(0, len(manifest) - 1))
    before = manifest.digest(hashes(manifest))
    seen = {before}
    for change in CHANGES:
        sample = replace(manifest.samples[row], **change(manifest.samples[row]))
        changed = replace(manifest, samples=(*manifest.samples[:row], sample, *manifest.samples[row + 1 :]))
        seen.add(changed.digest(hashes(changed)))
    other = hashes(manifest)
    other[row] = "0" * 64
    seen.add(manifest.digest(other))
    seen.add(replace(manifest, classes=manifest.classes[::-1]).digest(hashes(manifest)))
    assert len(seen) == len(CHANGES) + 3
    moved = replace(manifest, samples=tuple(replace(s, path=Path("/elsewhere") / s.path) for s in manifest.samples))
    assert moved.digest(hashes(moved)) == before


# ---- the decoded cache

SIZE, N = 8, 12


def picture(path: Path, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("images")
    samples = tuple(Sample(f"{i:02}", picture(folder / f"{i}.png", i), i % 2) for i in range(N))
    return Manifest("toy", ("no", "yes"), samples, "none")


def assert_right(manifest: Manifest, root: Path) -> None:
    """That the cache opens with the right pixels, is as one that was built at once, and nothing half-made is left."""
    cache = open_cache(manifest, size=SIZE, root=root, workers=1)
    expected = np.stack([load_image(sample.path, SIZE) for sample in manifest.samples])
    np.testing.assert_array_equal(cache.take(range(N)), expected)
    assert [p.name for p in (root / "decoded").iterdir() if p.suffix != ".lock"] == [cache.folder.name]
    rows = np.load(cache.folder / "images.npy")
    index = json.loads((cache.folder / "index.json").read_text())
    assert index["sha256"] == hashlib.sha256((cache.folder / "images.npy").read_bytes()).hexdigest()
    assert rows.tobytes() == expected[np.argsort(cache.file_hashes)].tobytes()


def states_while(manifest: Manifest, root: Path, copies: Path, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What a kill -9 would leave on the disk: a copy of ``root`` before and after every step of building it."""
    taken: list[Path] = []

    def look() -> None:
        taken.append(copies / str(len(taken)))
        if root.exists():
            shutil.copytree(root, taken[-1])
        else:
            os.makedirs(taken[-1])

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            look()
            try:
                return function(*args, **options)
            finally:
                look()

        return step

    with patch.context() as p:
        for owner, name in ((Path, "mkdir"), (Path, "rename"), (Path, "write_text"), (shutil, "rmtree")):
            p.setattr(owner, name, watched(getattr(owner, name)))
        open_cache(manifest, size=SIZE, root=root, workers=1, progress=lambda done, total: look())
    yield from taken


def test_a_cache_cut_off_at_any_step_is_rebuilt(toy: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = list(states_while(toy, tmp_path / "cache", tmp_path / "copies", monkeypatch))
    half_made = [state for state in states if list(state.glob("decoded/*.partial/images.npy"))]
    assert len(states) > N + 6
    assert len(half_made) > N
    for state in states:
        assert_right(toy, state)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_cache_damaged_anywhere_gives_the_right_pixels(
    data: st.DataObject, toy: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Power cuts and failing disks: any byte of either file changed, or the file ended there."""
    root = tmp_path_factory.mktemp("cache")
    path = open_cache(toy, size=SIZE, root=root, workers=1).folder / data.draw(
        st.sampled_from(["images.npy", "index.json"])
    )
    content = bytearray(path.read_bytes())
    offset = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[offset:]
    else:
        content[offset] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert_right(toy, root)


def test_an_index_of_other_images_is_not_believed(toy: Manifest, tmp_path: Path) -> None:
    folder = open_cache(toy, size=SIZE, root=tmp_path, workers=1).folder
    index = json.loads((folder / "index.json").read_text())
    index["files"] = index["files"][::-1]
    (folder / "index.json").write_text(json.dumps(index))
    assert_right(toy, tmp_path)


def build(manifest: Manifest, root: Path, done: Any, die_at: int) -> None:
    """Builds slowly, and is killed after ``die_at`` images."""

    def progress(at: int, total: int) -> None:
        with done.get_lock():
            done.value += 1
        time.sleep(0.02)
        if at == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    open_cache(manifest, size=SIZE, root=root, workers=1, progress=progress)


def test_who_waits_for_a_builder_that_is_killed_builds_itself(toy: Manifest, tmp_path: Path) -> None:
    done, die_at = SPAWN.Value("i", 0), 7
    first = SPAWN.Process(target=build, args=(toy, tmp_path, done, die_at))
    first.start()
    while not done.value:
        assert first.is_alive() or done.value
        time.sleep(0.005)
    assert_right(toy, tmp_path)  # comes while the first is at work
    first.join(300)
    assert first.exitcode == -signal.SIGKILL
    assert done.value == die_at
