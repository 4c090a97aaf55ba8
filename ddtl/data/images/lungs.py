"""Where the lungs are in a chest CT image, by thresholding and morphology: no network, so nothing was trained.

The mask serves to leave the lungs out, so it errs on the large side: lesions are bright and not seen as lung, but most
are within the convex hull of what is seen and of its mirror image. A lesion along the back of both lungs may be
outside it, so what is next to the lungs can still carry disease.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Mask = NDArray[np.bool_]

SIDE = 128  # of the masks, in pixels; the image is squashed to it

_SMALLEST_BODY = 0.01  # share of the image: smaller bright parts are text or the table
_SMALLEST_LUNG = 0.004  # smaller dark parts are not lung
_DARKER = 8  # grey levels by which the air around the body is darker than the lungs, at least
_VESSELS = 8  # standard deviation of the grey levels of a lung, at least; air has noise alone
_RIM = 3  # pixels around the lungs that are excluded with them
_WHITE = 240  # grey level of paper, around an image in a figure

_CROSS = ndimage.generate_binary_structure(2, 1)
_SQUARE = ndimage.generate_binary_structure(2, 2)


@dataclass(frozen=True)
class Regions:
    """Parts of an image; masks are (SIDE, SIDE).

    Attributes:
        lungs: the aerated lungs.
        chest: the convex hull of both lungs and a rim: nearly all that disease of the lungs can change. Empty where
            no lung was found.
        outside: what is neither body nor chest: the air around the patient, and what is written there.
        paper: the white ground of a figure, at the image's sides.
    """

    lungs: Mask
    chest: Mask
    outside: Mask
    paper: Mask


def regions(gray: Image.Image) -> Regions:
    """The parts of an image of mode ``L``, of any size and window."""
    pixels = np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    smooth = ndimage.uniform_filter(pixels, 3)
    paper = _paper(pixels)
    lit = (smooth > otsu(smooth[~paper])) & ~paper if not paper.all() else np.zeros_like(paper)
    body = _large_parts(ndimage.binary_opening(lit, _SQUARE), _SMALLEST_BODY)
    outline = hull(body)
    dark = ~lit & ~paper
    inner = ndimage.binary_erosion(outline, _SQUARE, 2, border_value=1)
    lungs = _large_parts(ndimage.binary_opening(dark & inner, _CROSS), _SMALLEST_LUNG)
    lungs = lungs | _cut_off(dark & ~inner, pixels, lungs)
    chest = ndimage.binary_dilation(hull(lungs | _mirrored(lungs, outline)), _CROSS, _RIM) if lungs.any() else lungs
    around = ndimage.binary_dilation(ndimage.binary_fill_holes(body | chest), _SQUARE, 2)
    return Regions(lungs, chest, ~around, paper)


def otsu(values: np.ndarray) -> int:
    """The grey level that best parts (N,) uint8 values in two: those above it and the others.

    It makes the variance between the two parts largest. Otsu (1979), IEEE Trans Syst Man Cybern 9:62.
    """
    share = np.bincount(values.ravel(), minlength=256) / max(1, values.size)
    below, moment = np.cumsum(share), np.cumsum(share * np.arange(256))
    spread = below * (1 - below)
    between = np.divide((moment[-1] * below - moment) ** 2, spread, out=np.zeros(256), where=spread > 1e-12)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))  # all levels of a gap are equally good
    return int(best[len(best) // 2])


def hull(mask: Mask) -> Mask:
    """The pixels whose centres are within the convex hull of those of ``mask``."""
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return mask
    first, last = mask.argmax(axis=1)[rows], mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)[rows]
    left, right = _chain(rows, first), _chain(rows, -last)
    within = np.arange(rows[0], rows[-1] + 1)
    low, high = np.interp(within, *left), -np.interp(within, *right)
    columns = np.arange(mask.shape[1])
    result = np.zeros_like(mask)
    result[within] = (columns >= low[:, None] - 1e-9) & (columns <= high[:, None] + 1e-9)
    return result


def _chain(rows: np.ndarray, values: np.ndarray) -> tuple[list[int], list[int]]:
    """The lower convex chain of points with rising ``rows`` (Andrew 1979, Inf Process Lett 9:216)."""
    chain: list[tuple[int, int]] = []
    for point in zip(rows.tolist(), values.tolist(), strict=True):
        while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
            chain.pop()
        chain.append(point)
    return [row for row, _ in chain], [value for _, value in chain]


def _turn(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> int:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _paper(pixels: np.ndarray) -> Mask:
    """The white ground of a figure: white parts that fill whole rows or columns at the image's sides."""
    white = pixels >= _WHITE
    mask = np.zeros_like(white)
    for turned, out in ((white, mask), (white[::-1], mask[::-1]), (white.T, mask.T), (white.T[::-1], mask.T[::-1])):
        whole = turned.mean(axis=1) > 0.97
        out[: len(whole) if whole.all() else int(whole.argmin())] = True
    return mask


def _large_parts(mask: Mask, least: float) -> Mask:
    """The connected parts that fill at least this share of the image."""
    parts, _ = ndimage.label(mask)
    kept = np.bincount(parts.ravel()) >= least * mask.size
    kept[0] = False
    return np.asarray(kept[parts])


def _cut_off(dark: Mask, pixels: np.ndarray, lungs: Mask) -> Mask:
    """Lungs that the image's side cuts, so that no body closes around them: as bright as a lung, and with vessels."""
    floor = np.median(pixels[lungs]) - _DARKER if lungs.any() else 0.0
    result = np.zeros_like(dark)
    parts, count = ndimage.label(_large_parts(ndimage.binary_opening(dark, _SQUARE), _SMALLEST_LUNG))
    for part in range(1, count + 1):
        values = pixels[parts == part]
        if np.median(values) > floor and values.std() > _VESSELS:
            result |= parts == part
    return result


def _mirrored(lungs: Mask, outline: Mask) -> Mask:
    """The lungs turned over at the middle of the body: where a lung is full of lesions, its place is the other's."""
    columns = np.flatnonzero(outline.any(axis=0))
    shift = int(columns[0] + columns[-1]) - (SIDE - 1) if len(columns) else 0
    turned = np.zeros_like(lungs)
    if shift >= 0:
        turned[:, shift:] = lungs[:, ::-1][:, : SIDE - shift]
    else:
        turned[:, :shift] = lungs[:, ::-1][:, -shift:]
    return turned
