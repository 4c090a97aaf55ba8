"""What is laid over the phantom's images: the scanner's text, a planted mark, and a change of grey levels.

Text and mark are drawn with a font and a bitmap of our own on a canvas of 128 pixels a side, which is then brought to
the image's size: they take the same share of an image of any size. All arithmetic is in integers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # first column and row, and the column and row after the last

CANVAS = 128
WHITE = 255
GLYPH = (5, 7)  # width and height; a pixel's gap is between two

# Rows from the top; in each row the highest of five bits is the leftmost pixel.
FONT: dict[str, tuple[int, ...]] = {
    "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 2, 4, 8, 31),
    "3": (31, 2, 4, 2, 1, 17, 14),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "5": (31, 16, 30, 1, 1, 17, 14),
    "6": (6, 8, 16, 30, 17, 17, 14),
    "7": (31, 1, 2, 4, 8, 8, 8),
    "8": (14, 17, 17, 14, 17, 17, 14),
    "9": (14, 17, 17, 15, 1, 2, 12),
    "A": (14, 17, 17, 31, 17, 17, 17),
    "B": (30, 17, 17, 30, 17, 17, 30),
    "C": (14, 17, 16, 16, 16, 17, 14),
    "E": (31, 16, 16, 30, 16, 16, 31),
    "I": (14, 4, 4, 4, 4, 4, 14),
    "K": (17, 18, 20, 24, 20, 18, 17),
    "L": (16, 16, 16, 16, 16, 16, 31),
    "M": (17, 27, 21, 21, 17, 17, 17),
    "R": (30, 17, 17, 30, 20, 18, 17),
    "S": (15, 16, 16, 14, 1, 1, 30),
    "T": (31, 4, 4, 4, 4, 4, 4),
    "V": (17, 17, 17, 17, 17, 10, 4),
}

# An arrow of the kind that authors draw into the figures of their papers; it points at the chest.
MARK_AT = (4, 4)
MARK = (
    "##.........",
    "####.......",
    ".####......",
    "..####.....",
    "...####...#",
    "....####.##",
    ".....######",
    "......#####",
    ".....######",
    "....#######",
    "...########",
)

# Where lines of text start (column, row) and how many characters they contain at most: all outside the round field of
# view, in the corners that the mark leaves free.
LINES: dict[str, tuple[int, int, int]] = {
    "right": (3, 19, 1),
    "left": (120, 19, 1),
    "image": (97, 2, 5),
    "series": (109, 10, 3),
    "site": (2, 111, 3),
    "voltage": (2, 119, 5),
    "thickness": (109, 111, 3),
    "current": (97, 119, 5),
}


@dataclass(frozen=True)
class Annotation:
    """What the scanner writes into all slices of a patient.

    Attributes:
        series: number of the series, one digit.
        voltage, current: of the tube, in kV and mA.
        thickness: of a slice in mm, one digit.
    """

    series: int
    voltage: int
    current: int
    thickness: int

    def lines(self, site: str, height: float) -> dict[str, str]:
        """The text by its place in ``LINES``; ``height`` is how far below the lung's apex the slice is, in cm."""
        return {
            "right": "R",
            "left": "L",
            "image": f"IM{1 + round(10 * height / self.thickness)}",
            "series": f"SE{self.series}",
            "site": f"CT{site.upper()}",
            "voltage": f"{self.voltage}KV",
            "thickness": f"{self.thickness}MM",
            "current": f"{self.current}MA",
        }


def draw_annotation(rng: np.random.Generator) -> Annotation:
    """Random settings of a scan; they know nothing of the patient."""
    return Annotation(
        series=int(rng.integers(2, 10)),
        voltage=int(rng.choice([80, 100, 120, 140])),
        current=int(rng.integers(40, 261)),
        thickness=int(rng.choice([2, 3, 5])),
    )


def burn_in(pixels: Pixels, lines: dict[str, str]) -> Pixels:
    """The image with text in its corners, flush with its sides."""
    canvas = np.zeros((CANVAS, CANVAS), dtype=np.int64)
    for place, text in lines.items():
        column, row, room = LINES[place]
        assert len(text) <= room, (place, text)
        if column > CANVAS // 2:
            column += (room - len(text)) * (GLYPH[0] + 1)
        for character in text:
            canvas[row : row + GLYPH[1], column : column + GLYPH[0]] = _glyph(character)
            column += GLYPH[0] + 1
    return _lay_over(pixels, canvas)


def text_boxes(size: int) -> tuple[Box, ...]:
    """Where text may be in an image of ``size`` pixels a side; no other pixel is touched by it."""
    width, height = GLYPH
    return tuple(
        _scaled((column, row, column + room * (width + 1) - 1, row + height), size)
        for column, row, room in LINES.values()
    )


def draw_mark(pixels: Pixels) -> Pixels:
    """The image with the planted mark."""
    canvas = np.zeros((CANVAS, CANVAS), dtype=np.int64)
    column, row = MARK_AT
    canvas[row : row + len(MARK), column : column + len(MARK[0])] = [[dot == "#" for dot in line] for line in MARK]
    return _lay_over(pixels, canvas)


def mark_box(size: int) -> Box:
    """Where the planted mark is in an image of ``size`` pixels a side; no other pixel is touched by it."""
    column, row = MARK_AT
    return _scaled((column, row, column + len(MARK[0]), row + len(MARK)), size)


def grey_map() -> Pixels:
    """The gap of grey levels alone: uint8 (256,), the level at site b of each level at site a; monotone.

    A pale print: black becomes dark grey, white light grey, and the dark half brightens. A gamma alone would not do, as
    models get used to one by their augmentation.
    """
    levels = np.arange(256) / 255.0
    return np.rint(255.0 * (0.25 + 0.5 * levels**0.6)).astype(np.uint8)


def _glyph(character: str) -> NDArray[np.int64]:
    bits = np.arange(GLYPH[0] - 1, -1, -1)
    return (np.array(FONT[character])[:, None] >> bits) & 1


def _lay_over(pixels: Pixels, canvas: NDArray[np.int64]) -> Pixels:
    """White over the image where the canvas contains ones, by the share of each pixel that they cover."""
    size = len(pixels)
    cover = _resized(_resized(canvas, size).T, size).T
    whole = CANVAS * CANVAS
    return ((pixels * (whole - cover) + WHITE * cover + whole // 2) // whole).astype(np.uint8)


def _resized(canvas: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The columns brought to ``size`` of them by area; a full cell comes out as ``CANVAS``."""
    up_to = np.pad(np.cumsum(canvas, axis=1), ((0, 0), (1, 0)))
    cell, part = np.divmod(np.arange(size + 1) * CANVAS, size)
    edges = up_to[:, cell] * size + np.pad(canvas, ((0, 0), (0, 1)))[:, cell] * part
    return np.diff(edges, axis=1)


def _scaled(box: Iterable[int], size: int) -> Box:
    x0, y0, x1, y1 = box
    return (
        x0 * size // CANVAS,
        y0 * size // CANVAS,
        math.ceil(x1 * size / CANVAS),
        math.ceil(y1 * size / CANVAS),
    )
