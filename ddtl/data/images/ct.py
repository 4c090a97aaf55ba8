"""Slices of CT volumes as grey levels: DICOM files and NIfTI volumes, both in Hounsfield units."""

from __future__ import annotations

import hashlib
import io
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ddtl.data.images import dicom, dicom_header, dicom_pixels, nifti
from ddtl.data.images.dicom_header import START, SUFFIXES, is_dicom
from ddtl.data.images.image_file import BadImageError, read_bytes
from ddtl.data.images.levels import CTWindow
from ddtl.data.images.nifti import Volume
from ddtl.data.images.raster import Header


def decode_gray(data: bytes, path: Path, window: CTWindow) -> Image.Image:
    """Return a slice in 8-bit gray (mode ``L``), of several windows through the first.

    Raises:
        BadImageError: as :func:`decode_channels` does.
    """
    return decode_channels(data, path, replace(window, others=()))[0]


def decode_channels(data: bytes, path: Path, window: CTWindow) -> list[Image.Image]:
    """Return a slice in 8-bit gray (mode ``L``) through each window.

    Args:
        data: the file's whole content.
        path: names the file in errors.
        window: which slice, and in which window.

    Raises:
        BadImageError: it is neither, or cannot be used.
    """
    if window.number is not None or nifti.is_nifti(data[: nifti.START]):
        volume, values = _unpacked(data, path)
        return _channels(volume, values, window, path)
    if not is_dicom(data[:START]) and path.suffix.lower() not in SUFFIXES:
        raise BadImageError(path, "is neither DICOM nor NIfTI, and dataset.window is in Hounsfield units")
    return dicom.decode_windows(data, path, window.all, extent=window.extent)


def _channels(volume: Volume, values: np.ndarray, window: CTWindow, path: Path) -> list[Image.Image]:
    windows = [replace(window, center=center, width=width, others=()) for center, width in window.all]
    return [nifti.gray_levels(volume, values, one, path) for one in windows]


class _Latest:
    """The volume that was unpacked last: its slices are decoded one after the other."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sha256 = ""
        self.stat: tuple[str, int, int, int] | None = None
        self.volume: tuple[Volume, np.ndarray] | None = None


_latest = _Latest()


def _unpacked(data: bytes, path: Path) -> tuple[Volume, np.ndarray]:
    sha256 = hashlib.sha256(data).hexdigest()
    with _latest.lock:
        if _latest.volume is None or _latest.sha256 != sha256:
            _latest.volume = None  # its memory is needed
            _latest.volume = nifti.unpack(data, path)
            _latest.sha256, _latest.stat = sha256, None
        return _latest.volume


def decode_slice(path: Path, window: CTWindow, sha256: str | None = None) -> list[Image.Image]:
    """Return a slice of a volume as :func:`decode_channels` does; the file is read once for all of its slices.

    Args:
        path: of the file.
        window: which slice, and in which window.
        sha256: that the file had; None where that is not known.

    Raises:
        BadImageError: it has another one by now, or cannot be used.
    """
    with _latest.lock:
        try:
            about = path.stat()
        except OSError as error:
            raise BadImageError(path, f"cannot be read: {error.strerror or error}") from None
        stat = (str(path), about.st_mtime_ns, about.st_size, about.st_ino)
        if _latest.volume is None or _latest.stat != stat:
            _latest.volume = _latest.stat = None
            data = read_bytes(path)
            _latest.sha256 = hashlib.sha256(data).hexdigest()
            _latest.volume = nifti.unpack(data, path)
            _latest.stat = stat
        if sha256 is not None and _latest.sha256 != sha256:
            raise BadImageError(path, "changed while it was read")
        volume, values = _latest.volume
    return _channels(volume, values, window, path)


def read_header(data: bytes) -> Header | None:
    """Return the header of a DICOM file or NIfTI volume; None of any other. Damaged ones raise any exception."""
    if nifti.is_nifti(data[: nifti.START]):
        volume = nifti.parse(data[: nifti.START], Path())
        kind = f"{volume.type.kind}{8 * volume.type.itemsize}"
        return Header("NIfTI", kind, volume.columns, volume.rows)
    if not is_dicom(data[:START]):
        return None
    file = dicom_header.parse(io.BytesIO(data), pixels=False)
    layout = dicom_pixels.Layout.of(file.dataset)
    name = dicom_header.syntax_name(file.syntax) if file.syntax in dicom_header.COMPRESSED else "uncompressed"
    mode = f"{'i' if layout.signed else 'u'}{layout.stored}"
    return Header(f"DICOM {name}", mode, layout.columns, layout.rows)
