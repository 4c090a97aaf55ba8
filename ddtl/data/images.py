"""One image file -> one square of 8-bit gray levels. What is inside a file counts; its suffix does not."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from ddtl.errors import UserError

DECODER_VERSION = 1  # raise it with any change that alters a pixel: every decoded cache is then made anew

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
MAX_PIXELS = 64_000_000

# Pillow warns of decompression bombs above its own, higher limit. Set once: `warnings.catch_warnings` is not safe
# in threads. Should someone reset the filter, the check against MAX_PIXELS still refuses the image.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

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

_UPRIGHT = {  # EXIF orientation -> what turns the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImageError(UserError):
    """An image file that cannot be used.

    Attributes:
        path: the file.
        reason: why, as a predicate: ``is empty (0 bytes)``, ``holds text, not an image``, …
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = Path(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


def read_bytes(path: Path) -> bytes:
    """The file's content.

    Raises:
        BadImageError: there is no such file, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BadImageError(path, "does not exist") from None
    except IsADirectoryError:
        raise BadImageError(path, "is a folder") from None
    except OSError as error:
        raise BadImageError(path, f"cannot be read: {error.strerror or error}") from None


def load_image(path: Path, size: int) -> np.ndarray:
    """The image in ``path`` as ``decode_image`` makes it: uint8, ``(size, size)``; raises what that raises."""
    return decode_image(read_bytes(path), size, path)


def decode_image(data: bytes, size: int, path: Path) -> np.ndarray:
    """Decodes, turns upright, converts to 8-bit gray and resizes.

    The aspect ratio is squashed, as the literature on these datasets does. The resampling is Pillow's antialiased
    bilinear filter: each output pixel averages all the input it covers, nothing overshoots at the edge between body
    and air, and it is the filter the torchvision ImageNet weights were trained with.

    Args:
        data: the file's whole content.
        size: side of the result, in pixels.
        path: names the file in errors.

    Returns:
        uint8, ``(size, size)``, 0 black.

    Raises:
        BadImageError: as :func:`decode_gray` does.
    """
    return squared(decode_gray(data, path), size)


def squared(gray: Image.Image, size: int) -> np.ndarray:
    """A picture in 8-bit gray at the size that the network sees: uint8 ``(size, size)``; see :func:`decode_image`."""
    return np.array(gray.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)


def decode_gray(data: bytes, path: Path) -> Image.Image:
    """The whole picture, upright, in 8-bit gray (mode ``L``).

    Raises:
        BadImageError: not a PNG, JPEG, TIFF or BMP; cut off or damaged; over ``MAX_PIXELS``; several pages; or of a
            pixel type without a fixed white (see ``_gray``).
    """
    try:
        _check_whole(data, path)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            # After load(), which already turns TIFF upright and then forgets its orientation.
            upright = _UPRIGHT.get(_orientation(image))
            gray = _gray(image, path)
        return gray if upright is None else gray.transpose(upright)
    except (BadImageError, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise BadImageError(path, _what_it_is(data)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, int(re.findall(r"\d+", str(error))[0])) from None
    # Pillow's decoders meet damaged files with almost any exception: OSError, SyntaxError, struct.error, …
    except Exception as error:
        raise BadImageError(path, f"is cut off or damaged: {error}") from None


def _check_whole(data: bytes, path: Path) -> None:
    """Refuses images too large or of several pages before their pixels are unpacked, and PNGs with wrong checksums."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        pixels = image.width * image.height
        if pixels > MAX_PIXELS:
            raise _too_large(path, pixels)
        pages = getattr(image, "n_frames", 1)
        if pages > 1 and image.format != "MPO":  # MPO: a JPEG whose further pictures are previews
            raise BadImageError(path, f"holds {pages} pages: save each as a file of its own")
        image.verify()


def _too_large(path: Path, pixels: int) -> BadImageError:
    return BadImageError(
        path, f"is too large: {pixels / 1e6:.0f} megapixels, over the limit of {MAX_PIXELS // 1_000_000}"
    )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) where there is none; unreadable EXIF is no reason to refuse the picture."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _gray(image: Image.Image, path: Path) -> Image.Image:
    """Mode ``L``, by the image's mode.

    - ``1 L P RGB YCbCr CMYK``: luma (ITU-R 601).
    - ``LA PA RGBA`` and any with a transparent colour: composited on black, which is air in a CT window.
    - ``I;16``: values / 257, so 65535 is white. 12-bit scanner values in 16-bit files therefore come out dark.
    - ``I`` and ``F`` (32-bit, Hounsfield units among them) have no fixed white. Stretching each image by its own range
      would make gray levels incomparable between images, so they are refused.
    """
    mode = image.mode
    if mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if mode in {"I", "F"}:
        raise BadImageError(
            path, "holds 32-bit values, which have no fixed white: save it as 8-bit gray after windowing"
        )
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image.convert("RGBA")).convert("L")
    if mode == "CMYK":
        return image.convert("RGB").convert("L")
    if mode in {"1", "L", "P", "RGB", "RGBX", "YCbCr"}:
        return image.convert("L")
    raise BadImageError(path, f"has the colour mode {mode}, which is not read: save it as gray or RGB")


def _what_it_is(data: bytes) -> str:
    """Why ``data`` is no image, for someone who expected one."""
    if not data:
        return "is empty (0 bytes)"
    start = data[:1024]
    for signature, reason in _SIGNATURES:
        if start.lstrip().lower().startswith(signature):
            return reason
    if data[128:132] == b"DICM":
        return "is a DICOM file, not an image: export it as PNG"
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in start):
        return "holds text, not an image"
    if start.startswith((b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM")):
        return "is cut off or damaged: its header cannot be read"
    return "is not a PNG, JPEG, TIFF or BMP image"
