"""A hash that stays nearly the same when a picture is saved again, smaller or in another format."""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE = 16
BITS = SIDE * SIDE


def difference_hash(gray: Image.Image) -> int:
    """The 256-bit difference hash of a picture of mode ``L``; the first bit is the highest.

    The picture is resized to 17 x 16 pixels (width x height) with Pillow's bilinear filter, which averages over the
    whole area when it shrinks. Bit (y, x), row by row, says whether pixel (y, x + 1) is brighter than pixel (y, x).
    """
    pixels = np.asarray(gray.resize((SIDE + 1, SIDE), Image.Resampling.BILINEAR))
    return int.from_bytes(np.packbits(pixels[:, 1:] > pixels[:, :-1]).tobytes(), "big")


def distance(one: int, other: int) -> int:
    """In how many of the 256 bits two hashes differ."""
    return (one ^ other).bit_count()
