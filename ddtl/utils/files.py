"""The one way to write: files that are either whole or not there, and nothing through a link."""

from __future__ import annotations

import csv
import errno
import glob
import io
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ddtl.utils.errors import UserError
from ddtl.utils.reading import parse_line
from ddtl.utils.redaction import redact_tree

if TYPE_CHECKING:
    from filelock import FileLock


class Fresh:
    """A new file that takes the place of ``path`` when it is whole; until then nothing of that name has changed.

    It is next to ``path`` under a name that cannot be guessed, and is never an existing file or link: whoever could
    place links into a folder before it was shared cannot have anything written over. Two writers do not meet.

    Attributes:
        path: whose place it takes.
        at: where it is meanwhile, for what writes by name.
        file: open for writing, in bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _sweep(path)
        self.at = temporary_path(path)
        with _named(path):
            self.file: BinaryIO = open(self.at, "xb")  # noqa: SIM115  # open as long as this object is used

    def keep(self) -> None:
        """Put it in place, so that a crash leaves the old file or the new one, never a part."""
        try:
            with _named(self.path):
                self.file.close()
                replace_file(self.at, self.path)
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Delete it; ``path`` stays as it was."""
        with suppress(OSError):
            self.file.close()
        with suppress(OSError):
            self.at.unlink(missing_ok=True)


PARTIAL = ".partial"  # how the name of a file that is not whole yet ends
_FORGOTTEN = 86400.0  # seconds after which one that nobody writes to any more was left by a crash


def temporary_path(path: Path) -> Path:
    """Return a name in the same folder for what will take a file's place: new, and not to be guessed."""
    return path.with_name(f".{path.name[:120]}.{secrets.token_hex(8)}{PARTIAL}")


def replace_file(temporary: Path, path: Path) -> None:
    """Move a finished file over ``path`` so that a crash leaves the old one or the new one, never a part."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def is_partial(path: Path) -> bool:
    """Return whether a file is one that was not whole when its writer was killed, or is being written."""
    return path.name.startswith(".") and path.name.endswith(PARTIAL)


def _sweep(path: Path) -> None:
    """Delete what killed writers of the same file left in its folder, long after."""
    with suppress(OSError):
        for left in path.parent.glob(f".{glob.escape(path.name[:120])}.*{PARTIAL}"):
            if time.time() - left.lstat().st_mtime > _FORGOTTEN:
                left.unlink()


@contextmanager
def replacing(path: Path) -> Iterator[Fresh]:
    """Yield a new file that is kept at the end of the block, and dropped where that raises."""
    fresh = Fresh(path)
    try:
        with _named(path):
            yield fresh
    except BaseException:
        fresh.drop()
        raise
    fresh.keep()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Make an ``OSError`` name the file that it is about: one from a full disk does not by itself."""
    try:
        yield
    except OSError as error:
        if error.filename is None or is_partial(Path(str(error.filename))):
            error.filename = str(path)
        raise


def within(root: Path, *names: str) -> Path:
    """Return a folder within a run's, which may not be there yet.

    Raises:
        UserError: a part of the way is a link or a file: what is written there would end up in another folder.
    """
    folder = root
    for name in names:
        folder /= name
        if folder.is_symlink():
            raise UserError(f"{folder}: is a link, and nothing is written through it. Delete it.")
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: is a file, where a folder belongs. Move it.")
    return folder


def folder_in(root: Path, *names: str) -> Path:
    """Return the folder of :func:`within`, created where there is none."""
    folder = within(root, *names)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def remove(path: Path) -> None:
    """Delete a folder with all that is in it, a file or a link; nothing behind a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def lock(path: Path) -> FileLock:
    """Return a lock in a folder that can be written to.

    Raises:
        OSError: no file can be made there: the lock itself would wait for one without end.
    """
    from filelock import FileLock

    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o666))
    return FileLock(path)


def append_to(path: Path, flags: int = 0) -> BinaryIO:
    """Return a file to append to and read, made where there is none.

    Raises:
        OSError: it cannot be opened; a link is not followed.
    """
    opener = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | flags
    try:
        return os.fdopen(os.open(path, opener, 0o666), "a+b")
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, "is a link, and nothing is written through it", str(path)) from None
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` as a whole."""
    with replacing(path) as fresh:
        fresh.file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as a whole, in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, NaN refused, secrets masked."""
    write_text(path, json.dumps(redact_tree(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table with a header line."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


# How a cell begins that a spreadsheet takes for a formula (the last four are such signs of full width).
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d+)?([eE][+-]?\d+)?|inf)")


def spreadsheet_cell(value: Any) -> Any:
    """Return a cell of a CSV file for people: text that a spreadsheet would run as a formula gets a ``'`` before it.

    >>> spreadsheet_cell("=cmd|' /C calc'!A0"), spreadsheet_cell("-0.5"), spreadsheet_cell(-0.5)
    ("'=cmd|' /C calc'!A0", '-0.5', -0.5)
    """
    is_formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def text_of_cell(text: str) -> str:
    """Return the text that :func:`spreadsheet_cell` made a cell of."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one JSON object as a line and make it last. One process at a time may do so."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with _named(path), append_to(path) as file:
        tail = last_line(file)
        if parse_line(tail) is not None:
            line = b"\n" + line  # whole, and only its line break is missing
        elif tail:
            file.truncate(
                file.seek(0, os.SEEK_END) - len(tail)
            )  # cut off by a crash; what is new must not be glued to it
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def last_line(file: BinaryIO) -> bytes:
    """Return what is after the last line break; nothing in a whole file."""
    at = file.seek(0, os.SEEK_END)
    tail = b""
    while at and b"\n" not in tail:
        step = min(at, _CHUNK if tail else 1)  # a whole file costs one byte
        at -= step
        file.seek(at)
        tail = file.read(step) + tail
    return tail.rpartition(b"\n")[2]


_CHUNK = 1 << 16


def require_run_folder(folder: Path) -> None:
    """Refuse what is not a folder where a run's is wanted.

    Raises:
        UserError: there is nothing, or a file.
    """
    if folder.is_dir():
        return
    if folder.exists():
        in_a_run = (folder.absolute().parent / "results.json").exists()
        wanted = folder.parent if in_a_run else "that of a run, as runs/<dataset>/<run>"
        raise UserError(f"{folder}: is a file. Name a folder: {wanted}.")
    raise UserError(
        f"{folder}: there is no such folder. Name the folder of a run, as runs/<dataset>/<run>, or a "
        "part of its name: ddtl runs list."
    )


def cannot_write(folder: Path) -> str:
    """Return why nothing can be written into a folder that is there or is still to be made; empty where it can."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".ddtl-", dir=there):
            return ""
    except OSError as error:
        return f"{there} cannot be written to ({error.strerror})"


def output_folder(text: str) -> Path:
    """Return what a command's ``output=`` names.

    Raises:
        ValueError: it is a file, or a run's folder, or cannot be written to.
    """
    path = Path(text).expanduser()
    if not text or (path.exists() and not path.is_dir()):
        raise ValueError("name a folder; it is made where there is none.")
    if (path / "config.yaml").exists():
        raise ValueError("a run's folder contains its record alone. Name another folder.")
    if problem := cannot_write(path):
        raise ValueError(f"{problem}. Name another folder.")
    return path
