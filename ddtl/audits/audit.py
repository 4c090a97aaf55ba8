"""An audit from manifests to its record: each image is decoded once, and every check works on what that gave."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

from ddtl.audits import exclude_list, findings
from ddtl.audits.differences import Difference, class_differences
from ddtl.audits.duplicates import Leaks, leaks
from ddtl.audits.fingerprints import Fingerprints, Progress, decode
from ddtl.audits.pairs import Pair, find
from ddtl.audits.power import Power, power
from ddtl.audits.probes import Probe, run_probes, scored_images
from ddtl.audits.record import Finding, sort_findings
from ddtl.audits.views import measure
from ddtl.data.images.image_file import BadImageError, read_bytes
from ddtl.data.manifest import Manifest

# What a stage of the audit is called, to its bar.
Stages = Callable[[str], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Subject:
    """A dataset to audit.

    Attributes:
        manifest: with a split where it can be split.
        refused: why training would refuse its split; None where it would not.
    """

    manifest: Manifest
    refused: str | None = None


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        subjects: what was audited.
        digests: of each manifest, as the record of a run has it.
        bad: why images cannot be read, by dataset and sample id.
        pairs: duplicates, the most certain first.
        leaks: what they break.
        probes, differences: by dataset.
        findings: the gravest first.
        powers: what the probes could find, by dataset; without those where no probe was possible.
    """

    subjects: tuple[Subject, ...]
    digests: tuple[str, ...]
    bad: Mapping[tuple[str, str], str]
    pairs: tuple[Pair, ...]
    leaks: Leaks
    probes: Mapping[str, Sequence[Probe]]
    differences: Mapping[str, Sequence[Difference]]
    findings: tuple[Finding, ...]
    powers: Mapping[str, Power] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether a finding says that no result on these images and splits holds."""
        return any(finding.severity == "fail" for finding in self.findings)

    def to_leave_out(self, dataset: str) -> list[tuple[str, str]]:
        """Return the lines of a dataset's exclude list."""
        manifest = next(s.manifest for s in self.subjects if s.manifest.dataset == dataset)
        return exclude_list.to_leave_out(manifest, self.pairs, _of(dataset, self.bad))

    def power_sentence(self, dataset: str) -> str | None:
        """Return what "nothing found" means for shortcuts; None where every probe found one, or none was possible."""
        missed = any(probe.kind == "shortcut" and probe.verdict == "nothing found" for probe in self.probes[dataset])
        if not missed or dataset not in self.powers:
            return None
        manifest = next(s.manifest for s in self.subjects if s.manifest.dataset == dataset)
        return findings.power(self.powers[dataset], manifest.grouping)

    def record(self) -> dict[str, Any]:
        """Return everything as plain JSON but the pairs themselves, which are counted."""
        kinds = ("same file", "same pixels", "near")
        return {
            "datasets": [self._dataset(s.manifest, d) for s, d in zip(self.subjects, self.digests, strict=True)],
            "findings": [asdict(finding) for finding in self.findings],
            "pairs": {
                "total": len(self.pairs),
                **{kind: sum(pair.kind == kind for pair in self.pairs) for kind in kinds},
                "across_splits": len(self.leaks.across_splits),
                "across_labels": len(self.leaks.across_labels),
                "across_datasets": len(self.leaks.across_datasets),
            },
            "probes": [{"dataset": name, **asdict(probe)} for name, found in self.probes.items() for probe in found],
            "differences": [{"dataset": name, **asdict(d)} for name, found in self.differences.items() for d in found],
            "checked": [*_list_checks(self)],
            "rule": exclude_list.RULE,
        }

    def _dataset(self, manifest: Manifest, digest: str) -> dict[str, Any]:
        return {
            "dataset": manifest.dataset,
            "protocol": manifest.protocol,
            "fold": manifest.fold,
            "grouping": manifest.grouping,
            "digest": digest,
            "classes": list(manifest.classes),
            "images": len(manifest),
            "unreadable": len(_of(manifest.dataset, self.bad)),
            "patients": len({s.patient_id for s in manifest.samples} - {None}),
            "splits": manifest.counts() if manifest.protocol else None,
            "test_images": self.leaks.tests.get(manifest.dataset, 0),
            "leaked_test_images": self.leaks.test_images.get(manifest.dataset, 0),
            "excluded": None if manifest.left_out is None else asdict(manifest.left_out),
            "to_leave_out": len(self.to_leave_out(manifest.dataset)),
            "power": self._power(manifest.dataset),
        }

    def _power(self, dataset: str) -> dict[str, Any] | None:
        known = self.powers.get(dataset)
        return None if known is None else {**asdict(known), "sentence": self.power_sentence(dataset)}


def run(subjects: Sequence[Subject], stage: Stages | None = None, *, seed: int = 0) -> Audit:
    """Return all checks on one dataset or several.

    Args:
        subjects: datasets with different names.
        stage: makes the progress bar of each stage.
        seed: of the classifiers, the folds and the shuffles.
    """
    stage = stage or (lambda what: nullcontext(lambda done, total: None))
    manifests = [subject.manifest for subject in subjects]
    with stage("reading images") as bar:
        fingerprints = decode(manifests, bar, measure=measure)
    with stage("searching for duplicates") as bar:
        pairs = find(manifests, bar, fingerprints)
    found = leaks(pairs, manifests)
    measurements = dict(zip(fingerprints.keys, fingerprints.measured, strict=True))
    probes, differences, powers = {}, {}, {}
    for manifest in manifests:
        own = [measurements.get((manifest.dataset, sample.sample_id)) for sample in manifest.samples]
        with stage(f"searching for shortcuts in {manifest.dataset}") as bar:
            probes[manifest.dataset] = run_probes(manifest, own, seed=seed, progress=bar)
            images = scored_images(manifest, own, seed=seed)
            if images is not None:
                powers[manifest.dataset] = power(*images, seed=seed)
        differences[manifest.dataset] = class_differences(manifest, own)
    judged = [
        *(finding for s in subjects for finding in _of_one(s, fingerprints, pairs, found)),
        *findings.across_datasets(manifests, found),
        *(finding for name, each in probes.items() for finding in findings.shortcuts(name, each)),
        *(finding for name, each in differences.items() for finding in findings.class_differences(name, each)),
    ]
    return Audit(
        subjects=tuple(subjects),
        digests=tuple(_digest(manifest, fingerprints) for manifest in manifests),
        bad=dict(fingerprints.bad),
        pairs=tuple(pairs),
        leaks=found,
        probes=probes,
        differences=differences,
        findings=tuple(sort_findings(judged)),
        powers=powers,
    )


def _of_one(subject: Subject, fingerprints: Fingerprints, pairs: Sequence[Pair], found: Leaks) -> Iterator[Finding]:
    manifest = subject.manifest
    yield from findings.duplicates(manifest, pairs, found)
    yield from findings.patients(manifest, found.patients.get(manifest.dataset, {}))
    yield from findings.references(manifest)
    yield from findings.unreadable(manifest, _of(manifest.dataset, fingerprints.bad))
    yield from findings.split(manifest, subject.refused)
    yield from findings.classes(manifest)


def _of(dataset: str, bad: Mapping[tuple[str, str], str]) -> dict[str, str]:
    return {sample_id: why for (name, sample_id), why in bad.items() if name == dataset}


def _digest(manifest: Manifest, fingerprints: Fingerprints) -> str:
    """Return the digest that a run on these images has; of files that cannot be decoded the content counts, too."""
    hashes = {key: file.sha256 for key, file in zip(fingerprints.keys, fingerprints.files, strict=True)}
    for sample in manifest.samples:
        key = (manifest.dataset, sample.sample_id)
        if key not in hashes:
            try:
                hashes[key] = hashlib.sha256(read_bytes(sample.path)).hexdigest()
            except BadImageError:
                hashes[key] = ""
    return manifest.digest(hashes[manifest.dataset, sample.sample_id] for sample in manifest.samples)


def _list_checks(audit: Audit) -> Iterator[dict[str, Any]]:
    """Yield every check: whether it was made, and why not."""
    names = [subject.manifest.dataset for subject in audit.subjects]

    def check(what: str, datasets: Sequence[str], why_not: str = "") -> dict[str, Any]:
        return {"check": what, "datasets": list(datasets), "done": not why_not, "why_not": why_not}

    for subject in audit.subjects:
        manifest, name = subject.manifest, subject.manifest.dataset
        one_class = "there is one class" if len({s.label for s in manifest.samples}) == 1 else ""
        no_split = "" if manifest.protocol else "the dataset has no split"
        unnamed = "no patients are named" if all(s.patient_id is None for s in manifest.samples) else ""
        yield check("every image can be read", [name])
        yield check("duplicates, flipped and turned ones too", [name], "there is one image" * (len(manifest) == 1))
        yield check("duplicates across splits", [name], no_split)
        yield check("label conflicts", [name], one_class)
        yield check("patients across splits", [name], no_split or unnamed)
        if any(sample.series for sample in manifest.samples):
            yield check("series and frames of reference across splits", [name], no_split)
        for probe in audit.probes[name]:
            yield check(f"probe: {probe.view}", [name], probe.why_not or "")
        yield check("differences between classes", [name], one_class)
    if len(names) > 1:
        yield check("duplicates across datasets", names)
