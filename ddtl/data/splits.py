"""Which images train, choose and test a model: pure functions from a manifest to a manifest with splits.

``official`` takes the split that the dataset's authors published. ``grouped`` shares out whole groups (patients, or
near-duplicate clusters where no patients are named). ``random`` shares out single images, as most papers do, and leaks.

``grouped`` and ``random`` are one procedure on different units. In each class the units are put in a random order and
cut into test, validation and training where the cuts come closest to the asked fractions. Orders are drawn until the
splits hold what was asked within two points, at most ``_DRAWS`` times; then the best one is taken. So a large group can
land anywhere; scikit-learn's StratifiedGroupKFold places the largest group first, in the same fold under every seed,
and knows no fractions but 1/2, 1/3, 1/4, ...

The order is that of sha256(seed, draw, unit): the same on every machine and under every version of every library, and
it does not depend on the order of the manifest's rows.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from ddtl.data.manifest import SPLITS, Manifest, Sample
from ddtl.errors import UserError

PROTOCOLS = ("official", "grouped", "random")

_DRAWS = 200
_CLOSE = 0.02  # a draw this near to what was asked is taken
_FAR = 0.05  # beyond this the user is told

_UNITS = {"patient": "patients", "near_duplicate": "groups of near-duplicates", "none": "images"}

Units = Mapping[str, Sequence[Sample]]
Assignment = dict[str, str]  # sample id -> split

logger = logging.getLogger(__name__)


def assign(manifest: Manifest, protocol: str, *, seed: int, val_fraction: float, test_fraction: float) -> Manifest:
    """The manifest with ``split`` set.

    Args:
        manifest: the dataset; splits that it has are replaced.
        protocol: one of ``PROTOCOLS``.
        seed: another seed is another split; ``official`` ignores it.
        val_fraction, test_fraction: shares of the images; ``official`` ignores them.

    Raises:
        UserError: the dataset has no such split, or too few groups or images for one.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"dataset.protocol={protocol} is not known; choose one of {', '.join(PROTOCOLS)}.")
    if protocol == "official":
        return _official(manifest)
    fractions = {"test": test_fraction, "val": val_fraction, "train": 1 - val_fraction - test_fraction}
    if min(fractions.values()) <= 0:
        raise UserError(
            f"dataset.val_fraction={val_fraction} and dataset.test_fraction={test_fraction} must be above 0, and their "
            "sum under 1, so that each of the three splits gets images."
        )
    unit_of: Callable[[Sample], str] = _group if protocol == "grouped" else _image
    assignment = _share_out(manifest, unit_of, seed, fractions)
    result = manifest.with_splits(assignment, protocol)
    if protocol == "grouped":
        assert_disjoint(result)
    return result


def assert_disjoint(manifest: Manifest) -> None:
    """Fails with an AssertionError if a group stands in two splits. The ``random`` protocol does that on purpose."""
    torn = _torn_groups(manifest)
    if torn:
        raise AssertionError(f"{manifest.dataset}: group {torn[0]!r} stands in more than one split.")


def leaked_share(manifest: Manifest) -> float:
    """Share of the test images whose group also stands in training or validation (0 to 1).

    Where patients are not named this counts near-duplicates alone, and the true share is higher.
    """
    test = [sample.group for sample in manifest.samples if sample.split == "test"]
    known = {sample.group for sample in manifest.samples if sample.split in ("train", "val")}
    return sum(group in known for group in test) / len(test) if test else 0.0


def describe(manifest: Manifest) -> list[str]:
    """What a reader of results must know about the split: one sentence each, none if all is well."""
    sentences = []
    leaked = f"{100 * leaked_share(manifest):.0f} %"
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
            "the dataset names no patients, so only near-duplicate images are kept together: slices of one patient "
            "may stand in training and in test; scores may be optimistic"
        )
    elif manifest.grouping == "none":
        sentences.append(
            "the dataset names no patients, so images are split one by one: slices of one patient may stand in "
            "training and in test; scores may be optimistic"
        )
    unnamed = sum(sample.patient_id is None for sample in manifest.samples)
    if manifest.grouping == "patient" and unnamed:
        sentences.append(f"{_number(unnamed)} without a patient id: each counts as a patient of its own")
    left_out = sum(sample.split is None for sample in manifest.samples)
    if left_out:
        sentences.append(f"{_number(left_out)} in none of the three splits")
    return sentences


def _official(manifest: Manifest) -> Manifest:
    """The published split, checked."""
    others = "choose dataset.protocol=grouped or dataset.protocol=random"
    if not manifest.published:
        raise UserError(f"{manifest.dataset} has no published split (dataset.protocol=official); {others}.")
    unknown = sorted(set(manifest.published.values()) - set(SPLITS))
    if unknown:
        raise UserError(f"{manifest.dataset}: its split {unknown[0]!r} is not one of {', '.join(SPLITS)}.")
    result = manifest.with_splits(manifest.published, "official")
    for split, classes in _classes_by_split(manifest, result.samples).items():
        lacking = sorted(set(manifest.classes) - classes)
        if lacking:
            raise UserError(f"{manifest.dataset}: its published split has no {lacking[0]} image in {split}; {others}.")
    torn = _torn_groups(result)
    if torn:
        raise UserError(
            f"{manifest.dataset}: its published split puts images of one group into several splits, {len(torn)} times; "
            f"the first is {torn[0]!r}. Mend it, or {others}."
        )
    return result


def _share_out(
    manifest: Manifest, unit_of: Callable[[Sample], str], seed: int, fractions: Mapping[str, float]
) -> Assignment:
    """Shares whole units out to the splits; see the module's docstring."""
    units: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(manifest.samples, key=lambda s: s.sample_id):
        units[unit_of(sample)].append(sample)
    strata = _strata(manifest, units)
    best: tuple[float, Assignment] | None = None
    for draw in range(_DRAWS):
        assignment: Assignment = {}
        for stratum in strata:
            ordered = _shuffled(stratum, seed, draw)
            assignment.update(_deal(ordered, units, fractions, _shuffled(SPLITS, seed, draw)))
        error = _error(manifest, assignment, fractions)
        if error is not None and (best is None or error < best[0]):
            best = error, assignment
        if best is not None and best[0] <= _CLOSE:
            break
    if best is None:
        raise UserError(_too_few(manifest, units, unit_of, fractions))
    _warn_if_far(manifest, best[1], fractions)
    return best[1]


def _strata(manifest: Manifest, units: Units) -> list[list[str]]:
    """Units by the rarest class among their images, so that rare classes are the first to be shared out evenly."""
    frequency = Counter(sample.label for sample in manifest.samples)
    strata: dict[int, list[str]] = defaultdict(list)
    for unit, samples in units.items():
        strata[min({s.label for s in samples}, key=lambda label: (frequency[label], -label))].append(unit)
    return [strata[label] for label in sorted(strata)]


def _deal(ordered: Sequence[str], units: Units, fractions: Mapping[str, float], splits: Sequence[str]) -> Assignment:
    """Cuts a row of units into test, validation and training, at least one unit each; one or two go to ``splits``."""
    if len(ordered) < len(SPLITS):
        split_of = dict(zip(ordered, splits, strict=False))
    else:
        sizes = [len(units[unit]) for unit in ordered]
        first = _closest(sizes, 0, fractions["test"] * sum(sizes), len(ordered) - 2)
        last = _closest(sizes, first, fractions["val"] * sum(sizes), len(ordered) - 1)
        split_of = {unit: "test" if i < first else "val" if i < last else "train" for i, unit in enumerate(ordered)}
    return {sample.sample_id: split for unit, split in split_of.items() for sample in units[unit]}


def _closest(sizes: Sequence[int], start: int, wanted: float, most: int) -> int:
    """The ``end`` in (start, most] for which ``sum(sizes[start:end])`` comes closest to ``wanted``."""
    end, total = start + 1, sizes[start]
    while end < most and abs(total + sizes[end] - wanted) < abs(total - wanted):
        total += sizes[end]
        end += 1
    return end


def _error(manifest: Manifest, assignment: Assignment, fractions: Mapping[str, float]) -> float | None:
    """The worst deviation, as a share, of a split's size and of its classes; None if a class lacks in a split."""
    table = Counter((assignment[s.sample_id], s.label) for s in manifest.samples)
    overall = Counter(s.label for s in manifest.samples)
    deviations = []
    for split, fraction in fractions.items():
        counts = {label: table[split, label] for label in range(len(manifest.classes))}
        if min(counts.values()) == 0:
            return None
        size = sum(counts.values())
        deviations.append(abs(size / len(manifest) - fraction))
        deviations.extend(abs(counts[label] / size - overall[label] / len(manifest)) for label in counts)
    return max(deviations)


def _shuffled(names: Sequence[str], seed: int, draw: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}\x1f{draw}\x1f{name}".encode()).digest())


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


def _classes_by_split(manifest: Manifest, samples: Sequence[Sample]) -> dict[str, set[str]]:
    return {split: {manifest.classes[s.label] for s in samples if s.split == split} for split in SPLITS}


def _too_few(manifest: Manifest, units: Units, unit_of: Callable[[Sample], str], fractions: Mapping[str, float]) -> str:
    kind = "images" if unit_of is _image else _UNITS[manifest.grouping]
    per_class = {
        name: sum(any(s.label == label for s in samples) for samples in units.values())
        for label, name in enumerate(manifest.classes)
    }
    name = min(per_class, key=lambda name: per_class[name])
    n = per_class[name]
    images = sum(manifest.classes[s.label] == name for s in manifest.samples)
    return (
        f"{manifest.dataset}: class {name} has {n} {kind} ({images} images), too few for training, validation and test "
        f"to get their share (dataset.val_fraction={fractions['val']:g}, dataset.test_fraction={fractions['test']:g}). "
        f"Each split needs {kind} of every class; add some, or change the fractions."
    )


def _warn_if_far(manifest: Manifest, assignment: Assignment, fractions: Mapping[str, float]) -> None:
    sizes = Counter(assignment.values())
    shares = {split: sizes[split] / len(manifest) for split in ("val", "test")}
    far = [split for split, share in shares.items() if abs(share - fractions[split]) > _FAR]
    for split in far:
        logger.warning(
            "%s: dataset.%s_fraction=%g cannot be met with these group sizes; %s gets %.2f of the images.",
            manifest.dataset,
            split,
            fractions[split],
            split,
            shares[split],
        )


def _number(n: int) -> str:
    return f"{n} image{' is' if n == 1 else 's are'}"
