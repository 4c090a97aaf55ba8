"""CT slices as DICOM files, for tests: from Hounsfield units, in any of the ways in which files hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SERIES = generate_uid()


def hounsfield(gray: np.ndarray) -> np.ndarray:
    """What the lung window makes these gray levels of."""
    return -600.5 + (gray / 255 - 0.5) * 1499


def write(
    path: Path, values: np.ndarray, *, slope: float = 1, intercept: float = -1024, signed: bool = False, bits: int = 16,
    inverted: str = "", **tags: Any,
) -> Path:  # fmt: skip
    """Write one slice.

    Args:
        values: Hounsfield units, (rows, columns).
        bits: BitsStored, in 16 allocated.
        inverted: how it is MONOCHROME1: ``tag`` alone, ``stored`` values upside down, or the ``window`` upside down.
        tags: further elements by keyword; None leaves one out.
    """
    if inverted == "window":
        values = 2 * -600.5 - values
    stored = np.rint((values - intercept) / slope).astype(np.int64)
    if inverted == "stored":
        stored = -1 - stored if signed else 2**bits - 1 - stored
    dtype = np.int16 if signed else np.uint16
    assert (stored == stored.astype(dtype)).all(), "the values fit"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    elements = {
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID, "Modality": "CT",
        "PatientID": "P1", "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": SERIES, "InstanceNumber": 1,
        "ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "Rows": values.shape[0], "Columns": values.shape[1], "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME1" if inverted else "MONOCHROME2",
        "BitsAllocated": 16, "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": int(signed),
        "RescaleSlope": slope, "RescaleIntercept": intercept, "PixelData": stored.astype(dtype).tobytes(), **tags,
    }  # fmt: skip
    for name, value in elements.items():
        if value is not None:
            setattr(ds, name, value)
    ds.save_as(path, enforce_file_format=True)
    return path
