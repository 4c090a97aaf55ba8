"""A hash that stays nearly the same when a picture is saved again, smaller or in another format."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

SIDE = 16
BITS = SIDE * SIDE
NEAR = 20  # bits: pictures no farther apart are taken for the same one, see tools/build_index.py
_CHUNK = 1024  # hashes compared with all others at a time


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


def distances(some: Sequence[int], others: Sequence[int]) -> np.ndarray:
    """(N, M) uint16: in how many bits each of some hashes differs from each of others."""
    one, other = _bits(some), _bits(others)
    # Exact: sums of at most 256 ones.
    return (one @ (1 - other).T + (1 - one) @ other.T).astype(np.uint16)


def near_any(some: Sequence[int], others: Sequence[int]) -> np.ndarray:
    """(N,) bool: whether some picture of the others is the same as each of these, to within ``NEAR`` bits."""
    if not (some and others):
        return np.zeros(len(some), dtype=bool)
    chunks = [some[i : i + _CHUNK] for i in range(0, len(some), _CHUNK)]
    return np.concatenate([(distances(chunk, others) <= NEAR).any(axis=1) for chunk in chunks])


def _bits(hashes: Sequence[int]) -> np.ndarray:
    packed = np.array([list(value.to_bytes(BITS // 8, "big")) for value in hashes], dtype=np.uint8)
    return np.unpackbits(packed, axis=1).astype(np.float32)
