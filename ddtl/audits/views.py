"""What a probe is given of an image: numbers that leave the lungs out, or that may show them.

``measure`` measures one image; ``table`` puts together what one view shows of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from scipy import ndimage

from ddtl.audits import file_metadata
from ddtl.audits.file_metadata import FileMetadata
from ddtl.data.images.decode import read_header
from ddtl.data.images.lungs import SIDE, Mask, Regions, regions
from ddtl.data.images.raster import Header, as_pillow

Kind = Literal["shortcut", "may carry disease"]


@dataclass(frozen=True)
class View:
    """A method to measure an image.

    Attributes:
        kind: ``shortcut``: nothing in the view can be disease of the lungs. ``may carry disease``: lesions change it,
            as they do the body's grey levels where they are along the pleura and are taken for its wall.
        about: in plain words, as what a classifier is given.
        names: of its numbers; empty for the file metadata, whose number depends on the dataset.
        linear: a logistic regression reads it, as its numbers are pixels; else a random forest does.
    """

    kind: Kind
    about: str
    names: tuple[str, ...]
    linear: bool = False


@dataclass(frozen=True)
class Measurements:
    """What one image looks like without its meaning.

    Attributes:
        metadata: of its file.
        numbers: (F,) float32 by view; those of ``VIEWS`` but the file metadata.
    """

    metadata: FileMetadata
    numbers: dict[str, np.ndarray]


_FRAME, _CORNER = 8, 16  # widths in pixels of SIDE; lungs reach no nearer to the corners
_FINE = 2 * SIDE  # side in pixels where text is searched for
_DETAIL = 224  # side in pixels of the coarse statistics, as networks see the image
_THUMB = 16
_BINS = 16
_COLOURED = 40  # levels between the strongest and the weakest colour of a pixel; less is JPEG's noise on gray
_STROKE = 9  # text and arrows are thinner than this, in pixels of _FINE
_BRIGHT = 60  # levels by which they stand out

_SIDES = {
    "top": np.s_[:_FRAME, :], "bottom": np.s_[-_FRAME:, :], "left": np.s_[:, :_FRAME], "right": np.s_[:, -_FRAME:],
}  # fmt: skip
_CORNERS = {
    "top left": np.s_[:_CORNER, :_CORNER], "top right": np.s_[:_CORNER, -_CORNER:],
    "bottom left": np.s_[-_CORNER:, :_CORNER], "bottom right": np.s_[-_CORNER:, -_CORNER:],
}  # fmt: skip
_EDGES = {**_SIDES, **_CORNERS}
_QUARTERS = {
    "top left": np.s_[:SIDE, :SIDE], "top right": np.s_[:SIDE, SIDE:],
    "bottom left": np.s_[SIDE:, :SIDE], "bottom right": np.s_[SIDE:, SIDE:],
}  # fmt: skip
_QUANTILES = (5, 25, 50, 75, 95)
_LEVELS = ("mean", "standard deviation", *(f"{q} % quantile" for q in _QUANTILES), "share of black", "share of white")

VIEWS: dict[str, View] = {
    "file metadata": View("shortcut", "file format, colour mode, width, height and bytes", ()),
    "border": View(
        "shortcut",
        "the brightness of the four sides and corners with the chest masked out",
        tuple(f"{place}: {what}" for place in _EDGES for what in ("mean", "standard deviation", "brightest")),
    ),
    "outside the body": View(
        "shortcut",
        "how much of the image lies outside the body, and the grey levels there",
        ("share of the image", *_LEVELS),
    ),
    "marks": View(
        "shortcut",
        "the share of coloured and of paper-white pixels, and of bright strokes such as text outside the body",
        ("coloured", "paper white", *(f"bright strokes {place}" for place in _QUARTERS)),
    ),
    "body without the lungs": View(
        "may carry disease",
        "the grey levels of the body around the lungs",
        _LEVELS,
    ),
    "coarse statistics": View(
        "may carry disease",
        "the histogram, brightness, contrast, sharpness and entropy of the image",
        (*(f"bin {i}" for i in range(_BINS)), "mean", "standard deviation", "sharpness", "entropy"),
    ),
    "tiny pixels": View(
        "may carry disease",
        f"the image as the loader delivers it, shrunk to {_THUMB} x {_THUMB} pixels",
        tuple(f"row {r} column {c}" for r in range(_THUMB) for c in range(_THUMB)),
        linear=True,
    ),
}


def measure(data: bytes, gray: Image.Image) -> Measurements:
    """Return all that the probes and differences need of one image.

    Args:
        data: the file's whole content, of an image that ``ddtl.data.images.decode.decode_gray`` could read.
        gray: what it made of it: mode ``L``, full size.
    """
    header = read_header(data)
    metadata = FileMetadata(header.format, header.mode, header.width, header.height, len(data))
    coloured = _share_coloured(data, header)
    fine, detail = (gray.resize((side, side), Image.Resampling.BILINEAR) for side in (_FINE, _DETAIL))
    parts = regions(fine)
    pixels = np.asarray(fine.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    numbers = {
        "border": _edges(pixels, ~parts.chest),
        "outside the body": [parts.outside.mean(), *_levels(pixels[parts.outside])],
        "marks": [coloured, parts.paper.mean(), *_strokes(np.asarray(fine), parts)],
        "body without the lungs": _levels(pixels[~parts.chest & ~parts.outside]),
        "coarse statistics": _coarse(np.asarray(detail)),
        "tiny pixels": np.asarray(detail.resize((_THUMB, _THUMB), Image.Resampling.BILINEAR)).ravel() / 255,
    }
    return Measurements(metadata, {view: np.asarray(values, dtype=np.float32) for view, values in numbers.items()})


def table(view: str, measurements: Sequence[Measurements]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return names of F numbers, and (N, F) of them, of what a view shows of N images."""
    if view == "file metadata":
        return file_metadata.table([one.metadata for one in measurements])
    names = VIEWS[view].names
    return names, np.array([one.numbers[view] for one in measurements]).reshape(len(measurements), len(names))


def _share_coloured(data: bytes, header: Header) -> float:
    """Return share of the pixels that are not gray; 0 for gray modes, whose pixels are not decoded."""
    if header.mode in {"1", "L", "LA"} or header.mode not in Image.MODES:
        return 0.0
    with as_pillow(data) as image:
        rgb = np.asarray(image.convert("RGB").resize((_FINE, _FINE), Image.Resampling.NEAREST))
    return float((rgb.max(axis=2) - rgb.min(axis=2) >= _COLOURED).mean())


def _levels(values: np.ndarray) -> list[float]:
    """``_LEVELS`` of (n,) grey levels; zeros where there are none."""
    if len(values) == 0:
        return [0.0] * len(_LEVELS)
    quantiles = np.percentile(values, _QUANTILES).tolist()
    return [values.mean(), values.std(), *quantiles, (values < 3).mean(), (values > 252).mean()]


def _edges(pixels: np.ndarray, seen: Mask) -> list[float]:
    numbers: list[float] = []
    for place in _EDGES.values():
        values = pixels[place][seen[place]]
        numbers += [values.mean(), values.std(), values.max()] if len(values) else [0.0, 0.0, 0.0]
    return numbers


def _strokes(fine: np.ndarray, parts: Regions) -> list[float]:
    """Return share of each quarter of the image that is thin, bright and outside the body (white top-hat)."""
    hat = fine - ndimage.grey_opening(fine, (_STROKE, _STROKE))
    outside = np.repeat(np.repeat(parts.outside & ~parts.paper, 2, axis=0), 2, axis=1)
    bright = (hat >= _BRIGHT) & outside
    return [bright[quarter].mean() for quarter in _QUARTERS.values()]


def strokes(gray: Image.Image) -> float:
    """Return share of an image, in percent, that is thin and bright outside the body, as letters and arrows are.

    Args:
        gray: mode ``L``, full size.
    """
    fine = gray.resize((_FINE, _FINE), Image.Resampling.BILINEAR)
    return 100 * float(np.mean(_strokes(np.asarray(fine), regions(fine))))


def _coarse(pixels: np.ndarray) -> list[float]:
    shares = np.bincount(pixels.ravel() // (256 // _BINS), minlength=_BINS) / pixels.size
    levels = np.bincount(pixels.ravel(), minlength=256) / pixels.size
    entropy = -(levels[levels > 0] * np.log2(levels[levels > 0])).sum()
    sharpness = ndimage.laplace(pixels.astype(np.int16)).std()
    return [*shares, pixels.mean(), pixels.std(), sharpness, entropy]
