"""What an image file requires of a decoder, checked before one sees it: a file of a few kilobytes can ask for hours.

Decoders trust the header of a file: how many pages, parts, scans and numbers it has, and how large they are. The
checks read the structure alone; no pixel is unpacked. Each limit is above what any CT image has, and low enough for a
file within it to take a second or two, and less than a gigabyte.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

MAX_PIXELS = 64_000_000
MAX_COLOURED = 40_000_000  # of colour or with transparency, of which decoders keep four bytes a pixel and four copies
LARGE = 16_000_000  # pixels: of such images one at a time is decoded, however many threads there are
MAX_SIDE = 65_535  # pixels: the largest of JPEG and DICOM; Pillow's kernels and BMP's rows grow with it
MAX_BYTES = 8 * MAX_PIXELS  # of unpacked pixels: four channels of 16 bits
MAX_CHUNKS = 100_000  # of a PNG: 64 megapixels in the 8 KiB parts that libpng writes have 31,000
MAX_SEGMENTS = 10_000  # of a JPEG: its longest profiles and thumbnails take a few hundred
MAX_BETWEEN = 64 << 10  # bytes between the segments of a JPEG, fill or not, which Pillow passes over one by one
MAX_EXIF = 4 << 20  # bytes of a JPEG's EXIF, which Pillow joins piece by piece
MAX_SCANS = 100  # of a progressive JPEG: encoders write about ten
MAX_SCANNED = 1_000_000_000  # pixels times scans: ten scans of the largest image, and some
MAX_PAGES = 1_000  # of a TIFF that are counted before it is refused for having more than one
MAX_PARTS = 100_000  # strips or tiles of a TIFF: 64 megapixels in tiles of 32 × 32 have 62,500
MAX_TAGS = 20_000  # of all pages of a TIFF: writers make some twenty for a page
MAX_NUMBERS = 500_000  # in the tags of a TIFF: a colour map of 16 bits has 196,608
MAX_RUN_LENGTH = 2_000_000  # pixels of a run-length encoded BMP, which Pillow unpacks in Python
_MAX_TAG_BYTES = 16 << 20  # of a TIFF's tags that overlap

PNG = b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
JPEG = b"\xff\xd8"

# Compressions of TIFF that unpack to bytes, of which a decoder takes as many as the image has: none, CCITT, LZW,
# Deflate, PackBits, ThunderScan, LZMA, Zstandard.
_OF_BYTES = {1, 2, 3, 4, 5, 8, 32771, 32773, 32809, 32946, 34925, 50000, 50013}
_TOO_MANY_PARTS = f"is in more than {MAX_PARTS:,} parts, as no image is: save it again"


class Excess(Exception):
    """A file that requires too much; the message is a predicate: ``contains more than 1,000 pages``."""


def check(data: bytes) -> int:
    """Look through a file's structure; what is not a PNG, JPEG, TIFF or BMP, or is cut off, is left for the decoder.

    Returns:
        The number of pixels in its header; 0 where there is none.

    Raises:
        Excess: it requires too much.
    """
    if data.startswith(PNG):
        return _check_png(data)
    if data.startswith(JPEG):
        return _check_jpeg(data)
    if data.startswith(TIFF):
        return _check_tiff(data)
    return _check_bmp(data) if data.startswith(b"BM") else 0


def check_size(width: int, height: int) -> int:
    """Return the number of pixels.

    Raises:
        Excess: there are too many.
    """
    if width * height > MAX_PIXELS:
        raise Excess(too_large(width * height))
    if max(width, height) > MAX_SIDE:
        raise Excess(f"is too large: {width} × {height} pixels, over the limit of {MAX_SIDE:,} a side")
    return width * height


def too_large(pixels: int, limit: int = MAX_PIXELS) -> str:
    """Return the reason for so many pixels."""
    kind = "" if limit == MAX_PIXELS else " in colour or with transparency"
    return f"is too large: {pixels / 1e6:.0f} megapixels, over the limit of {limit // 1_000_000}{kind}"


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and bytes of each chunk up to the last; what is cut off is left for the decoder to find."""
    start = len(PNG)
    while start + 8 <= len(data):
        kind, end = data[start + 4 : start + 8], start + 12 + int.from_bytes(data[start : start + 4], "big")
        yield kind, data[start:end]
        if kind == b"IEND":
            return
        start = end


def _check_png(data: bytes) -> int:
    pixels = 0
    for number, (kind, chunk) in enumerate(png_chunks(data), start=1):
        if number > MAX_CHUNKS:
            raise Excess(f"contains more than {MAX_CHUNKS:,} chunks, as no PNG does")
        if kind == b"IHDR" and len(chunk) >= 16:
            pixels = check_size(*struct.unpack_from(">II", chunk, 8))
        elif kind == b"eXIf":
            _check_exif(chunk[8:-4])
    return pixels


def _check_bmp(data: bytes) -> int:
    if len(data) < 34 or int.from_bytes(data[14:18], "little") < 40:
        return 0
    width, height = struct.unpack_from("<ii", data, 18)
    pixels = check_size(abs(width), abs(height))
    if int.from_bytes(data[30:34], "little") in (1, 2) and pixels > MAX_RUN_LENGTH:
        raise Excess(
            f"is a run-length encoded BMP of {pixels / 1e6:.1f} megapixels, over the limit of "
            f"{MAX_RUN_LENGTH // 1_000_000}: save it as PNG"
        )
    return pixels


# In entropy-coded data a marker is what is neither a stuffed byte, nor a restart, nor fill.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")


def _check_jpeg(data: bytes) -> int:
    pixels, _, between = _walk_jpeg(data, 0, MAX_SEGMENTS)
    if between > MAX_BETWEEN:
        raise Excess(f"contains more than {MAX_BETWEEN >> 10} kB between its segments, as no JPEG does")
    return pixels


def _walk_jpeg(data: bytes, start: int, most: int) -> tuple[int, int, int]:
    """Pixels and segments of the JPEG that begins there, as libjpeg reads it, to the end of the image; and the bytes
    between its segments before the first scan, or to the end of the data where it has none.
    """
    at, segments, scans, pixels, between = start + 2, 0, 0, 0, 0
    exif: list[bytes] = []
    while (found := _MARKER.search(data, at)) is not None:
        if not scans:
            between += found.start() - at
        marker, at = data[found.end() - 1], found.end()
        if marker == 0xD9 or len(data) < at + 2:
            break
        length = int.from_bytes(data[at : at + 2], "big")
        segments += 1
        if segments > most:
            raise Excess(f"contains more than {MAX_SEGMENTS:,} segments, as no JPEG does")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(data) >= at + 7:
            height, width = struct.unpack_from(">HH", data, at + 3)
            pixels = max(pixels, check_size(width, height))
        elif marker == 0xDA:
            scans += 1
            if scans > MAX_SCANS or scans * pixels > MAX_SCANNED:
                raise Excess(f"contains {scans} or more scans of {pixels / 1e6:.1f} megapixels, as no JPEG does")
        elif marker == 0xE1 and data[at + 2 : at + 8] == b"Exif\0\0":  # Pillow puts several of them together
            exif.append(data[at + 8 : at + length])
            if len(exif) * 65_536 > MAX_EXIF:
                raise Excess(f"contains more than {MAX_EXIF >> 20} MB of EXIF, as no JPEG does")
        elif marker == 0xE2 and data[at + 2 : at + 6] == b"MPF\0":
            _check_exif(data[at + 6 : at + length])
        at += max(length, 2)
    if not scans:
        between += len(data) - at
    _check_exif(b"".join(exif))
    return pixels, segments, between


class _Entry(NamedTuple):
    """An entry of a TIFF directory.

    Attributes:
        first: its first value; 0 where it is not a whole number.
        largest: the largest of the first few.
        values: how many there are.
    """

    first: int
    largest: int
    values: int


_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_BYTES = {1, 2, 6, 7}


def _directories(data: bytes, most: int) -> Iterator[dict[int, _Entry]]:
    """The directories of a TIFF in their order, each once.

    Raises:
        Excess: their values are more than the file can have.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    head, one, pointer = ("Q", 20, "Q") if big else ("H", 12, "I")
    inline = struct.calcsize(pointer)
    seen: set[int] = set()
    total = numbers = tags = 0
    try:
        (at,) = struct.unpack_from(order + pointer, data, 8 if big else 4)
        while 0 < at < len(data) and at not in seen:
            if len(seen) == most:
                raise Excess(f"contains more than {most:,} pages: save each as a file of its own")
            seen.add(at)
            (count,) = struct.unpack_from(order + head, data, at)
            start = at + struct.calcsize(head)
            if count * one > len(data) - start:
                return
            tags += count
            if tags > MAX_TAGS:
                raise Excess("is damaged: it has more tags than an image")
            found: dict[int, _Entry] = {}
            for place in range(start, start + count * one, one):
                tag, kind, values = struct.unpack_from(f"{order}HH{pointer}", data, place)
                width = _SIZES.get(kind, 1)
                size, offset = width * values, place + one - inline
                if size > inline:
                    (offset,) = struct.unpack_from(order + pointer, data, offset)
                there = max(0, min(size, len(data) - offset))
                total += there
                numbers += 0 if kind in _BYTES else there // width
                if total > len(data) + _MAX_TAG_BYTES or numbers > MAX_NUMBERS:
                    raise Excess("is damaged: its tags contain more values than those of an image")
                found.setdefault(tag, _entry(data, order, kind, values, offset))
            yield found
            (at,) = struct.unpack_from(order + pointer, data, start + count * one)
    except struct.error:  # it ends there
        return


def _entry(data: bytes, order: str, kind: int, count: int, offset: int) -> _Entry:
    values: tuple[int, ...] = ()
    if kind in _INTEGERS:
        few = min(count, 16)
        try:
            values = struct.unpack_from(f"{order}{few}{_INTEGERS[kind]}", data, offset)
        except struct.error:
            values = ()
    return _Entry(values[0] if values else 0, max(values, default=0), count)


def _check_exif(block: bytes) -> None:
    for _ in _directories(block, MAX_PAGES):
        pass


_NONE = _Entry(0, 0, 0)


def _check_tiff(data: bytes) -> int:
    pixels = 0
    for page in _directories(data, MAX_PAGES):
        width, height, bits, channels, depth = (page.get(tag, _NONE) for tag in (256, 257, 258, 277, 32997))
        pixels = max(pixels, check_size(width.first, height.first))
        tile = [page.get(tag, _NONE).first for tag in (322, 323, 32998)]
        sample = max(1, bits.largest) * max(1, channels.first)
        of_image = width.first * height.first * max(1, depth.first) * sample
        # A tile can be larger than the image, and is unpacked as a whole.
        of_tile = tile[0] * tile[1] * max(1, tile[2]) * sample
        if max(of_image, of_tile) > 8 * MAX_BYTES:
            raise Excess(f"is too large: {max(of_image, of_tile) / 8e9:.1f} GB of pixels")
        parts = max(page.get(tag, _NONE).values for tag in (273, 279, 324, 325))
        if parts > MAX_PARTS:
            raise Excess(_TOO_MANY_PARTS)
        compression = page.get(259, _NONE).first
        if compression in (6, 7):
            _check_jpegs(data)
        elif compression in _STREAMS:
            _check_streams(data, compression)
        elif compression and compression not in _OF_BYTES:
            raise Excess(f"is a TIFF of compression {compression}, which is not read: save it uncompressed")
    return pixels


def _check_jpegs(data: bytes) -> None:
    """Each JPEG in a TIFF, wherever it begins; together they have no more segments than so many parts need."""
    at, left = data.find(b"\xff\xd8\xff"), MAX_PARTS
    while at >= 0:
        _, segments, _ = _walk_jpeg(data, at, min(left, MAX_SEGMENTS))
        left -= segments + 1
        at = data.find(b"\xff\xd8\xff", at + 3)


def _check_streams(data: bytes, compression: int) -> None:
    """Each image that is compressed with a header of its own, wherever it begins: decoders believe that header."""
    signature, check_one = _STREAMS[compression]
    at, number = data.find(signature), 0
    while at >= 0:
        number += 1
        if number > MAX_PARTS:
            raise Excess(_TOO_MANY_PARTS)
        try:
            check_one(data, at)
        except struct.error:  # it ends there
            return
        at = data.find(signature, at + len(signature))


def _check_jpeg_2000(data: bytes, at: int) -> None:
    """By the SIZ marker (ITU-T T.800 A.5.1)."""
    x1, y1, x0, y0, tile_x, tile_y = struct.unpack_from(">IIIIII", data, at + 8)
    (components,) = struct.unpack_from(">H", data, at + 40)
    check_size(max(0, x1 - x0), max(0, y1 - y0))
    if components > 4 or -(-x1 // max(1, tile_x)) * -(-y1 // max(1, tile_y)) > MAX_PAGES:
        raise Excess("is damaged: its JPEG 2000 pixels have more parts than an image")


def _check_lerc(data: bytes, at: int) -> None:
    """By the header of Lerc2: magic, version, from version 3 on a checksum, rows, columns, from 4 on bands."""
    (version,) = struct.unpack_from("<i", data, at + 6)
    rows, columns, bands = struct.unpack_from("<III", data, at + (14 if version >= 3 else 10))
    check_size(columns, rows)
    if version >= 4 and bands > 4:
        raise Excess("is damaged: its LERC pixels have more parts than an image")


def _check_jpeg_xl(data: bytes, at: int) -> None:
    """By the size header (ISO/IEC 18181-1 D.2), whose bits begin behind the signature, the lowest first."""
    bits = int.from_bytes(data[at + 2 : at + 14], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & (1 << count) - 1, bits >> count
        return value

    is_small = take(1)

    def side() -> int:
        return 8 * (take(5) + 1) if is_small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    over, under = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[take(3)]
    check_size(height * over // under if over else side(), height)


_STREAMS: dict[int, tuple[bytes, Callable[[bytes, int], object]]] = {
    **dict.fromkeys((33003, 33004, 33005, 34712), (b"\xff\x4f\xff\x51", _check_jpeg_2000)),
    34887: (b"Lerc2 ", _check_lerc),
    34933: (PNG, lambda data, at: check_size(*struct.unpack_from(">II", data, at + 16))),
    **dict.fromkeys((50002, 52546), (b"\xff\x0a", _check_jpeg_xl)),
}
