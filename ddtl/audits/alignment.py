"""Bringing two images to fit, and how alike they then are.

One image may be the other cropped, with a border, or squeezed: a scale and an offset along each axis bring them to
fit. They are found by Gauss-Newton steps from coarse to fine that allow for another brightness and contrast (in the way
of Lucas and Kanade 1981, IJCAI, and of Evangelidis and Psarakis 2008, IEEE TPAMI 30(10)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from PIL import Image

LEVELS = (16, 32, 64)
_BLURS = (1.0, 2.0)  # standard deviations, in pixels
_HOPELESS = 0.9  # correlation after alignment; below it images are different
_STEPS = 12  # on each level, at most
_STILL = 1e-3  # a step this small ends a level; half the image is 1
_SCALES = (0.6, 1 / 0.6)  # a fit with another scale is not believed
_OVERLAP = 0.6  # of each axis; nor is one with less


@dataclass(frozen=True, slots=True)
class Fit:
    """Where a point of the first image is in the second: ``scale * x + offset`` on each axis, from -1 to 1."""

    x_scale: float = 1.0
    x_offset: float = 0.0
    y_scale: float = 1.0
    y_offset: float = 0.0

    @property
    def believable(self) -> bool:
        """Whether the scales are moderate and the images mostly overlap."""
        scales, offsets = (self.x_scale, self.y_scale), (self.x_offset, self.y_offset)
        if not all(_SCALES[0] < scale < _SCALES[1] for scale in scales):
            return False
        spans = [_span(scale, offset) for scale, offset in zip(scales, offsets, strict=True)]
        return all(end - start > 2 * _OVERLAP for start, end in spans)


IDENTITY = Fit()


def align(first: np.ndarray, second: np.ndarray, start: Fit = IDENTITY, levels: Sequence[int] = LEVELS) -> Fit | None:
    """Return the fit of the second image to the first.

    Args:
        first, second: uint8 ``(S, S)``, of one size.
        start: the fit to improve.
        levels: sides to which the images are shrunk, one after the other.

    Returns:
        None where the images cannot be brought to fit: they are different ones.
    """
    p = np.array(astuple(start))
    for side in levels:
        one, other = _shrunk(first, side), _shrunk(second, side)
        gradients = [g * side / 2 for g in np.gradient(other)]
        for _ in range(_STEPS):
            step = _step(one, other, gradients, p)
            if step is None or not Fit(*(p + step)).believable:
                return None
            p = p + step
            if np.abs(step).max() < _STILL:
                break
        if correlation(*overlap(one, other, Fit(*p.tolist()))) < _HOPELESS:
            return None
    return Fit(*p.tolist())


def overlap(first: np.ndarray, second: np.ndarray, fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Return both images where they overlap, the second resampled onto the pixels of the first: float64, of one
    shape.
    """
    height, width = first.shape
    rows, from_rows = _places(height, second.shape[0], fit.y_scale, fit.y_offset)
    columns, from_columns = _places(width, second.shape[1], fit.x_scale, fit.x_offset)
    return first[rows, columns].astype(float), _resample(second.astype(float), from_rows, from_columns)


def detail(image: np.ndarray) -> np.ndarray:
    """Return structures of one to two pixels: the difference of two Gaussian blurs."""
    from scipy.ndimage import gaussian_filter

    narrow, wide = (gaussian_filter(image.astype(np.float32), sigma) for sigma in _BLURS)
    return np.asarray(narrow - wide)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Pearson's correlation of the pixels of two arrays of one shape; 0 where one is even."""
    a, b = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


def _step(one: np.ndarray, other: np.ndarray, gradients: list[np.ndarray], p: np.ndarray) -> np.ndarray | None:
    """Return the least-squares change of the fit; None where the images have nothing in common."""
    side = len(one)
    columns, from_columns = _places(side, side, p[0], p[1])
    rows, from_rows = _places(side, side, p[2], p[3])
    there, dy, dx = (_resample(image, from_rows, from_columns) for image in (other, *gradients))
    centres = (2 * np.arange(side) + 1) / side - 1
    x, y = centres[columns], centres[rows, None]
    terms = np.stack([there, np.ones_like(there), dx * x, dx, dy * y, dy]).reshape(6, -1)
    found, *_ = np.linalg.lstsq(terms @ terms.T, terms @ one[rows, columns].ravel(), rcond=None)
    contrast = found[0]
    return found[2:] / contrast if contrast > 0.1 else None


def _span(scale: float, offset: float) -> tuple[float, float]:
    """Return from where to where on an axis of the first image the second reaches."""
    return max(-1.0, (-1 - offset) / scale), min(1.0, (1 - offset) / scale)


def _places(length: int, other: int, scale: float, offset: float) -> tuple[slice, np.ndarray]:
    """Return the pixels of an axis that the other image covers, and where in its pixels they lie."""
    centres = (2 * np.arange(length) + 1) / length - 1
    places = ((scale * centres + offset + 1) * other - 1) / 2
    inside = np.flatnonzero((places >= -0.5) & (places <= other - 0.5))
    if not len(inside):
        return slice(0, 0), places[:0]
    covered = slice(int(inside[0]), int(inside[-1]) + 1)
    return covered, np.clip(places[covered], 0, other - 1)


def _resample(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return bilinear interpolation at a grid of places, first along columns, then along rows."""
    for axis, places in ((1, columns), (0, rows)):
        low = np.minimum(places.astype(int), image.shape[axis] - 2)
        part = np.expand_dims(places - low, 1 - axis)
        image = np.take(image, low, axis) * (1 - part) + np.take(image, low + 1, axis) * part
    return image


def _shrunk(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(
        Image.fromarray(np.ascontiguousarray(image)).resize((side, side), Image.Resampling.BILINEAR), dtype=float
    )
