"""Which images train, choose and test a model: pure functions from a manifest to a manifest with splits.

``official`` takes the split that the dataset's authors published. ``grouped`` shares out whole groups (patients, or
near-duplicate clusters where no patients are named). ``kfold`` shares whole groups out to equal parts, one of which is
the test. ``random`` shares out single images, as most papers do, and leaks. How units are shared out is in
``ddtl/data/splits/assignment.py``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from ddtl.data.manifest import Manifest, Note, Sample
from ddtl.data.splits.assignment import Assignment, Units, assign_units, cut, fill, gather
from ddtl.schema.units import PROTOCOLS, SCORED, SPLITS
from ddtl.utils.errors import UserError

_TOLERANCE = 0.05  # beyond this distance from what was requested the user is warned


def assign(
    manifest: Manifest,
    protocol: str,
    *,
    seed: int,
    val_fraction: float,
    test_fraction: float,
    n_folds: int = 5,
    fold: int = 0,
    tested_only: bool = False,
) -> Manifest:
    """The manifest with ``split`` set.

    Args:
        manifest: the dataset; splits that it has are replaced.
        protocol: one of ``PROTOCOLS``.
        seed: another seed is another split; ``official`` ignores it.
        val_fraction: share of the images; ``official`` ignores it.
        test_fraction: share of the images, for ``grouped`` and ``random``.
        n_folds, fold: for ``kfold``: in how many parts the images are shared out, and which of them, from 0, is the
            test. The parts depend on the seed and the groups alone.
        tested_only: whether nothing is trained on the images: an ``official`` split then needs no more than a test.

    Raises:
        UserError: the dataset has no such split, or too few groups or images for one.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"dataset.protocol={protocol} is not known; choose one of {', '.join(PROTOCOLS)}.")
    if protocol == "official":
        return _official(manifest, ("test",) if tested_only else SPLITS)
    if protocol == "kfold":
        return _kfold(manifest, seed, val_fraction, n_folds, fold)
    _check_fractions(val_fraction, test_fraction, f"dataset.test_fraction={test_fraction:g}")
    unit_of = _group if protocol == "grouped" else _image
    units = gather(manifest.samples, unit_of)
    shares = {"test": test_fraction, "val": val_fraction, "train": 1 - val_fraction - test_fraction}
    assignment = assign_units(units, shares, str(seed), cut)
    if assignment is None or not _has_every_class(manifest):
        requested = f"dataset.val_fraction={val_fraction:g}, dataset.test_fraction={test_fraction:g}"
        raise UserError(
            f"{_too_few(manifest, units, protocol)} for training, validation and test to get their share "
            f"({requested}). Each split needs {_kind(manifest, protocol)} of every class; add some, or change the "
            "fractions."
        )
    result = manifest.with_splits(assignment, protocol)
    result = _note_unmet_share(result, "val", val_fraction, f"dataset.val_fraction={val_fraction:g}")
    result = _note_unmet_share(result, "test", test_fraction, f"dataset.test_fraction={test_fraction:g}")
    if protocol == "grouped":
        assert_disjoint(result)
    return result


def assert_disjoint(manifest: Manifest) -> None:
    """Fails with an AssertionError if a group is in two splits. The ``random`` protocol does that on purpose."""
    torn = _torn_groups(manifest)
    if torn:
        raise AssertionError(f"{manifest.dataset}: group {torn[0]!r} is in more than one split.")


def leaked_share(manifest: Manifest) -> float:
    """Share of the test images whose group is also in training or validation (0 to 1).

    Where patients are not named this counts near-duplicates alone, and the true share is higher.
    """
    test = [sample.group for sample in manifest.samples if sample.split == "test"]
    known = {sample.group for sample in manifest.samples if sample.split in ("train", "val")}
    return sum(group in known for group in test) / len(test) if test else 0.0


def describe(manifest: Manifest) -> list[str]:
    """What a reader of results must know about the split: one sentence each, none if all is well."""
    sentences = []
    if manifest.fold is not None:
        fold, n_folds = manifest.fold
        sentences.append(
            f"fold {fold} of 0 to {n_folds - 1}: the test is one of {n_folds} parts; only all folds together score "
            "every image"
        )
    leaked = f"{100 * leaked_share(manifest):.0f} %"
    some = any(sample.patient_id is not None for sample in manifest.samples)  # as where several datasets are pooled
    nobody = "a part of the dataset names no patients" if some else "the dataset names no patients"
    if manifest.protocol == "random":
        sentences.append(
            {
                "patient": f"slice-level random split: {leaked} of test images share a patient with training or "
                "validation; scores are optimistic",
                "near_duplicate": f"slice-level random split: {leaked} of test images have a near-duplicate in "
                "training or validation, and, as the dataset names no patients, more of them share a patient; "
                "scores are optimistic",
                "none": "slice-level random split of a dataset that names no patients: how many test images share a "
                "patient with training is unknown; scores may be optimistic",
            }[manifest.grouping]
        )
    elif manifest.grouping == "near_duplicate":
        sentences.append(
            f"{nobody}, so only near-duplicate images are sure to share a split: slices of one patient may "
            "be in training and in test; scores may be optimistic"
        )
    elif manifest.grouping == "none":
        sentences.append(
            f"{nobody}, so images are split one by one: slices of one patient may be in "
            "training and in test; scores may be optimistic"
        )
    unnamed = sum(sample.patient_id is None for sample in manifest.samples)
    if manifest.grouping == "patient" and unnamed:
        sentences.append(f"{_number(unnamed)} without a patient id: each counts as a patient of its own")
    left_out = sum(sample.split is None for sample in manifest.samples)
    if left_out:
        sentences.append(f"{_number(left_out)} in none of the three splits")
    return sentences


def _official(manifest: Manifest, needed: Sequence[str]) -> Manifest:
    """The published split, checked; ``needed`` are the splits that must have images of every class."""
    others = "choose dataset.protocol=grouped or dataset.protocol=random"
    if not manifest.published:
        raise UserError(
            f"{manifest.dataset} has no published split (dataset.protocol=official), which a table of your own gives "
            f"in a column called split; {others}."
        )
    unknown = sorted(set(manifest.published.values()) - set(SPLITS))
    if unknown:
        raise UserError(f"{manifest.dataset}: its split {unknown[0]!r} is not one of {', '.join(SPLITS)}.")
    result = manifest.with_splits(manifest.published, "official")
    for split in needed:
        present = {manifest.classes[sample.label] for sample in result.samples if sample.split == split}
        lacking = sorted(set(manifest.classes) - present)
        if lacking:
            raise UserError(f"{manifest.dataset}: its published split has no {lacking[0]} image in {split}; {others}.")
    torn = _torn_groups(result)
    if torn:
        group = torn[0]
        first = {split: s.sample_id for split in SPLITS for s in result.samples if (s.group, s.split) == (group, split)}
        where = " and ".join(f"{split} ({sample_id})" for split, sample_id in first.items())
        raise UserError(
            f"{manifest.dataset}: its published split puts {len(torn)} of its {SCORED[manifest.grouping]} into several "
            f"splits; the first, {group!r}, has images in {where}. Put all images of one into the same split, or "
            f"{others}."
        )
    return result


def _kfold(manifest: Manifest, seed: int, val_fraction: float, n_folds: int, fold: int) -> Manifest:
    """Equal parts of whole groups: number ``fold`` is the test, and validation comes out of the others."""
    if not (n_folds >= 2 and 0 <= fold < n_folds):
        raise UserError(f"dataset.fold={fold}: folds count from 0 to dataset.n_folds - 1, here {n_folds - 1}.")
    _check_fractions(val_fraction, 1 / n_folds, f"a test of one in dataset.n_folds={n_folds}")
    units = gather(manifest.samples, _group)
    parts = assign_units(units, {str(part): 1 / n_folds for part in range(n_folds)}, f"{seed}\x1fparts", fill)
    if parts is None or not _has_every_class(manifest):
        raise UserError(_too_few_for_folds(manifest, units, n_folds))
    assignment: Assignment = {name: "test" for name, part in parts.items() if part == str(fold)}
    rest = {unit: samples for unit, samples in units.items() if samples[0].sample_id not in assignment}
    val = val_fraction * len(manifest) / sum(map(len, rest.values()))
    others = assign_units(rest, {"val": val, "train": 1 - val}, f"{seed}\x1ffold {fold}", cut) if val < 1 else None
    if others is None:
        raise UserError(_too_few_for_folds(manifest, units, n_folds))
    result = manifest.with_splits(assignment | others, "kfold", (fold, n_folds))
    result = _note_unmet_share(result, "val", val_fraction, f"dataset.val_fraction={val_fraction:g}")
    result = _note_unmet_share(result, "test", 1 / n_folds, f"dataset.n_folds={n_folds}")
    assert_disjoint(result)
    return result


def _check_fractions(val: float, test: float, test_named: str) -> None:
    if min(val, test, 1 - val - test) <= 0:
        raise UserError(
            f"dataset.val_fraction={val:g} and {test_named} must be above 0, and their sum under 1, so that each of "
            "the three splits gets images."
        )


def _group(sample: Sample) -> str:
    return sample.group


def _image(sample: Sample) -> str:
    return sample.sample_id


def _torn_groups(manifest: Manifest) -> list[str]:
    splits: dict[str, set[str]] = defaultdict(set)
    for sample in manifest.samples:
        if sample.split is not None:
            splits[sample.group].add(sample.split)
    return sorted(group for group, where in splits.items() if len(where) > 1)


def _has_every_class(manifest: Manifest) -> bool:
    return len({sample.label for sample in manifest.samples}) == len(manifest.classes)


def _kind(manifest: Manifest, protocol: str) -> str:
    return "images" if protocol == "random" else SCORED[manifest.grouping]


def _rarest(manifest: Manifest, units: Units) -> tuple[str, int]:
    """The class with the fewest units, and how many they are."""
    per_class = {
        name: sum(any(s.label == label for s in samples) for samples in units.values())
        for label, name in enumerate(manifest.classes)
    }
    return min(per_class.items(), key=lambda item: item[1])


def _too_few(manifest: Manifest, units: Units, protocol: str) -> str:
    name, n = _rarest(manifest, units)
    images = sum(manifest.classes[s.label] == name for s in manifest.samples)
    return f"{manifest.dataset}: class {name} has {n} {_kind(manifest, protocol)} ({images} images), too few"


def _too_few_for_folds(manifest: Manifest, units: Units, n_folds: int) -> str:
    n = _rarest(manifest, units)[1]
    most = min(n, n_folds - 1)
    fix = f"Set dataset.n_folds={most} or less, or add some." if n >= 3 and most >= 2 else "Add some."
    return (
        f"{_too_few(manifest, units, 'kfold')} for a test in each of dataset.n_folds={n_folds} parts, and for training "
        f"and validation too. {fix}"
    )


def _note_unmet_share(manifest: Manifest, split: str, wanted: float, named: str) -> Manifest:
    """The manifest with a doubt where a split has another share of the images than was requested."""
    share = len(manifest.rows(split)) / len(manifest)
    if abs(share - wanted) <= _TOLERANCE:
        return manifest
    text = f"{named} cannot be met with these group sizes; {split} gets {share:.2f} of the images."
    return replace(manifest, notes=(*manifest.notes, Note(text, is_doubt=True)))


def _number(n: int) -> str:
    return f"{n} image{' is' if n == 1 else 's are'}"
