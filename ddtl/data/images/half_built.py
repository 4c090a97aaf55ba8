"""The rows of a decoded cache that is being built, so that the next command continues where one was stopped.

``images.npy`` grows by one row at a time. ``journal`` has a first line that says what the array is, and then a line for
each row, written after it: its number, its grey levels, the sha256 of the array up to its end, and a checksum of the
line. Of rows that are written together the last line alone has the sha256. A row counts when its line is whole and the
array has the next sha256 up to there, so neither needs to be synced:
whatever a kill, a full disk or a power cut leaves, rows from the first one on that is not as it was written are decoded
again.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from ddtl.utils import files

ARRAY, JOURNAL, SUFFIX = "images.npy", "journal", ".partial"
_LINE = 4096  # bytes of the longest line that is read
_LATER = "-"  # in place of a sha256 that a later line has
_TOGETHER, _SECONDS = 64, 0.2  # rows that are written at once, and what a kill may lose: each write costs the decoders


class HalfBuilt:
    """A folder with the first rows of an array, opened to append the others. One process at a time may do so.

    Attributes:
        levels: the grey levels of each row that is there, which says how many there are.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], about: dict[str, Any]) -> None:
        """Open the folder, which is emptied where it has another array or an array of another program version.

        Args:
            folder: where the rows are.
            shape: of the whole uint8 array, rows first.
            about: what the rows depend on besides their folder's name; ``dataset`` is for people.

        Raises:
            OSError: it cannot be written.
        """
        self.levels: list[tuple[int, int]] = []
        self._sha256 = hashlib.sha256()
        self._done = 0
        self._rows: list[tuple[bytes, tuple[int, int]]] = []
        self._last_write = time.monotonic()
        first = _first_line(shape, about)
        if _depends_on(_read_first_line(folder)) != _depends_on(first):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        self._array = files.append_to(folder / ARRAY)
        try:
            self._journal = files.append_to(folder / JOURNAL)
            try:
                self._resume(shape, first)
            except BaseException:
                self._journal.close()
                raise
        except BaseException:
            self._array.close()
            raise

    def __len__(self) -> int:
        return len(self.levels)

    def __enter__(self) -> HalfBuilt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not isinstance(error, OSError):
                self._write()
        finally:
            try:
                self._journal.close()
            finally:
                self._array.close()

    @property
    def sha256(self) -> str:
        """Of the array up to the last row that is written."""
        return self._sha256.hexdigest()

    def append(self, row: np.ndarray, levels: tuple[int, int]) -> None:
        """Add a row; rows are written a few at a time, at the latest when this is closed.

        Raises:
            OSError: the disk is full, or somebody else writes rows, which a lock that works prevents.
        """
        self._rows.append((row.tobytes(), levels))
        self.levels.append(levels)
        if len(self._rows) >= _TOGETHER or time.monotonic() - self._last_write >= _SECONDS:
            self._write()

    def _write(self) -> None:
        """Write rows, and then that they are there.

        Plain writes, not a writable memory map: on a full disk a map kills the process (SIGBUS), a write raises.
        """
        rows, self._rows = self._rows, []  # a signal may end this anywhere
        if not rows:
            return
        data = b"".join(pixels for pixels, _ in rows)
        self._array.write(data)
        self._array.flush()
        self._end += len(data)
        if self._array.tell() != self._end:
            raise OSError(errno.EBUSY, "another process writes them at the same time")
        self._sha256.update(data)
        sha256 = [*[_LATER] * (len(rows) - 1), self.sha256]
        marks = [_mark(self._done + i, levels, sha256[i]) for i, (_, levels) in enumerate(rows)]
        self._journal.write(b"".join(marks))
        self._journal.flush()
        self._done += len(rows)
        self._last_write = time.monotonic()

    def _resume(self, shape: tuple[int, ...], first: bytes) -> None:
        """Read the rows that are there, and cut off what follows the last whole one; write the headers of a new one."""
        header = _header(shape)
        self._array.seek(0)
        if self._array.read(len(header)) != header:
            for file, start in ((self._array, header), (self._journal, first)):
                file.truncate(0)
                file.write(start)
                file.flush()
            self._sha256.update(header)
            self._end = len(header)
            return
        self._sha256.update(header)
        self._journal.seek(0)
        at = [len(header), len(self._journal.readline(_LINE))]
        length = int(np.prod(shape[1:]))
        together: list[tuple[int, int]] = []
        for number, levels, digest, end in _marks(self._journal):
            if number != len(self.levels) + len(together) or number >= shape[0]:
                break
            together.append(levels)
            if digest == _LATER:
                continue
            ahead = self._sha256.copy()
            ahead.update(self._array.read(length * len(together)))
            if ahead.hexdigest() != digest:
                break
            self._sha256 = ahead
            self.levels += together
            at = [at[0] + length * len(together), end]
            together = []
        self._done = len(self.levels)
        self._end = at[0]
        self._array.truncate(at[0])
        self._journal.truncate(at[1])


def describe(folder: Path) -> tuple[int | None, int | None, str]:
    """Return how many rows there are by the journal in a folder, the side of their images, and of which dataset they
    are; None and nothing where it cannot be read.
    """
    with suppress(OSError, ValueError, KeyError, IndexError, TypeError), (folder / JOURNAL).open("rb") as file:
        about = json.loads(file.readline(_LINE))
        return sum(1 for _ in _marks(file)), int(about["shape"][1]), str(about["dataset"])
    return None, None, ""


def last_change(folder: Path) -> float:
    """Return when something was last written into a folder of rows, in seconds since 1970.

    Raises:
        OSError: there is no such folder.
    """
    return max(path.lstat().st_mtime for path in (folder, *folder.iterdir()))


def _header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _first_line(shape: tuple[int, ...], about: dict[str, Any]) -> bytes:
    return json.dumps({"shape": list(shape), **about}).encode() + b"\n"


def _read_first_line(folder: Path) -> bytes:
    with suppress(OSError), (folder / JOURNAL).open("rb") as file:
        return file.readline(_LINE)
    return b""


def _depends_on(line: bytes) -> dict[str, Any]:
    """Return what rows depend on by the first line of a journal; empty where it is not one."""
    with suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict) and line.endswith(b"\n"):
            return {key: value for key, value in found.items() if key != "dataset"}
    return {}


def _mark(number: int, levels: tuple[int, int], sha256: str) -> bytes:
    line = f"{number} {levels[0]} {levels[1]} {sha256}".encode()
    return line + b" " + _checksum(line) + b"\n"


def _checksum(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest()[:16].encode()


def _marks(journal: BinaryIO) -> Iterator[tuple[int, tuple[int, int], str, int]]:
    """Yield number, grey levels and sha256 of each line, and where it ends, up to the first that is not whole."""
    end = journal.tell()
    while (line := journal.readline(_LINE)).endswith(b"\n"):
        end += len(line)
        body, _, check = line[:-1].rpartition(b" ")
        if check != _checksum(body):
            return
        number, few, spread, sha256 = body.decode().split(" ")
        yield int(number), (int(few), int(spread)), sha256, end
