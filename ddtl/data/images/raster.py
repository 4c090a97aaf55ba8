"""PNG, JPEG, TIFF and BMP -> 8-bit gray levels. What is inside a file counts; its suffix does not."""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from ddtl.data.images import bounds
from ddtl.data.images.bounds import JPEG, MAX_COLOURED, MAX_PIXELS, PNG, TIFF, Excess, png_chunks, too_large
from ddtl.data.images.image_file import BadImageError
from ddtl.data.images.levels import Window

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")

# Pillow warns of decompression bombs above its own, higher limit. Set once: `warnings.catch_warnings` is not safe
# in threads. Should someone reset the filter, the check against MAX_PIXELS still refuses the image.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
# What the readers think of odd tags; what matters of it becomes a BadImageError.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\b")
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

# First bytes of what is met under an image's name most often, and how to call it.
_SIGNATURES = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the image: fetch it with `git lfs pull`"),
    (b"<!doctype html", "is a web page, not an image: the download failed"),
    (b"<html", "is a web page, not an image: the download failed"),
    (b"gif8", "is a GIF, which is not read: convert it to PNG"),
    (b"riff", "is a WebP image, which is not read: convert it to PNG"),
    (b"pk\x03\x04", "is a zip archive, not an image: unpack it"),
    (b"\x1f\x8b", "is gzip-compressed (a NIfTI volume?), not an image: convert its slices to PNG"),
)

# Chunks of a PNG that decide about its pixels or how many images it has; all others are text, profiles and dates.
_PNG_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"}

_UPRIGHT = {  # EXIF orientation -> what turns the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_gray(data: bytes, path: Path, window: Window | None = None) -> Image.Image:
    """Return the image in 8-bit gray (mode ``L``), as :func:`ddtl.data.images.decode.decode_gray` says.

    Raises:
        BadImageError: it cannot be used.
    """
    with _named_failures(data, path):
        if data.startswith(TIFF) and (deep := _deep_tiff(data, path)) is not None:
            return _gray_of_values(*deep, path, window)
        return _gray_by_pillow(_without_metadata(data), path, window)


_turn = threading.RLock()  # of large images, which take up to a gigabyte


@contextmanager
def _named_failures(data: bytes, path: Path) -> Iterator[None]:
    """Refuse what requires too much; make a ``BadImageError`` of whatever decoders raise: OSError, SyntaxError, …"""
    try:
        with _turn if bounds.check(data) > bounds.LARGE else nullcontext():
            yield
    except (BadImageError, MemoryError):
        raise
    except Excess as error:
        raise BadImageError(path, str(error)) from None
    except Image.UnidentifiedImageError:
        raise BadImageError(path, _what_it_is(data)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(path, too_large(int(re.findall(r"\d+", str(error))[0]))) from None
    except Exception as error:
        raise BadImageError(path, f"is cut off or damaged: {' '.join(str(error).split())[:200]}") from None


def is_deep(data: bytes, path: Path) -> bool:
    """Whether an image is gray of more than 8 bits, by its header.

    Raises:
        BadImageError: the header cannot be read.
    """
    with _named_failures(data, path):
        if data.startswith(JPEG):
            return False
        header = read_header(data)
        if header is None:
            raise Image.UnidentifiedImageError
        mode = header.mode
    return mode.startswith(("I", "F")) or (mode not in Image.MODES and int(mode[1:]) > 8)


def stored_range(data: bytes, path: Path) -> tuple[int, float, float] | None:
    """Bits, smallest and largest value of a gray image of more than 8 bits; None for any other.

    Raises:
        BadImageError: it cannot be decoded.
    """
    values, bits = None, 0
    with _named_failures(data, path):
        if data.startswith(TIFF):
            deep = _deep_tiff(data, path)
            if deep is not None and deep[1].bits > 8:
                values, bits = deep[0], deep[1].bits
        else:
            with as_pillow(data) as image:
                if image.mode.startswith("I;16"):
                    _check_size(image.width * image.height, path, _most_pixels(image))
                    values, bits = np.asarray(image), 16
    return None if values is None else (bits, float(values.min()), float(values.max()))


@dataclass(frozen=True)
class Header:
    """The header of an image file, before conversion.

    Attributes:
        format: ``PNG``, ``JPEG``, ``MPO``, ``TIFF`` or ``BMP``; of a CT volume ``DICOM`` with its compression, or
            ``NIfTI``.
        mode: of its pixels, as Pillow names it; of a TIFF that Pillow does not read, kind and bits (``u16``).
        width, height: in pixels, as stored.
    """

    format: str
    mode: str
    width: int
    height: int


def as_pillow(data: bytes) -> Image.Image:
    """An image as Pillow opens it, without what no pixel depends on."""
    return Image.open(io.BytesIO(_without_metadata(data)), formats=FORMATS)


def read_header(data: bytes) -> Header | None:
    """Return a file's header; None where it is no such image. Its pixels are not decoded. Damaged ones raise almost any
    exception.
    """
    try:
        with as_pillow(data) as image:
            return Header(str(image.format), image.mode, image.width, image.height)
    except Image.UnidentifiedImageError:
        if not data.startswith(TIFF):
            return None
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages.first
        bits, kind = _bits_of(page)
        return Header("TIFF", f"{kind}{bits}", page.imagewidth, page.imagelength)


def _gray_by_pillow(data: bytes, path: Path, window: Window | None) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        # Images too large or of several pages are refused before their pixels are unpacked.
        _check_size(image.width * image.height, path, _most_pixels(image))
        # MPO: a JPEG whose further images are previews
        _check_pages(1 if image.format == "MPO" else getattr(image, "n_frames", 1), path)
        pixels = _check_jpeg(data, image.mode, path) if data.startswith(JPEG) else None
        if pixels is not None and window is None and pixels.shape == (image.height, image.width):
            return _turned(Image.fromarray(pixels), _orientation(image))
        image.verify()
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.load()
        # After load(), which already turns TIFF upright and then forgets its orientation.
        orientation = _orientation(image)
        if image.mode.startswith("I;16"):
            values, clear = np.asarray(image), image.info.get("transparency")
            opacity = (values != clear).astype(np.float64) if isinstance(clear, int) else None
            gray = _gray_of_values(values, _Values(16, "u", False, 1, opacity), path, window)
        elif window is not None:
            raise BadImageError(path, _GREY_LEVELS)
        else:
            gray = _gray(image, path)
    return _turned(gray, orientation)


def _turned(gray: Image.Image, orientation: int) -> Image.Image:
    upright = _UPRIGHT.get(orientation)
    return gray if upright is None else gray.transpose(upright)


def _without_metadata(data: bytes) -> bytes:
    """A PNG without the chunks that no pixel depends on: Pillow refuses long texts and damaged profiles."""
    if not data.startswith(PNG):
        return data
    chunks = [(kind, chunk) for kind, chunk in png_chunks(data) if kind in _PNG_CHUNKS]
    # An animation of one frame is an image.
    if any(kind == b"acTL" and chunk[8:12] == b"\0\0\0\1" for kind, chunk in chunks):
        chunks = [(kind, chunk) for kind, chunk in chunks if kind not in (b"acTL", b"fcTL", b"fdAT")]
    return PNG + b"".join(chunk for _, chunk in chunks)


def _check_jpeg(data: bytes, mode: str, path: Path) -> np.ndarray | None:
    """Refuse a JPEG in which libjpeg met damage: it invents the pixels after it, and Pillow gives no warning.

    Args:
        mode: of its pixels, as Pillow names it.

    Returns:
        uint8 ``(rows, columns)`` of a gray one without any doubt, the same as Pillow's: libjpeg's exact integer
        transform makes both. None for any other, for Pillow to decode.
    """
    import simplejpeg

    try:
        if mode == "L":
            pixels: np.ndarray = simplejpeg.decode_jpeg(data, "GRAY", strict=True)[..., 0]
            return pixels
        # At the smallest scale: what counts is that all of it can be unpacked.
        simplejpeg.decode_jpeg(
            data, "CMYK" if mode == "CMYK" else "GRAY", min_height=1, min_width=1, min_factor=1, strict=True
        )
    except ValueError as error:
        damage = re.search(r"Corrupt JPEG data: .*|Inconsistent progression.*", str(error))
        # Bytes too many at the end of the image cost no pixel.
        if damage is not None and not damage[0].endswith("extraneous bytes before marker 0xd9"):
            raise BadImageError(path, f"is damaged: {damage[0]}") from None
    return None


def _check_size(pixels: int, path: Path, limit: int = MAX_PIXELS) -> None:
    if pixels > limit:
        raise BadImageError(path, too_large(pixels, limit))


def _most_pixels(image: Image.Image) -> int:
    """How many an image may have, so that unpacking it takes less than a gigabyte."""
    is_gray = image.mode in ("1", "L", "P") or image.mode.startswith(("I", "F"))
    return MAX_PIXELS if is_gray and not image.has_transparency_data else MAX_COLOURED


def _check_pages(pages: int, path: Path) -> None:
    if pages > 1:
        raise BadImageError(path, f"contains {pages} pages: save each as a file of its own")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) where there is none; an image with unreadable EXIF is not refused."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _gray(image: Image.Image, path: Path) -> Image.Image:
    """Mode ``L`` of an image of up to 8 bits a channel."""
    mode = image.mode
    if mode in {"I", "F"}:
        raise BadImageError(path, _NO_WHITE)
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image.convert("RGBA")).convert("L")
    if mode == "CMYK":
        return image.convert("RGB").convert("L")
    if mode in {"1", "L", "P", "RGB", "RGBX", "YCbCr"}:
        return image.convert("L")
    raise BadImageError(path, f"has the colour mode {mode}, which is not read: save it as gray or RGB")


_GREY_LEVELS = (
    "contains 8-bit grey levels, and dataset.window is for values of more bits: list these images in a dataset of "
    "their own"
)
_NO_WHITE = (
    "contains signed, 32-bit or floating-point values, which have no fixed white: say how they become grey levels with "
    "dataset.window (docs/own_data.md), or save it as 8-bit gray after windowing"
)


@dataclass(frozen=True)
class _Values:
    """What stored values mean.

    Attributes:
        bits: of a value.
        kind: ``u`` unsigned, ``i`` signed, ``f`` floating-point.
        white_is_zero: whether 0 is shown white.
        orientation: as EXIF counts it.
        opacity: ``(rows, columns)`` from 0 to 1; None where all is opaque.
    """

    bits: int
    kind: str
    white_is_zero: bool
    orientation: int
    opacity: np.ndarray | None = None


def _deep_tiff(data: bytes, path: Path) -> tuple[np.ndarray, _Values] | None:
    """The values of a TIFF that Pillow does not read rightly: over 8 bits, signed, floating-point, in planes, or big.

    Returns:
        ``(rows, columns)`` or, of RGB, ``(rows, columns, 3)``, and what they mean; None for any other TIFF.

    Raises:
        BadImageError: it cannot be used.
    """
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages.first
        bits, kind = _bits_of(page)
        apart = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
        is_shallow = kind == "u" and bits <= 8
        by_tifffile = apart or file.is_bigtiff or page.compression not in _PILLOWS
        if is_shallow and (bits < 8 or page.photometric not in _READ_PHOTOMETRIC or not by_tifffile):
            return None
        _check_size(page.imagewidth * page.imagelength, path)
        _check_pages(len(file.pages), path)
        if page.photometric not in _READ_PHOTOMETRIC or page.imagedepth != 1:
            name = getattr(page.photometric, "name", page.photometric)
            raise BadImageError(
                path, f"is a TIFF of {bits}-bit values of the kind {name}, which is not read: save it as gray"
            )
        parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if any(count == 0 or offset + count > len(data) for offset, count in parts):
            raise BadImageError(path, "is cut off or damaged: parts of its pixels are missing")
        values = page.asarray()
        if apart:
            values = np.moveaxis(values, 0, -1)
        orientation = page.tags.valueof("Orientation", 1)
        channels = 3 if page.photometric == tifffile.PHOTOMETRIC.RGB else 1
        alpha = None
        if page.samplesperpixel > channels:
            if kind != "u":
                raise BadImageError(
                    path, "contains several channels of signed or floating-point values: save it as gray"
                )
            if page.extrasamples[:1] == (tifffile.EXTRASAMPLE.UNASSALPHA,):
                alpha = values[..., channels] / np.iinfo(values.dtype).max
            values = values[..., :channels]
        white_is_zero = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        shape = values.shape[:2] if channels == 1 else (*values.shape[:2], channels)
        return values.reshape(shape), _Values(bits, kind, white_is_zero, int(orientation), alpha)


# None, CCITT, LZW, JPEG, Deflate, PackBits: what Pillow unpacks everywhere.
_PILLOWS = (1, 2, 3, 4, 5, 6, 7, 8, 32946, 32773)
_READ_PHOTOMETRIC = (0, 1, 2)  # WhiteIsZero, BlackIsZero, RGB


def _bits_of(page: Any) -> tuple[int, str]:
    """Bits of a page's values, and their kind: ``u``, ``i`` or ``f`` (``c`` where they are complex)."""
    bits = page.bitspersample
    kinds = {1: "u", 2: "i", 3: "f", 4: "u"}
    return int(max(bits) if isinstance(bits, tuple) else bits), kinds.get(int(page.sampleformat), "c")


def _gray_of_values(values: np.ndarray, meaning: _Values, path: Path, window: Window | None) -> Image.Image:
    """Mode ``L`` of values of more than 8 bits."""
    if not values.size:
        raise BadImageError(path, "has no pixel")
    if window is not None:
        if meaning.bits == 8 and meaning.kind == "u":
            raise BadImageError(path, _GREY_LEVELS)
        if values.ndim > 2 or meaning.white_is_zero:
            what = "is in colour" if values.ndim > 2 else "stores 0 as white"
            raise BadImageError(path, f"{what}, and dataset.window is for values that grow with Hounsfield units")
        if meaning.kind == "f" and not np.isfinite(values).all():
            raise BadImageError(path, "contains values that are infinite or no number")
        levels = window.grey_levels(values)
    elif meaning.kind != "u" or meaning.bits > 16:
        raise BadImageError(path, _NO_WHITE)
    elif values.ndim > 2:
        levels = (values.astype(np.uint32) >> (meaning.bits - 8)).astype(np.uint8)
    else:
        white = 2**meaning.bits - 1
        levels = ((np.arange(2**16, dtype=np.uint32) * 255 + white // 2) // white).astype(np.uint8)[values]
        if meaning.white_is_zero:
            levels = 255 - levels
    gray = Image.fromarray(levels).convert("L")
    if meaning.opacity is not None:  # on black, which is air in a CT window
        gray = Image.fromarray(np.rint(np.asarray(gray) * meaning.opacity).astype(np.uint8))
    return _turned(gray, meaning.orientation)


def starts_as_image(start: bytes) -> bool:
    """Whether a file's first 32 bytes are those of a PNG, JPEG, TIFF or BMP."""
    if start.startswith(b"BM"):  # two letters that a text may start with: the size of its header follows
        return len(start) >= 18 and int.from_bytes(start[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124)
    return start.startswith((PNG, b"\xff\xd8\xff", *TIFF))


def _what_it_is(data: bytes) -> str:
    """Why ``data`` is not an image."""
    if not data:
        return "is empty (0 bytes)"
    start = data[:1024]
    for signature, reason in _SIGNATURES:
        if start.lstrip().lower().startswith(signature):
            return reason
    if data[128:132] == b"DICM":
        return "is a DICOM file, not an image: export it as PNG"
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in start):
        return "contains text, not an image"
    if start.startswith((b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM")):
        return "is cut off or damaged: its header cannot be read"
    return "is not a PNG, JPEG, TIFF or BMP image"
