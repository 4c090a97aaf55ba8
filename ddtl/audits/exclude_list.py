"""Which images to exclude so that no image content is in a dataset twice; ``dataset.exclude`` takes the list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ddtl.audits.duplicates import clusters
from ddtl.audits.pairs import Pair
from ddtl.data.manifest import Manifest, Sample

COLUMNS = ("sample_id", "reason")
RULE = (
    "Of images with the same content one copy stays: that in the test before that in "
    "validation before that in training, and within a split the first by name. Where copies carry different labels "
    "none stays, for nobody knows which is right. Images that cannot be read are excluded, too. Copies in another "
    "dataset change nothing."
)

_STAYS_FIRST = ("test", "val", "train", None)
_SPLITS = {"train": "training", "val": "validation", "test": "test", None: "no split"}


def to_leave_out(manifest: Manifest, pairs: Sequence[Pair], bad: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return sample id and reason of each image to exclude, by sample id; see ``RULE``.

    Args:
        manifest: of one dataset.
        pairs: of duplicates; those with an image of another dataset are passed over.
        bad: why images cannot be read, by sample id.
    """
    samples = {sample.sample_id: sample for sample in manifest.samples}
    reasons = {name: f"cannot be used: {why}" for name, why in bad.items()}
    own = [pair for pair in pairs if pair.first[0] == pair.second[0] == manifest.dataset]
    for cluster in clusters(own):
        reasons |= _reasons([samples[name] for _, name in cluster], manifest.classes)
    return sorted(reasons.items())


def _reasons(copies: Sequence[Sample], classes: Sequence[str]) -> dict[str, str]:
    labels = sorted({copy.label for copy in copies})
    first, *others = sorted(copies, key=lambda copy: (_STAYS_FIRST.index(copy.split), copy.sample_id))
    if len(labels) > 1:
        why = "label conflict: the same image content is in " + " and ".join(classes[label] for label in labels)
        return {copy.sample_id: why for copy in copies}
    return {
        copy.sample_id: f"copy of {first.sample_id}, which stays"
        + (f" in {_SPLITS[first.split]}" if copy.split != first.split else "")
        for copy in others
    }
