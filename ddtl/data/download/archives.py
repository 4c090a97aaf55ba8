"""Reading zip and tar archives of unknown origin: nothing is unpacked here, entries are handed over one by one.

Sizes and names in an archive are not trusted. Names that point out of it, links, devices and encrypted entries are
refused; so are more entries or bytes than any dataset has. Who writes an entry to disk chooses its name himself.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from ddtl.utils import reading
from ddtl.utils.errors import UserError

MAX_ENTRIES = 200_000
MAX_TOTAL = 16 * 2**30  # bytes, unpacked
MAX_ENTRY = 64 * 2**20  # bytes of an entry that is read
_MAX_CONTENTS = 2**26  # bytes of a zip's table of contents: 300 an entry
_MAX_HEADER = 2**20  # bytes of a tar header that contains a long name or the like; tarfile reads it whole


@dataclass(frozen=True)
class Member:
    """A regular file in an archive.

    Attributes:
        name: its path, with ``/``; relative and without ``..``.
        size: bytes, as the archive says.
        read: its content. Of a tar only until the next member is requested.
    """

    name: str
    size: int
    read: Callable[[], bytes]


def members(archive: Path) -> Iterator[Member]:
    """The files in a zip or a tar (plain, gzip, bzip2 or xz), in the archive's order.

    Raises:
        UserError: it is no such archive, damaged, or unsafe; also from ``Member.read``.
    """
    try:
        with reading.opened(archive, MAX_TOTAL) as file:
            is_zip = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
            is_long = is_zip and contents_size(file) > _MAX_CONTENTS
    except reading.Unreadable as error:
        raise UserError(f"from={archive}: {error.reason}. Name a zip or tar archive, or a folder.") from None
    except OSError as error:
        raise UserError(f"from={archive}: cannot be read ({error.strerror or error}).") from None
    if is_long:
        raise _Counted(archive).refused("has a table of contents that is longer than that of any dataset")
    counted = _Counted(archive)
    yield from _zip_members(archive, counted) if is_zip else _tar_members(archive, counted)


def contents_size(file: BinaryIO) -> int:
    """Bytes of a zip's table of contents, which readers have in memory; 0 where there is no end of a zip.

    Args:
        file: open for reading; where it is read next is changed.
    """
    total = file.seek(0, os.SEEK_END)
    file.seek(max(0, total - _END))
    tail = file.read(_END)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        return 0
    (size,) = struct.unpack_from("<I", tail, at + 12)
    if at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07":  # of 64 bits
        (record,) = struct.unpack_from("<Q", tail, at - 12)
        file.seek(min(record, total))
        found = file.read(56)
        if len(found) == 56:
            (size,) = struct.unpack_from("<Q", found, 40)
    return int(size)


_END = 22 + 65_535 + 20  # bytes of the last record of a zip with the longest comment, and of what points to the longer


class _Counted:
    """Adds up what has been met in an archive and refuses what is unsafe."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self.entries = 0
        self.total = 0

    def add(self, name: str, size: int) -> str:
        """Count an entry; its name with ``/``, whatever separators it came with."""
        self.entries += 1
        self.total += size
        if self.entries > MAX_ENTRIES:
            raise self.refused(f"contains more than {MAX_ENTRIES} entries")
        if self.total > MAX_TOTAL:
            raise self.refused(f"unpacks to more than {MAX_TOTAL / 2**30:.0f} GB")
        plain = name.replace("\\", "/")
        if plain.startswith("/") or re.match(r"[A-Za-z]:", plain) or ".." in plain.split("/") or "\0" in plain:
            raise self.refused(f"contains an entry that points out of it: {name!r}")
        return plain

    def refused(self, why: str) -> UserError:
        return UserError(
            f"from={self.archive}: {why}, and is not used. Unpack it in a safe place with a tool of yours, look "
            "through what comes out, and give that folder: from=FOLDER."
        )

    def read(self, name: str, size: int, read: Callable[[int], bytes]) -> bytes:
        """An entry's content: as many bytes as it claims, and not too many."""
        if size > MAX_ENTRY:
            raise self.refused(f"the entry {name!r} claims {size / 2**20:.0f} MB, more than an image has")
        with _explained(self.archive):
            data = read(size + 1)
        if len(data) != size:
            raise self.refused(f"the entry {name!r} contains {len(data)} bytes or more, but claims {size}")
        return data


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    try:
        yield
    # Python's readers meet damaged archives with almost any exception: BadZipFile, EOFError, struct.error, …
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise UserError(
            f"from={archive}: cannot be read as a zip or tar archive ({reason}). If it was downloaded, it may be cut "
            "off or be a web page: fetch it again."
        ) from error


def _zip_members(archive: Path, counted: _Counted) -> Iterator[Member]:
    """All entries are checked before the first is handed over."""
    with _explained(archive):
        opened = zipfile.ZipFile(archive)
    with opened:
        files = []
        for info in opened.infolist():
            name = counted.add(info.filename, info.file_size)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise counted.refused(f"contains a link or a special file: {info.filename!r}")
            if info.flag_bits & 1:
                raise counted.refused(f"is encrypted, at {info.filename!r}")
            if not info.is_dir():
                files.append((name, info))
        for name, info in files:
            yield Member(name, info.file_size, _zip_reader(opened, info, counted))


def _zip_reader(opened: zipfile.ZipFile, info: zipfile.ZipInfo, counted: _Counted) -> Callable[[], bytes]:
    def read(limit: int) -> bytes:
        with opened.open(info) as file:
            return file.read(limit)

    return lambda: counted.read(info.filename, info.file_size, read)


class _TarEntry(tarfile.TarInfo):
    """Refuses headers that would fill the memory before they can be checked."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _TarEntry:
        entry = super().frombuf(buf, encoding, errors)
        if not entry.isreg() and entry.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {entry.size} bytes")
        if entry.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a special file: an entry with holes")
        return entry

    def _proc_pax(self, opened: tarfile.TarFile) -> tarfile.TarInfo:
        found: tarfile.TarInfo = super()._proc_pax(opened)  # type: ignore[misc]
        if any(key.startswith("GNU.sparse") for key in found.pax_headers):
            raise tarfile.ReadError("a special file: an entry with holes")
        return found

    def _proc_gnusparse_10(self, *_: object) -> None:  # reads a map of any length
        raise tarfile.ReadError("a special file: an entry with holes")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10


def _tar_members(archive: Path, counted: _Counted) -> Iterator[Member]:
    """Read as a stream, front to back."""
    with _unpacked(archive) as stream, _opened_tar(archive, stream) as opened:
        while True:
            with _explained(archive):
                info = opened.next()
            opened.members = []  # type: ignore[attr-defined]  # or it would remember every entry
            if info is None:
                return
            name = counted.add(info.name, info.size)
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise counted.refused(f"contains a link or a special file: {info.name!r}")
            yield Member(name, info.size, _tar_reader(opened, info, counted))


@contextmanager
def _unpacked(archive: Path) -> Iterator[IO[bytes]]:
    """The bytes of a tar, unpacked a little at a time: tarfile's own stream unpacks all that a block stands for."""
    with reading.opened(archive, MAX_TOTAL) as file:
        start = file.peek(6)
        for magic, unpacker in _UNPACKERS.items():
            if start.startswith(magic):
                with unpacker(file) as stream:
                    yield stream
                return
        yield file


_UNPACKERS: dict[bytes, Callable[[IO[bytes]], IO[bytes]]] = {
    b"\x1f\x8b": lambda file: cast("IO[bytes]", gzip.GzipFile(fileobj=file)),
    b"BZh": lambda file: cast("IO[bytes]", bz2.BZ2File(file)),
    b"\xfd7zXZ": lambda file: io.BufferedReader(_Xz(file), _CHUNK),
    b"\x5d\x00\x00": lambda file: io.BufferedReader(_Xz(file), _CHUNK),
}


class _Xz(io.RawIOBase):
    """The content of an xz file; unlike ``lzma.LZMAFile`` with a limit on the memory that its header may ask for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._unpacker = self._new()
        self._waiting = b""  # read and not unpacked yet

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=_XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._unpacker.eof:  # another stream may follow, behind zeros
                self._waiting = (self._unpacker.unused_data or self._file.read(_CHUNK)).lstrip(b"\0")
                if not self._waiting:
                    return 0
                self._unpacker = self._new()
            if self._unpacker.needs_input and not self._waiting:
                self._waiting = self._file.read(_CHUNK)
                if not self._waiting:
                    raise EOFError("the file is cut off")
            waiting, self._waiting = self._waiting, b""
            data = self._unpacker.decompress(waiting, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)


_XZ_MEMORY = 256 << 20  # bytes; of files that `xz -9` has made 65 MiB are needed
_CHUNK = 1 << 16


@contextmanager
def _opened_tar(archive: Path, stream: IO[bytes]) -> Iterator[tarfile.TarFile]:
    with _explained(archive):
        opened = tarfile.open(fileobj=stream, mode="r|", tarinfo=_TarEntry)  # noqa: SIM115  # closed below
    with opened:
        yield opened


def _tar_reader(opened: tarfile.TarFile, info: tarfile.TarInfo, counted: _Counted) -> Callable[[], bytes]:
    def read(limit: int) -> bytes:
        file = opened.extractfile(info)
        assert file is not None, "a regular file has content"
        return file.read(limit)

    return lambda: counted.read(info.name, info.size, read)
