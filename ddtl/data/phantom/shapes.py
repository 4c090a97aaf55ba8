"""Drawing with signed distances on a pixel raster that is measured in centimetres.

A shape is an array of approximate signed distances, positive inside, so that its edge can be drawn without stairs at
any pixel size. All arithmetic is element by element in float64: no result depends on the order of a sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Grid:
    """The pixel raster: ``size`` pixels over ``fov`` cm, the patient moved by ``shift`` cm, turned by ``angle`` rad."""

    size: int
    fov: float
    shift: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0

    @property
    def pitch(self) -> float:
        """The pixel's side in cm."""
        return self.fov / self.size

    @cached_property
    def _frame(self) -> tuple[Array, Array]:
        ticks = (np.arange(self.size, dtype=np.float64) + 0.5) * self.pitch - self.fov / 2
        x, y = ticks[None, :] - self.shift[0], ticks[:, None] - self.shift[1]
        c, s = np.cos(self.angle), np.sin(self.angle)
        return x * c + y * s, y * c - x * s

    @property
    def x(self) -> Array:
        """Patient coordinate of each pixel centre in cm, (size, size)."""
        return self._frame[0]

    @property
    def y(self) -> Array:
        """Patient coordinate of each pixel centre in cm, (size, size)."""
        return self._frame[1]

    def pixels(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Rows and columns, with fractions, of points given in patient coordinates."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        row = x * s + y * c + self.shift[1]
        col = x * c - y * s + self.shift[0]
        return (row + self.fov / 2) / self.pitch - 0.5, (col + self.fov / 2) / self.pitch - 0.5

    def discs(self, x: Array, y: Array, r: Array) -> Array:
        """How much of each pixel discs of radius ``r`` at (x, y) cover; the largest wins, whatever their order."""
        canvas = np.zeros(self.size * self.size)
        row, col = self.pixels(x, y)
        r = r / self.pitch
        small = r <= 1.0  # most of them; they need not pay for the patches of the few large ones
        for group in (small, ~small):
            self._stamp(canvas, row[group, None, None], col[group, None, None], r[group, None, None])
        return canvas.reshape(self.size, self.size)

    def _stamp(self, canvas: Array, row: Array, col: Array, r: Array) -> None:
        ticks = np.arange(-1 - int(np.ceil(r.max(initial=0.0))), 2 + int(np.ceil(r.max(initial=0.0))))
        rows = np.rint(row).astype(np.int64) + ticks[None, :, None]
        cols = np.rint(col).astype(np.int64) + ticks[None, None, :]
        cover = np.clip(r - np.sqrt((rows - row) ** 2 + (cols - col) ** 2) + 0.5, 0.0, 1.0)
        seen = (cover > 0) & (rows >= 0) & (rows < self.size) & (cols >= 0) & (cols < self.size)
        np.maximum.at(canvas, (rows * self.size + cols)[seen], cover[seen])

    def cover(self, distance: Array) -> Array:
        """How much of each pixel a shape covers, from its signed distance."""
        return np.clip(distance / self.pitch + 0.5, 0.0, 1.0)

    def noise(self, rng: Rng, scale: float) -> Array:
        """A smooth random field of unit variance whose grains are about ``scale`` cm wide."""
        field = ndimage.gaussian_filter(
            rng.standard_normal(self.x.shape), scale / self.pitch, mode="wrap", truncate=3.0
        )
        gain = 2.0 * np.sqrt(np.pi) * max(scale / self.pitch, 0.3)  # the filter's known loss, not a measured one
        return field * gain


def step(value: Array | float, low: float, high: float) -> Array:
    """Smooth step from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((np.asarray(value, dtype=np.float64) - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def both(first: Array, second: Array, radius: float) -> Array:
    """Intersection of two shapes with corners rounded to about ``radius`` cm."""
    h = np.maximum(radius - np.abs(first - second), 0.0) / radius
    return np.minimum(first, second) - h * h * radius / 4.0


def ellipse(g: Grid, centre: tuple[float, float], a: float, b: float, turn: float = 0.0) -> Array:
    """Ellipse with half axes ``a``, ``b``, turned clockwise on the image by ``turn`` radians."""
    x, y = g.x - centre[0], g.y - centre[1]
    if turn:
        c, s = np.cos(turn), np.sin(turn)
        x, y = x * c + y * s, y * c - x * s
    x, y = x * (1.0 / a), y * (1.0 / b)
    xx, yy = x * x, y * y
    unit = np.sqrt(xx + yy)
    slope = np.sqrt(xx * (1.0 / a**2) + yy * (1.0 / b**2))
    return unit * (1.0 - unit) / np.maximum(slope, 1e-9)


def oval(g: Grid, cy: float, a: float, b: float) -> Array:
    """An axis-parallel ellipse, but boxier (exponent 2.5)."""
    x, y = np.abs(g.x) / a, np.abs(g.y - cy) / b
    unit = np.maximum((x * x * np.sqrt(x) + y * y * np.sqrt(y)) ** 0.4, 1e-9)
    return (1.0 - unit) / unit * np.sqrt(g.x**2 + (g.y - cy) ** 2)


def capsule(
    g: Grid, start: tuple[float, float], end: tuple[float, float], radius: float, *, paired: bool = False
) -> Array:
    """A thick line with round ends; ``paired`` mirrors the one given on the right of the image to the left."""
    gx = np.abs(g.x) if paired else g.x
    dx, dy = end[0] - start[0], end[1] - start[1]
    x, y = gx - start[0], g.y - start[1]
    t = np.clip((x * dx + y * dy) / (dx * dx + dy * dy), 0.0, 1.0)
    return radius - np.sqrt((x - t * dx) ** 2 + (y - t * dy) ** 2)


def paint(hu: Array, cover: Array, value: Array | float) -> Array:
    """``hu`` with ``value`` laid over it where ``cover`` (0..1) says."""
    return hu + cover * (value - hu)
