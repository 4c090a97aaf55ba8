"""What is known once all files of a dataset are read: one file twice, and images with hardly any grey levels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ddtl.data.download.published import named
from ddtl.data.images.cache import DecodedCache
from ddtl.data.images.image_file import read_bytes
from ddtl.data.images.levels import MIN_LEVELS, MIN_RANGE, has_few_levels
from ddtl.data.images.raster import stored_range
from ddtl.data.manifest import Manifest, Note, Sample
from ddtl.utils.errors import UserError


def checked(
    manifest: Manifest, cache: DecodedCache, *, allow_label_conflicts: bool, allow_few_grey_levels: bool
) -> Manifest:
    """The dataset with notes on what is doubtful about its files.

    Args:
        manifest: split.
        cache: its images.
        allow_label_conflicts: note files with two labels instead of refusing them.
        allow_few_grey_levels: note that most images have few grey levels instead of refusing them.

    Raises:
        UserError: a file has two labels, or over half of all images, of a class or of a site have few grey levels.
    """
    notes = (
        *_copies(manifest, cache.file_hashes, allow_label_conflicts),
        *_few_levels(manifest, cache.levels, allow_few_grey_levels),
    )
    return replace(manifest, notes=(*manifest.notes, *notes))


def _copies(manifest: Manifest, file_hashes: Sequence[str], allow_label_conflicts: bool) -> Iterator[Note]:
    """A note for each case in which one file is in a dataset twice and should not be."""
    found: dict[tuple[str, int | None], list[Sample]] = defaultdict(list)
    for sample, file_hash in zip(manifest.samples, file_hashes, strict=True):
        found[file_hash, sample.number].append(sample)
    copies = [samples for samples in found.values() if len(samples) > 1]
    conflicts = [samples for samples in copies if len({s.label for s in samples}) > 1]
    if conflicts:
        shown = ", ".join(f"{s.sample_id!r} ({manifest.classes[s.label]})" for s in _differing(conflicts[0], "label"))
        text = f"{len(conflicts)} file{_s(conflicts)} {_is(conflicts)} in two classes with the same bytes"
        if not allow_label_conflicts:
            raise UserError(
                f"{manifest.dataset}: {text}: {shown}. Remove the wrong ones (dataset.exclude=FILE lists what to "
                "exclude, and `ddtl audit` writes such a list), or train all the same: "
                "dataset.allow_label_conflicts=true"
            )
        yield Note(f"{text} (dataset.allow_label_conflicts=true).", is_doubt=True, names=shown)
    torn = [samples for samples in copies if len({s.split for s in samples} - {None}) > 1]
    if torn:
        yield Note(
            f"{len(torn)} file{_s(torn)} {_is(torn)} in two splits with the same bytes, so scores are optimistic. "
            "`ddtl audit` finds near copies as well and writes a list for dataset.exclude.",
            is_doubt=True,
            names=", ".join(f"{s.sample_id!r} ({s.split})" for s in _differing(torn[0], "split")),
        )
    shared = [samples for samples in copies if len({s.patient_id for s in samples} - {None}) > 1]
    if shared:
        yield Note(
            f"{len(shared)} file{_s(shared)} {_is(shared)} of two patients with the same bytes.",
            is_doubt=True,
            names=", ".join(f"{s.sample_id!r} ({s.patient_id})" for s in _differing(shared[0], "patient_id")),
        )


def _differing(samples: Sequence[Sample], attribute: str) -> list[Sample]:
    """Two samples that differ in an attribute."""
    first = samples[0]
    return [first, next(s for s in samples if getattr(s, attribute) != getattr(first, attribute))]


def _few_levels(manifest: Manifest, levels: np.ndarray, allowed: bool) -> Iterator[Note]:
    """A note on the images with hardly any grey levels, or an error where they are most of a class or site."""
    few = np.array([has_few_levels(count, spread) for count, spread in levels.tolist()])
    if not few.any():
        return
    labels, sites = (np.array([getattr(s, name) for s in manifest.samples]) for name in ("label", "site"))
    shares = [few.mean(), *(few[of == one].mean() for of in (labels, sites) for one in np.unique(of))]
    rows = np.flatnonzero(few).tolist()
    names = named([manifest.samples[row].sample_id for row in rows])
    text = (
        f"{len(rows)} of {len(manifest)} images have fewer than {MIN_LEVELS} of 256 grey levels, or levels less than "
        f"{MIN_RANGE} apart, once decoded"
    )
    if max(shares) <= 0.5:
        yield Note(f"{text}: they may be blank or scaled wrongly.", is_doubt=True, names=names)
        return
    first = manifest.samples[rows[0]]
    if not allowed:
        counts = f"with {levels[rows[0], 0]} levels over a range of {levels[rows[0], 1]}"
        raise UserError(
            f"{manifest.dataset}: {text}: {names}, {counts}. {_cause(first)} To train all the same: "
            "dataset.allow_few_grey_levels=true"
        )
    yield Note(f"{text}. {_cause(first)} (dataset.allow_few_grey_levels=true)", is_doubt=True, names=names)


def _cause(sample: Sample) -> str:
    if sample.window is not None:
        return "dataset.window hides nearly all of its values: check its center, width, slope and intercept."
    stored = stored_range(read_bytes(sample.path), sample.path)
    if stored is None:
        return "Export the images again with their full range of grey."
    bits, low, high = stored
    return (
        f"It stores {bits}-bit values from {low:.0f} to {high:.0f}, a small part of their range: say how values "
        "become grey levels, such as by 'dataset.window={center: -600, width: 1500, slope: 1, intercept: -1024}' for "
        "Hounsfield units + 1024 (docs/own_data.md)."
    )


def _s(things: Sequence[object]) -> str:
    return "s" * (len(things) > 1)


def _is(things: Sequence[object]) -> str:
    return "are" if len(things) > 1 else "is"
