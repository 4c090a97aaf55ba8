"""What DICOM files are met with: each read to the right gray level, or refused with the line that names why."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from ddtl.data.images import dicom
from ddtl.data.images.image_file import BadImageError
from ddtl.inference.inputs import find
from tests.support import ct_slices

Build = Callable[[Path], None]


def scene() -> np.ndarray:
    """Hounsfield units of a body of tissue, bone and lung in air, with every level from -1000 to 400 somewhere."""
    rows, columns = 24, 40
    values = np.full((rows, columns), -1000.0)
    values[3:-3, 3:-3] = np.linspace(-900, 400, (rows - 6) * (columns - 6)).round().reshape(rows - 6, columns - 6)
    values[5:9, 6:12] = 900
    return values


HU = scene()


def window(hounsfield: np.ndarray) -> np.ndarray:
    """DICOM's linear window (PS3.3 C.11.2.1.2), of -600 and 1500 HU, as gray levels."""
    center, width = -600, 1500
    level = ((hounsfield - (center - 0.5)) / (width - 1) + 0.5) * 255
    level[hounsfield <= center - 0.5 - (width - 1) / 2] = 0
    level[hounsfield > center - 0.5 + (width - 1) / 2] = 255
    return np.rint(level)


GRAY = window(HU)
CORNER = (slice(0, 2), slice(0, 2))  # of the image, outside of the scanner's field of view


def black_corner(gray: np.ndarray = GRAY) -> np.ndarray:
    changed = gray.copy()
    changed[CORNER] = 0
    return changed


def read(path: Path) -> tuple[np.ndarray, list[str]]:
    """The gray levels and the doubts, after the header was read as ``ddtl predict`` reads it."""
    part = dicom.read_slice(path)
    assert part is not None, "no DICOMDIR"
    notes = list(part.notes)
    return np.asarray(dicom.decode_slice(path, notes.append)).astype(int), notes


def made(change: Callable[[FileDataset], Any] = lambda ds: None, values: np.ndarray = HU, **how: Any) -> Build:
    """A slice that is changed before it is written."""

    def build(path: Path) -> None:
        ds = ct_slices.dataset(values, **how)
        change(ds)
        ds.save_as(path, enforce_file_format=True)

    return build


def tagged(**tags: Any) -> Build:
    return made(**tags)


def text_tag(keyword: str, text: str) -> Build:
    """A tag whose text pydicom would not write."""

    def build(path: Path) -> None:
        mark = "-9731.5"
        ct_slices.dataset(HU, **({} if keyword.startswith("Rescale") else {keyword: mark})).save_as(path)
        ds = pydicom.dcmread(path)
        if keyword.startswith("Rescale"):
            setattr(ds, keyword, mark)
            ds.save_as(path)
        data = path.read_bytes()
        old = struct.pack("<H", 8) + mark.encode() + b" "
        padded = text.encode() + b" " * (len(text) % 2)
        assert data.count(old) == 1
        path.write_bytes(data.replace(old, struct.pack("<H", len(padded)) + padded))

    return build


def raw(content: Callable[[FileDataset], bytes], **how: Any) -> Build:
    def build(path: Path) -> None:
        path.write_bytes(content(ct_slices.dataset(HU, **how)))

    return build


def set_words(change: Callable[[np.ndarray], np.ndarray], **tags: Any) -> Callable[[FileDataset], None]:
    """Change the pixels' words, then the tags."""

    def apply(ds: FileDataset) -> None:
        words = change(ct_slices.words_of(ds).astype(np.int64))
        ds.PixelData = (words & 2**ds.BitsAllocated - 1).astype(f"<u{ds.BitsAllocated // 8}").tobytes()
        for name, value in tags.items():
            setattr(ds, name, value)

    return apply


def in_corner(word: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(words: np.ndarray) -> np.ndarray:
        words[CORNER] = word
        return words

    return change


def padded(word: int, limit: int | None = None, *, vr: str = "US", value: int | None = None) -> Any:
    """Words of padding in the corner, and the tags that say so."""

    def apply(ds: FileDataset) -> None:
        set_words(in_corner(word))(ds)
        ds.add_new("PixelPaddingValue", vr, word if value is None else value)
        if limit is not None:
            ds.add_new("PixelPaddingRangeLimit", vr, limit)

    return apply


def enhanced(change: Callable[[FileDataset, Dataset], Any] = lambda ds, shared: None, frames: int = 1) -> Build:
    """Enhanced CT: what a frame has in common in functional groups."""

    def build(path: Path) -> None:
        ds = ct_slices.dataset(
            HU, RescaleSlope=None, RescaleIntercept=None, ImagePositionPatient=None, ImageOrientationPatient=None
        )
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
        ds.NumberOfFrames = frames
        ds.PixelData = ds.PixelData * frames
        shared, frame = Dataset(), Dataset()
        rescale, plane, orientation, kind = Dataset(), Dataset(), Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -1024, "HU"
        plane.ImagePositionPatient = [0, 0, 77]
        orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        shared.PixelValueTransformationSequence = Sequence([rescale])
        shared.CTImageFrameTypeSequence = Sequence([kind])
        shared.PlaneOrientationSequence = Sequence([orientation])
        frame.PlanePositionSequence = Sequence([plane])
        ds.SharedFunctionalGroupsSequence = Sequence([shared])
        ds.PerFrameFunctionalGroupsSequence = Sequence([frame] * frames)
        change(ds, shared)
        ds.save_as(path, enforce_file_format=True)

    return build


def inverted_stored(ds: FileDataset) -> None:
    set_words(lambda words: 2**ds.BitsStored - 1 - words)(ds)
    ds.PhotometricInterpretation = "MONOCHROME1"


def compressed(syntax: str, change: Callable[[FileDataset], Any] = lambda ds: None, **how: Any) -> Build:
    return made(lambda ds: (ct_slices.compressed(ds, syntax), change(ds)), **how)


def frame_of(ds: FileDataset) -> bytes:
    (_, frame) = pydicom.encaps.generate_fragments(ds.PixelData)
    return frame


def change_frame(syntax: str, change: Callable[[bytes], bytes], says: str | None = None) -> Build:
    """A compressed image that is changed; ``says`` is the transfer syntax that the file names."""

    def apply(ds: FileDataset) -> None:
        ct_slices.compressed(ds, syntax)
        ct_slices.encapsulated(ds, change(frame_of(ds)), says or syntax)

    return made(apply, bits=12)


def saved(path: Path, syntax: str, **how: Any) -> None:
    ds = ct_slices.dataset(HU, **how)
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian and ds.BitsAllocated > 8:
        ds.PixelData = ct_slices.words_of(ds).byteswap().tobytes()
    elif syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").byteswap().tobytes()
        ds["PixelData"].VR = "OW"
    pydicom.dcmwrite(path, ds, enforce_file_format=True, little_endian=syntax != ExplicitVRBigEndian,
                     implicit_vr=syntax == ImplicitVRLittleEndian)  # fmt: skip


def _implicit(path: Path) -> None:
    """Padding whose representation follows from that of the pixels."""
    ds = ct_slices.dataset(HU, intercept=0, signed=True)
    padded(-2000 & 0xFFFF, vr="SS", value=-2000)(ds)
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    pydicom.dcmwrite(path, ds, enforce_file_format=True, implicit_vr=True, little_endian=True)


# A name for what is met, how it is made, the gray levels, and a part of the doubt that is reported.
READ: dict[str, tuple[Build, np.ndarray, str]] = {
    "a plain slice": (tagged(), GRAY, ""),
    # Padding.
    "padding, unsigned": (made(padded(0), intercept=-2048), black_corner(), ""),
    "padding brighter than all": (made(padded(65535)), black_corner(), ""),
    "padding, signed": (
        made(padded(-2000 & 0xFFFF, vr="SS", value=-2000), intercept=0, signed=True), black_corner(), ""
    ),
    "padding of signed pixels written unsigned": (
        made(padded(63536, vr="US"), intercept=0, signed=True), black_corner(), ""
    ),
    "padding of unsigned pixels written signed": (made(padded(63536, vr="SS", value=-2000)), black_corner(), ""),
    "padding of 16 bits in pixels of 12": (made(padded(0x8000), intercept=-1024, bits=12), black_corner(), ""),
    "padding of 12 signed bits": (
        made(padded(-2000 & 0xFFF, vr="SS", value=-2000), intercept=0, signed=True, bits=12), black_corner(), ""
    ),
    "a range of padding": (made(padded(4000, 4100)), black_corner(), ""),
    "a range of padding, its ends exchanged": (made(padded(4100, 4000)), black_corner(), ""),
    "padding with the pixels turned upside down": (
        made(lambda ds: (inverted_stored(ds), padded(2000)(ds)), bits=12), black_corner(), ""
    ),
    "padding with the window turned upside down": (made(padded(60000), inverted="window", intercept=-2700),
        black_corner(window(2 * -600.5 - np.rint(2 * -600.5 - HU))), ""),
    "padding in compressed pixels": (
        made(lambda ds: (padded(4095)(ds), ct_slices.compressed(ds, JPEGLosslessSV1)), bits=12), black_corner(), ""
    ),
    "padding that is tissue": (
        made(lambda ds: setattr(ds, "PixelPaddingValue", 1024 + 900)), np.where(HU == 900, 0, GRAY), "may be tissue"
    ),
    "text burned into the pixels": (tagged(BurnedInAnnotation="YES"), GRAY, "may name the patient"),
    "no text burned into the pixels": (tagged(BurnedInAnnotation="NO"), GRAY, ""),
    "padding, signed, in implicit VR": (_implicit, black_corner(), ""),
    "padding of no value": (tagged(PixelPaddingValue=""), GRAY, ""),
    # Bits.
    "bits above the stored ones, of an overlay": (
        made(lambda ds: (set_words(lambda words: words | 0x8000 | 0x1000)(ds),
                         ds.add_new(0x60000102, "US", 12)), bits=12), GRAY, "",
    ),
    "bits above the stored ones, of nothing": (
        made(set_words(lambda words: words | 0x2000), bits=12), GRAY, "bits above BitsStored"
    ),
    "bits above the stored ones that repeat the sign": (
        made(set_words(lambda words: words - (words >> 11 << 12)), bits=12, intercept=0, signed=True), GRAY, ""
    ),
    "bits above the stored ones, signed, of nothing": (
        made(set_words(lambda words: words & 0xFFF | 0x3000), bits=12, signed=True), GRAY, "bits above BitsStored"
    ),
    "HighBit above BitsStored - 1": (
        made(set_words(lambda words: words << 4 | 0x7, HighBit=15), bits=12), GRAY, ""
    ),
    "HighBit absent": (made(lambda ds: delattr(ds, "HighBit"), bits=12), GRAY, ""),
    "8 bits": (tagged(bits=8, allocated=8, slope=8), window(np.rint((HU + 1024) / 8) * 8 - 1024), ""),
    "32 bits": (tagged(bits=32, allocated=32), GRAY, ""),
    "32 bits, signed": (tagged(bits=32, allocated=32, signed=True), GRAY, ""),
    "a negative slope": (tagged(slope=-1, intercept=3000), GRAY, ""),
    "a slope of two decimals": (tagged(slope=0.25), GRAY, ""),
    # Headers.
    "two-valued windows": (tagged(WindowCenter=[40, -600], WindowWidth=[400, 1200]), GRAY, ""),
    "windows that are not numbers": (text_tag("WindowCenter", "LUNG"), GRAY, ""),
    "empty instance and frame UIDs": (tagged(SOPInstanceUID="", FrameOfReferenceUID=""), GRAY, ""),
    "UIDs that are UUIDs": (
        made(lambda ds: setattr(ds, "SeriesInstanceUID", "4f5f6d0e-8c1b-4d8e-9a55-0d5d1c2b3a4f")), GRAY, ""
    ),
    "an InstanceNumber that is not a number": (text_tag("InstanceNumber", "IM_0001"), GRAY, ""),
    "a position that is not a number": (text_tag("ImagePositionPatient", "left\\0\\0"), GRAY, ""),
    "a rescale type of HU in small letters": (tagged(RescaleType="hu"), GRAY, ""),
    "a rescale type that is unspecified": (tagged(RescaleType="US"), GRAY, ""),
    "contrast agent in the description": (
        tagged(SeriesDescription="Thorax iodine contrast, Ultravist 370 mg/ml"), GRAY, ""
    ),
    "an unknown character set": (tagged(SpecificCharacterSet="KLINGON", PatientName="?"), GRAY, ""),
    "a blank behind the modality": (made(lambda ds: setattr(ds, "Modality", "CT ")), GRAY, ""),
    "an odd number of bytes": (
        made(lambda ds: setattr(ds, "PixelData", ds.PixelData + b"\0"), bits=8, allocated=8, slope=8),
        window(np.rint((HU + 1024) / 8) * 8 - 1024), "",
    ),
    "zeros after the pixels": (made(lambda ds: setattr(ds, "PixelData", ds.PixelData + b"\0" * 100)), GRAY, ""),
    # Files.
    "implicit VR": (lambda path: saved(path, ImplicitVRLittleEndian), GRAY, ""),
    "big endian": (lambda path: saved(path, ExplicitVRBigEndian), GRAY, ""),
    "big endian, 8 bits": (
        lambda path: saved(path, ExplicitVRBigEndian, bits=8, allocated=8, slope=8),
        window(np.rint((HU + 1024) / 8) * 8 - 1024), "",
    ),
    "deflated": (raw(ct_slices.deflated), GRAY, ""),
    "no preamble and no meta, explicit": (raw(ct_slices.without_meta), GRAY, "read as explicit VR, little endian"),
    "no preamble and no meta, implicit": (
        raw(lambda ds: ct_slices.without_meta(ds, implicit=True)), GRAY, "read as implicit VR, little endian"
    ),
    "no preamble and no meta, big endian": (
        raw(lambda ds: ct_slices.without_meta(ds, little=False)), GRAY, "read as explicit VR, big endian"
    ),
    "a preamble and no meta": (
        raw(lambda ds: ct_slices.without_meta(ds, implicit=True, preamble=True)), GRAY, "read as implicit VR"
    ),
    "meta without a transfer syntax": (
        made(lambda ds: None), GRAY, "has no transfer syntax; read as explicit VR, little endian"
    ),
    "says implicit, is explicit": (made(lambda ds: None), GRAY, ""),
    # Enhanced CT.
    "enhanced CT with one frame": (enhanced(), GRAY, ""),
    "enhanced CT with the rescale in its frame's group": (
        enhanced(lambda ds, shared: (
            setattr(ds.PerFrameFunctionalGroupsSequence[0], "PixelValueTransformationSequence",
                    shared.PixelValueTransformationSequence),
            delattr(shared, "PixelValueTransformationSequence"),
        )), GRAY, "",
    ),
    # Compressions, each from GDCM's own encoder.
    "JPEG Lossless": (compressed(JPEGLosslessSV1, bits=12), GRAY, ""),
    "JPEG Lossless, 16 bits signed": (compressed(JPEGLosslessSV1, intercept=0, signed=True), GRAY, ""),
    "JPEG Lossless, 12 bits signed": (compressed(JPEGLosslessSV1, intercept=0, signed=True, bits=12), GRAY, ""),
    "JPEG-LS": (compressed(JPEGLSLossless, bits=12), GRAY, ""),
    "JPEG-LS, signed": (compressed(JPEGLSLossless, intercept=0, signed=True, bits=13), GRAY, ""),
    "JPEG 2000": (compressed(JPEG2000Lossless, bits=12), GRAY, ""),
    "JPEG 2000, signed": (compressed(JPEG2000Lossless, intercept=0, signed=True, bits=13), GRAY, ""),
    "RLE": (compressed(RLELossless), GRAY, ""),
    "RLE, signed with HighBit above BitsStored - 1": (
        made(lambda ds: (set_words(lambda words: words << 4, HighBit=15)(ds), ct_slices.compressed(ds, RLELossless)),
             bits=12, intercept=0, signed=True), GRAY, "",
    ),
    "RLE, 8 bits": (
        compressed(RLELossless, bits=8, allocated=8, slope=8), window(np.rint((HU + 1024) / 8) * 8 - 1024), ""
    ),
    "JPEG Lossless under the name of baseline": (
        change_frame(JPEGLosslessSV1, lambda frame: frame, says="1.2.840.10008.1.2.4.50"), GRAY, "read as such"
    ),
    "JPEG-LS under the name of uncompressed": (made(), GRAY, "read as such"),
    "fill bytes before a JPEG marker": (
        change_frame(JPEGLosslessSV1, lambda frame: frame[:2] + b"\xff\xff" + frame[2:]), GRAY, ""
    ),
    "a pixel range without air": (tagged(values=np.abs(HU)), window(np.abs(HU)), "no pixel below -500 HU"),
    "a rescale that is applied twice": (
        tagged(values=HU.clip(max=400) - 1024, intercept=-2048), window(HU.clip(max=400) - 1024), "hardly a pixel as"
    ),
    "few gray levels": (
        tagged(values=np.where(HU > -900, 50, -1000)), window(np.where(HU > -900, 50.0, -1000.0)), "fewer than 32 gray"
    ),
}  # fmt: skip


def _without_transfer_syntax(path: Path) -> None:
    """Write meta information that lacks the transfer syntax, which pydicom would add."""
    ct_slices.write(path, HU)
    data = path.read_bytes()
    element = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
    assert data.count(element) == 1
    (length,) = struct.unpack_from("<I", data, 140)
    path.write_bytes(data[:140] + struct.pack("<I", length - len(element)) + data[144:].replace(element, b""))


def renamed(syntax: str, build: Build | None = None) -> Build:
    """A file whose transfer syntax is called otherwise, with everything else as it was."""

    def rename(path: Path) -> None:
        (build or made())(path)
        data = path.read_bytes()
        at = data.index(b"\x02\x00\x10\x00UI") + 6
        (old,) = struct.unpack_from("<H", data, at)
        (length,) = struct.unpack_from("<I", data, 140)
        uid = syntax.encode() + b"\0" * (len(syntax) % 2)
        total = struct.pack("<I", length + len(uid) - old)
        path.write_bytes(data[:140] + total + data[144:at] + struct.pack("<H", len(uid)) + uid + data[at + 2 + old :])

    return rename


for name, build in {
    "meta without a transfer syntax": _without_transfer_syntax,
    "says implicit, is explicit": renamed(ImplicitVRLittleEndian),
    "JPEG-LS under the name of uncompressed": renamed(ExplicitVRLittleEndian, compressed(JPEGLSLossless, bits=12)),
}.items():
    READ[name] = (build, *READ[name][1:])


REFUSED: dict[str, tuple[Build, str]] = {
    # Values that are no Hounsfield units.
    "RescaleIntercept '-1024 HU'": (
        text_tag("RescaleIntercept", "-1024 HU"),
        r"RescaleIntercept '-1024 HU' is not a number.* with: dcmodify -m .RescaleIntercept=-1024. \S+/slice.dcm$",
    ),
    "RescaleSlope '1,0'": (text_tag("RescaleSlope", "1,0"), "RescaleSlope '1,0' is not a number"),
    "RescaleSlope '1_0'": (text_tag("RescaleSlope", "1_0"), "RescaleSlope '1_0' is not a number"),
    "RescaleSlope '1\\1'": (text_tag("RescaleSlope", "1\\1"), "RescaleSlope '1.*1' is not a number"),
    "RescaleSlope 'nan'": (text_tag("RescaleSlope", "nan"), "RescaleSlope 'nan' is not a number"),
    "RescaleSlope '1e999'": (text_tag("RescaleSlope", "1e999"), "RescaleSlope '1e999' is not finite"),
    "RescaleIntercept 'inf'": (text_tag("RescaleIntercept", "inf"), "RescaleIntercept 'inf' is not a number"),
    "RescaleSlope 0": (made(lambda ds: setattr(ds, "RescaleSlope", 0)), "RescaleSlope is 0"),
    "RescaleSlope empty": (made(lambda ds: setattr(ds, "RescaleSlope", None)), "not Hounsfield units"),
    "a modality table instead of a rescale": (
        made(lambda ds: setattr(ds, "ModalityLUTSequence", Sequence([Dataset()])), RescaleSlope=None),
        "ModalityLUTSequence is not read",
    ),
    "RescaleType Z_EFF": (tagged(RescaleType="Z_EFF"), "RescaleType is 'Z_EFF'"),
    "RescaleType MGML": (tagged(RescaleType="MGML"), "no Hounsfield units: RescaleType is 'MGML'"),
    "RescaleType HU_MOD": (tagged(RescaleType="HU_MOD"), "RescaleType is 'HU_MOD'"),
    "an iodine map by its type": (
        tagged(ImageType=["DERIVED", "PRIMARY", "AXIAL", "IODINE"]), "ImageType says IODINE"
    ),
    "a map of one material": (
        tagged(ImageType=["DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"]), "ImageType says MAT_SPECIFIC"
    ),
    "a perfusion map": (tagged(ImageType=["DERIVED", "PRIMARY", "PERFUSION MAP"]), "ImageType says PERFUSION MAP"),
    "an iodine map by its description": (
        tagged(SeriesDescription="SBI Iodine no Water [mg/ml]"), "SeriesDescription is"
    ),
    "an enhanced iodine map": (
        enhanced(lambda ds, shared: setattr(
            shared.CTImageFrameTypeSequence[0], "FrameType", ["DERIVED", "PRIMARY", "VOLUME", "IODINE"])),
        "ImageType says IODINE",
    ),
    "enhanced CT in another unit": (
        enhanced(lambda ds, shared: setattr(shared.PixelValueTransformationSequence[0], "RescaleType", "ED")),
        "RescaleType is 'ED'",
    ),
    "enhanced CT that contradicts itself": (
        enhanced(lambda ds, shared: setattr(ds, "RescaleIntercept", -8192)), "says RescaleIntercept twice"
    ),
    "enhanced CT without a rescale": (
        enhanced(lambda ds, shared: delattr(shared, "PixelValueTransformationSequence")), "not Hounsfield units"
    ),
    "padding everywhere": (
        made(lambda ds: (setattr(ds, "PixelPaddingValue", 0), setattr(ds, "PixelPaddingRangeLimit", 65535))),
        "no pixel besides padding",
    ),
    "padding that is not a number": (
        made(lambda ds: ds.add_new("PixelPaddingValue", "LO", "none")), "PixelPaddingValue 'none' is not a number"
    ),
    # What is no slice.
    "another modality": (tagged(Modality="PT"), "modality PT, not CT"),
    "a scout": (tagged(ImageType=["ORIGINAL", "PRIMARY", "SCOUT"]), "is a localizer"),
    "a topogram": (tagged(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"]), "is a localizer"),
    "a screenshot in colour": (
        made(lambda ds: setattr(ds, "PixelData", ds.PixelData * 3), SamplesPerPixel=3, PhotometricInterpretation="RGB",
             SOPClassUID=SecondaryCaptureImageStorage), r"is in colour \(RGB\)",
    ),
    "a screenshot in gray": (
        tagged(values=np.abs(HU) / 5, intercept=0, SOPClassUID=SecondaryCaptureImageStorage), "is a screenshot"
    ),
    "a palette": (tagged(PhotometricInterpretation="PALETTE COLOR"), r"is in colour \(PALETTE COLOR\)"),
    "three samples of gray": (
        made(lambda ds: setattr(ds, "SamplesPerPixel", 3)), "SamplesPerPixel 3 with MONOCHROME2"
    ),
    "an unknown photometric interpretation": (tagged(PhotometricInterpretation="GRAY"), "Interpretation GRAY, which"),
    "no photometric interpretation": (tagged(PhotometricInterpretation=None), "no PhotometricInterpretation"),
    "several frames": (enhanced(frames=3), "contains 3 frames"),
    "frames that are not a number": (text_tag("NumberOfFrames", "many"), "NumberOfFrames 'many' is not a number"),
    # Pixels that cannot be read.
    "no rows": (tagged(Rows=None), "without an image"),
    "no columns": (tagged(Columns=None), "without an image"),
    "no pixels": (tagged(PixelData=None), "contains no PixelData"),
    "no BitsStored": (tagged(BitsStored=None), "has no BitsStored"),
    "no PixelRepresentation": (tagged(PixelRepresentation=None), "has no PixelRepresentation"),
    "PixelRepresentation 2": (made(lambda ds: setattr(ds, "PixelRepresentation", 2)), "is neither 0 nor 1"),
    "BitsAllocated 12": (made(lambda ds: setattr(ds, "BitsAllocated", 12), bits=12), "has BitsAllocated 12"),
    "BitsStored above BitsAllocated": (made(lambda ds: setattr(ds, "BitsStored", 20)), "BitsStored 20 with BitsAlloc"),
    "HighBit that its pixels contradict": (
        made(lambda ds: setattr(ds, "HighBit", 15), bits=12),
        r"HighBit is 15, and its pixels are in bits 0 to 11.*dcmodify -m .HighBit=11.",
    ),
    "HighBit below BitsStored - 1": (made(lambda ds: setattr(ds, "HighBit", 7)), "HighBit 7 with BitsStored 16"),
    "HighBit above the word": (made(lambda ds: setattr(ds, "HighBit", 16)), "HighBit 16 with BitsStored 16"),
    "cut pixels": (
        made(lambda ds: setattr(ds, "PixelData", ds.PixelData[:-200])), "PixelData has 1,720 of 1,920 bytes"
    ),
    "twice the pixels": (
        made(lambda ds: setattr(ds, "PixelData", ds.PixelData * 2)), "has 3,840 bytes, Rows, .* make 1,920"
    ),
    "pixels in floating point": (
        made(lambda ds: ds.add_new("FloatPixelData", "OF", HU.astype("<f4").tobytes()), PixelData=None,
             BitsAllocated=32), "contains FloatPixelData",
    ),
    "big endian of 32 bits": (
        lambda path: saved(path, ExplicitVRBigEndian, bits=32, allocated=32), "32-bit pixels in big endian"
    ),
    "too many pixels": (made(lambda ds: (setattr(ds, "Rows", 65000), setattr(ds, "Columns", 65000))), "is too large"),
    "says compressed, is not": (
        renamed(JPEGLosslessSV1), r"says that it is compressed \(JPEG Lossless\), and its pixels are not",
    ),
    "a private transfer syntax": (
        made(lambda ds: setattr(ds.file_meta, "TransferSyntaxUID", "1.2.840.113619.5.2")),
        r"transfer syntax 1.2.840.113619.5.2, which is not read.*gdcmconv --raw \S+/slice.dcm \S+/slice-new.dcm$",
    ),
    "a video": (
        change_frame(JPEG2000Lossless, lambda frame: frame, says="1.2.840.10008.1.2.4.102"),
        r"transfer syntax MPEG-4 .*1.2.840.10008.1.2.4.102",
    ),
    "High-Throughput JPEG 2000": (
        change_frame(JPEG2000Lossless, lambda frame: frame, says="1.2.840.10008.1.2.4.201"),
        r"High-Throughput JPEG 2000 .*which is not read",
    ),
    "High-Throughput JPEG 2000 under the name of JPEG 2000": (
        change_frame(JPEG2000Lossless, lambda frame: frame[:6] + b"\x40\0" + frame[8:]), "is compressed by High-Thr"
    ),
    "a JPEG process that is not read": (
        change_frame(JPEGLosslessSV1, lambda frame: frame.replace(b"\xff\xc3", b"\xff\xcb")), "marker CB"
    ),
    "JPEG Lossless, cut": (
        change_frame(JPEGLosslessSV1, lambda frame: frame[: len(frame) // 2]), "JPEG Lossless pixels have no end mark"
    ),
    "JPEG Lossless, cut and closed again": (
        change_frame(JPEGLosslessSV1, lambda frame: frame[: len(frame) // 2] + b"\xff\xd9"), "cannot be decoded"
    ),
    "JPEG 2000, cut and closed again": (
        change_frame(JPEG2000Lossless, lambda frame: frame[: len(frame) // 2] + b"\xff\xd9"), "cannot be decoded"
    ),
    "JPEG-LS, cut and closed again": (
        change_frame(JPEGLSLossless, lambda frame: frame[: len(frame) // 2] + b"\xff\xd9"), "cannot be decoded"
    ),
    "RLE, cut": (change_frame(RLELossless, lambda frame: frame[:80]), "cannot be decoded|damaged"),
    "RLE, zeros": (change_frame(RLELossless, lambda frame: bytes(len(frame))), "RLE header does not fit"),
    "an empty compressed image": (
        made(lambda ds: (ct_slices.compressed(ds, JPEGLosslessSV1),
                         setattr(ds, "PixelData", b"\xfe\xff\x00\xe0\0\0\0\0"))), "pixels are empty",
    ),
    "compressed pixels that are noise": (
        change_frame(JPEGLosslessSV1, lambda frame: b"\x17\x2a" * 200), "no header that can be read"
    ),
    "a compressed image of another size": (
        made(lambda ds: (ct_slices.compressed(ds, JPEGLosslessSV1), setattr(ds, "Rows", 48))),
        "Rows and Columns are 48 × 40, its JPEG Lossless image is 24 × 40",
    ),
    "a compressed image that claims the largest size": (
        change_frame(JPEGLosslessSV1, lambda frame: _resized(frame, 65500, 65500)), "image is 65500 × 65500"
    ),
    "a compressed image in colour": (
        change_frame(JPEGLosslessSV1, lambda frame: _components(frame, 3)), "has 3 components"
    ),
    "a signed compressed image in unsigned pixels": (
        made(lambda ds: (ct_slices.compressed(ds, JPEG2000Lossless), setattr(ds, "PixelRepresentation", 0)),
             intercept=0, signed=True), r"PixelRepresentation is 0 \(unsigned\)",
    ),
    "compressed pixels that end within an item": (
        lambda path: _cut_file(path, 300), "is cut off: it ends in the middle of an element"
    ),
    # Files.
    "a bomb of zeros": (
        raw(lambda ds: ct_slices.deflated(ds, bytes(2**29 + 2**20))), "deflated from more than 512 MB"
    ),
    "deflated and damaged": (
        raw(lambda ds: ct_slices.deflated(ds)[:-300] + b"\xff" * 300), "cut off or damaged|has no|is no"
    ),
    "a file that ends within its header": (lambda path: _cut_file(path, 700), "is cut off|without an image"),
    "a report": (
        made(lambda ds: [delattr(ds, name) for name in ("Rows", "Columns", "PixelData")],
             SOPClassUID="1.2.840.10008.5.1.4.1.1.88.67", Modality="SR"), "without an image .*Dose",
    ),
}  # fmt: skip


def _frame_header(frame: bytes) -> int:
    return frame.index(b"\xff\xc3") + 4


def _resized(frame: bytes, rows: int, columns: int) -> bytes:
    at = _frame_header(frame) + 1
    return frame[:at] + struct.pack(">HH", rows, columns) + frame[at + 4 :]


def _components(frame: bytes, number: int) -> bytes:
    at = _frame_header(frame) + 5
    return frame[:at] + bytes([number]) + frame[at + 1 :]


def _cut_file(path: Path, end: int) -> None:
    compressed(JPEGLosslessSV1, bits=12)(path)
    path.write_bytes(path.read_bytes()[:-end])


def rows(folder: Path) -> list[tuple[str, str]]:
    """Each input and what ddtl does with it, in words, for docs/robustness.md.

    Args:
        folder: empty, where the inputs are made.
    """
    path = folder / "slice.dcm"
    table = []
    for name, (build, _, doubt) in READ.items():
        build(path)
        _, notes = read(path)
        warning = next((note for note in notes if doubt and doubt in note), "")
        table.append((name, f"read right; warns that it {warning}" if warning else "read right"))
    for name, (build, _) in REFUSED.items():
        build(path)
        try:
            read(path)
        except BadImageError as error:
            table.append((name, f"excluded: {error.reason.replace(str(folder) + '/', '')}"))
    return table


@pytest.mark.parametrize("name", READ)
def test_what_is_readable_comes_out_right(tmp_path: Path, name: str) -> None:
    build, gray, doubt = READ[name]
    build(tmp_path / "slice")
    found, notes = read(tmp_path / "slice")
    np.testing.assert_array_equal(found, gray)
    if doubt:
        assert any(doubt in note for note in notes), notes
    else:
        assert not notes


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_is_refused_by_name(tmp_path: Path, name: str) -> None:
    build, reason = REFUSED[name]
    build(tmp_path / "slice.dcm")
    with pytest.raises(BadImageError, match=reason) as refused:
        read(tmp_path / "slice.dcm")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", [name for name in READ if "meta" in name])
def test_a_file_without_suffix_and_preamble_is_known_by_its_elements(tmp_path: Path, name: str) -> None:
    READ[name][0](tmp_path / "IM0001")
    (tmp_path / "README").write_text("no slice")
    (tmp_path / "zeros").write_bytes(bytes(2000))
    (tmp_path / "random").write_bytes(np.random.default_rng(0).bytes(2000))
    found = find([str(tmp_path)], by_folder=False, progress=lambda done, total: None)
    assert [picture.path.name for picture in found.files] == ["IM0001"]
    assert (found.others.total(), found.bad) == (3, [])


def test_the_order_of_slices_survives_what_is_no_number(tmp_path: Path) -> None:
    text_tag("InstanceNumber", "IM_0001")(tmp_path / "a")
    enhanced()(tmp_path / "b")
    assert dicom.read_slice(tmp_path / "a") is not None
    part = dicom.read_slice(tmp_path / "b")
    assert part is not None
    assert (part.number, part.position) == (1, 77)
    assert dicom.read_slice(tmp_path / "a").number is None  # type: ignore[union-attr]


@pytest.mark.parametrize("inverted", ["", "tag", "stored", "window"])
@pytest.mark.parametrize("signed", [False, True])
def test_padding_is_black_however_the_file_is_turned(tmp_path: Path, inverted: str, signed: bool) -> None:
    """A round field of view, all of the image's rim outside of it, padded darker or brighter than all."""
    rows, columns = np.ogrid[-1:1:64j, -1:1:64j]
    radius = np.sqrt(rows**2 + columns**2)
    body = np.where(radius < 0.3, -800.0, np.where(radius < 0.7, 100.0, -1000.0))
    for word in (-2048, 2047) if signed else (0, 4095):
        ds = ct_slices.dataset(body, bits=12, signed=signed, inverted=inverted, intercept=-200 if signed else -1400)
        words = ct_slices.words_of(ds)
        words[radius > 0.95] = word & 0xFFF
        ds.PixelData = words.tobytes()
        ds.add_new("PixelPaddingValue", "SS" if signed else "US", word)
        ds.save_as(tmp_path / "slice", enforce_file_format=True)
        found, _ = read(tmp_path / "slice")
        assert (found[radius > 0.95] == 0).all()
        assert np.abs(found - window(body))[radius <= 0.95].max() <= 1


def test_a_directory_beside_slices_is_passed_over(tmp_path: Path) -> None:
    from pydicom.data import get_testdata_file

    directory = Path(str(get_testdata_file("DICOMDIR"))).read_bytes()
    (tmp_path / "DICOMDIR").write_bytes(directory)
    tagged()(tmp_path / "IM0001")
    found = find([str(tmp_path)], by_folder=False, progress=lambda done, total: None)
    assert [picture.path.name for picture in found.files] == ["IM0001"]
    assert found.bad == []
    assert found.directories == [tmp_path / "DICOMDIR"]


@pytest.mark.parametrize("name", ["a plain slice", "implicit VR", "deflated", "JPEG Lossless", "JPEG 2000", "RLE"])
def test_a_damaged_file_is_a_line_or_an_image(tmp_path: Path, name: str) -> None:
    """Bytes changed, lost and added anywhere: no failure of another kind, and no line with a break in it."""
    path = tmp_path / "slice.dcm"
    READ[name][0](path)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    lines, read_ones = [], 0
    for _ in range(60):
        data = bytearray(whole)
        for at in random.integers(130, len(whole), random.integers(1, 6)):
            kind = random.integers(3)
            data[at : at + (0 if kind == 2 else 1)] = b"" if kind == 1 else random.bytes(1)
        path.write_bytes(data)
        try:
            read(path)
            read_ones += 1
        except BadImageError as error:
            lines.append(str(error))
    assert len(lines) + read_ones == 60
    assert lines
    assert all(line.isprintable() for line in lines)


def test_kinds_of_uid_are_those_of_the_standard() -> None:
    assert CTImageStorage.name == "CT Image Storage"
    assert dicom._CAPTURE == SecondaryCaptureImageStorage == "1.2.840.10008.5.1.4.1.1.7"
