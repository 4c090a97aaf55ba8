"""Audits made by hand: what was found is given, so that commands, records and pages can be tested by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddtl.audits import findings
from ddtl.audits.audit import Audit, Subject
from ddtl.audits.differences import Difference
from ddtl.audits.duplicates import leaks
from ddtl.audits.pairs import Pair
from ddtl.audits.probes import Probe, Shuffled
from ddtl.audits.record import sort_findings
from ddtl.data.manifest import Manifest, Sample

CLASSES = ("normal", "covid")
SPLITS = ("train", "train", "val", "test")


def manifest(
    folder: Path,
    n: int = 24,
    *,
    dataset: str = "chest",
    classes: tuple[str, ...] = CLASSES,
    names: tuple[str, ...] = (),
    patients: bool = True,
    torn: bool = False,
) -> Manifest:
    """A dataset of ``n`` small noise images in ``folder``, classes and splits in turn, a patient an image."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    samples = []
    for i in range(n):
        path = folder / f"{i:03d}.png"
        Image.fromarray(random.integers(0, 256, (48, 64), dtype=np.uint8)).save(path)
        name = names[i] if i < len(names) else f"{i:03d}.png"
        # One patient, that of the second and the seventh image, stands in training and in test.
        patient = f"p{1 if i == 6 and torn else i}" if patients else None
        samples.append(Sample(name, path, i % len(classes), patient, split=SPLITS[i // 2 % 4]))
    grouping: Any = "patient" if patients else "none"
    return Manifest(dataset, classes, tuple(samples), grouping, protocol="official")


def pair(one: Sample, other: Sample, kind: Any = "near", dataset: str = "chest", **changes: Any) -> Pair:
    """A pair of duplicates within a dataset."""
    first, second = sorted([(dataset, one.sample_id), (dataset, other.sample_id)])
    values: dict[str, Any] = {"transform": "none", "distance": 6, "similarity": 0.987, **changes}
    return Pair(first, second, kind, **values)


def probe(
    view: str = "file metadata", roc_auc: float | None = 0.951, verdict: Any = "shortcut", **changes: Any
) -> Probe:
    """A probe on the test split."""
    values: dict[str, Any] = {
        "view": view, "kind": "shortcut", "about": f"{view} and no pixel", "features": ("width", "height"),
        "protocol": "test", "images": 203, "groups": 95, "roc_auc": roc_auc, "low": 0.886, "high": 0.980,
        "accuracy": 0.88, "accuracy_low": 0.82, "accuracy_high": 0.93, "majority": 0.52,
        "shuffled": Shuffled((0.48, 0.52), 0.5, 0.44, 0.56), "p_value": 0.01, "verdict": verdict,
    }  # fmt: skip
    if roc_auc is None:
        values |= dict.fromkeys(("low", "high", "accuracy", "accuracy_low", "accuracy_high", "majority", "p_value"))
        values |= {"shuffled": None, "verdict": "not possible", "why_not": "there is one class"}
    return Probe(**{**values, **changes})


def difference(quantity: str = "file size", size: str = "large", **changes: Any) -> Difference:
    """A difference between the two classes."""
    values: dict[str, Any] = {
        "kind": "shortcut", "unit": "bytes", "of_class": "covid", "others": "normal",
        "median": 1234.0, "median_others": 99999.0, "mean": 1500.0, "mean_others": 90000.0,
        "delta": -0.81, "low": -0.9, "high": -0.7, "p_value": 0.0001, "p_adjusted": 0.0004,
    }  # fmt: skip
    return Difference(quantity, size=size, **{**values, **changes})


def audit(folder: Path, *, clean: bool = False, **changes: Any) -> Audit:
    """An audit of one dataset in which everything was found that can be; or nothing."""
    subject = manifest(folder, torn=not clean, **changes)
    s = subject.samples
    pairs = [] if clean else [
        pair(s[0], s[6], "same file", dataset=subject.dataset, distance=0, similarity=1.0),  # train and test
        pair(s[0], s[1], dataset=subject.dataset, transform="rotate 90"),  # two classes
        pair(s[2], s[10], "same pixels", dataset=subject.dataset),  # one split
    ]  # fmt: skip
    bad = {} if clean else {(subject.dataset, s[5].sample_id): "is cut off or damaged: truncated"}
    broken = leaks(pairs, [subject])
    probes = [probe("file metadata"), probe("coarse statistics", 0.87, "may carry disease"), probe("marks", None)]
    if clean:
        probes = [probe("file metadata", 0.51, "nothing found", low=0.42, high=0.61)]
    differences = [] if clean else [difference(), difference("brightness", "none", unit="grey levels", delta=0.02)]
    name = subject.dataset
    judged = [
        *findings.duplicates(subject, pairs, broken),
        *findings.patients(subject, broken.patients.get(name, {})),
        *findings.unreadable(subject, {sample_id: why for (_, sample_id), why in bad.items()}),
        *findings.shortcuts(name, probes),
        *findings.class_differences(name, differences),
    ]
    return Audit(
        subjects=(Subject(subject),),
        digests=("d1" * 32,),
        bad=bad,
        pairs=tuple(pairs),
        leaks=broken,
        probes={name: probes},
        differences={name: differences},
        findings=tuple(sort_findings(judged)),
    )


def record(found: Audit, **changes: Any) -> dict[str, Any]:
    """``audit.json`` of an audit."""
    return {
        "when": "2026-11-23T12:00:00+00:00",
        "ddtl": "0.1.0",
        "command": "ddtl audit dataset=folder",
        "seconds": 12.3,
        **found.record(),
        **changes,
    }
