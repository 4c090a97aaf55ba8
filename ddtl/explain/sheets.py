"""Heat maps as images: an image next to the same image under its map, and sheets of many.

Letters are drawn in the font that comes with matplotlib, which captum needs. What that font lacks, and whatever runs
from right to left or changes the direction, is written as an escape (``\\u80ba``): a name shows letter by letter and in
order, whatever it holds.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 200  # pixels of each half of a tile
PAGE_SIDE = 176
_COLUMNS = 3
_GAP = 16
_LINES = 3  # that a name may take
_STRONGEST = 0.65  # how much of the hottest place's colour is that of the map
_CLEAR = 0.2  # the share of a map's maximum up to which it is transparent
_BAR = 12  # height of the colour bar of a sheet
# Inferno (matplotlib), whose brightness rises evenly, at nine places from 0 to 1.
_STOPS = ("#000004", "#210c4a", "#57106e", "#8a226a", "#bc3754", "#e45a31", "#f98e09", "#f9cb35", "#fcffa4")
_INK, _MUTED = (27, 31, 36), (89, 99, 110)
_OUTLINE, _RING = (0, 255, 255), (255, 255, 255)


@dataclass(frozen=True)
class Tile:
    """One image on a sheet.

    Attributes:
        image: uint8 (S, S), as the network sees it.
        heat: (h, w), 0 and more; it is scaled to its own maximum.
        point: x and y of the hottest cell's middle, 0 to 1; None where there is no heat.
        lesion: bool (H, W); None where none is known.
        name: of the file.
        lines: what is below it.
    """

    image: np.ndarray
    heat: np.ndarray
    point: tuple[float, float] | None
    lesion: np.ndarray | None
    name: str
    lines: Sequence[str]


def pair(tile: Tile, side: int) -> Image.Image:
    """Return the image, and to its right the image under its map: (2 side, side) RGB."""
    gray = Image.fromarray(tile.image).resize((side, side), Image.Resampling.BICUBIC)
    both = Image.new("RGB", (2 * side, side))
    both.paste(gray, (0, 0))
    both.paste(_overlay_heat(np.asarray(gray, dtype=float), tile, side), (side, 0))
    return both


def webp(image: Image.Image) -> bytes:
    """Small, for a page."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80, method=6)
    return buffer.getvalue()


def sheet(title: str, about: str, tiles: Sequence[Tile]) -> Image.Image:
    """Return a contact sheet; its height is that of its contents."""
    rows = [tiles[i : i + _COLUMNS] for i in range(0, len(tiles), _COLUMNS)]
    texts = {id(tile): _below(tile) for tile in tiles}
    heights = [SIDE + _GAP + 16 * max(len(texts[id(tile)]) for tile in row) + _GAP for row in rows]
    width = _COLUMNS * (2 * SIDE + _GAP) + _GAP
    head = [line for text in (title, about) for line in _wrap(text, width - 2 * _GAP, most=4)]
    top = 2 * _GAP + 20 * len(head) + 2 * _BAR
    page = Image.new("RGB", (width, top + sum(heights)), "white")
    draw = ImageDraw.Draw(page)
    for i, line in enumerate(head):
        draw.text((_GAP, _GAP + 20 * i), line, _INK if i == 0 else _MUTED, font=_font(15 if i == 0 else 12))
    left = _GAP + round(_font(12).getlength("0, transparent")) + _GAP
    page.paste(_colour_bar(SIDE), (left, top - _GAP - _BAR))
    draw.text((_GAP, top - _GAP - _BAR - 1), "0, transparent", _MUTED, font=_font(12))
    draw.text((left + SIDE + _GAP, top - _GAP - _BAR - 1), "maximum of each map", _MUTED, font=_font(12))
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            x = _GAP + column * (2 * SIDE + _GAP)
            page.paste(pair(tile, SIDE), (x, top))
            for i, (line, ink) in enumerate(texts[id(tile)]):
                draw.text((x, top + SIDE + 6 + 16 * i), line, ink, font=_font(12))
        top += height
    return page


def printable(text: str) -> str:
    """``text`` with an escape for every character that would not show as itself, in its place."""
    known = _glyphs()
    return "".join(c if ord(c) in known and _plain(c) else c.encode("unicode_escape").decode() for c in text)


def _below(tile: Tile) -> list[tuple[str, tuple[int, int, int]]]:
    """Return the lines below a tile, each with its colour."""
    name = [(line, _INK) for line in _wrap(tile.name)]
    return name + [(part, _MUTED) for line in tile.lines for part in _wrap(line, most=2)]


def _plain(c: str) -> bool:
    return unicodedata.category(c)[0] not in "CM" and unicodedata.bidirectional(c) not in ("R", "AL", "AN")


def _wrap(text: str, width: int = 2 * SIDE, most: int = _LINES) -> list[str]:
    """Return the text in lines no wider than ``width``; of what takes more than ``most`` the middle is excluded."""
    font, text = _font(12), printable(text)
    per_line = max(1, int(width / max(font.getlength("m"), 1)))
    room = per_line * most
    if len(text) > room:
        text = f"{text[: room // 2 - 1]}…{text[-(room // 2 - 1) :]}"
    lines = [""]
    for c in text:
        if font.getlength(lines[-1] + c) > width:
            lines.append("")
        lines[-1] += c
    return lines


def _overlay_heat(gray: np.ndarray, tile: Tile, side: int) -> Image.Image:
    heat = tile.heat / tile.heat.max() if tile.heat.max() > 0 else tile.heat
    large = Image.fromarray(heat.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    strength = np.clip(np.asarray(large), 0, 1)
    image = Image.fromarray(_coloured(gray, strength))
    if tile.lesion is not None and tile.lesion.any():
        _outline(image, tile.lesion)
    if tile.point is not None:
        x, y, r = tile.point[0] * side, tile.point[1] * side, side / 40
        ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), outline=_RING, width=2)
    return image


def _outline(image: Image.Image, lesion: np.ndarray) -> None:
    from scipy.ndimage import binary_erosion

    mask = np.asarray(Image.fromarray(lesion.astype(np.uint8) * 255).resize(image.size, Image.Resampling.BILINEAR))
    edge = (mask > 127) & ~binary_erosion(mask > 127)
    image.paste(_OUTLINE, mask=Image.fromarray(edge.astype(np.uint8) * 255))


def colour(strength: float) -> str:
    """Return the colour of a share of a map's maximum, as ``#bc3754``."""
    return "#" + "".join(f"{round(float(part)):02x}" for part in _colours()[round(255 * strength)])


def opacity(strength: float | np.ndarray) -> Any:
    """Return how much of a place's colour is that of the map: nothing where the map is low."""
    return _STRONGEST * np.clip((np.asarray(strength) - _CLEAR) / (1 - _CLEAR), 0, 1)


def _coloured(gray: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Return grey values (H, W), 0 to 255, under a map (H, W) of 0 to 1: uint8 (H, W, 3)."""
    share = opacity(strength)[..., None]
    under: np.ndarray = (1 - share) * gray[..., None] + share * _colours()[(255 * strength).astype(int)]
    return under.astype(np.uint8)


def _colour_bar(width: int) -> Image.Image:
    """Return the colours of the maps from 0 to their maximum, as they are on a grey image."""
    strength = np.tile(np.linspace(0, 1, width), (_BAR, 1))
    return Image.fromarray(_coloured(np.full(strength.shape, 128.0), strength))


@cache
def _colours() -> np.ndarray:
    """Return (256, 3)."""
    stops = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in _STOPS], float)
    at = np.linspace(0, len(stops) - 1, 256)
    return np.stack([np.interp(at, np.arange(len(stops)), part) for part in stops.T], axis=1)


@cache
def _font(size: int) -> Any:
    return ImageFont.truetype(str(_font_file()), size, layout_engine=ImageFont.Layout.BASIC)


def _font_file() -> Path:
    import matplotlib as mpl

    return Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(_font_file())).get_charmap())
