"""What a study's scores are compared with: images that two datasets share, and classifiers that see no pixel."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddtl.records.study_controls import NAME, Controls, read
from ddtl.utils.errors import UserError
from ddtl.utils.files import write_json

if TYPE_CHECKING:
    from ddtl.data.manifest import Manifest


@dataclass(frozen=True)
class ControlSubject:
    """A dataset as a study uses it.

    Attributes:
        name: as the study calls it; of a pool that of its datasets joined by ``+``.
        manifest: its table, split.
        hashes: the difference hash of each image, in the table's order.
    """

    name: str
    manifest: Manifest
    hashes: Sequence[int]


def write(folder: Path, pairs: Sequence[tuple[ControlSubject, ControlSubject]]) -> Controls:
    """Return the controls of each (source, target), kept in the study's folder; those of the same images are not
    recreated.

    Earlier ones of other pairs stay: a dataset that is out of reach by now has not changed.
    """
    try:
        before = read(folder).pairs
    except UserError:
        before = {}
    new = {(source.name, target.name) for source, target in pairs}
    rows = [dict(row) for names, row in before.items() if names not in new]
    for source, target in pairs:
        row = before.get((source.name, target.name), {})
        same = row.get("images") == _images(source, target)
        rows.append(dict(row) if same else between(source, target))
    write_json(folder / NAME, {"pairs": rows})
    return Controls({(row["source"], row["target"]): row for row in rows})


def between(source: ControlSubject, target: ControlSubject) -> dict[str, Any]:
    """Return controls of one pair of datasets.

    ``duplicates``: test images of the target that also are among what the source trains and validates on (difference
    hashes within ``NEAR`` bits), with the others of their patients or groups. ``majority``: always the source's
    majority class. ``file_facts``: a random forest trained on the source's image files, see ``file_facts``.
    Both controls are about the test images that stay. ``images`` is a digest of which images it is all about.
    """
    from ddtl.data.images.perceptual_hash import near_any

    ours, theirs = source.manifest, target.manifest
    train, test = [*ours.rows("train"), *ours.rows("val")], theirs.rows("test")
    again = near_any([target.hashes[i] for i in test], [source.hashes[i] for i in train])
    groups = {theirs.samples[i].group for i, twice in zip(test, again, strict=True) if twice}
    kept = [i for i in test if theirs.samples[i].group not in groups]
    found: dict[str, Any] = {
        "source": source.name,
        "target": target.name,
        "images": _images(source, target),
        "duplicates": [theirs.samples[i].sample_id for i in test if theirs.samples[i].group in groups],
    }
    return found | (_blind(ours, theirs, train, kept) if kept else {})


def _images(source: ControlSubject, target: ControlSubject) -> str:
    """Return another one where images, labels or splits are others."""
    parts = [
        f"{sample.sample_id} {sample.label} {sample.split} {bits}"
        for subject in (source, target)
        for sample, bits in zip(subject.manifest.samples, subject.hashes, strict=True)
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _blind(source: Manifest, target: Manifest, train: Sequence[int], test: Sequence[int]) -> dict[str, Any]:
    """Return the classifiers that see no pixel, scored on some of the target's images."""
    from ddtl.audits import file_metadata
    from ddtl.data.images.image_file import BadImageError
    from ddtl.evaluation.intervals.intervals import intervals, multiclass_intervals
    from ddtl.evaluation.metrics import binary_scores, multiclass_scores

    labels = np.array([source.samples[i].label for i in train])
    true_labels = np.array([target.samples[i].label for i in test])
    groups = np.array([target.samples[i].group for i in test])
    classes = len(source.classes)

    def scores(p: np.ndarray) -> dict[str, Any]:
        return binary_scores(true_labels, p[:, 1], 0.5) if classes == 2 else multiclass_scores(true_labels, p)[0]

    found = {"majority": scores(np.tile(np.bincount(labels, minlength=classes) / len(labels), (len(test), 1)))}
    try:
        paths = [source.samples[i].path for i in train] + [target.samples[i].path for i in test]
        _, numbers = file_metadata.read_metadata(paths)
    except BadImageError as error:
        return found | {"file_facts": {"why_not": str(error)}}
    p = file_metadata.forest(numbers[: len(train)], labels, numbers[len(train) :], classes)
    limits = (
        intervals(true_labels, p[:, 1], groups, 0.5) if classes == 2 else multiclass_intervals(true_labels, p, groups)
    )
    written = {name: None if one is None else asdict(one) for name, one in limits.items()}
    return found | {"file_facts": {**scores(p), "intervals": written}}
