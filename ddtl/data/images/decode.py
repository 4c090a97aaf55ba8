"""One image file -> one square of 8-bit gray levels, by the reader of its format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ddtl.data.images import raster
from ddtl.data.images.image_file import read_bytes
from ddtl.data.images.levels import CTWindow, Window
from ddtl.data.images.raster import Header

DECODER_VERSION = 2  # raise it with any change that alters a pixel: every decoded cache is then rebuilt


def load_image(path: Path, size: int, window: Window | CTWindow | None = None) -> np.ndarray:
    """Return the image in ``path`` as ``decode_image`` makes it: uint8, ``(size, size)``; raises what that raises."""
    return decode_image(read_bytes(path), size, path, window)


def decode_image(data: bytes, size: int, path: Path, window: Window | CTWindow | None = None) -> np.ndarray:
    """Decode an image, turn it upright, convert it to 8-bit gray and resize it.

    The aspect ratio is squashed, as the literature on these datasets does. The resampling is Pillow's antialiased
    bilinear filter: each output pixel averages all the input it covers, nothing overshoots at the edge between body
    and air, and it is the filter the torchvision ImageNet weights were trained with.

    Args:
        data: the file's whole content.
        size: side of the result, in pixels.
        path: names the file in errors.
        window: how stored values become grey levels; None for a file that contains grey levels.

    Returns:
        uint8, ``(size, size)``, 0 black.

    Raises:
        BadImageError: as :func:`decode_gray` does.
    """
    return squared(decode_gray(data, path, window), size)


def squared(gray: Image.Image, size: int) -> np.ndarray:
    """An image in 8-bit gray at the size that the network sees: uint8 ``(size, size)``; see :func:`decode_image`."""
    return np.array(gray.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)


def stacked(channels: Sequence[Image.Image], size: int) -> np.ndarray:
    """The channels of an image at the size that the network sees: uint8, ``(size, size)`` of one, else
    ``(size, size, channels)``; see :func:`decode_image`.
    """
    found = [squared(gray, size) for gray in channels]
    return found[0] if len(found) == 1 else np.stack(found, axis=-1)


def decode_channels(data: bytes, path: Path, window: Window | CTWindow | None = None) -> list[Image.Image]:
    """Return each channel of an image as :func:`decode_gray` does: one, or three through three windows."""
    if isinstance(window, CTWindow):
        from ddtl.data.images import ct  # pydicom takes a while to import

        return ct.decode_channels(data, path, window)
    return [raster.decode_gray(data, path, window)]


def decode_gray(data: bytes, path: Path, window: Window | CTWindow | None = None) -> Image.Image:
    """Return the whole image, upright, in 8-bit gray (mode ``L``).

    Without a window, by how the file stores its pixels:

    - gray, RGB, YCbCr, CMYK and palettes of up to 8 bits: luma (ITU-R 601).
    - transparency: composited on black, which is air in a CT window.
    - gray of 9 to 16 bits: scaled so that the largest value of so many bits is white. A scanner's values in a 16-bit
      file therefore come out dark; a window is for them. Colour of 16 bits: the upper 8.
    - signed, 32-bit and floating-point values (Hounsfield units among them) have no fixed white. Stretching each image
      by its own range would make grey levels incomparable between images, so they are refused.

    With a window: gray of more than 8 bits, signed or not, 32-bit and floating-point. With a window of a CT volume:
    DICOM and NIfTI alone; of three such windows the first counts.

    Raises:
        BadImageError: not a PNG, JPEG, TIFF or BMP; cut off or damaged; over ``MAX_PIXELS``; several pages; or of a
            pixel type that is not read so.
    """
    if isinstance(window, CTWindow):
        from ddtl.data.images import ct  # pydicom takes a while to import

        return ct.decode_gray(data, path, window)
    return raster.decode_gray(data, path, window)


def read_header(data: bytes) -> Header:
    """Return a file's header; its pixels are not decoded. Damaged files raise almost any exception."""
    header = raster.read_header(data)
    if header is None:
        from ddtl.data.images import ct

        header = ct.read_header(data)
    if header is None:
        raise Image.UnidentifiedImageError
    return header
