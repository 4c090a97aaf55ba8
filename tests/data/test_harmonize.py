"""Grey levels made alike: known tables, other libraries' answers, a planted gap taken back, and runs that use it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from ddtl.commands import cli
from ddtl.config.load import load
from ddtl.data.images.harmonize import Harmonizer, equalizing, histogram, matching, pooled_histogram
from ddtl.data.loading.datamodule import CTDataModule
from ddtl.data.phantom.dataset import truth
from ddtl.utils.errors import UserError
from tests.support.runs import SMALL, run

IMAGES = arrays(np.uint8, (12, 12))


@settings(max_examples=100, deadline=None)
@given(IMAGES)
def test_equalisation_is_opencvs(image: np.ndarray) -> None:
    ours = Harmonizer("equalize")(image, 0)
    assert np.abs(ours.astype(int) - cv2.equalizeHist(image)).max() <= 1  # they round in float32


@settings(max_examples=100, deadline=None)
@given(IMAGES, IMAGES)
def test_matching_is_monotone_and_a_distribution_is_its_own(one: np.ndarray, other: np.ndarray) -> None:
    table = matching(histogram([one]), histogram([other]))
    assert (np.diff(table.astype(int)) >= 0).all()
    assert matching(histogram([one]), histogram([one])).tolist() == list(range(256))
    assert set(np.unique(table[one])) <= set(np.unique(other)), "only levels that the reference has"


@settings(max_examples=50, deadline=None)
@given(IMAGES, st.lists(st.integers(0, 255), min_size=256, max_size=256, unique=True))
def test_a_strictly_monotone_change_is_taken_back_exactly(image: np.ndarray, levels: list[int]) -> None:
    few = image // 4  # 64 levels, brought to 64 others in the same order
    change = np.sort(np.array(levels[:64], dtype=np.uint8))
    changed = change[few]
    assert (matching(histogram([changed]), histogram([few]))[changed] == few).all()


def test_a_shared_level_stays_although_its_shares_differ() -> None:
    reference = np.bincount([0] * 400 + list(range(1, 201)), minlength=256)
    counts = np.bincount([0] * 430 + list(range(1, 201)), minlength=256)
    assert matching(counts, reference)[0] == 0


def test_a_flat_image_stays() -> None:
    flat = np.full((4, 4), 9, dtype=np.uint8)
    assert (Harmonizer("equalize")(flat, 0) == flat).all()
    assert equalizing(histogram([flat])).dtype == np.uint8


def test_clahe_is_opencvs_and_travels_to_other_processes() -> None:
    image = np.random.default_rng(0).integers(40, 90, (64, 64)).astype(np.uint8)
    harmonizer = Harmonizer("clahe")
    wanted = cv2.createCLAHE(2.0, (8, 8)).apply(image)
    assert (harmonizer(image, 0) == wanted).all()
    assert (pickle.loads(pickle.dumps(harmonizer))(image, 0) == wanted).all()


GREY = ["dataset=phantom", "dataset.phantom.sites=[b]", "dataset.phantom.gap=grey", *SMALL]


def test_the_phantoms_grey_gap_is_taken_back() -> None:
    here, there = CTDataModule(load(["dataset=phantom", *SMALL])), CTDataModule(load(GREY))
    here.load()
    there.load()
    grey = truth(there.manifest.samples[0]).grey_map
    assert grey is not None
    table = matching(there.histogram(), here.histogram()).astype(int)
    levels = np.arange(256)
    pixels = here.histogram() / here.histogram().sum()
    gap, left = (float((np.abs(to - levels) * pixels).sum()) for to in (grey.astype(int), table[grey]))
    assert gap > 20
    assert left < 0.2 * gap, "other patients have other shares of each tissue"


@pytest.mark.slow
def test_match_is_one_map_for_a_dataset_and_one_for_each_source_of_a_pool() -> None:
    words = ["dataset.sources=[phantom:a,phantom:b]", "dataset.phantom.gap=grey", *SMALL, "dataset.harmonize=match"]
    pool = CTDataModule(load(["dataset=pooled", *words]))
    pool.load()
    rows = {site: [i for i in pool.manifest.rows("train") if pool.manifest.samples[i].site == site] for site in
            ("phantom:a", "phantom:b")}  # fmt: skip
    assert pool._harmonizer is not None
    after = [histogram([pool._harmonizer(pool.cache[i], i) for i in of]) for of in rows.values()]
    before = [pooled_histogram(pool.cache, of) for of in rows.values()]

    def apart(pair: list[np.ndarray]) -> float:
        one, other = (np.cumsum(counts) / counts.sum() for counts in pair)
        return float(np.abs(one - other).sum())

    assert apart(after) < 0.2 * apart(before)
    alone = CTDataModule(load([*GREY, "dataset.phantom.sites=[a,b]", "dataset.harmonize=match"]))
    alone.load()
    assert alone._harmonizer is not None
    assert alone._harmonizer.tables is not None
    assert alone._harmonizer.tables.tolist() == [list(range(256))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("harmonized"), "trainer.max_epochs=1").folder


@pytest.mark.slow
def test_a_run_is_evaluated_elsewhere_with_matched_grey_levels(trained: Path) -> None:
    small = [word for word in SMALL if word.startswith("dataset.phantom.")]
    words = [*GREY[:3], *small, f"paths.runs_dir={trained.parents[1]}", "dataset.harmonize=match"]
    assert cli.main(["evaluate", str(trained), *words]) == 0
    found = json.loads((trained / "evaluations" / "phantom-grouped-match" / "results.json").read_text())
    assert found["harmonize"] == "match"
    assert any("dataset.harmonize=match" in warning for warning in found["warnings"])
    with pytest.raises(UserError, match=r"trained with dataset\.harmonize=none"):
        cli.main(["evaluate", str(trained), *words[:-1], "dataset.harmonize=equalize"])
    kept = (trained / "histogram.json").rename(trained / "away.json")
    with pytest.raises(UserError, match="older version"):
        cli.main(["evaluate", str(trained), *words])
    kept.rename(trained / "histogram.json")


def test_images_are_changed_before_they_are_augmented() -> None:
    plain, equalized = (
        CTDataModule(load([*SMALL, "augment=none", f"dataset.harmonize={way}"])) for way in ("none", "equalize")
    )
    plain.load()
    equalized.load()
    assert plain.cache.folder == equalized.cache.folder, "decoded once"
    before = next(iter(plain.eval_loader("val")))["image"][0, 0].numpy()
    after = next(iter(equalized.eval_loader("val")))["image"][0, 0].numpy()
    assert np.allclose(after, cv2.equalizeHist(np.rint(before * 255).astype(np.uint8)) / 255, atol=1.1 / 255)
