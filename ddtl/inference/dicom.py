"""CT slices as DICOM files: Hounsfield units through the lung window to 8-bit gray. The only module that knows pydicom.

Published CT pictures are PNG and JPEG that somebody took out of a viewer. A slice becomes such a picture here: the
window is that in which radiologists read lungs, and air is black.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_rescale

from ddtl.data.images import MAX_PIXELS, BadImageError, read_bytes

LEVEL, WIDTH = -600.0, 1500.0  # Hounsfield units
SUFFIXES = {".dcm", ".dicom", ".ima"}

# Of air, -1000 HU, the window makes 59, and of water, 0 HU, 230.
_AIR, _TISSUE = 80, 200
_AXIAL = 0.7  # the least cosine between a slice's normal and the patient's long axis: 45 degrees

# Scanners write many small faults, and pydicom tells of each; what matters is told by BadImageError.
warnings.filterwarnings("ignore", module=r"pydicom\b")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Slice:
    """Where a slice belongs.

    Attributes:
        patient: PatientID; where it is empty the study's UID, else the series'.
        series: SeriesInstanceUID.
        position: along the patient, in mm: the slice's corner on the slice's normal. None where it is not known.
        number: InstanceNumber, likewise.
    """

    patient: str
    series: str
    position: float | None
    number: int | None


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its content, or by its suffix where it is one of those written without the mark."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM" or path.suffix.lower() in SUFFIXES
    except OSError:
        return False


def read_slice(path: Path) -> Slice:
    """What the header says about a slice; its pixels are left alone.

    Raises:
        BadImageError: no axial CT slice with Hounsfield units; the reason says what it is instead.
    """
    ds = _read(lambda: pydicom.dcmread(path, stop_before_pixels=True, force=path.suffix.lower() in SUFFIXES), path)
    _check(ds, path)
    part: Slice = _read(lambda: _slice(ds), path)
    return part


def _slice(ds: Any) -> Slice:
    study, series = (str(ds.get(f"{level}InstanceUID") or "") for level in ("Study", "Series"))
    number = ds.get("InstanceNumber")
    return Slice(
        patient=str(ds.get("PatientID") or "").strip() or study or series,
        series=series,
        position=_position(ds),
        number=None if number is None else int(number),
    )


def decode_slice(path: Path) -> Image.Image:
    """The slice in 8-bit gray (mode ``L``), in the lung window.

    Raises:
        BadImageError: as :func:`read_slice` does, and where the pixels cannot be read.
    """
    data = read_bytes(path)
    ds = _read(lambda: pydicom.dcmread(io.BytesIO(data), force=path.suffix.lower() in SUFFIXES), path)
    _check(ds, path)
    return Image.fromarray(_read(lambda: gray_levels(ds), path))


def gray_levels(ds: Any) -> np.ndarray:
    """A slice through the lung window: uint8, (rows, columns), 0 black, by DICOM's linear window (PS3.3 C.11.2.1.2).

    PhotometricInterpretation MONOCHROME1 says that low values are to be shown white. What files mean by it differs:
    nothing, the values being Hounsfield units all the same; stored values turned upside down; or, as the standard has
    it, a picture to be turned upside down behind the window. That it must show tissue with air around it tells which.
    """
    stored = ds.pixel_array
    plain = _windowed(_hounsfield(stored, ds))
    if ds.PhotometricInterpretation != "MONOCHROME1":
        return plain
    # The largest value that a file can hold, less the value; of signed values the mirror lies between 0 and -1.
    mirrored = (-1 if ds.PixelRepresentation else 2**ds.BitsStored - 1) - stored.astype(np.int64)
    turned = _windowed(_hounsfield(mirrored, ds))
    standard: np.ndarray = 255 - plain
    return next((gray for gray in (plain, turned) if _is_tissue_in_air(gray)), standard)


def _hounsfield(stored: np.ndarray, ds: Any) -> np.ndarray:
    values = apply_rescale(stored, ds)
    padding = ds.get("PixelPaddingValue")
    # What stands outside of the scanner's field of view is no tissue, however it is written.
    return values if padding is None else np.where(ds.pixel_array == padding, -np.inf, values)


def _windowed(hounsfield: np.ndarray) -> np.ndarray:
    shares = (hounsfield - (LEVEL - 0.5)) / (WIDTH - 1) + 0.5
    levels: np.ndarray = np.rint(255 * shares.clip(0, 1)).astype(np.uint8)
    return levels


def _is_tissue_in_air(gray: np.ndarray) -> bool:
    """Whether most outermost pixels are as dark as air, and a hundredth of all is as bright as tissue."""
    frame = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    return bool(np.median(frame) <= _AIR and np.percentile(gray, 99) >= _TISSUE)


def _check(ds: Any, path: Path) -> None:
    """Refuse what is no axial CT slice in Hounsfield units."""
    reason = _read(lambda: _why_not(ds), path)
    if reason is not None:
        raise BadImageError(path, reason)


def _why_not(ds: Any) -> str | None:
    normal = _normal(ds)
    rows, columns = (int(ds.get(name) or 0) for name in ("Rows", "Columns"))
    frames = int(ds.get("NumberOfFrames") or 1)
    gray = ds.get("SamplesPerPixel", 1) == 1 and str(ds.get("PhotometricInterpretation")).startswith("MONOCHROME")
    rescaled = ds.get("RescaleSlope") is not None and ds.get("RescaleIntercept") is not None
    reasons = {
        "is no DICOM file, whatever its name says": not (rows or _kind(ds)),
        f"is a DICOM file without a picture ({_kind(ds)})": not (rows and columns),
        f"is of modality {ds.get('Modality') or 'unknown'}, not CT": ds.get("Modality") != "CT",
        f"holds {frames} frames: save each slice as a file of its own": frames > 1,
        "is in colour: a picture of a screen, no CT slice": not gray,
        "is a localizer (scout view), no slice": "LOCALIZER" in (ds.get("ImageType") or ()),
        "has no RescaleSlope and RescaleIntercept, without which its values are no Hounsfield units": not rescaled,
        f"is too large: {rows} × {columns} pixels": rows * columns > MAX_PIXELS,
        "is no axial slice (ImageOrientationPatient)": normal is not None and abs(normal[2]) < _AXIAL,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _kind(ds: Any) -> str:
    """The kind of object, in DICOM's words; empty where it doesn't say."""
    meta = getattr(ds, "file_meta", {})
    uid = ds.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID")
    return str(uid.name) if uid else ""


def _normal(ds: Any) -> np.ndarray | None:
    """The slice's unit normal in the patient's coordinates, (3,); None where the orientation is not known."""
    orientation = np.array(ds.get("ImageOrientationPatient") or (), dtype=float)
    if orientation.shape != (6,):
        return None
    normal: np.ndarray = np.cross(orientation[:3], orientation[3:])
    length = np.linalg.norm(normal)
    return normal / length if length > 0 else None


def _position(ds: Any) -> float | None:
    normal, corner = _normal(ds), np.array(ds.get("ImagePositionPatient") or (), dtype=float)
    return None if normal is None or corner.shape != (3,) else float(normal @ corner)


def _read(what: Callable[[], Any], path: Path) -> Any:
    """What pydicom makes of a file; damaged ones raise almost any exception, each of which is made a reason."""
    try:
        return what()
    except (BadImageError, MemoryError):
        raise
    except InvalidDicomError:
        raise BadImageError(path, "is no DICOM file, whatever its name says") from None
    except Exception as error:
        text = " ".join(str(error).split())
        if "missing dependencies" in text or "plugin" in text:
            raise BadImageError(
                path,
                "is compressed in a way that is not read here. Unpack it, as with `dcmdjpeg` or `gdcmconv --raw`, or "
                "install a decoder: pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg",
            ) from None
        raise BadImageError(path, f"is cut off or damaged: {text[:200]}") from None
