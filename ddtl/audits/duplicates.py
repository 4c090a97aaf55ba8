"""What duplicates break: splits, labels, the independence of datasets. Pure functions of pairs and manifests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ddtl.audits.fingerprints import Key
from ddtl.audits.pairs import Pair
from ddtl.data.manifest import SPLITS, Manifest, Sample


@dataclass(frozen=True)
class Leaks:
    """What duplicates break; a pair may be in several lists, each in the order in which the pairs came.

    Attributes:
        across_splits: pairs within a dataset whose images are in different splits.
        across_labels: pairs whose classes differ: label conflicts. Across two datasets classes are compared by name,
            and only where each dataset knows both names.
        across_datasets: pairs of two datasets.
        patients: by dataset, the patients with images in more than one split, and in which.
        test_images: by dataset, how many test images have a duplicate in training or validation of the same dataset,
            directly or through others.
        tests: by dataset, how many test images there are.
    """

    across_splits: tuple[Pair, ...]
    across_labels: tuple[Pair, ...]
    across_datasets: tuple[Pair, ...]
    patients: dict[str, dict[str, tuple[str, ...]]]
    test_images: dict[str, int]
    tests: dict[str, int]


def clusters(pairs: Sequence[Pair]) -> list[frozenset[Key]]:
    """Return images joined by pairs, directly or through others; the largest first, then by their first image."""
    member_of: dict[Key, set[Key]] = {}
    for pair in pairs:
        one = member_of.setdefault(pair.first, {pair.first})
        other = member_of.setdefault(pair.second, {pair.second})
        if one is not other:
            larger, smaller = (one, other) if len(one) >= len(other) else (other, one)
            larger |= smaller
            member_of |= dict.fromkeys(smaller, larger)
    distinct = {id(members): frozenset(members) for members in member_of.values()}
    return sorted(distinct.values(), key=lambda cluster: (-len(cluster), min(cluster)))


def leaks(pairs: Sequence[Pair], manifests: Sequence[Manifest]) -> Leaks:
    """Return pairs across splits, labels and datasets, and patients across splits.

    Args:
        pairs: of images of ``manifests``.
    """
    samples = {(manifest.dataset, sample.sample_id): sample for manifest in manifests for sample in manifest.samples}
    classes = {manifest.dataset: manifest.classes for manifest in manifests}
    within = [pair for pair in pairs if pair.first[0] == pair.second[0]]
    return Leaks(
        across_splits=tuple(pair for pair in within if len(_splits(pair, samples)) > 1),
        across_labels=tuple(pair for pair in pairs if _conflict(pair, samples, classes)),
        across_datasets=tuple(pair for pair in pairs if pair.first[0] != pair.second[0]),
        patients={manifest.dataset: _torn_patients(manifest) for manifest in manifests},
        test_images=_leaked_tests(within, samples, manifests),
        tests={manifest.dataset: len(manifest.rows("test")) for manifest in manifests},
    )


def _splits(pair: Pair, samples: dict[Key, Sample]) -> set[str]:
    """Return the splits of a pair; images that are in none do not count."""
    return {split for key in (pair.first, pair.second) if (split := samples[key].split) is not None}


def _conflict(pair: Pair, samples: dict[Key, Sample], classes: dict[str, tuple[str, ...]]) -> bool:
    names = {classes[key[0]][samples[key].label] for key in (pair.first, pair.second)}
    return len(names) > 1 and all(names <= set(classes[key[0]]) for key in (pair.first, pair.second))


def _torn_patients(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    where: dict[str, set[str]] = defaultdict(set)
    for sample in manifest.samples:
        if sample.patient_id is not None and sample.split is not None:
            where[sample.patient_id].add(sample.split)
    return {
        patient: tuple(split for split in SPLITS if split in splits)
        for patient, splits in sorted(where.items())
        if len(splits) > 1
    }


def _leaked_tests(within: Sequence[Pair], samples: dict[Key, Sample], manifests: Sequence[Manifest]) -> dict[str, int]:
    leaked = {manifest.dataset: 0 for manifest in manifests}
    for cluster in clusters(within):
        splits = [(key[0], samples[key].split) for key in cluster]
        if any(split in ("train", "val") for _, split in splits):
            for dataset, split in splits:
                leaked[dataset] += split == "test"
    return leaked
