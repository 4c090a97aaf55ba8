"""CT volumes as NIfTI files, for tests: one volume with any affine, of any type, in either version and byte order."""

from __future__ import annotations

import gzip
import itertools
import struct
from pathlib import Path

import numpy as np

AXES = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]  # fmt: skip


def turned(
    units: np.ndarray,
    order: tuple[int, ...],
    signs: tuple[int, ...],
    spacing: tuple[float, float, float] = (0.7, 0.7, 5.0),
) -> tuple[np.ndarray, np.ndarray]:
    """A volume's voxels with axes in another order and direction, and the affine that says so, (4, 4).

    Args:
        units: Hounsfield units, (slices from the feet, rows to the back, columns to the patient's left).
        order: which of NIfTI's right, front and head each axis of the file goes along.
        signs: 1 where it goes that way, -1 against it.
        spacing: mm to the right, to the front and to the head.
    """
    # To the right, to the front, to the head.
    voxels = units.transpose(2, 1, 0)[::-1, ::-1, :]
    affine = np.eye(4)
    affine[:3, :3] = 0
    affine[:3, 3] = 0
    result = voxels.transpose(order)
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * spacing[world]
        if sign < 0:
            result = np.flip(result, axis)
            affine[world, 3] = spacing[world] * (voxels.shape[world] - 1)
    return result, affine


_CODES = {"uint8": 2, "int16": 4, "int32": 8, "float32": 16, "float64": 64, "int8": 256, "uint16": 512, "uint32": 768}


def content(
    voxels: np.ndarray, affine: np.ndarray | None, *, order: str = "<", slope: float = 1.0, intercept: float = 0.0,
    version: int = 1, qform: tuple[float, ...] | None = None, pixdim: tuple[float, ...] = (1,) * 8, units: int = 2,
) -> bytes:  # fmt: skip
    """The bytes of a file; ``qform``: quaternion b, c, d and offset x, y, z."""
    dim = [voxels.ndim, *voxels.shape, *[1] * (7 - voxels.ndim)]
    code = _CODES[voxels.dtype.name]
    header = bytearray(544 if version == 2 else 352)
    rows = [] if affine is None else np.asarray(affine)[:3].ravel().tolist()
    if version == 2:
        struct.pack_into(f"{order}i", header, 0, 540)
        header[4:12] = b"n+2\0\r\n\x1a\n"
        struct.pack_into(f"{order}hh8q", header, 12, code, 8 * voxels.dtype.itemsize, *dim)
        struct.pack_into(f"{order}8d", header, 104, *pixdim)
        struct.pack_into(f"{order}qdd", header, 168, 544, slope, intercept)
        struct.pack_into(f"{order}ii", header, 344, int(qform is not None), int(affine is not None))
        struct.pack_into(f"{order}6d", header, 352, *(qform or (0,) * 6))
        if rows:
            struct.pack_into(f"{order}12d", header, 400, *rows)
        struct.pack_into(f"{order}i", header, 500, units)
    else:
        struct.pack_into(f"{order}i", header, 0, 348)
        struct.pack_into(f"{order}8h", header, 40, *dim)
        struct.pack_into(f"{order}hh", header, 70, code, 8 * voxels.dtype.itemsize)
        struct.pack_into(f"{order}8f", header, 76, *pixdim)
        struct.pack_into(f"{order}3f", header, 108, 352, slope, intercept)
        header[123] = units
        struct.pack_into(f"{order}hh", header, 252, int(qform is not None), int(affine is not None))
        struct.pack_into(f"{order}6f", header, 256, *(qform or (0,) * 6))
        if rows:
            struct.pack_into(f"{order}12f", header, 280, *rows)
        header[344:348] = b"n+1\0"
    return bytes(header) + voxels.astype(voxels.dtype.newbyteorder(order)).tobytes(order="F")


def write(
    path: Path, units: np.ndarray, order: tuple[int, ...] = (0, 1, 2), signs: tuple[int, ...] = (1, 1, 1)
) -> Path:
    """Write Hounsfield units, (slices, rows, columns), as 16-bit integers; packed where the name ends in ``.gz``."""
    voxels, affine = turned(units.astype(np.int16), order, signs)
    data = content(np.ascontiguousarray(voxels), affine)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path
