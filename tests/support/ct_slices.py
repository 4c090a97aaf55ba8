"""CT slices as DICOM files, for tests: from Hounsfield units, in any of the ways in which files hold them."""

from __future__ import annotations

import struct
import subprocess
import zlib
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

SERIES = generate_uid()


def hounsfield(gray: np.ndarray) -> np.ndarray:
    """What the lung window makes these gray levels of."""
    return -600.5 + (gray / 255 - 0.5) * 1499


def dataset(
    values: np.ndarray, *, slope: float = 1, intercept: float = -1024, signed: bool = False, bits: int = 16,
    inverted: str = "", allocated: int = 16, **tags: Any,
) -> FileDataset:  # fmt: skip
    """One slice, not written yet.

    Args:
        values: Hounsfield units, (rows, columns).
        bits: BitsStored.
        inverted: how it is MONOCHROME1: ``tag`` alone, ``stored`` values upside down, or the ``window`` upside down.
        allocated: BitsAllocated.
        tags: further elements by keyword; None leaves one out.
    """
    if inverted == "window":
        values = 2 * -600.5 - values
    stored = np.rint((values - intercept) / slope).astype(np.int64)
    if inverted == "stored":
        stored = -1 - stored if signed else 2**bits - 1 - stored
    low = -(2 ** (bits - 1)) if signed else 0
    assert ((stored >= low) & (stored < low + 2**bits)).all(), "the values fit"
    words = (stored & 2**bits - 1).astype(f"<u{allocated // 8}")
    if signed and bits == allocated:
        words = stored.astype(f"<i{allocated // 8}")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    elements = {
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID, "Modality": "CT",
        "PatientID": "P1", "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": SERIES, "InstanceNumber": 1,
        "ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "Rows": values.shape[0], "Columns": values.shape[1], "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME1" if inverted else "MONOCHROME2",
        "BitsAllocated": allocated, "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": int(signed),
        "RescaleSlope": slope, "RescaleIntercept": intercept, "PixelData": words.tobytes(), **tags,
    }  # fmt: skip
    for name, value in elements.items():
        if value is not None:
            setattr(ds, name, value)
    return ds


def write(path: Path, values: np.ndarray, **how: Any) -> Path:
    """Write one slice; see :func:`dataset`."""
    dataset(values, **how).save_as(path, enforce_file_format=True)
    return path


def words_of(ds: FileDataset) -> np.ndarray:
    """The pixels' words, unsigned."""
    found: np.ndarray = np.frombuffer(ds.PixelData, f"<u{ds.BitsAllocated // 8}").reshape(ds.Rows, ds.Columns).copy()
    return found


def without_meta(ds: FileDataset, *, implicit: bool = False, little: bool = True, preamble: bool = False) -> bytes:
    """The dataset alone, as files without meta information hold it, with or without the preamble before it."""
    if not little:
        ds.PixelData = words_of(ds).byteswap().tobytes()
    buffer = BytesIO()
    plain = pydicom.Dataset(ds)
    pydicom.dcmwrite(buffer, plain, implicit_vr=implicit, little_endian=little)
    return (b"\0" * 128 + b"DICM" if preamble else b"") + buffer.getvalue()


_GDCMCONV: dict[str, str] = {
    RLELossless: "--rle",
    JPEGLosslessSV1: "--jpeg",
    JPEGLSLossless: "--jpegls",
    JPEG2000Lossless: "--j2k",
}


def compressed(ds: FileDataset, syntax: str) -> FileDataset:
    """The slice compressed losslessly by GDCM's tool, in a process of its own."""
    spec = find_spec("_gdcm")
    assert spec is not None, "python-gdcm is installed"
    tool = Path(str(spec.origin)).with_name("gdcmconv")
    with TemporaryDirectory() as folder:
        raw, packed = Path(folder, "raw"), Path(folder, "packed")
        ds.save_as(raw, enforce_file_format=True)
        subprocess.run([tool, _GDCMCONV[syntax], raw, packed], check=True, capture_output=True, timeout=300)
        found = pydicom.dcmread(packed)
    assert found.file_meta.TransferSyntaxUID == syntax
    _, *fragments = generate_fragments(found.PixelData)
    return encapsulated(ds, b"".join(fragments), syntax)


def encapsulated(ds: FileDataset, frame: bytes, syntax: str) -> FileDataset:
    """The slice with a compressed image for its pixels."""
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    return ds


def deflated(ds: FileDataset, body: bytes | None = None) -> bytes:
    """A file whose dataset is deflated; ``body`` instead of the dataset."""
    ds.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1.99")
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    whole = buffer.getvalue()
    if body is None:
        return whole
    (length,) = struct.unpack_from("<I", whole, 140)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return whole[: 144 + length] + packer.compress(body) + packer.flush()
