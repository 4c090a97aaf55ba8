"""CT slices as DICOM files: Hounsfield units through the lung window to 8-bit gray levels.

Published CT images are PNG and JPEG that somebody exported from a viewer. A slice becomes such an image here: the
window is that in which radiologists read lungs, and air is black.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import uid

from ddtl.data.images import dicom_header, dicom_pixels
from ddtl.data.images.bounds import MAX_PIXELS
from ddtl.data.images.dicom_header import File, HeaderError, integer, number, text_of, vector, words_of
from ddtl.data.images.dicom_pixels import Stored
from ddtl.data.images.image_file import BadImageError, opened, read_bytes
from ddtl.data.images.levels import MIN_LEVELS, windowed

LEVEL, WIDTH = -600.0, 1500.0  # Hounsfield units

# The window maps air, -1000 HU, to 59, and water, 0 HU, to 230.
_AIR, _TISSUE = 80, 200
_AXIAL = 0.7  # the least cosine between a slice's normal and the patient's long axis: 45 degrees
_DENSEST_AIR = 144  # of -500 HU; every slice of a chest has lungs, or air around the body, below it

_LARGEST = 1e9  # of RescaleSlope and RescaleIntercept

_RESCALE_TYPES = {"", "HU", "US"}  # US: unspecified
_COLORS = {"RGB", "ARGB", "CMYK", "HSV", "PALETTE COLOR"}
_SCOUTS = {"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW"}
# Words of ImageType and FrameType for maps of other quantities (PS3.3 C.8.15.3.8, and manufacturers' own).
_MAPS = (
    "IODINE", "Z_EFF", "ZEFF", "EFF_ATOMIC", "EFFECTIVE_Z", "ELECTRON_DENSITY", "MAT_SPECIFIC", "MAT_FRACTIONAL",
    "MAT_MODIFIED", "MAT_VALUE_BASED", "MATERIAL_DENSITY", "PERFUSION", "BLOOD_VOLUME", "BLOOD_FLOW", "TRANSIT_TIME",
    "PBV", "RHO_Z", "RHOZ", "STOPPING_POWER", "VOLUME_RENDER",
)  # fmt: skip
# Words of SeriesDescription for such maps where ImageType names none; iodine alone is a contrast agent.
_MAP_DESCRIPTIONS = (
    "iodine map", "iodine density", "iodine no water", "iodine overlay", "iodine (water)", "[mg/ml]", "z effective",
    "effective z", "z-eff", "zeff", "electron density", "perfused blood volume", "perfusion map",
)  # fmt: skip
# All elements of a header that are used; others, with names among them, are not read.
_HEADER = (
    "SOPClassUID", "SOPInstanceUID", "ImageType", "FrameType", "Modality", "SeriesDescription", "PatientID",
    "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "SeriesInstanceUID", "AcquisitionNumber",
    "InstanceNumber", "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "BurnedInAnnotation",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "PixelSpacing",
    "RescaleIntercept", "RescaleSlope", "RescaleType", "ModalityLUTSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity",
)  # fmt: skip
_DIRECTORY = uid.MediaStorageDirectoryStorage
CAPTURE = "secondary capture"
PROJECTION = "projection or subtraction"
_PROJECTIONS = {
    "MIP", "MINIP", "MIN_IP", "MAX_IP", "MIN IP", "MAX IP", "CSA MIP", "PROJECTION IMAGE", "SUBTRACTION", "SUBTRACTED",
}  # fmt: skip
_MAP = "map of another quantity"
_CAPTURE = uid.SecondaryCaptureImageStorage  # multi-frame and colour kinds are its children


@dataclass(frozen=True, slots=True)
class Slice:
    """The place of a slice, from its header.

    Attributes:
        patient: PatientID; may be empty.
        study: StudyInstanceUID, likewise.
        series: SeriesInstanceUID, likewise.
        instance: SOPInstanceUID, likewise.
        person: by which two people of one PatientID differ: (what it is, value) of birth date, sex, issuer of the id.
        position: along the patient, in mm: the slice's corner on the slice's normal. None where it is not known.
        number: InstanceNumber, likewise.
        notes: what had to be guessed, as predicates.
        frame: FrameOfReferenceUID; may be empty.
        acquisition: AcquisitionNumber, likewise None.
        direction: ImageOrientationPatient, rounded; empty where it is not known.
        is_burned_in: whether it says that text is burned into its pixels.
        is_capture: whether it is a secondary capture, which may be a slice or a screenshot.
    """

    patient: str
    study: str
    series: str
    instance: str = ""
    person: tuple[tuple[str, str], ...] = ()
    position: float | None = None
    number: int | None = None
    notes: tuple[str, ...] = ()
    frame: str = ""
    acquisition: int | None = None
    direction: tuple[float, ...] = ()
    is_burned_in: bool = False
    is_capture: bool = False
    is_projection: bool = False


def read_slice(path: Path) -> Slice | None:
    """Return the header of a slice; its pixels are not read. None for a DICOMDIR.

    Raises:
        BadImageError: no axial CT slice with Hounsfield units; the reason says what it is instead.
    """

    def read() -> Slice | None:
        with opened(path) as stream:
            file = dicom_header.parse(stream, pixels=False, keywords=_HEADER)
        if _kind(file.dataset) == _DIRECTORY:
            return None
        _check(file.dataset)
        return _slice(file)

    found: Slice | None = _named(read, path)
    return found


def _slice(file: File) -> Slice:
    ds = file.dataset
    sex = text_of(ds, "PatientSex").upper()[:1]
    person = {
        "birth dates": "".join(filter(str.isdigit, text_of(ds, "PatientBirthDate"))),
        "sexes": sex if sex in {"M", "F"} else "",
        "issuers of the id": text_of(ds, "IssuerOfPatientID").casefold(),
    }
    direction = vector(ds, "ImageOrientationPatient", 6)
    return Slice(
        patient=text_of(ds, "PatientID"),
        study=text_of(ds, "StudyInstanceUID"),
        series=text_of(ds, "SeriesInstanceUID"),
        instance=text_of(ds, "SOPInstanceUID"),
        person=tuple((what, value) for what, value in person.items() if value),
        position=_position(ds),
        number=_ordinal(ds, "InstanceNumber"),
        notes=file.notes,
        frame=text_of(ds, "FrameOfReferenceUID"),
        acquisition=_ordinal(ds, "AcquisitionNumber"),
        direction=() if direction is None else tuple((direction.round(2) + 0.0).tolist()),
        is_burned_in=text_of(ds, "BurnedInAnnotation").upper() == "YES",
        is_capture=_kind(ds).startswith(_CAPTURE),
        is_projection=bool(_PROJECTIONS & {*words_of(ds, "ImageType"), *words_of(ds, "FrameType")}),
    )


def _ordinal(ds: Any, keyword: str) -> int | None:
    """A number that only orders or groups slices; None where it is absent or is none."""
    try:
        return integer(ds, keyword)
    except HeaderError:
        return None


def decode_slice(
    path: Path, note: Callable[[str], None] = lambda text: None, level: float = LEVEL, width: float = WIDTH
) -> Image.Image:
    """Return the slice in 8-bit gray (mode ``L``), in a window.

    Args:
        path: of the file.
        note: called with each doubt about the pixels, a predicate.
        level, width: of the window, in Hounsfield units.

    Raises:
        BadImageError: as :func:`read_slice` does, and where the pixels cannot be read.
    """
    return decode_bytes(read_bytes(path), path, note, level, width)


def decode_bytes(
    data: bytes, path: Path, note: Callable[[str], None] = lambda text: None, level: float = LEVEL,
    width: float = WIDTH, extent: float | None = None,
) -> Image.Image:  # fmt: skip
    """Return the slice that a file's bytes are; see :func:`decode_slice`.

    Args:
        data: the file's whole content.
        path: names the file in errors.
        note: called with each doubt about the pixels, a predicate.
        level, width: of the window, in Hounsfield units.
        extent: side in mm of the square around the middle that is shown; None for the whole slice.
    """
    return decode_windows(data, path, [(level, width)], note, extent)[0]


def decode_windows(
    data: bytes, path: Path, windows: Sequence[tuple[float, float]], note: Callable[[str], None] = lambda text: None,
    extent: float | None = None,
) -> list[Image.Image]:  # fmt: skip
    """Return the slice that a file's bytes are through each window, (level, width), as :func:`decode_bytes` does."""

    def decode() -> list[Image.Image]:
        file = dicom_header.parse(io.BytesIO(data), pixels=True)
        _check(file.dataset)
        stored = dicom_pixels.read(file)
        if stored.padding.all():
            value = text_of(file.dataset, "PixelPaddingValue")
            raise HeaderError(f"has no pixel besides padding (PixelPaddingValue {value})")
        lung = gray_levels(stored, file.dataset)
        for text in (*stored.notes, *_doubts(lung, stored, file.dataset)):
            note(text)
        found = [
            Image.fromarray(lung if window == (LEVEL, WIDTH) else gray_levels(stored, file.dataset, *window))
            for window in windows
        ]
        return found if extent is None else [cut_out(gray, _spacing(file.dataset), extent) for gray in found]

    images: list[Image.Image] = _named(decode, path)
    return images


def cut_out(gray: Image.Image, spacing: tuple[float, float] | None, extent: float) -> Image.Image:
    """Return the square around a slice's middle, black where it reaches beyond the slice.

    Args:
        gray: the slice.
        spacing: mm from row to row and from column to column.
        extent: of the square, in mm; its sides are rounded to whole pixels.

    Raises:
        HeaderError: the spacing is not known.
    """
    if spacing is None:
        raise HeaderError("has no PixelSpacing, which dataset.spacing needs. Set dataset.spacing=null for whole slices")
    height, width = (max(1, round(extent / mm)) for mm in spacing)
    if height * width > MAX_PIXELS:
        raise HeaderError(f"has a PixelSpacing of {min(spacing):g} mm, of which {extent:g} mm are too many pixels")
    left, top = (gray.width - width) // 2, (gray.height - height) // 2
    return gray.crop((left, top, left + width, top + height))


def gray_levels(stored: Stored, ds: Any, level: float = LEVEL, width: float = WIDTH) -> np.ndarray:
    """Return a slice in a window: uint8, (rows, columns), by DICOM's linear function (PS3.3 C.11.2.1.2).

    Air and padding are black. PhotometricInterpretation MONOCHROME1 shows low values white. What
    files mean by it differs: nothing, the values being Hounsfield units all the same; stored values turned upside down;
    or, as the standard has it, an image to be inverted after the window. That it must show tissue with air around it
    tells which.

    Args:
        stored: the file's pixels.
        ds: the file's header.
        level, width: of the window, in Hounsfield units.
    """
    slope, intercept = _rescale(ds)
    gray = through(stored.values, slope, intercept, level, width)
    if text_of(ds, "PhotometricInterpretation").upper() == "MONOCHROME1":
        # The largest value that a file can hold, less the value; of signed values the mirror is between 0 and -1.
        top = -1 if stored.layout.signed else 2**stored.layout.stored - 1
        for values in (stored.values, top - stored.values):
            if _is_tissue_in_air(through(values, slope, intercept, LEVEL, WIDTH), stored.padding):
                gray = through(values, slope, intercept, level, width)
                break
        else:
            gray = 255 - gray
    levels: np.ndarray = np.where(stored.padding, 0, gray).astype(np.uint8)
    return levels


def through(values: np.ndarray, slope: float, intercept: float, level: float, width: float) -> np.ndarray:
    """Return whole numbers in a window: uint8, of the same shape; each value that can occur is computed once.

    Args:
        values: stored values.
        slope, intercept: Hounsfield units are ``slope * value + intercept``.
        level, width: of the window, in Hounsfield units.
    """
    low, high = int(values.min()), int(values.max())
    if high - low >= values.size:
        return windowed(slope * values + intercept, level, width)
    table = windowed(slope * np.arange(low, high + 1, dtype=values.dtype) + intercept, level, width)
    gray: np.ndarray = table[values - low]
    return gray


def _is_tissue_in_air(gray: np.ndarray, padding: np.ndarray) -> bool:
    """Whether most outermost pixels are as dark as air, and a hundredth of all is as bright as tissue."""
    measured = np.pad(~padding, 1)
    inside = measured[:-2, 1:-1] & measured[2:, 1:-1] & measured[1:-1, :-2] & measured[1:-1, 2:]
    rim = gray[~padding & ~inside]
    return bool(np.median(rim) <= _AIR and np.percentile(gray[~padding], 99) >= _TISSUE)


def _doubts(gray: np.ndarray, stored: Stored, ds: Any) -> list[str]:
    """Return what does not forbid to read a slice, but is seldom right.

    Raises:
        HeaderError: the image is a screenshot.
    """
    counts = np.bincount(gray[~stored.padding] if stored.padding.any() else gray.ravel(), minlength=256)
    present = np.flatnonzero(counts)
    doubts = []
    if text_of(ds, "BurnedInAnnotation").upper() == "YES":
        doubts.append("says that text is burned into its pixels (BurnedInAnnotation), which may name the patient")
    if present[0] > _DENSEST_AIR:
        if _kind(ds).startswith(_CAPTURE):
            raise HeaderError("is a screenshot (secondary capture) without Hounsfield units, no CT slice")
        doubts.append("has no pixel below -500 HU, as air and lungs are: RescaleSlope or RescaleIntercept may be wrong")
    elif _percentile(counts, 0.99) < _TISSUE:
        doubts.append("has hardly a pixel as dense as tissue: RescaleSlope or RescaleIntercept may be wrong")
    if len(present) < MIN_LEVELS:
        doubts.append(
            f"has fewer than {MIN_LEVELS} gray levels in the lung window: RescaleSlope or BitsStored may be wrong"
        )
    corners = stored.padding[[0, 0, -1, -1], [0, -1, 0, -1]]
    if stored.padding.any() and not corners.any():
        doubts.append("has pixels of its PixelPaddingValue within the image alone, which may be tissue; they are black")
    return doubts


def _percentile(counts: np.ndarray, share: float) -> float:
    """The quantile of grey levels that occur so often, as ``np.percentile`` interpolates it."""
    below = np.cumsum(counts)
    place = share * (int(below[-1]) - 1)
    low, high = np.searchsorted(below, [math.floor(place), math.ceil(place)], side="right").tolist()
    return float(low + (high - low) * (place - math.floor(place)))


def _rescale(ds: Any) -> tuple[float, float]:
    slope, intercept = number(ds, "RescaleSlope"), number(ds, "RescaleIntercept")
    if slope is None or intercept is None:
        lut = " (a ModalityLUTSequence is not read)" if "ModalityLUTSequence" in ds else ""
        raise HeaderError(
            f"has no RescaleSlope and RescaleIntercept, without which its values are not Hounsfield units{lut}"
        )
    if max(abs(slope), abs(intercept)) > _LARGEST:
        raise HeaderError(
            f"has a wrong header: RescaleSlope {slope:g} and RescaleIntercept {intercept:g} make no Hounsfield units"
        )
    if slope == 0:
        raise HeaderError("has a wrong header: RescaleSlope is 0, which makes all pixels alike")
    return slope, intercept


def _check(ds: Any) -> None:
    """Refuse what is not an axial CT slice in Hounsfield units."""
    kind = _kind(ds)
    rows, columns = (integer(ds, name) or 0 for name in ("Rows", "Columns"))
    frames = integer(ds, "NumberOfFrames") or 1
    image_type = {*words_of(ds, "ImageType"), *words_of(ds, "FrameType")}
    color = text_of(ds, "PhotometricInterpretation").upper()
    normal = _normal(ds)
    if not (rows or kind):
        raise HeaderError("is not a DICOM file, whatever its name is")
    if rows <= 0 or columns <= 0:
        name = str(uid.UID(kind).name)[:60]
        # What should have an image has lost it, and is damaged.
        what = "" if "Image Storage" in name else "dose report" if "Dose" in name else "object without an image"
        raise HeaderError(f"is a DICOM file without an image ({name})", kind=what)
    if text_of(ds, "Modality").upper() != "CT":
        what = CAPTURE if kind.startswith(_CAPTURE) else "image of another modality"
        raise HeaderError(f"is of modality {text_of(ds, 'Modality')[:20] or 'unknown'}, not CT", kind=what)
    if frames > 1:
        raise HeaderError(f"contains {frames} frames: save each slice as a file of its own")
    if not color:
        raise HeaderError("has no PhotometricInterpretation, without which its pixels cannot be read")
    if color in _COLORS or color.startswith("YBR"):
        raise HeaderError(f"is in colour ({color}): an image of a screen, no CT slice", kind=CAPTURE)
    if not color.startswith("MONOCHROME"):
        # Free text may name the patient.
        shown = color if re.fullmatch(r"[A-Z][A-Z_]{2,15}( COLOR)?", color) and len(color.split()) < 3 else "of its own"
        raise HeaderError(f"has a PhotometricInterpretation {shown}, which is not read")
    if integer(ds, "SamplesPerPixel") not in {None, 1}:
        raise HeaderError(f"has a wrong header: SamplesPerPixel {integer(ds, 'SamplesPerPixel')} with {color}")
    if image_type & _SCOUTS:
        raise HeaderError("is a localizer (scout view), no slice", kind="localizer")
    _check_quantity(ds, image_type)
    _rescale(ds)
    if rows * columns > MAX_PIXELS:
        raise HeaderError(f"is too large: {rows} × {columns} pixels")
    if normal is not None and abs(normal[2]) < _AXIAL:
        raise HeaderError("is not an axial slice (ImageOrientationPatient)", kind="reformat that is not axial")


def _check_quantity(ds: Any, image_type: set[str]) -> None:
    """Refuse values that are not Hounsfield units."""
    kind = text_of(ds, "RescaleType")
    if kind.upper() not in _RESCALE_TYPES:
        raise HeaderError(f"contains no Hounsfield units: RescaleType is {kind[:60]!r}", kind=_MAP)
    for word in sorted(image_type):
        if any(sign in word.replace(" ", "_") for sign in _MAPS):
            raise HeaderError(f"contains no Hounsfield units: ImageType says {word[:60]}", kind=_MAP)
    description = text_of(ds, "SeriesDescription")
    if any(sign in description.casefold() for sign in _MAP_DESCRIPTIONS):
        raise HeaderError(f"contains no Hounsfield units: SeriesDescription is {description[:60]!r}", kind=_MAP)


def _kind(ds: Any) -> str:
    """The UID of the kind of object; empty where the file doesn't say."""
    return text_of(ds, "SOPClassUID") or text_of(getattr(ds, "file_meta", {}), "MediaStorageSOPClassUID")


def _normal(ds: Any) -> np.ndarray | None:
    """The slice's unit normal in the patient's coordinates, (3,); None where the orientation is not known."""
    orientation = vector(ds, "ImageOrientationPatient", 6)
    if orientation is None:
        return None
    a, b, c, d, e, f = orientation.tolist()
    normal = np.array([b * f - c * e, c * d - a * f, a * e - b * d])  # the cross product, in a tenth of numpy's time
    length = np.linalg.norm(normal)
    return normal / length if length > 0 else None


def _position(ds: Any) -> float | None:
    normal, corner = _normal(ds), vector(ds, "ImagePositionPatient", 3)
    if normal is None or corner is None:
        return None
    return float(normal @ corner) * (-1 if normal[2] < 0 else 1)  # towards the head, however the slice is turned


def _spacing(ds: Any) -> tuple[float, float] | None:
    """Mm from row to row and from column to column; None where they are not known."""
    found = vector(ds, "PixelSpacing", 2)
    return None if found is None or (found <= 0).any() else (float(found[0]), float(found[1]))


def _named(what: Callable[[], Any], path: Path) -> Any:
    """What pydicom makes of a file; damaged ones raise almost any exception, each of which becomes a reason."""
    try:
        return what()
    except (BadImageError, MemoryError):
        raise
    except HeaderError as error:
        raise BadImageError(path, error.line(path), error.kind) from None
    except Exception as error:
        reason = HeaderError(f"is cut off or damaged: {str(error)[:200]}")
        raise BadImageError(path, reason.line(path)) from None
