"""The stored values of a DICOM image: integers from native or compressed pixels, and which of them are padding."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.encaps import generate_fragments

from ddtl.data.images.dicom_header import COMPRESSED, RLE, File, HeaderError, integer, required, syntax_name
from ddtl.data.images.pixel_decoder import decoder

_ITEM = b"\xfe\xff\x00\xe0"  # the tag that begins compressed pixels
_DAMAGED = "is cut off or damaged: {}"
_MAX_FRAGMENTS = 10_000  # of one image: most writers make one, some a part of 64 KB each


@dataclass(frozen=True)
class Layout:
    """How a header says that pixels are stored.

    Attributes:
        rows: of the image.
        columns: of the image.
        allocated: bits of a pixel in the file.
        stored: bits of its value.
        high: the value's highest bit.
        signed: whether values are signed.
    """

    rows: int
    columns: int
    allocated: int
    stored: int
    high: int
    signed: bool

    @property
    def size(self) -> int:
        """Bytes of the uncompressed image."""
        return self.rows * self.columns * self.allocated // 8

    @classmethod
    def of(cls, ds: Any) -> Layout:
        """Return the layout.

        Raises:
            HeaderError: elements are absent or contradict each other.
        """
        allocated, stored = required(ds, "BitsAllocated"), required(ds, "BitsStored")
        high, signed = integer(ds, "HighBit"), required(ds, "PixelRepresentation")
        high = stored - 1 if high is None else high
        if allocated not in {8, 16, 32}:
            raise HeaderError(f"has BitsAllocated {allocated}; 8, 16 and 32 are read")
        if not 1 <= stored <= allocated:
            raise HeaderError(f"has a wrong header: BitsStored {stored} with BitsAllocated {allocated}")
        if not stored - 1 <= high < allocated:
            raise HeaderError(
                f"has a wrong header: HighBit {high} with BitsStored {stored} and BitsAllocated {allocated}"
            )
        if signed not in {0, 1}:
            raise HeaderError(f"has a wrong header: PixelRepresentation {signed} is neither 0 nor 1")
        return cls(required(ds, "Rows"), required(ds, "Columns"), allocated, stored, high, bool(signed))


@dataclass(frozen=True)
class Stored:
    """Pixels as stored values.

    Attributes:
        values: signed integers, (rows, columns).
        padding: bool, (rows, columns): what is not a measurement.
        layout: of the file.
        notes: what had to be guessed, as predicates.
    """

    values: np.ndarray
    padding: np.ndarray
    layout: Layout
    notes: tuple[str, ...] = ()


def read(file: File) -> Stored:
    """Return the pixels of a file.

    Raises:
        HeaderError: they cannot be read.
    """
    ds = file.dataset
    layout = Layout.of(ds)
    for keyword in ("FloatPixelData", "DoubleFloatPixelData"):
        if keyword in ds:
            raise HeaderError(f"contains {keyword}, which is not read: save it with whole numbers in PixelData")
    if "PixelData" not in ds:
        raise HeaderError("contains no PixelData: it is cut off, or its pixels are in another file")
    element = ds["PixelData"]
    data = bytes(element.value or b"")
    encapsulated = bool(element.is_undefined_length) or (
        data.startswith(_ITEM) and (file.syntax in COMPRESSED or len(data) != layout.size)
    )
    notes: tuple[str, ...] = ()
    if encapsulated:
        words, notes = _compressed(data, file.syntax, layout)
    elif file.syntax in COMPRESSED:
        raise HeaderError(
            f"says that it is compressed ({syntax_name(file.syntax)}), and its pixels are not. Correct its "
            "TransferSyntaxUID"
        )
    else:
        words = _native(data, layout, file.little, element.VR)
    values = _values(words, layout)
    padding = _padding(ds, words, values, layout)
    tags = ds.keys()
    has_overlays = any(tag.group >> 8 == 0x60 for tag in tags)
    if not has_overlays and (extra := _bits_above(words[~padding], layout)):
        notes += (extra,)
    return Stored(values, padding, layout, notes)


def _native(data: bytes, layout: Layout, little: bool, vr: str) -> np.ndarray:
    """Unsigned words of ``allocated`` bits, (rows, columns)."""
    expected = layout.size
    if len(data) < expected:
        raise HeaderError(_DAMAGED.format(f"PixelData has {len(data):,} of {expected:,} bytes"))
    # A byte that makes the length even, or a few zeros; more means that the header describes other pixels.
    extra = data[expected:]
    if len(extra) > 1 and (len(extra) >= min(expected, 1024) or extra.strip(b"\0")):
        raise HeaderError(
            f"has a wrong header: PixelData has {len(data):,} bytes, Rows, Columns and BitsAllocated make {expected:,}"
        )
    if not little and vr == "OW" and layout.allocated != 16:
        if layout.allocated == 32:
            raise HeaderError(
                "contains 32-bit pixels in big endian order, which are not read", "dcmconv +te {old} {new}"
            )
        padded = data + b"\0" * (len(data) % 2)
        data = np.frombuffer(padded, ">u2").astype("<u2").tobytes()
    words = np.frombuffer(data, f"{'<' if little else '>'}u{layout.allocated // 8}", layout.rows * layout.columns)
    return words.astype(np.int64 if layout.allocated == 32 else np.int32).reshape(layout.rows, layout.columns)


@dataclass(frozen=True)
class _Codestream:
    """The header of a compressed image.

    Attributes:
        syntax: UID of a transfer syntax for it.
        rows, columns, components: of the image.
        precision: bits of a sample.
        signed: whether it says that samples are signed; only JPEG 2000 has this.
    """

    syntax: str
    rows: int
    columns: int
    components: int
    precision: int
    signed: bool = False


_JPEG = {
    0xC0: uid.JPEGBaseline8Bit, 0xC1: uid.JPEGExtended12Bit, 0xC2: "1.2.840.10008.1.2.4.55", 0xC3: uid.JPEGLossless,
    0xF7: uid.JPEGLSLossless,
}  # fmt: skip


def _compressed(data: bytes, syntax: str, layout: Layout) -> tuple[np.ndarray, tuple[str, ...]]:
    """Unsigned words of the image's precision, (rows, columns), and notes."""
    try:
        _, *fragments = islice(generate_fragments(data), _MAX_FRAGMENTS)
    except Exception:
        raise HeaderError(_DAMAGED.format("the parts of its compressed pixels are not as long as they say")) from None
    if len(fragments) >= _MAX_FRAGMENTS - 1:
        raise HeaderError(_DAMAGED.format(f"its compressed pixels are in {_MAX_FRAGMENTS:,} parts or more"))
    frame = b"".join(fragments)
    if not frame:
        raise HeaderError(_DAMAGED.format("its compressed pixels are empty"))
    stream = _codestream(frame)
    notes: tuple[str, ...] = ()
    if stream is None and syntax == RLE:
        if struct.unpack_from("<I", frame.ljust(4, b"\0"))[0] != layout.allocated // 8 or len(frame) < 64:
            raise HeaderError(_DAMAGED.format("its RLE header does not fit BitsAllocated"))
        stream = _Codestream(RLE, layout.rows, layout.columns, 1, layout.allocated)
    if stream is None:
        name = syntax_name(syntax) if syntax in COMPRESSED else "compressed"
        raise HeaderError(_DAMAGED.format(f"its {name} pixels have no header that can be read"))
    name = syntax_name(stream.syntax)
    if _family(stream.syntax) != _family(syntax):
        stated = f"says that it is {syntax_name(syntax)}" if syntax else "names no compression"
        notes = (f"{stated}; its pixels are {name} and were read as such",)
    _check(stream, layout, name)
    if stream.syntax != RLE:
        end = frame.rstrip(b"\0").rfind(b"\xff\xd9")
        if end < 0 or len(frame) - end > 1024:
            raise HeaderError(_DAMAGED.format(f"its {name} pixels have no end mark"))
    allocated = layout.allocated if stream.syntax == RLE else 8 if stream.precision <= 8 else 16
    request = {
        "syntax": str(stream.syntax), "rows": layout.rows, "columns": layout.columns, "allocated": allocated,
        "stored": stream.precision, "signed": int(stream.signed),
    }  # fmt: skip
    start = frame.find(b"\xff\x4f\xff\x51") if stream.syntax == uid.JPEG2000 else 0
    pixels = decoder.decode(request, frame[start:], layout.rows * layout.columns * allocated // 8, name)
    words = np.frombuffer(pixels, f"<u{allocated // 8}").reshape(layout.rows, layout.columns)
    words = words.astype(np.int64 if allocated == 32 else np.int32)
    if stream.signed:  # of its own bits, which may be fewer than the header's
        words = _with_sign(words & (1 << stream.precision) - 1, stream.precision) & (1 << layout.allocated) - 1
    return words, notes


def _family(syntax: str) -> str:
    """Compressions that differ in kind; lossless and lossy, or predictors, are not distinguished."""
    families: dict[str, set[str]] = {
        "JPEG": {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55"},
        "lossless": {uid.JPEGLossless, uid.JPEGLosslessSV1},
        "LS": {uid.JPEGLSLossless, uid.JPEGLSNearLossless},
        "2000": {uid.JPEG2000, uid.JPEG2000Lossless},
    }
    return next((name for name, members in families.items() if syntax in members), syntax)


def _check(stream: _Codestream, layout: Layout, name: str) -> None:
    """Refuse a compressed image that is not the header's."""
    if (stream.rows, stream.columns) != (layout.rows, layout.columns):
        raise HeaderError(
            f"has a wrong header: Rows and Columns are {layout.rows} × {layout.columns}, its {name} image is "
            f"{stream.rows} × {stream.columns}"
        )
    if stream.components != 1:
        raise HeaderError(f"is in colour: its {name} image has {stream.components} components, a CT slice has one")
    if not 2 <= stream.precision <= (32 if stream.syntax == RLE else 16):
        raise HeaderError(f"has {stream.precision} bits in its {name} image; 2 to 16 are read")
    if stream.syntax != RLE and layout.high != layout.stored - 1:
        raise HeaderError(f"has a wrong header: HighBit {layout.high} with BitsStored {layout.stored} in {name} pixels")
    if stream.signed and not layout.signed:
        raise HeaderError(f"has a wrong header: PixelRepresentation is 0 (unsigned), its {name} image is signed")
    if layout.signed and not stream.signed and stream.precision < layout.stored:
        raise HeaderError(
            f"has a wrong header: BitsStored is {layout.stored}, its {name} image has {stream.precision} bits, so the "
            "sign of its values is not known"
        )


def _codestream(frame: bytes) -> _Codestream | None:
    """Return the image's own header; None where it has none, as RLE."""
    try:
        if frame.startswith(b"\xff\xd8"):
            return _jpeg(frame)
        box = frame.startswith(b"\0\0\0\x0cjP  ")
        start = frame.find(b"\xff\x4f\xff\x51") if box else 0
        if start >= 0 and frame.startswith(b"\xff\x4f\xff\x51", start):
            return _jpeg_2000(frame[start:])
    except struct.error:  # it ends within its header
        return None
    return None


def _jpeg(frame: bytes) -> _Codestream | None:
    """JPEG and JPEG-LS, by the start-of-frame marker (ITU-T T.81 B.2.2)."""
    at = 2
    while True:
        mark, marker, length = struct.unpack_from(">BBH", frame, at)
        if mark != 0xFF:
            return None
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _JPEG:
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, at + 4)
            return _Codestream(_JPEG[marker], rows, columns, components, precision)
        if 0xC5 <= marker <= 0xCF and marker not in {0xC8, 0xCC}:
            raise HeaderError(f"is compressed by a JPEG process (marker {marker:02X}) that is not read")
        if marker in {0xD9, 0xDA}:
            return None
        at += 2 + max(length, 2)


def _jpeg_2000(frame: bytes) -> _Codestream:
    """JPEG 2000, by its SIZ marker (ITU-T T.800 A.5.1)."""
    capabilities, x1, y1, x0, y0 = struct.unpack_from(">HIIII", frame, 6)
    components, depth = struct.unpack_from(">HB", frame, 40)
    if capabilities & 0x4000:
        raise HeaderError("is compressed by High-Throughput JPEG 2000, which is not read")
    return _Codestream(uid.JPEG2000, y1 - y0, x1 - x0, components, (depth & 0x7F) + 1, bool(depth & 0x80))


def _bits_above(words: np.ndarray, layout: Layout) -> str:
    """What bits above the stored ones say that are neither copies of the sign nor overlays, which have elements."""
    above = words >> (layout.high + 1)
    sign = words >> layout.high & 1 if layout.signed else 0
    if np.array_equal(above, sign * ((1 << (layout.allocated - layout.high - 1)) - 1)) or not above.any():
        return ""
    return "has pixels with bits above BitsStored, which were dropped; if BitsStored is wrong, so is the image"


def _values(words: np.ndarray, layout: Layout) -> np.ndarray:
    """The stored bits alone, with their sign: bits above (overlays) and below them are dropped."""
    shift = layout.high + 1 - layout.stored
    if shift and not (words >> layout.stored).any():
        raise HeaderError(
            f"has a wrong header: HighBit is {layout.high}, and its pixels are in bits 0 to {layout.stored - 1}",
            f'dcmodify -m "HighBit={layout.stored - 1}" {{old}}',
        )
    values: np.ndarray = words >> shift & (1 << layout.stored) - 1
    return _with_sign(values, layout.stored) if layout.signed else values


def _with_sign(values: np.ndarray, bits: int) -> np.ndarray:
    """Two's complement numbers of so many bits."""
    signed: np.ndarray = values - (values >> (bits - 1) << bits)
    return signed


def _padding(ds: Any, words: np.ndarray, values: np.ndarray, layout: Layout) -> np.ndarray:
    """Which pixels PixelPaddingValue marks, and the range that PixelPaddingRangeLimit makes of it.

    Files write the value signed where pixels are unsigned and the other way round, and of the whole word where pixels
    have fewer bits, so the bits in the file are compared.
    """
    value, limit = integer(ds, "PixelPaddingValue"), integer(ds, "PixelPaddingRangeLimit")
    if value is None:
        return np.zeros(values.shape, dtype=bool)
    ends = np.array([value, value if limit is None else limit]) & (1 << layout.allocated) - 1
    whole = words & (1 << layout.allocated) - 1
    if layout.signed:
        ends, whole = _with_sign(ends, layout.allocated), _with_sign(whole, layout.allocated)
    low, high = ends.min(), ends.max()
    marked: np.ndarray = (values >= low) & (values <= high) | (whole >= low) & (whole <= high)
    return marked
