"""Splits: what each protocol promises, on made-up populations and on the real datasets."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from ddtl.config import sources
from ddtl.config.where import options
from ddtl.data.datasets import covid19ct, sarscov2ct
from ddtl.data.download.published import published_manifest
from ddtl.data.manifest import SPLITS, Grouping, Manifest, Sample
from ddtl.data.splits.protocols import PROTOCOLS, assert_disjoint, assign, describe, leaked_share
from ddtl.utils.errors import UserError

CLASSES = ("non-COVID", "COVID")


def make_manifest(
    groups: list[tuple[int, int]], grouping: Grouping = "patient", published: dict[str, str] | None = None
) -> Manifest:
    """A dataset of groups, each given as (label, images)."""
    samples = [
        Sample(
            sample_id=f"g{g:03}/{i:03}.png",
            path=Path(f"g{g:03}/{i:03}.png"),
            label=label,
            patient_id=f"p{g}" if grouping == "patient" else None,
            cluster_id=f"d{g}" if grouping == "near_duplicate" else None,
        )
        for g, (label, n) in enumerate(groups)
        for i in range(n)
    ]
    return Manifest("toy", CLASSES, tuple(samples), grouping, published=published)


def split_of(manifest: Manifest) -> dict[str, str | None]:
    return {sample.sample_id: sample.split for sample in manifest.samples}


def check_shares(manifest: Manifest, *, val: float, test: float, within: float = 0.05) -> None:
    """Sizes of the splits and of the classes in them are what was asked."""
    counts = manifest.counts()
    for split, wanted in (("val", val), ("test", test), ("train", 1 - val - test)):
        assert counts[split]["images"] / len(manifest) == pytest.approx(wanted, abs=within), split
        for label, name in enumerate(manifest.classes):
            overall = sum(sample.label == label for sample in manifest.samples) / len(manifest)
            assert counts[split]["classes"][name] / counts[split]["images"] == pytest.approx(overall, abs=within), (
                split,
                name,
            )


SEEDS = st.integers(0, 2**32)
FRACTIONS = st.sampled_from([(0.1, 0.2), (0.15, 0.25), (0.15, 0.15), (0.2, 0.3)])
SKEWED = st.lists(st.sampled_from([1, 1, 1, 1, 2, 2, 3, 4, 6, 10]), min_size=30, max_size=70)


@st.composite
def populations(draw: st.DrawFn) -> Manifest:
    """Two classes of 30 to 70 patients, with one to ten images each and most with one."""
    return make_manifest([(label, n) for label in (0, 1) for n in draw(SKEWED)])


# ---- promises of every split that is made here


@settings(deadline=None, max_examples=40)
@given(populations(), SEEDS, FRACTIONS)
def test_grouped_is_disjoint_and_meets_the_fractions(manifest: Manifest, seed: int, part: tuple[float, float]) -> None:
    val, test = part
    result = assign(manifest, "grouped", seed=seed, val_fraction=val, test_fraction=test)
    assert_disjoint(result)
    assert leaked_share(result) == 0
    check_shares(result, val=val, test=test)


@settings(deadline=None, max_examples=25)
@given(populations(), SEEDS, FRACTIONS)
def test_random_meets_the_fractions(manifest: Manifest, seed: int, part: tuple[float, float]) -> None:
    val, test = part
    result = assign(manifest, "random", seed=seed, val_fraction=val, test_fraction=test)
    check_shares(result, val=val, test=test)


@settings(deadline=None, max_examples=25)
@given(populations(), SEEDS, st.randoms(use_true_random=False), st.sampled_from(["grouped", "random", "kfold"]))
def test_split_does_not_depend_on_the_order_of_rows(
    manifest: Manifest, seed: int, rng: random.Random, protocol: str
) -> None:
    rows = list(manifest.samples)
    rng.shuffle(rows)
    shuffled = replace(manifest, samples=tuple(rows))
    first = assign(manifest, protocol, seed=seed, val_fraction=0.1, test_fraction=0.2)
    second = assign(shuffled, protocol, seed=seed, val_fraction=0.1, test_fraction=0.2)
    assert split_of(first) == split_of(second)
    assert first.samples == second.samples


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 9), min_size=3, max_size=8),
    st.lists(st.integers(1, 9), min_size=3, max_size=8),
    SEEDS,
    FRACTIONS,
)
def test_three_groups_of_each_class_are_enough(
    negative: list[int], positive: list[int], seed: int, part: tuple[float, float]
) -> None:
    manifest = make_manifest([*((0, n) for n in negative), *((1, n) for n in positive)])
    result = assign(manifest, "grouped", seed=seed, val_fraction=part[0], test_fraction=part[1])
    assert_disjoint(result)
    for split, counts in result.counts().items():
        assert min(counts["classes"].values()) > 0, split


def test_split_is_the_same_on_every_machine() -> None:
    """Golden: a change here changes every published split."""
    manifest = make_manifest([(g % 2, 1 + g % 3) for g in range(12)])
    result = assign(manifest, "grouped", seed=0, val_fraction=0.2, test_fraction=0.2)
    groups = {split: sorted({result.samples[i].group for i in result.rows(split)}) for split in SPLITS}
    assert groups == {
        "train": ["p0", "p1", "p11", "p2", "p3", "p8", "p9"],
        "val": ["p4", "p7"],
        "test": ["p10", "p5", "p6"],
    }


def test_another_seed_is_another_split() -> None:
    manifest = make_manifest([(g % 2, 1 + g % 3) for g in range(60)])
    splits = [split_of(assign(manifest, "grouped", seed=s, val_fraction=0.1, test_fraction=0.2)) for s in range(5)]
    assert all(a != b for i, a in enumerate(splits) for b in splits[:i])


def test_the_largest_group_can_land_in_any_split() -> None:
    manifest = make_manifest([(0, 8), *((g % 2, 1 + g % 4) for g in range(100))])
    where = Counter(
        assign(manifest, "grouped", seed=seed, val_fraction=0.2, test_fraction=0.2).samples[0].split
        for seed in range(40)
    )
    assert set(where) == set(SPLITS)


# ---- groups of other kinds


def test_groups_with_both_classes_stay_whole() -> None:
    """Patients with slices of either label, as in a dataset labelled by slice."""
    manifest = make_manifest([(0, 6)] * 40)
    mixed = replace(
        manifest,
        samples=tuple(replace(s, label=int(s.sample_id.endswith(("4.png", "5.png")))) for s in manifest.samples),
    )
    result = assign(mixed, "grouped", seed=0, val_fraction=0.1, test_fraction=0.2)
    assert_disjoint(result)
    check_shares(result, val=0.1, test=0.2)


def test_a_mixed_group_can_be_the_third_of_a_class() -> None:
    manifest = make_manifest([(0, 2), (0, 2), (1, 2), (1, 2), (0, 2)])
    samples = [*manifest.samples[:-1], replace(manifest.samples[-1], label=1)]
    result = assign(replace(manifest, samples=tuple(samples)), "grouped", seed=0, val_fraction=0.3, test_fraction=0.3)
    assert all(min(counts["classes"].values()) > 0 for counts in result.counts().values())


@pytest.mark.parametrize("n_patients", [60, 150])
@pytest.mark.parametrize("slices", [1, 4, 8])
def test_groups_of_equal_size(n_patients: int, slices: int) -> None:
    manifest = make_manifest([(g % 2, slices) for g in range(n_patients)])
    result = assign(manifest, "grouped", seed=0, val_fraction=0.15, test_fraction=0.25)
    check_shares(result, val=0.15, test=0.25)


def test_near_duplicates_stay_together() -> None:
    manifest = make_manifest([(g % 2, 1 + (g % 10 == 0)) for g in range(100)], "near_duplicate")
    result = assign(manifest, "grouped", seed=0, val_fraction=0.1, test_fraction=0.2)
    assert_disjoint(result)
    check_shares(result, val=0.1, test=0.2)


def test_without_patients_or_clusters_grouped_splits_images() -> None:
    manifest = make_manifest([(g % 2, 5) for g in range(20)], "none")
    grouped = assign(manifest, "grouped", seed=0, val_fraction=0.1, test_fraction=0.2)
    assert split_of(grouped) == split_of(assign(manifest, "random", seed=0, val_fraction=0.1, test_fraction=0.2))


def test_three_classes() -> None:
    manifest = make_manifest([(0, 2)] * 30 + [(1, 3)] * 20)
    three = replace(
        manifest,
        classes=(*CLASSES, "other"),
        samples=(*manifest.samples, *(Sample(f"o{i}", Path("o"), 2, f"o{i // 2}") for i in range(60))),
    )
    result = assign(three, "grouped", seed=0, val_fraction=0.1, test_fraction=0.2)
    check_shares(result, val=0.1, test=0.2)


# ---- the official split


def test_official_is_the_published_split() -> None:
    published = {f"g{g:03}/000.png": SPLITS[g // 2] for g in range(6)}
    manifest = make_manifest([(g % 2, 1) for g in range(7)], published=published)
    result = assign(manifest, "official", seed=0, val_fraction=0.1, test_fraction=0.2)
    assert result.protocol == "official"
    assert split_of(result) == {**published, "g006/000.png": None}
    assert describe(result) == ["1 image is in none of the three splits"]


def test_no_published_split_names_the_protocols_that_exist() -> None:
    with pytest.raises(UserError, match=r"toy has no published split .*dataset.protocol=grouped.*=random"):
        assign(make_manifest([(0, 1), (1, 1)]), "official", seed=0, val_fraction=0.1, test_fraction=0.2)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (("train", "train", "val", "val", "test", "holdout"), "its split 'holdout' is not one of train, val, test"),
        (("train", "train", "val", "val", "train", "test"), "has no non-COVID image in test"),
        (("train", "train", "test", "test", "test", "test"), "has no COVID image in val"),
    ],
)
def test_a_published_split_that_cannot_be_used(where: tuple[str, ...], message: str) -> None:
    published = {f"g{g:03}/000.png": split for g, split in enumerate(where)}
    manifest = make_manifest([(g % 2, 1) for g in range(6)], published=published)
    with pytest.raises(UserError, match=message):
        assign(manifest, "official", seed=0, val_fraction=0.1, test_fraction=0.2)


def test_a_published_split_that_tears_a_patient_is_refused() -> None:
    manifest = make_manifest([(g % 2, 3) for g in range(2)])
    published = {s.sample_id: SPLITS[int(s.sample_id[-5])] for s in manifest.samples}
    with pytest.raises(
        UserError,
        match=r"puts 2 of its patients into several splits; the first, 'p0', has images in train \(.*0\.png\) and val "
        r"\(.*1\.png\)",
    ):
        assign(replace(manifest, published=published), "official", seed=0, val_fraction=0.1, test_fraction=0.2)


# ---- k folds


def folds_of(manifest: Manifest, n_folds: int, **changes: float) -> list[Manifest]:
    """The manifest under each of its folds."""
    asked = {"seed": 0, "val_fraction": 0.15, "test_fraction": 0.25} | changes
    return [assign(manifest, "kfold", **asked, n_folds=n_folds, fold=fold) for fold in range(n_folds)]


# The same examples each time: of few and large groups a part can be further off, rarely.
@settings(deadline=None, max_examples=25, derandomize=True)
@given(populations(), SEEDS, st.integers(2, 8))
def test_folds_are_equal_parts(manifest: Manifest, seed: int, n_folds: int) -> None:
    folds = folds_of(manifest, n_folds, seed=seed)
    tests = [{s.sample_id for s in fold.samples if s.split == "test"} for fold in folds]
    assert sum(map(len, tests)) == len(set().union(*tests)) == len(manifest)
    for fold in folds:
        check_shares(fold, val=0.15, test=1 / n_folds, within=0.07)


def test_parts_depend_on_neither_fold_nor_fractions() -> None:
    manifest = make_manifest([(g % 2, 1 + g % 3) for g in range(40)])
    first, second = folds_of(manifest, 4), folds_of(manifest, 4, val_fraction=0.3, test_fraction=0.6)
    assert [fold.rows("test") for fold in first] == [fold.rows("test") for fold in second]
    assert [fold.rows("test") for fold in first] != [fold.rows("test") for fold in folds_of(manifest, 4, seed=1)]


def test_folds_are_the_same_on_every_machine() -> None:
    """Golden: a change here changes every published result by folds."""
    manifest = make_manifest([(g % 2, 1 + g % 3) for g in range(12)])
    tests = [sorted({fold.samples[i].group for i in fold.rows("test")}) for fold in folds_of(manifest, 3)]
    assert tests == [["p10", "p4", "p5", "p9"], ["p11", "p3", "p6", "p8"], ["p0", "p1", "p2", "p7"]]


def test_a_fold_says_that_it_is_one_of_several() -> None:
    fold = folds_of(make_manifest([(g % 2, 2) for g in range(20)]), 4)[3]
    assert (fold.protocol, fold.fold) == ("kfold", (3, 4))
    assert describe(fold) == ["fold 3 of 0 to 3: the test is one of 4 parts; only all folds together score every image"]


@pytest.mark.parametrize("grouping", ["near_duplicate", "none"])
def test_folds_without_patients_say_so(grouping: Grouping) -> None:
    fold = folds_of(make_manifest([(g % 2, 2) for g in range(40)], grouping), 4)[0]
    assert "names no patients" in describe(fold)[1]


def test_as_many_folds_as_patients_of_a_class() -> None:
    for fold in folds_of(make_manifest([(0, 2)] * 9 + [(1, 5)] * 4), 4):
        assert all(min(counts["classes"].values()) > 0 for counts in fold.counts().values())


@pytest.mark.parametrize(
    ("patients", "n_folds", "fix"),
    [
        (4, 5, "Set dataset.n_folds=4 or less, or add some"),
        (2, 2, "Add some"),
        (2, 5, "Add some"),
        (3, 5, "Set dataset.n_folds=3 or less"),
    ],
)
def test_too_few_groups_for_the_folds(patients: int, n_folds: int, fix: str) -> None:
    manifest = make_manifest([(0, 2)] * 9 + [(1, 5)] * patients)
    with pytest.raises(UserError, match=rf"class COVID has {patients} patients \({5 * patients} images\).*{fix}"):
        folds_of(manifest, n_folds)


@pytest.mark.parametrize("fold", [-1, 5])
def test_a_fold_that_is_not_there(fold: int) -> None:
    manifest = make_manifest([(g % 2, 1) for g in range(40)])
    with pytest.raises(UserError, match=r"folds count from 0 to dataset.n_folds - 1, here 4"):
        assign(manifest, "kfold", seed=0, val_fraction=0.1, test_fraction=0.2, n_folds=5, fold=fold)


def test_folds_that_leave_nothing_to_train_on() -> None:
    with pytest.raises(UserError, match=r"dataset.val_fraction=0.5 and a test of one in dataset.n_folds=2"):
        folds_of(make_manifest([(g % 2, 1) for g in range(40)]), 2, val_fraction=0.5)


# ---- mistakes


def test_unknown_protocol() -> None:
    with pytest.raises(
        UserError, match=r"dataset\.protocol=holdout is not known; choose one of official, grouped, random"
    ):
        assign(make_manifest([(0, 1), (1, 1)]), "holdout", seed=0, val_fraction=0.1, test_fraction=0.2)


@pytest.mark.parametrize(("val", "test"), [(0.0, 0.2), (0.1, 0.0), (0.5, 0.5), (0.9, 0.2), (-0.1, 0.2)])
def test_impossible_fractions(val: float, test: float) -> None:
    with pytest.raises(UserError, match=r"dataset.val_fraction=.* and dataset.test_fraction=.* must be above 0"):
        assign(make_manifest([(0, 9), (1, 9)]), "random", seed=0, val_fraction=val, test_fraction=test)


@pytest.mark.parametrize(
    ("protocol", "grouping", "message"),
    [
        ("grouped", "patient", r"class COVID has 2 patients \(10 images\)"),
        ("grouped", "near_duplicate", r"class COVID has 2 near-duplicate groups \(10 images\)"),
    ],
)
def test_too_few_groups(protocol: str, grouping: Grouping, message: str) -> None:
    manifest = make_manifest([(0, 2)] * 9 + [(1, 5)] * 2, grouping)
    with pytest.raises(UserError, match=message) as caught:
        assign(manifest, protocol, seed=0, val_fraction=0.1, test_fraction=0.2)
    assert "dataset.val_fraction=0.1, dataset.test_fraction=0.2" in str(caught.value)


def test_too_few_images() -> None:
    with pytest.raises(UserError, match=r"class COVID has 2 images \(2 images\)"):
        assign(make_manifest([(0, 9), (1, 2)]), "random", seed=0, val_fraction=0.1, test_fraction=0.2)


def test_a_class_without_images() -> None:
    with pytest.raises(UserError, match=r"class COVID has 0 patients"):
        assign(make_manifest([(0, 1)] * 9), "grouped", seed=0, val_fraction=0.1, test_fraction=0.2)


def test_fractions_that_cannot_be_met_are_noted() -> None:
    manifest = make_manifest([(label, 10) for label in (0, 1) for _ in range(3)])
    split = assign(manifest, "grouped", seed=0, val_fraction=0.1, test_fraction=0.2)
    assert "dataset.val_fraction=0.1 cannot be met with these group sizes; val gets 0.33" in split.doubts()[0]


# ---- leaks


def test_assert_disjoint_names_the_group() -> None:
    manifest = make_manifest([(0, 2), (1, 2)])
    torn = manifest.with_splits({"g001/000.png": "train", "g001/001.png": "test"}, "grouped")
    with pytest.raises(AssertionError, match="group 'p1' is in more than one split"):
        assert_disjoint(torn)


def test_leaked_share_counts_training_and_validation() -> None:
    manifest = make_manifest([(0, 2), (0, 2), (0, 2), (1, 2)])
    splits = {
        "g000/000.png": "test",
        "g000/001.png": "train",
        "g001/000.png": "test",
        "g001/001.png": "val",
        "g002/000.png": "test",
        "g002/001.png": "test",
        "g003/000.png": "train",
    }
    assert leaked_share(manifest.with_splits(splits, "random")) == 0.5
    assert leaked_share(manifest) == 0


def test_describe_says_how_much_a_random_split_leaks() -> None:
    manifest = make_manifest([(g % 2, 10) for g in range(20)])
    (sentence,) = describe(assign(manifest, "random", seed=0, val_fraction=0.1, test_fraction=0.2))
    assert sentence == (
        "slice-level random split: 100 % of test images share a patient with training or validation; "
        "scores are optimistic"
    )


@pytest.mark.parametrize("protocol", ["grouped", "random"])
@pytest.mark.parametrize("grouping", ["near_duplicate", "none"])
def test_describe_says_that_there_are_no_patients(protocol: str, grouping: Grouping) -> None:
    manifest = make_manifest([(g % 2, 2) for g in range(40)], grouping)
    (sentence,) = describe(assign(manifest, protocol, seed=0, val_fraction=0.1, test_fraction=0.2))
    assert "names no patients" in sentence
    assert "optimistic" in sentence


def test_describe_has_nothing_to_say_about_a_split_by_patient() -> None:
    manifest = make_manifest([(g % 2, 2) for g in range(40)])
    result = assign(manifest, "grouped", seed=0, val_fraction=0.1, test_fraction=0.2)
    assert describe(result) == []
    unnamed = replace(result, samples=(replace(result.samples[0], patient_id=None), *result.samples[1:]))
    assert describe(unnamed) == ["1 image is without a patient id: each counts as a patient of its own"]


# ---- the real datasets


@pytest.mark.realdata
def test_official_split_of_covid19ct(real_data: Path) -> None:
    result = assign(
        published_manifest(covid19ct.ORIGIN, real_data), "official", seed=0, val_fraction=0.1, test_fraction=0.2
    )
    assert result.counts() == {
        "train": {"images": 425, "groups": 128 + 105, "classes": {"non-COVID": 234, "COVID": 191}},
        "val": {"images": 118, "groups": 32 + 24, "classes": {"non-COVID": 58, "COVID": 60}},
        "test": {"images": 203, "groups": 53 + 42, "classes": {"non-COVID": 105, "COVID": 98}},
    }
    assert_disjoint(result)
    assert leaked_share(result) == 0
    assert describe(result) == []


@pytest.mark.realdata
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("val", "test"), [(0.1, 0.2), (0.15, 0.25)])
@pytest.mark.parametrize("build", [partial(published_manifest, kind.ORIGIN) for kind in (covid19ct, sarscov2ct)])
def test_grouped_and_random_splits_of_the_real_data(
    real_data: Path, build: Callable[[Path], Manifest], val: float, test: float, seed: int
) -> None:
    manifest = build(real_data)
    grouped = assign(manifest, "grouped", seed=seed, val_fraction=val, test_fraction=test)
    assert_disjoint(grouped)
    check_shares(grouped, val=val, test=test, within=0.02)
    at_random = assign(manifest, "random", seed=seed, val_fraction=val, test_fraction=test)
    check_shares(at_random, val=val, test=test, within=0.02)
    assert leaked_share(at_random) > 0


@pytest.mark.realdata
def test_most_test_images_of_a_random_covid19ct_split_leak(real_data: Path) -> None:
    result = assign(
        published_manifest(covid19ct.ORIGIN, real_data), "random", seed=0, val_fraction=0.1, test_fraction=0.2
    )
    assert 0.5 < leaked_share(result) < 0.8


def test_protocols_are_the_ones_the_configuration_offers() -> None:
    assert {protocol for kind in options("dataset") for protocol in sources.protocols_of(kind)} == set(PROTOCOLS)
