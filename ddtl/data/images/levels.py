"""How stored values become 8-bit grey levels, and how many of those a CT slice has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

# Fewer grey levels than this, or a smaller distance from the darkest to the brightest, is what remains of values that
# were scaled wrongly. Of 3,227 published CT slices each has 165 levels or more, over a range of 166 or more.
MIN_LEVELS, MIN_RANGE = 32, 64


@dataclass(frozen=True, slots=True)
class Window:
    """How stored values become grey levels: Hounsfield units, of which a window is shown (``dataset.window``).

    Attributes:
        center, width: of the window, in Hounsfield units.
        slope, intercept: Hounsfield units are ``slope * value + intercept``.
    """

    center: float
    width: float
    slope: float
    intercept: float

    def grey_levels(self, values: np.ndarray) -> np.ndarray:
        """Grey levels of stored values: uint8, of the same shape, by DICOM's linear window (PS3.3 C.11.2.1.2)."""
        return windowed(self.slope * values.astype(np.float64) + self.intercept, self.center, self.width)

    def __str__(self) -> str:
        return f"{self.center!r},{self.width!r},{self.slope!r},{self.intercept!r}"


@dataclass(frozen=True, slots=True)
class CTWindow:
    """How a slice of a CT volume becomes grey levels: its file says what stored values are in Hounsfield units.

    Attributes:
        center, width: of the window, in Hounsfield units.
        extent: side in mm of the square around the slice's middle that is shown; None for the whole slice.
        number: of the slice in a file of several, from 0 at the feet; None where the file is one slice.
        others: center and width of two further windows, where the image has three channels. What makes one gray image
            of a slice takes the first alone.
    """

    center: float
    width: float
    extent: float | None = None
    number: int | None = None
    others: tuple[tuple[float, float], ...] = ()

    @property
    def all(self) -> tuple[tuple[float, float], ...]:
        """Center and width of each channel."""
        return (self.center, self.width), *self.others

    def __str__(self) -> str:
        others = "".join(f";{center!r},{width!r}" for center, width in self.others)
        extent = "" if self.extent is None else f",{self.extent!r} mm"
        number = "" if self.number is None else f",slice {self.number}"
        return f"HU {self.center!r},{self.width!r}{others}{extent}{number}"


def channels_of(window: Window | CTWindow | None) -> int:
    """Return how many channels an image has that is decoded through a window: 1 or 3."""
    return len(window.all) if isinstance(window, CTWindow) else 1


def windowed(hounsfield: np.ndarray, center: float, width: float) -> np.ndarray:
    """Hounsfield units through a window: uint8, 0 black, by DICOM's linear function (PS3.3 C.11.2.1.2)."""
    shares = (hounsfield - (center - 0.5)) / (width - 1) + 0.5
    levels: np.ndarray = np.rint(255 * shares.clip(0, 1)).astype(np.uint8)
    return levels


def grey_levels(gray: Image.Image) -> tuple[int, int]:
    """How many of the 256 grey levels an image has, and how far the brightest is from the darkest."""
    present = np.flatnonzero(gray.histogram())
    return len(present), int(present[-1] - present[0])


def has_few_levels(levels: int, spread: int) -> bool:
    """Whether the counts of :func:`grey_levels` are too small for a CT slice."""
    return levels < MIN_LEVELS or spread < MIN_RANGE
