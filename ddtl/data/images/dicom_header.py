"""A DICOM file's header as plain values, however the file was written: without preamble, meta or transfer syntax."""

from __future__ import annotations

import io
import logging
import re
import shlex
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.tag import BaseTag, Tag
from pydicom.values import converters

# Scanners write many small faults, and pydicom warns of each; what matters becomes a HeaderError or a note.
warnings.filterwarnings("ignore", module=r"pydicom\b")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

SUFFIXES = {".dcm", ".dicom", ".ima"}
START = 1024  # bytes of a file that show whether it is DICOM

NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)
RLE = uid.RLELossless
# What GDCM decodes, the retired progressive processes included.
COMPRESSED = frozenset(
    {
        uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless,
        uid.JPEGLSNearLossless, uid.JPEG2000Lossless, uid.JPEG2000, RLE,
        "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55",
    }
)  # fmt: skip
_GE_PRIVATE = "1.2.840.113619.5.2"  # implicit VR with pixels in big endian order
_MAX_INFLATED = 2**29  # bytes of a deflated file; the largest image that is read has half of it
_MAX_HEADER = 2**25  # bytes before the pixels: scanners' private elements take a few million
_MAX_READS = 100_000  # of a file in parts, about two for an element: a slice has some hundreds
_MAX_TEXT = 4096  # bytes of an element whose value is used: the standard allows 64 characters for most
_MAX_GROUP = 2**18  # bytes of functional groups: those of one frame take a few thousand
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_LONGEST_NUMBER = 64  # characters; the standard allows 16
_LARGEST = 2**53  # of whole numbers: up to it none is rounded
_FARTHEST = 1e6  # of the numbers of a place or direction, in mm: a kilometre

# What Enhanced CT contains in functional groups, a sequence each, and CT in the dataset itself.
_IN_GROUPS = {
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing",),
    "CTImageFrameTypeSequence": ("FrameType",),
}


class HeaderError(Exception):
    """A file that cannot be used.

    Attributes:
        reason: why, as a predicate: ``has no Rows``, …
        fix: a command that corrects it, with ``{old}`` for the file and ``{new}`` for a new one; may be empty.
        kind: what it is instead of a slice, such as ``localizer``; empty where it is a slice, or nobody knows.
    """

    def __init__(self, reason: str, fix: str = "", kind: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.fix = fix
        self.kind = kind

    def line(self, path: Path) -> str:
        """Return the reason and what to do about this file, on one line whatever bytes are quoted in it."""
        new = path.with_name(f"{path.stem}-new.dcm")
        fix = self.fix.format(old=shlex.quote(str(path)), new=shlex.quote(str(new)))
        text = f"{self.reason}. Convert or correct it with: {fix}" if fix else self.reason
        return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))


@dataclass(frozen=True)
class File:
    """A parsed file.

    Attributes:
        dataset: pydicom's; functional groups of its one frame are elements of the dataset itself.
        syntax: UID of the transfer syntax; empty where the file does not say.
        little: whether numbers are little endian.
        notes: what had to be guessed, as predicates.
    """

    dataset: Any
    syntax: str
    little: bool
    notes: tuple[str, ...] = ()


def is_dicom(start: bytes) -> bool:
    """Return whether a file is DICOM by its first ``START`` bytes, with or without preamble and meta information."""
    return start[128:132] == b"DICM" or _starts_with_elements(start)


def _starts_with_elements(start: bytes) -> bool:
    """Whether bytes are two elements of a dataset that has no preamble: of group 2 or 8, and one that follows."""
    for order in "<>":
        at = 0
        tags: list[tuple[int, int]] = []
        while len(tags) < 2 and len(start) >= at + 12:
            group, element = struct.unpack_from(f"{order}HH", start, at)
            vr = start[at + 4 : at + 6].decode("latin-1")
            if vr in converters:
                long = vr in {"OB", "OW", "UN", "UT", "SQ"}
                (length,) = struct.unpack_from(f"{order}{'I' if long else 'H'}", start, at + (8 if long else 6))
                at += (12 if long else 8) + length
            else:
                (length,) = struct.unpack_from(f"{order}I", start, at + 4)
                at += 8 + length
            tags.append((group, element))
        if len(tags) == 2 and tags[0][0] in {2, 8} and tags[0][1] <= 0x70 and tags[0] < tags[1] and tags[1][0] <= 0x20:
            return True
    return False


class _Bounded:
    """A file that ends the reading of one with more elements than any slice has: pydicom reads each into memory.

    Args:
        file: open for reading.
        most: bytes that may be read.
    """

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._bytes, self._reads = file, most, _MAX_READS
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size if 0 <= size <= self._bytes else self._bytes + 1)
        self._bytes -= len(data)
        self._reads -= 1
        if self._bytes < 0 or self._reads < 0:
            raise HeaderError("has a header that is longer than that of any slice")
        return data


def parse(file: BinaryIO, *, pixels: bool, keywords: Sequence[str] | None = None) -> File:
    """Read a file's elements.

    Args:
        file: at its start.
        pixels: whether the pixels are read as well.
        keywords: of the elements that are read; None for all. Those of a deflated file are all read.

    Raises:
        HeaderError: it is compressed in a way that is not read.
        Exception: pydicom meets damaged files with almost any.
    """
    read_preamble(file, force=True)
    start = file.tell()
    meta = read_dataset(_bounded(file, _MAX_HEADER), False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    syntax = text_of(meta, "TransferSyntaxUID")
    if syntax and syntax not in NATIVE | COMPRESSED:
        raise HeaderError(
            f"has the transfer syntax {_syntax_name(syntax)}, which is not read: export it uncompressed",
            "gdcmconv --raw {old} {new}" if syntax == _GE_PRIVATE else "",
        )
    most = _MAX_INFLATED + _MAX_HEADER if pixels else _MAX_HEADER
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        ds = _inflated(file, start, meta, pixels=pixels)
    else:
        file.seek(0)
        specific = None if keywords is None else [_tag(keyword) for keyword in keywords]
        ds = pydicom.dcmread(_bounded(file, most), stop_before_pixels=not pixels, force=True, specific_tags=specific)
    if syntax and not len(ds):  # pydicom drops all elements then
        raise HeaderError("is cut off: it ends in the middle of an element")
    implicit, little = ds.original_encoding
    notes: tuple[str, ...] = ()
    if not syntax:
        guess = f"{'implicit' if implicit else 'explicit'} VR, {'little' if little else 'big'} endian"
        notes = (f"has no transfer syntax; read as {guess}",)
    _merge_groups(ds)
    return File(ds, syntax, bool(little), notes)


def _syntax_name(syntax: str) -> str:
    if not _UID.fullmatch(syntax):
        return "of a damaged header"
    name = uid.UID(syntax).name
    return syntax if name == syntax else f"{name} ({syntax})"


_UID = re.compile(r"[0-9.]{1,64}")  # anything else comes from a damaged file, and may be anything


def syntax_name(syntax: str) -> str:
    """Return a short name of a compression, for messages."""
    name = str(uid.UID(syntax).name).partition(",")[0].partition(" (")[0]
    return name.removesuffix(" Image Compression")


def _bounded(file: BinaryIO, most: int) -> BinaryIO:
    return cast(BinaryIO, _Bounded(file, most))


def _inflated(file: BinaryIO, start: int, meta: Any, *, pixels: bool) -> FileDataset:
    """The elements of a deflated file. Of one that is not read for its pixels, the rest is counted and forgotten.

    Raises:
        HeaderError: it would fill the memory.
    """
    file.seek(start)
    length = meta.get("FileMetaInformationGroupLength")
    if length is None:
        raise HeaderError("has no FileMetaInformationGroupLength, without which its deflated part cannot be found")
    file.seek(start + 12 + int(length))
    inflate, packed, kept, total = zlib.decompressobj(-zlib.MAX_WBITS), file.read(), io.BytesIO(), 0
    while packed and total <= _MAX_INFLATED:
        part = inflate.decompress(packed, 2**24)
        packed = inflate.unconsumed_tail
        if pixels or total <= _MAX_HEADER:
            kept.write(part)
        total += len(part)
    if total > _MAX_INFLATED:
        raise HeaderError(f"is deflated from more than {_MAX_INFLATED // 2**20} MB")
    if not inflate.eof:
        raise HeaderError("is cut off or damaged: its deflated part has no end")
    kept.seek(0)
    elements = read_dataset(
        _bounded(kept, _MAX_INFLATED + _MAX_HEADER if pixels else _MAX_HEADER),
        False,
        True,
        stop_when=None if pixels else lambda tag, vr, length: tag >= _PIXELS,
    )
    return FileDataset("", elements, file_meta=FileMetaDataset(meta), is_implicit_VR=False, is_little_endian=True)


_PIXELS = 0x7FE00008  # FloatPixelData, the first element of pixels


def _merge_groups(ds: Any) -> None:
    """Copy the functional groups of the file's one frame into the dataset."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        frames = _items(ds, groups)
        if len(frames) != 1:
            continue
        for macro, keywords in _IN_GROUPS.items():
            for item in _items(frames[0], macro)[:1]:
                for keyword in keywords:
                    if keyword not in item:
                        continue
                    ours, theirs = text_of(ds, keyword), text_of(item, keyword)
                    if ours and keyword.startswith("Rescale") and _plain(ours) != _plain(theirs):
                        raise HeaderError(f"says {keyword} twice: {ours!r}, and {theirs!r} in {macro}")
                    ds[keyword] = item[keyword]


def _items(ds: Any, keyword: str) -> Any:
    """The items of a sequence; none where there are more bytes than those of one frame have."""
    if keyword not in ds or _length(ds.get_item(keyword)) > _MAX_GROUP:
        return []
    return ds.get(keyword) or []


def _length(element: Any) -> int:
    """Bytes of an element as it is in the file; 0 once it was converted."""
    value = getattr(element, "value", None)
    return len(value) if isinstance(value, bytes) else 0


def _plain(text: str) -> object:
    return float(text) if _is_number(text) else text.upper()


def _is_number(text: str) -> bool:
    return len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text) is not None


def text_of(ds: Any, keyword: str) -> str:
    """Return an element as the file has it, its values separated by a backslash; empty where there is none.

    Raises:
        HeaderError: it is longer than any that is used.
    """
    tag = _tag(keyword)
    if tag not in ds:
        return ""
    raw = ds.get_item(tag)
    length = _length(raw)
    if length > _MAX_TEXT:
        raise HeaderError(f"has a wrong header: {keyword} has {length:,} bytes")
    if getattr(raw, "VR", None) in _ASCII and isinstance(
        raw.value, bytes
    ):  # as pydicom reads it, in a tenth of the time
        return raw.value.decode("latin-1").encode(errors="backslashreplace").decode().strip(" \0\t\r\n")
    try:
        value = ds[tag].value
    except Exception:  # not of its kind: the bytes
        value = ds.get_item(tag).value
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    elif not isinstance(value, str) and hasattr(value, "__iter__"):
        value = "\\".join(map(str, value))
    # What is not Unicode text could not be written to the tables.
    text = "" if value is None else str(value).encode(errors="backslashreplace").decode()
    return text.strip(" \0\t\r\n")


_ASCII = frozenset(("AS", "CS", "DA", "DS", "IS", "UI"))  # whose values no character set changes


@cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


def words_of(ds: Any, keyword: str) -> list[str]:
    """Return the values of an element of text, in capitals."""
    return [word.strip().upper() for word in text_of(ds, keyword).split("\\") if word.strip()]


def number(ds: Any, keyword: str) -> float | None:
    """Return an element's number; None where it is absent or empty.

    Raises:
        HeaderError: it is not one finite number.
    """
    text = text_of(ds, keyword)
    if not text:
        return None
    if not _is_number(text):
        raise HeaderError(f"has a wrong header: {keyword} {text[:60]!r} is not a number", _correct(keyword, text))
    if not np.isfinite(float(text)):
        raise HeaderError(f"has a wrong header: {keyword} {text!r} is not finite", _correct(keyword))
    return float(text)


def integer(ds: Any, keyword: str) -> int | None:
    """Return an element's whole number; None where it is absent or empty.

    Raises:
        HeaderError: it is not one.
    """
    value = number(ds, keyword)
    if value is not None and (value != int(value) or abs(value) > _LARGEST):
        raise HeaderError(f"has a wrong header: {keyword} {value:g} is not a whole number", _correct(keyword))
    return None if value is None else int(value)


def required(ds: Any, keyword: str) -> int:
    """Return an element's whole number.

    Raises:
        HeaderError: there is none.
    """
    value = integer(ds, keyword)
    if value is None:
        raise HeaderError(f"has no {keyword}, without which its pixels cannot be read")
    return value


def vector(ds: Any, keyword: str, length: int) -> np.ndarray | None:
    """Return an element's (length,) numbers; None where it is something else, or out of all bounds."""
    words = text_of(ds, keyword).split("\\")
    if len(words) != length or not all(_is_number(word.strip()) for word in words):
        return None
    values = np.array(words, dtype=float)
    return values if (np.abs(values) < _FARTHEST).all() else None


def _correct(keyword: str, text: str = "") -> str:
    """Return the command that sets an element, to the number with which its text begins where there is one."""
    begun = re.match(r"[+-]?\d+(\.\d+)?(?=\s|[A-Za-z]|$)", text)
    return f'dcmodify -m "{keyword}={begun[0] if begun else "NUMBER"}" {{old}}'
