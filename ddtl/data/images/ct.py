"""Slices of CT volumes as grey levels: DICOM files and NIfTI volumes, both in Hounsfield units."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from ddtl.data.images import dicom, dicom_header, dicom_pixels
from ddtl.data.images.decode import BadImageError, CTWindow, Header
from ddtl.data.images.dicom_header import START, is_dicom


def decode_gray(data: bytes, path: Path, window: CTWindow) -> Image.Image:
    """Return a slice in 8-bit gray (mode ``L``).

    Args:
        data: the file's whole content.
        path: names the file in errors.
        window: which slice, and in which window.

    Raises:
        BadImageError: it is neither, or cannot be used.
    """
    if not is_dicom(data[:START]) and path.suffix.lower() not in {".dcm", ".dicom", ".ima"}:
        raise BadImageError(path, "is neither DICOM nor NIfTI, and dataset.window is in Hounsfield units")
    return dicom.decode_bytes(data, path, level=window.center, width=window.width, extent=window.extent)


def read_header(data: bytes) -> Header | None:
    """Return the header of a DICOM file or NIfTI volume; None of any other. Damaged ones raise any exception."""
    if not is_dicom(data[:START]):
        return None
    file = dicom_header.parse(io.BytesIO(data), pixels=False)
    layout = dicom_pixels.Layout.of(file.dataset)
    name = dicom_header.syntax_name(file.syntax) if file.syntax in dicom_header.COMPRESSED else "uncompressed"
    mode = f"{'i' if layout.signed else 'u'}{layout.stored}"
    return Header(f"DICOM {name}", mode, layout.columns, layout.rows)
