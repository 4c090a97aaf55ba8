"""A hash that stays nearly the same when an image is saved again, smaller or in another format."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

SIDE = 16
BITS = SIDE * SIDE
NEAR = 20  # bits: images no farther apart are taken for the same one, see tools/build_index.py
_CHUNK = 1024  # hashes compared with all others at a time

# The eight orientations of an image (rotations are counter-clockwise): how pixels (height, width) are turned so.
_TURN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda pixels: pixels,
    "flip left-right": lambda pixels: pixels[:, ::-1],
    "flip top-bottom": lambda pixels: pixels[::-1],
    "rotate 180": lambda pixels: pixels[::-1, ::-1],
    "transpose": lambda pixels: pixels.T,
    "rotate 90": lambda pixels: pixels.T[::-1],
    "rotate 270": lambda pixels: pixels.T[:, ::-1],
    "transverse": lambda pixels: pixels.T[::-1, ::-1],
}
TRANSFORMS = tuple(_TURN)


def difference_hash(gray: Image.Image, box: tuple[float, float, float, float] | None = None) -> int:
    """The 256-bit difference hash of an image of mode ``L``, or of a box of it; the first bit is the highest.

    The image is resized to 17 x 16 pixels (width x height) with Pillow's bilinear filter, which averages over the
    whole area when it shrinks. Bit (y, x), row by row, says whether pixel (y, x + 1) is brighter than pixel (y, x).
    """
    pixels = np.asarray(gray.resize((SIDE + 1, SIDE), Image.Resampling.BILINEAR, box))
    return int.from_bytes(np.packbits(_brighter(pixels)).tobytes(), "big")


def orientation_hashes(gray: Image.Image) -> np.ndarray:
    """The difference hashes of an image in its eight orientations, each as that of the turned image would be.

    Returns:
        uint64 ``(8, 4)``, in the order of ``TRANSFORMS``; the first row is ``difference_hash``, its first bit the
        highest of the first word.
    """
    wide = np.asarray(gray.resize((SIDE + 1, SIDE), Image.Resampling.BILINEAR))
    tall = np.asarray(gray.resize((SIDE, SIDE + 1), Image.Resampling.BILINEAR))
    bits = [_brighter(turned(wide if i < 4 else tall, name)) for i, name in enumerate(TRANSFORMS)]
    return np.packbits(np.stack(bits).reshape(8, BITS), axis=1).view(">u8").astype(np.uint64)


def turned(pixels: np.ndarray, transform: str) -> np.ndarray:
    """Pixels ``(height, width)`` in another orientation, one of ``TRANSFORMS``."""
    return _TURN[transform](pixels)


def words(value: int) -> tuple[int, ...]:
    """A hash as four words of 64 bits, the highest first."""
    return tuple(value >> shift & (1 << 64) - 1 for shift in (192, 128, 64, 0))


def distance(one: int, other: int) -> int:
    """In how many of the 256 bits two hashes differ."""
    return (one ^ other).bit_count()


def distances(some: Sequence[int], others: Sequence[int]) -> np.ndarray:
    """(N, M) uint16: in how many bits each of some hashes differs from each of others."""
    one, other = _bits(some), _bits(others)
    # Exact: sums of at most 256 ones.
    return (one @ (1 - other).T + (1 - one) @ other.T).astype(np.uint16)


def near_any(some: Sequence[int], others: Sequence[int]) -> np.ndarray:
    """(N,) bool: whether some image of the others is the same as each of these, to within ``NEAR`` bits."""
    if not (some and others):
        return np.zeros(len(some), dtype=bool)
    chunks = [some[i : i + _CHUNK] for i in range(0, len(some), _CHUNK)]
    return np.concatenate([(distances(chunk, others) <= NEAR).any(axis=1) for chunk in chunks])


def _bits(hashes: Sequence[int]) -> np.ndarray:
    packed = np.array([list(value.to_bytes(BITS // 8, "big")) for value in hashes], dtype=np.uint8)
    return np.unpackbits(packed, axis=1).astype(np.float32)


def _brighter(pixels: np.ndarray) -> np.ndarray:
    """Whether each pixel's right neighbour is brighter than it."""
    return pixels[:, 1:] > pixels[:, :-1]
