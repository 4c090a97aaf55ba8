"""Grey levels of different scanners made alike: a table of 256 levels that an image, or a whole dataset, goes through.

``equalize``: each image's own distribution is made as even as it can be (Gonzalez & Woods 2018, Digital Image
Processing, 4th ed., section 3.3). ``clahe``: the same in tiles, with limited contrast (Zuiderveld 1994, Graphics Gems
IV, p. 474). ``match``: one monotone map for a dataset brings the distribution of all its training images together to
that of the images that the run was trained on (histogram specification, Gonzalez & Woods, the same section).
``match_image``: each image by itself is brought to that distribution.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ddtl.data.images.cache import DecodedCache, first_channel
from ddtl.schema.run import DatasetConfig
from ddtl.utils.errors import UserError

LEVELS = 256
_CHUNK = 64  # images counted at a time
_CLIP, _TILES = 2.0, (8, 8)  # of CLAHE: the limit over an even distribution, and the tiles along each side

Counts = np.ndarray  # (256,) pixels of each grey level


@dataclass(frozen=True)
class Harmonizer:
    """What happens to a decoded image's grey levels before it is augmented.

    Attributes:
        method: of ``dataset.harmonize``.
        reference: the distribution to match; for ``match_image`` alone.
        tables: the maps of ``match``, (T, 256) uint8.
        table_of: (N,) which of them each manifest row goes through.
    """

    method: str
    reference: Counts | None = None
    tables: np.ndarray | None = None
    table_of: np.ndarray | None = None
    _clahe: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:  # OpenCV's objects do not travel to other processes
        return Harmonizer, (self.method, self.reference, self.tables, self.table_of)

    def __call__(self, image: np.ndarray, row: int) -> np.ndarray:
        """The image of a manifest row, uint8 ``(H, W)``, with its new grey levels.

        A new method gets its step here, and its name in ``ddtl/schema/run.py``.
        """
        if self.method == "equalize":
            return equalizing(histogram([image]))[image]
        if self.method == "clahe":
            return self._tiled(image)
        if self.method == "match_image":
            assert self.reference is not None
            return matching(histogram([image]), self.reference)[image]
        if self.method == "match":
            assert self.tables is not None
            assert self.table_of is not None
            return np.asarray(self.tables[self.table_of[row]][image])
        return image

    def _tiled(self, image: np.ndarray) -> np.ndarray:
        if not self._clahe:
            os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
            import cv2

            self._clahe.append(cv2.createCLAHE(_CLIP, _TILES))
        return np.asarray(self._clahe[0].apply(np.ascontiguousarray(image)))


def build_harmonizer(
    method: str, cache: DecodedCache, sites: Sequence[str], train: Sequence[int], reference: Counts | None
) -> Harmonizer | None:
    """Return what ``dataset.harmonize`` does to a dataset's images; None for ``none``.

    Args:
        method: of ``dataset.harmonize``.
        cache: the decoded images.
        sites: of each manifest row; ``match`` has a map for each.
        train: manifest rows of the training images.
        reference: the distribution to match; None for that of the training images.
    """
    if method == "none":
        return None
    if method not in ("match", "match_image"):
        return Harmonizer(method)
    reference = pooled_histogram(cache, train) if reference is None else reference
    if method == "match_image":
        return Harmonizer(method, reference)
    names = sorted(set(sites))
    rows = [[row for row in train if sites[row] == name] for name in names]
    tables = np.stack([matching(pooled_histogram(cache, of_site), reference) for of_site in rows])
    return Harmonizer(method, None, tables, np.array([names.index(site) for site in sites]))


def harmonizer_of_files(config: DatasetConfig, trained_on: Callable[[], Counts]) -> Harmonizer | None:
    """Return what happens to the grey levels of new files before a network sees them; None where nothing does.

    Args:
        config: of the dataset that the network was trained on.
        trained_on: gives the grey levels of its training images, for ``match_image``.

    Raises:
        UserError: each source of a pool was matched by a map of its own, and which is a new file's is not known.
    """
    method = config.harmonize
    if method == "match" and config.kind == "pooled":
        raise UserError(
            "the run was trained with dataset.harmonize=match, one map for each source, and which of them a new file "
            "needs cannot be known. Score a dataset of such files by `ddtl evaluate RUN dataset=…`, or train with "
            "dataset.harmonize=match_image."
        )
    if method in ("none", "match"):  # the map of one dataset brings its images to themselves
        return None
    return Harmonizer(method, trained_on() if method == "match_image" else None)


def histogram(images: Sequence[np.ndarray] | np.ndarray) -> Counts:
    """How many pixels of uint8 images have each grey level: int64 (256,)."""
    return sum((np.bincount(image.ravel(), minlength=LEVELS) for image in images), np.zeros(LEVELS, dtype=np.int64))


def pooled_histogram(cache: DecodedCache, rows: Sequence[int]) -> Counts:
    """The same of some rows of a dataset; of images through three windows, of the first."""
    chunks = (first_channel(cache.take(rows[i : i + _CHUNK])) for i in range(0, len(rows), _CHUNK))
    return sum((histogram(chunk) for chunk in chunks), np.zeros(LEVELS, dtype=np.int64))


def equalizing(counts: Counts) -> np.ndarray:
    """The table, uint8 (256,), that makes a distribution as even as it can be; the darkest level there is becomes 0.

    s = (F(r) - F_min) / (1 - F_min) * 255, F being the distribution function and F_min its first value above 0.
    """
    below = np.cumsum(counts)
    first = below[np.flatnonzero(counts)[0]]
    if first == below[-1]:  # one grey level: there is nothing to spread
        return np.arange(LEVELS, dtype=np.uint8)
    return np.clip(np.rint((below - first) / (below[-1] - first) * (LEVELS - 1)), 0, LEVELS - 1).astype(np.uint8)


def matching(counts: Counts, reference: Counts) -> np.ndarray:
    """The monotone table, uint8 (256,), that brings one distribution to another.

    A level goes where the reference's distribution function reaches the middle of the level's own step. Taking the
    middle instead of the step's end keeps a level that many pixels share, such as the black around a body, on its
    counterpart although the two shares differ a little. Levels that no pixel has are between their neighbours. A
    distribution is brought to itself by the identity.
    """
    there = np.flatnonzero(counts)
    middle = (2 * np.cumsum(counts[there]) - counts[there]) / (2 * counts.sum())
    to = np.searchsorted(np.cumsum(reference) / reference.sum(), middle).clip(0, LEVELS - 1)
    ends = [(level, level) for level in (0, LEVELS - 1) if level not in there]
    levels = np.array([*there, *(level for level, _ in ends)])
    values = np.array([*to, *(level for _, level in ends)])
    order = np.argsort(levels)
    return np.rint(np.interp(np.arange(LEVELS), levels[order], values[order])).astype(np.uint8)
