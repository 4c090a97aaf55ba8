"""From what was measured to sentences: what is wrong, and what to do about it. None of them names an image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from ddtl.audits.differences import Difference
from ddtl.audits.duplicates import Leaks, clusters
from ddtl.audits.pairs import Pair
from ddtl.audits.power import Power
from ddtl.audits.probes import BOUND, Probe
from ddtl.audits.record import Finding
from ddtl.data.manifest import Grouping, Manifest
from ddtl.schema.units import SCORED
from ddtl.utils.wording import count, listed, percent

_EXCLUDE = "Leave the copies out: dataset.exclude=FILE takes the list of them that is next to this page."
_TRAINED = {"test": "on the test split", "held-out half": "on images of patients or groups that it had not seen"}


def unreadable(manifest: Manifest, bad: Mapping[str, str]) -> Iterator[Finding]:
    """Yield images that cannot be decoded."""
    if bad:
        n = count(len(bad), "image")
        yield Finding(
            "unreadable images", "warn", (manifest.dataset,), f"{n} cannot be read",
            f"{n} of {len(manifest):,} cannot be read and played no part in any other check. Training refuses the "
            "dataset as it is.",
            "Replace the files, or leave them out: dataset.exclude=FILE takes the list that is next to this page.",
            {"images": dict(sorted(bad.items()))},
        )  # fmt: skip


def classes(manifest: Manifest) -> Iterator[Finding]:
    """Yield a finding for a dataset whose images cannot be distinguished by class."""
    present = sorted({manifest.classes[sample.label] for sample in manifest.samples})
    if len(manifest) == 1:
        yield Finding(
            "classes", "warn", (manifest.dataset,), "one image",
            "The dataset contains one image: there is nothing to compare it with, and nothing to train on.",
            "Add images of every class.",
        )  # fmt: skip
    elif len(present) == 1:
        yield Finding(
            "classes", "warn", (manifest.dataset,), "one class",
            f"All {len(manifest):,} images are of the class {present[0]}: nothing tells classes apart, so shortcuts, "
            "differences and label conflicts cannot be searched for.",
            "Add images of another class.",
        )  # fmt: skip


def split(manifest: Manifest, refused: str | None) -> Iterator[Finding]:
    """Yield a split that training would refuse.

    Args:
        refused: its message; None where the split is sound.
    """
    if refused is not None:
        unknown = " It was audited without a split: leaks from training to test are unknown."
        yield Finding(
            "split", "warn", (manifest.dataset,), "training refuses this split",
            f"The dataset cannot be split as requested.{'' if manifest.protocol else unknown}",
            "The details say what is wrong; another dataset.protocol may do.",
            {"message": refused},
        )  # fmt: skip


def patients(manifest: Manifest, torn: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Yield patients in several splits, and patients that nobody names.

    Args:
        torn: the splits of each patient that is in more than one.
    """
    named = {sample.patient_id for sample in manifest.samples} - {None}
    if torn:
        fix = {
            "official": "Put all images of a patient into the same split, or take dataset.protocol=grouped.",
        }.get(str(manifest.protocol), "dataset.protocol=grouped keeps each patient in one split.")
        yield Finding(
            "patients across splits", "fail", (manifest.dataset,), f"{count(len(torn), 'patient')} in several splits",
            f"{len(torn):,} of {len(named):,} patients have images in more than one of training, validation and test "
            f"(protocol {manifest.protocol}): a model is tested on patients that it was trained on.",
            fix,
            {"patients": {patient: list(where) for patient, where in sorted(torn.items())}},
        )  # fmt: skip
    unnamed = sum(sample.patient_id is None for sample in manifest.samples)
    if unnamed == len(manifest):
        yield Finding(
            "patients", "warn", (manifest.dataset,), "no patients are named",
            "Nobody can say whether slices of one patient are in training and in test. Duplicates are found without "
            "names, further slices of a patient are not.",
            "Name the patients where they are known (dataset.patient_regex, dataset.patients, or the column patient_id "
            "of a table); else call every score optimistic.",
        )  # fmt: skip
    elif unnamed:
        yield Finding(
            "patients", "note", (manifest.dataset,), f"{count(unnamed, 'image')} without a patient",
            f"{unnamed:,} of {len(manifest):,} images have no patient id; each counts as a patient of its own.",
            "Fill in the patients that are known.",
        )  # fmt: skip


def references(manifest: Manifest) -> Iterator[Finding]:
    """Yield series and frames of reference that are in several splits, or of several patients."""
    for attribute, one, several, keyword in (
        ("series", "series", "series", "SeriesInstanceUID"),
        ("frame_of_reference", "frame of reference", "frames of reference", "FrameOfReferenceUID"),
    ):
        splits, owners = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
        for sample in manifest.samples:
            reference = getattr(sample, attribute)
            if reference is not None and sample.split is not None:
                splits[reference].add(sample.split)
            if reference is not None and sample.patient_id is not None:
                owners[reference].add(sample.patient_id)
        torn = {name: sorted(where) for name, where in sorted(splits.items()) if len(where) > 1}
        shared = {name: sorted(of) for name, of in sorted(owners.items()) if len(of) > 1}
        if torn:
            yield Finding(
                f"{several} across splits", "fail", (manifest.dataset,),
                f"{count(len(torn), one, several)} in several splits",
                f"{len(torn):,} of {len(splits):,} {several} ({keyword}) have images in more than one of training, "
                f"validation and test (protocol {manifest.protocol}): what is tested on was trained on.",
                "dataset.protocol=grouped keeps each patient in one split; two ids of one patient are joined in the "
                "headers.",
                {attribute: torn},
            )  # fmt: skip
        if shared:
            yield Finding(
                several, "warn", (manifest.dataset,), f"{count(len(shared), one, several)} of several patients",
                f"{len(shared):,} of {len(owners):,} {several} ({keyword}) are of more than one PatientID. A scanner "
                "gives each examination its own: these may be one person under several ids.",
                "Correct PatientID then; otherwise one person may be in training and in test.",
                {attribute: shared},
            )  # fmt: skip


def duplicates(manifest: Manifest, pairs: Sequence[Pair], leaks: Leaks) -> Iterator[Finding]:
    """Yield duplicates within one dataset: across splits, across labels, and the others."""
    name = manifest.dataset
    own = {pair: None for pair in pairs if pair.first[0] == pair.second[0] == name}
    across = {pair: None for pair in leaks.across_splits if pair in own}
    conflicts = {pair: None for pair in leaks.across_labels if pair in own}
    if across:
        seen, tests = leaks.test_images[name], leaks.tests[name]
        reached = (
            f"{seen:,} of {tests:,} test images ({percent(seen / tests)}) have a copy in training or validation"
            if seen
            else "None of them reaches the test set, but some are in training and in validation"
        )
        yield Finding(
            "duplicates across splits", "fail", (name,), f"{count(len(across), 'pair')} of duplicates across splits",
            f"The same image content is in different splits in {count(len(across), 'pair')} of images "
            f"({_kinds(across)}). {reached}.",
            _EXCLUDE,
        )  # fmt: skip
    if conflicts:
        yield Finding(
            "label conflicts", "fail", (name,), f"{count(len(conflicts), 'pair')} of duplicates with different labels",
            f"The same image content is in different classes in {count(len(conflicts), 'pair')} of images "
            f"({_kinds(conflicts)}): one label of each is wrong.",
            "Find out which label is right; until then leave both out, as the list for dataset.exclude=FILE does.",
        )  # fmt: skip
    others = [pair for pair in own if pair not in across and pair not in conflicts]
    if others:
        extra = sum(len(cluster) - 1 for cluster in clusters(others))
        where = "within a split" if manifest.protocol else "in the dataset"
        yield Finding(
            "duplicates", "warn", (name,), f"{count(len(others), 'pair')} of duplicates {where}",
            f"The same image content is {where} twice in {count(len(others), 'pair')} of images "
            f"({_kinds(others)}). Of {len(manifest):,} images {extra:,} are further copies: they count twice in "
            "training and in scores, and make intervals too narrow.",
            _EXCLUDE,
        )  # fmt: skip


def across_datasets(manifests: Sequence[Manifest], leaks: Leaks) -> Iterator[Finding]:
    """Yield images that are in two datasets."""
    order = {manifest.dataset: manifest for manifest in manifests}
    conflicting = set(leaks.across_labels)
    by_datasets: dict[tuple[str, str], list[Pair]] = {}
    for pair in leaks.across_datasets:
        one, other = sorted((pair.first[0], pair.second[0]), key=list(order).index)
        by_datasets.setdefault((one, other), []).append(pair)
    for (one, other), found in by_datasets.items():
        conflicts = sum(pair in conflicting for pair in found)
        with_labels = f", {conflicts:,} of them with different labels" if conflicts else ""
        yield Finding(
            "duplicates across datasets", "warn", (one, other),
            f"{count(len(found), 'pair')} of duplicates across datasets",
            f"The same image content is in {one} and in {other} in {count(len(found), 'pair')} of images "
            f"({_kinds(found)}){with_labels}: a model trained on one has seen test images of the other.",
            "Call neither an external test of the other before these images are excluded from one of them; pairs.csv "
            "names them.",
        )  # fmt: skip


def shortcuts(dataset: str, probes: Sequence[Probe]) -> Iterator[Finding]:
    """Yield probes that score better than chance; as a note those that shuffled labels come as far as."""
    for probe in probes:
        is_unsure = probe.verdict == "nothing found" and probe.low is not None and probe.low > 0.5
        if probe.verdict not in ("shortcut", "may carry disease") and not is_unsure:
            continue
        control = (
            f" With shuffled labels: {probe.shuffled.mean:.3f} ({probe.shuffled.low:.3f}–{probe.shuffled.high:.3f})."
            if probe.shuffled
            else ""
        )
        scored = (
            f"A classifier scores ROC AUC {probe.roc_auc:.3f} ({probe.low:.3f}–{probe.high:.3f}) "
            f"{_TRAINED[probe.protocol]} from this alone: {probe.about}.{control}"
        )
        if is_unsure:
            yield Finding(
                f"unsure: {probe.view}", "note", (dataset,), f"{probe.view}: scores, and may do so by chance",
                f"{scored} Its interval excludes chance; to count as found, it would have to be above every shuffle, "
                f"and its lower limit above {BOUND:g}.",
                "A model should score clearly better than this; more patients would tell.",
            )  # fmt: skip
        elif probe.verdict == "shortcut":
            yield Finding(
                f"shortcut: {probe.view}", "warn", (dataset,), f"shortcut: {probe.view} tells the classes apart",
                f"{scored} A model can score as well without seeing the disease.",
                "Report this score with the model's. Prepare the images of all classes alike, and test on images "
                "from other hospitals: ddtl evaluate RUN dataset=….",
            )  # fmt: skip
        else:
            yield Finding(
                f"view: {probe.view}", "note", (dataset,), f"{probe.view}: scores, and may be the disease itself",
                f"{scored} Disease changes these numbers, too, so this is not a shortcut by itself; it says how "
                "far one gets without a network.",
                "A model should score clearly better than this.",
            )  # fmt: skip


def power(found: Power, grouping: Grouping) -> str:
    """Return what it means that the probes found no shortcut, in one sentence.

    Args:
        found: what the probes could find.
        grouping: of the dataset.
    """
    units = f"{listed([f'{n:,}' for n in found.groups])} scored {SCORED[grouping]} of the classes"
    often = percent(found.power)
    if found.least_auc is None:
        return (
            f"Too few to rule a shortcut out: with {units} not even a perfect one is found in {often} of such test "
            f"sets, and one with a ROC AUC of {found.example_auc:.2f} in {percent(found.example_found)}."
        )
    return (
        f"With {units} a shortcut with a ROC AUC of {found.least_auc:.2f} or more is found in {often} of such test "
        "sets; a weaker one is often missed."
    )


def class_differences(dataset: str, differences: Sequence[Difference]) -> Iterator[Finding]:
    """Yield quantities in which the classes differ."""
    found = [difference for difference in differences if difference.size != "none"]
    if found:
        odd = any(d.size == "large" and d.kind == "shortcut" for d in found)
        named = list(dict.fromkeys(f"{d.quantity} ({d.size})" for d in found))
        yield Finding(
            "differences between classes", "warn" if odd else "note", (dataset,),
            f"the classes differ in {count(len({d.quantity for d in found}), 'quantity', 'quantities')}",
            f"The classes differ, beyond what chance would do, in: {', '.join(named)} (size of the effect by Cliff's "
            "delta).",
            "Ask where the images of each class come from; a difference of acquisition is not the disease.",
        )  # fmt: skip


def _kinds(pairs: Collection[Pair]) -> str:
    """Return ``2 the same file, 81 nearly the same``."""
    words = {"same file": "the same file", "same pixels": "the same pixels", "near": "nearly the same"}
    counts = {kind: sum(pair.kind == kind for pair in pairs) for kind in words}
    turned = sum(pair.transform != "none" for pair in pairs)
    parts = [f"{n:,} {words[kind]}" for kind, n in counts.items() if n]
    return ", ".join(parts) + (f"; {turned:,} flipped or turned" if turned else "")
