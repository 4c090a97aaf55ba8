"""NIfTI volumes of CT (NIfTI-1 and -2, one file, plain or gzip): axial slices, oriented by the affine.

The header decides how much is read: a file of a few kilobytes that claims or unpacks to more is refused before its
values are. Format: https://nifti.nimh.nih.gov/nifti-1.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ddtl.data.images.bounds import MAX_PIXELS
from ddtl.data.images.dicom import cut_out, through
from ddtl.data.images.dicom_header import HeaderError
from ddtl.data.images.image_file import BadImageError, read_start
from ddtl.data.images.levels import CTWindow, windowed

START = 2048  # bytes of a file that contain its header, packed or not
MAX_VOLUME = 2**31  # bytes of unpacked values: 512 × 512 × 1,000 of 64 bits
MAX_SLICES = 100_000

_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 16  # bytes that are unpacked at a time
_MEMBERS = 100_000  # of a gzip file: those of bgzip have 64 KiB each
_FIRST = {False: 352, True: 544}  # the least offset of values in a file of NIfTI-1, and of NIfTI-2
_HEADER = 544  # bytes of the longer header
_AXIAL = 0.7  # as of DICOM slices: the least cosine between a slice's normal and the patient's long axis
_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # of an unknown unit, a metre, a millimetre, a micrometre


@dataclass(frozen=True)
class Volume:
    """The header of a volume, and how its axes are in the patient.

    Attributes:
        shape: voxels along the three axes of the file.
        type: of a stored value, as numpy writes it.
        offset: bytes before the values.
        slope, intercept: Hounsfield units are ``slope * value + intercept``.
        axes: which axes of the file go from right to left, from front to back, and from the feet to the head.
        flipped: for each of these three, whether the file's axis goes the other way.
        spacing: mm along each of these three.
        origin: where the lowest slice is along the patient, in mm.
    """

    shape: tuple[int, int, int]
    type: np.dtype
    offset: int
    slope: float
    intercept: float
    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    spacing: tuple[float, float, float]
    origin: float = 0.0

    @property
    def slices(self) -> int:
        """How many axial slices there are."""
        return self.shape[self.axes[2]]

    @property
    def rows(self) -> int:
        """Of a slice, from front to back."""
        return self.shape[self.axes[1]]

    @property
    def columns(self) -> int:
        """Of a slice, from the patient's right to left."""
        return self.shape[self.axes[0]]

    @property
    def end(self) -> int:
        """Bytes of the unpacked file up to its last value."""
        return self.offset + math.prod(self.shape) * self.type.itemsize

    def position(self, number: int) -> float:
        """Return where a slice is along the patient, in mm."""
        return self.origin + number * self.spacing[2]


def is_nifti(start: bytes) -> bool:
    """Return whether a file is NIfTI by its first ``START`` bytes."""
    return _order(_unpacked_start(start)) is not None


def _unpacked_start(start: bytes) -> bytes:
    if not start.startswith(_GZIP):
        return start
    try:
        return zlib.decompressobj(31).decompress(start, _HEADER)
    except zlib.error:
        return b""


def _order(header: bytes) -> tuple[str, bool] | None:
    """Byte order of a header, and whether it is of NIfTI-2; None where it is none."""
    for order in "<>":
        if len(header) >= 348 and struct.unpack_from(f"{order}i", header)[0] == 348:
            return (order, False) if header[344:347] in (b"n+1", b"ni1") else None
        if len(header) >= 540 and struct.unpack_from(f"{order}i", header)[0] == 540:
            return (order, True) if header[4:7] in (b"n+2", b"ni2") else None
    return None


def read_header(path: Path) -> Volume:
    """Return a file's header.

    Raises:
        BadImageError: it is none, or of a volume that is not read.
    """
    return parse(read_start(path, START), path)


def parse(start: bytes, path: Path) -> Volume:
    """Return the header in a file's first ``START`` bytes; raises as :func:`read_header` does."""
    try:
        return _parse(_unpacked_start(start))
    except HeaderError as error:
        raise BadImageError(path, error.reason) from None


def _parse(header: bytes) -> Volume:
    found = _order(header)
    if found is None:
        raise HeaderError("is not a NIfTI volume (.nii or .nii.gz)")
    order, second = found
    if header[4:7] == b"ni2" or (not second and header[344:347] == b"ni1"):
        raise HeaderError("has its values in another file (.img): save it as one file, .nii or .nii.gz")
    kind, dims = struct.unpack_from(f"{order}h", header, 12 if second else 70)[0], _dimensions(header, order, second)
    if kind not in _TYPES:
        raise HeaderError(f"stores values of NIfTI type {kind}, which are not read: save it as 16-bit integers")
    if second:
        offset = struct.unpack_from(f"{order}q", header, 168)[0]
        slope, intercept = struct.unpack_from(f"{order}2d", header, 176)
    else:
        offset, slope, intercept = struct.unpack_from(f"{order}3f", header, 108)
    if not math.isfinite(offset) or offset != int(offset) or not 0 <= offset <= 2**31:
        raise HeaderError("has a damaged header: vox_offset")
    if offset < _FIRST[second]:
        raise HeaderError(f"has a damaged header: vox_offset is {offset:.0f}, and values begin at {_FIRST[second]}")
    if not math.isfinite(slope) or slope == 0:  # not scaled
        slope, intercept = 1.0, 0.0
    if not math.isfinite(intercept) or max(abs(slope), abs(intercept)) > 1e9:
        raise HeaderError("has a damaged header: scl_slope and scl_inter make no Hounsfield units")
    affine = _affine(header, order, second)
    axes, flipped, spacing = _orientation(affine)
    low = [0.0, 0.0, 0.0]
    low[axes[2]] = dims[axes[2]] - 1 if flipped[2] else 0
    origin = float(affine[2, :3] @ np.array(low) + affine[2, 3])
    numbers = np.dtype(f"{order}{_TYPES[kind]}")
    volume = Volume(
        dims, numbers, int(offset), float(slope), float(intercept), axes, flipped, spacing,
        origin,
    )  # fmt: skip
    if volume.end > MAX_VOLUME:
        raise HeaderError(f"is too large: {volume.end / 1e9:.1f} GB, over the limit of {MAX_VOLUME / 1e9:.1f}")
    if volume.rows * volume.columns > MAX_PIXELS or volume.slices > MAX_SLICES:
        raise HeaderError(f"is too large: {' × '.join(map(str, dims))} voxels")
    return volume


def _dimensions(header: bytes, order: str, second: bool) -> tuple[int, int, int]:
    n, *sides = struct.unpack_from(f"{order}8{'q' if second else 'h'}", header, 16 if second else 40)
    if not 1 <= n <= 7:
        raise HeaderError("has a damaged header: dim")
    sides = [side if number < n else 1 for number, side in enumerate(sides)]
    if any(side < 1 for side in sides):
        raise HeaderError("has a damaged header: dim")
    if any(side > 1 for side in sides[3:]):
        raise HeaderError("contains several volumes: save each as a file of its own")
    return sides[0], sides[1], sides[2]


def _affine(header: bytes, order: str, second: bool) -> np.ndarray:
    """From voxels to mm to the right, to the front and to the head, (3, 4): the sform, else the qform."""
    real = "d" if second else "f"
    at = (104, 344, 348, 352, 376, 400, 500) if second else (76, 252, 254, 256, 268, 280, 123)
    codes = "i" if second else "h"
    pixdim = struct.unpack_from(f"{order}8{real}", header, at[0])
    qform, sform = (struct.unpack_from(f"{order}{codes}", header, place)[0] for place in at[1:3])
    unit = struct.unpack_from(f"{order}i", header, at[6])[0] if second else header[at[6]]
    if sform > 0:
        affine = np.array(struct.unpack_from(f"{order}12{real}", header, at[5]), dtype=float).reshape(3, 4)
    elif qform > 0:
        b, c, d = struct.unpack_from(f"{order}3{real}", header, at[3])
        affine = np.column_stack(
            [_rotation(b, c, d) * (*pixdim[1:3], pixdim[3] * (-1 if pixdim[0] < 0 else 1)),
             struct.unpack_from(f"{order}3{real}", header, at[4])]
        )  # fmt: skip
    else:
        raise HeaderError("does not say how it is oriented (neither sform nor qform)")
    mm = _MILLIMETRES.get(unit & 7)
    if mm is None or not np.isfinite(affine).all() or np.abs(affine).max() > 1e6:
        raise HeaderError("has a damaged header: its affine")
    return affine * mm


def _rotation(b: float, c: float, d: float) -> np.ndarray:
    """The rotation of a unit quaternion, of which a >= 0 follows from the others, (3, 3)."""
    rest = 1 - (b * b + c * c + d * d)
    if not rest > -1e-5:  # or no number
        raise HeaderError("has a damaged header: its qform is not a rotation")
    a = math.sqrt(max(0.0, rest))
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )


def _orientation(
    affine: np.ndarray,
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool], tuple[float, float, float]]:
    """Axes, flips and spacings as :class:`Volume` has them."""
    steps = np.linalg.norm(affine[:, :3], axis=0)
    if not (steps > 1e-6).all():
        raise HeaderError("has a damaged header: its affine has no size")
    cosines = affine[:, :3] / steps
    nearest = np.abs(cosines).argmax(axis=0).tolist()
    if sorted(nearest) != [0, 1, 2] or np.abs(cosines).max(axis=0).min() < _AXIAL:
        raise HeaderError("has slices that are not axial: its affine is turned by 45 degrees or more")
    x, y, z = (nearest.index(axis) for axis in range(3))
    # Of NIfTI's axes the first two go to the right and to the front, of an image to the left and to the back.
    flipped = (bool(cosines[0, x] > 0), bool(cosines[1, y] > 0), bool(cosines[2, z] < 0))
    return (x, y, z), flipped, (float(steps[x]), float(steps[y]), float(steps[z]))


def unpack(data: bytes, path: Path) -> tuple[Volume, np.ndarray]:
    """Return a whole volume: its header, and stored values as (slices, rows, columns), a view from the feet up.

    Raises:
        BadImageError: it is none, is cut off, or unpacks to more than its header says.
    """
    volume = parse(data[:START], path)
    if data.startswith(_GZIP):
        data = _gunzip(data, volume.end, path)
    if len(data) < volume.end:
        raise BadImageError(path, f"is cut off: it has {len(data):,} of {volume.end:,} bytes")
    count = math.prod(volume.shape)
    flat = np.frombuffer(data, volume.type, count, volume.offset)
    values = flat.reshape(volume.shape, order="F").transpose(volume.axes[::-1])
    z, y, x = (slice(None, None, -1) if flip else slice(None) for flip in volume.flipped[::-1])
    return volume, values[z, y, x]


def _gunzip(data: bytes, wanted: int, path: Path) -> bytes:
    """Unpack so many bytes, to the end of the file: only there is the sum by which damage is found.

    A gzip file may have several members, as those of bgzip. It is read in chunks, for each member costs a copy of what
    is behind it in its chunk.
    """
    parts: list[bytes] = []
    total, at, members = 0, 0, 0
    packed, is_within = zlib.decompressobj(31), False
    try:
        while at < len(data):
            chunk = data[at : at + _CHUNK]
            at += len(chunk)
            if not is_within:
                chunk = chunk.lstrip(b"\0")  # padding between members
            while chunk and not packed.eof:
                is_within = True
                parts.append(packed.decompress(chunk, max(1, wanted - total)))
                total += len(parts[-1])
                if total > wanted:
                    raise BadImageError(path, f"unpacks to more than the {wanted:,} bytes of its header: it is damaged")
                chunk = packed.unconsumed_tail
            if packed.eof:
                at -= len(packed.unused_data)
                packed, is_within, members = zlib.decompressobj(31), False, members + 1
                if members > _MEMBERS:
                    raise BadImageError(path, f"has more than {_MEMBERS:,} gzip members: pack it again as one")
    except zlib.error as error:
        raise BadImageError(path, f"is damaged: {error}") from None
    if is_within and total == wanted:
        raise BadImageError(path, "is cut off: the check sum at its end is missing")
    return b"".join(parts)


def gray_levels(volume: Volume, values: np.ndarray, window: CTWindow, path: Path) -> Image.Image:
    """Return a slice in 8-bit gray (mode ``L``).

    Args:
        volume: its header.
        values: as :func:`unpack` returns them.
        window: which slice, and in which window.
        path: names the file in errors.

    Raises:
        BadImageError: there is no such slice, or its values are infinite or NaN.
    """
    number = window.number or 0
    if number >= volume.slices:
        raise BadImageError(path, f"has {volume.slices} slices, and none of the number {number + 1}")
    stored = np.ascontiguousarray(values[number])
    if volume.type.kind == "f":
        if not np.isfinite(stored).all():
            raise BadImageError(path, f"contains values that are infinite or no number, in slice {number + 1}")
        gray = windowed(volume.slope * stored.astype(np.float64) + volume.intercept, window.center, window.width)
    else:
        if stored.dtype.itemsize == 8 and (np.abs(stored) > 2**53).any():
            raise BadImageError(path, "contains integers that are too large for Hounsfield units")
        gray = through(stored.astype(np.int64), volume.slope, volume.intercept, window.center, window.width)
    image = Image.fromarray(gray)
    if window.extent is None:
        return image
    try:
        return cut_out(image, (volume.spacing[1], volume.spacing[0]), window.extent)
    except HeaderError as error:
        raise BadImageError(path, error.reason) from None
