"""The one way to read what is on disk: records, inputs, weights and tables may come from strangers.

Only regular files are opened, so that no pipe or device makes a command wait for ever; each is read up to a limit that
is above what a run on 1,000,000 images writes. JSON is shallow and contains finite numbers and valid text; YAML of
records contains no aliases. Messages name the file and the place in it, and never quote what is there: a record, too,
may be a link to a file that is nobody's business.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import yaml

from ddtl.utils.errors import UserError

MIB = 1 << 20
GIB = 1 << 30

# Limits, in bytes.
SETTINGS = MIB  # a YAML file of settings
RECORD = 256 * MIB  # a record in JSON
LINE = 16 * MIB  # a line of a file of records
TABLE = 4 * GIB  # a CSV table, or a file of lines
IMAGE = GIB // 2  # an image or DICOM file
WEIGHTS = 8 * GIB  # a file of weights, or a checkpoint

_HOLES = 64 * MIB  # in a file, and half of it: less is read as the zeros that it stands for
_MOST_HOLES = 10_000

_DEEPEST = 64  # levels within a record; ours have about ten
_MOST_VALUES = 5_000_000  # in a record: a sweep of 10,000 trials with 100 epochs each has half as many
_LARGEST_INT = 2**63


class Unreadable(UserError):
    """A file that cannot be used.

    Attributes:
        path: the file.
        reason: why, as a predicate: ``is not a regular file``.
    """

    def __init__(self, path: Path, reason: str, fix: str = "") -> None:
        super().__init__(f"{printable(path)}: {reason}.{f' {fix}' if fix else ''}")
        self.path, self.reason = path, reason


@contextmanager
def opened(path: Path, limit: int) -> Iterator[BufferedReader]:
    """Yield a regular file, open for reading.

    Args:
        path: of the file, or of a link to it.
        limit: bytes.

    Raises:
        OSError: there is no such file, or this user may not read it.
        Unreadable: it is not a regular file, or larger than the limit.
    """
    # Without O_NONBLOCK the opening of a pipe waits for somebody who writes.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise Unreadable(path, "is a folder" if stat.S_ISDIR(about.st_mode) else "is not a regular file")
        if about.st_size > limit:
            raise Unreadable(path, f"is too large ({size(about.st_size)}; at most {size(limit)} are read)")
        file = os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
    with file:
        yield file


def read_bytes(path: Path, limit: int = RECORD) -> bytes:
    """Return all of a regular file; errors as of :func:`opened`."""
    with opened(path, limit) as file:
        # Python makes room for as much as is requested, so not for the limit at once.
        step = min(os.fstat(file.fileno()).st_size, limit) + 1
        data = file.read(step)
        while len(data) <= limit and (more := file.read(step)):
            data += more
    if len(data) > limit:  # it grew
        raise Unreadable(path, f"is too large (at most {size(limit)} are read)")
    return data


def sha256(path: Path, limit: int) -> str:
    """Return the sha256 of a regular file, which is not held in memory; errors as of :func:`opened`.

    Raises:
        Unreadable: most of it is holes, which take no room on the disk and a long time here.
    """
    with opened(path, limit) as file:
        if _holes(file) > max(_HOLES, os.fstat(file.fileno()).st_size // 2):
            raise Unreadable(path, "is mostly holes: its content was never written")
        return hashlib.file_digest(file, "sha256").hexdigest()


def _holes(file: BufferedReader) -> int:
    """Bytes of a file that were never written, as far as its file system reports it."""
    descriptor, holes, at = file.fileno(), 0, 0
    end = os.fstat(descriptor).st_size
    if not hasattr(os, "SEEK_HOLE") or end <= _HOLES:
        return 0
    try:
        for _ in range(_MOST_HOLES):
            at = os.lseek(descriptor, at, os.SEEK_HOLE)  # or the end
            try:
                data = os.lseek(descriptor, at, os.SEEK_DATA)
            except OSError:  # there is none behind it
                return holes + end - at
            holes, at = holes + data - at, data
    except OSError:  # a file system that does not state it
        return 0
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)
    return holes


def read_text(path: Path, limit: int = SETTINGS, encoding: str = "utf-8") -> str:
    """Return a text file; errors as of :func:`opened`.

    Raises:
        Unreadable: it is not in that encoding.
    """
    try:
        return read_bytes(path, limit).decode(encoding)
    except UnicodeDecodeError:
        raise Unreadable(path, "is not text in UTF-8") from None


def read_json(path: Path, limit: int = RECORD) -> Any:
    """Return the value in a file of JSON; errors as of :func:`opened`.

    Raises:
        Unreadable: it is damaged, too deep or too large, or contains what no record does: numbers that are not finite,
            text that is not Unicode.
    """
    try:
        return parse_json(read_bytes(path, limit))
    except _Fault as fault:
        raise Unreadable(path, f"is damaged, {fault}") from None


def read_object(path: Path, limit: int = RECORD) -> dict[str, Any]:
    """Return the JSON object in a file; errors as of :func:`read_json`.

    Raises:
        Unreadable: it contains something else.
    """
    value = read_json(path, limit)
    if not isinstance(value, dict):
        raise Unreadable(path, "is damaged, no JSON object")
    return value


def read_lines(path: Path, limit: int = TABLE) -> list[dict[str, Any]]:
    """Return the JSON objects of a file of lines, none where there is no file; a last line that a crash cut off is
    excluded.

    Raises:
        Unreadable: a line before the last one is damaged; or as of :func:`opened`.
    """
    rows: list[dict[str, Any]] = []
    try:
        for number, line, is_whole in lines(path, limit):
            row = parse_line(line)
            if row is not None:
                rows.append(row)
            elif is_whole:
                raise Unreadable(path, f"line {number} is damaged, no JSON object", "Repair that line, or delete it.")
    except FileNotFoundError:
        return []
    return rows


def lines(path: Path, limit: int = TABLE) -> Iterator[tuple[int, bytes, bool]]:
    """Yield the lines of a file: number from 1, content, and whether its line break is there. An empty last one is
    none.

    Raises:
        Unreadable: one is too long; or as of :func:`opened`.
    """
    with opened(path, limit) as file:
        number = 0
        while line := file.readline(LINE + 1):
            number += 1
            if len(line) > LINE:
                raise Unreadable(path, f"line {number} is too long (at most {size(LINE)} are read)")
            yield number, line.removesuffix(b"\n"), line.endswith(b"\n")


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object on a line; None where there is no whole one."""
    try:
        row = parse_json(line)
    except _Fault:
        return None
    return row if isinstance(row, dict) else None


def parse_json(data: bytes | str) -> Any:
    """Return the value that JSON stands for.

    Raises:
        ValueError: as :func:`read_json` says, without the file's name.
    """
    comma, opening = (b",", (b"[", b"{")) if isinstance(data, bytes) else (",", ("[", "{"))
    if data.count(comma) + sum(map(data.count, opening)) > _MOST_VALUES:  # type: ignore[arg-type]
        raise _Fault(f"it contains more than {_MOST_VALUES:,} values")
    try:
        value = json.loads(data, parse_constant=_not_finite)
    except _Fault:
        raise
    except RecursionError:
        raise _Fault(f"it is nested deeper than {_DEEPEST} levels") from None
    except json.JSONDecodeError as error:
        raise _Fault(f"no JSON ({error.msg[:1].lower()}{error.msg[1:]}: line {error.lineno})") from None
    except ValueError:  # bytes that are not text, a number of thousands of digits
        raise _Fault("no JSON") from None
    if reason := _unfit(value):
        raise _Fault(f"{_place(value)}{reason}")
    return value


class _Fault(ValueError):
    pass


def _not_finite(word: str) -> NoReturn:
    raise _Fault(f"it contains {word}, which is not a JSON number")


def _unfit(value: Any) -> str:
    """Return why a value is none of a record's, or nothing. Level by level, for a deep one ends Python's stack."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            return f"it is nested deeper than {_DEEPEST} levels"
        inner: list[Any] = []
        for one in level:
            kind = type(one)
            if kind is dict:
                inner.extend(one.values())
                if not all(map(is_text, one)):
                    return "contains a name that is not Unicode text"
            elif kind is list:
                inner.extend(one)
            elif reason := _unfit_scalar(one):
                return reason
        level = inner
    return ""


def _unfit_scalar(value: Any) -> str:
    if type(value) is str:
        return "" if is_text(value) else "is not Unicode text"
    if type(value) is float:
        return "" if math.isfinite(value) else "is not a finite number"
    return "is a number out of all bounds" if type(value) is int and abs(value) >= _LARGEST_INT else ""


def is_text(text: str) -> bool:
    """Return whether it can be written in UTF-8: half of a surrogate pair cannot."""
    return text.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in text)


def _place(value: Any) -> str:
    """Return the keys that lead to the first unfit scalar, as ``test.roc_auc ``; empty where it is none."""
    below: list[tuple[str, Any, int]] = [("", value, 1)]
    while below:
        at, one, depth = below.pop()
        if depth > _DEEPEST:
            continue
        if isinstance(one, dict):
            below += [(f"{at}.{key}" if at else key, each, depth + 1) for key, each in one.items()]
        elif isinstance(one, list):
            below += [(f"{at}[{i}]", each, depth + 1) for i, each in enumerate(one)]
        elif _unfit_scalar(one):
            return f"{printable(at)} " if at else "it "
    return ""


def read_yaml(path: Path, limit: int = SETTINGS) -> Any:
    """Return what a record in YAML holds: plain values, of which none is an alias; errors as of :func:`opened`.

    Raises:
        Unreadable: it is damaged, too deep, or contains aliases or tags.
    """
    text = read_text(path, limit)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_YAML):
            if isinstance(event, yaml.AliasEvent):
                raise Unreadable(path, "contains YAML aliases, which no record does")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise Unreadable(path, f"is damaged, it is nested deeper than {_DEEPEST} levels")
        return yaml.load(text, Loader=_YAML)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, Unreadable):
            raise
        mark = getattr(error, "problem_mark", None)  # its text would quote the file
        raise Unreadable(path, f"is damaged, no YAML{'' if mark is None else f' (line {mark.line + 1})'}") from None


_YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def count_values(text: str) -> int:
    """Return how many values a YAML text stands for once its aliases are copies. Damaged YAML counts up to the
    damage.
    """
    counts: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []
    total = 0
    try:
        for event in yaml.parse(text, Loader=_YAML):
            if isinstance(event, yaml.AliasEvent):
                if any(anchor == event.anchor for anchor, _ in open_):  # within itself: without end
                    return sys.maxsize
                total += counts.get(event.anchor or "", 1)
            elif isinstance(event, yaml.CollectionStartEvent):
                open_.append((event.anchor, total))
                total += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = open_.pop()
                if anchor is not None:
                    counts[anchor] = total - before
            elif isinstance(event, yaml.ScalarEvent):
                total += 1
                if event.anchor is not None:
                    counts[event.anchor] = 1
    except (yaml.YAMLError, RecursionError):
        pass
    return total


def read_table(path: Path, limit: int = TABLE) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file with a header, as text, one by one; errors as of :func:`opened`.

    Raises:
        Unreadable: it is not text, or has a row with more or fewer cells than the header, or a cell that is too long.
    """
    with opened(path, limit) as file:
        reader = csv.reader((line.decode("utf-8") for line in _bounded(path, file)), strict=True)
        try:
            header = next(reader, [])
            if len(set(header)) < len(header):
                raise Unreadable(path, "has two columns of one name")
            for row in reader:
                if len(row) != len(header):
                    raise Unreadable(path, f"line {reader.line_num} has {len(row)} cells, the header {len(header)}")
                yield dict(zip(header, row, strict=True))
        except UnicodeDecodeError:
            raise Unreadable(path, f"line {reader.line_num + 1} is not text in UTF-8") from None
        except csv.Error:
            raise Unreadable(path, f"line {reader.line_num} is damaged, no CSV") from None


def _bounded(path: Path, file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(LINE + 1):
        if len(line) > LINE:
            raise Unreadable(path, f"contains a line of more than {size(LINE)}")
        yield line


def walk(
    top: Path,
    on_error: Callable[[Path, str], None],
    *,
    links: bool = True,
    inside: bool = False,
    wanted: Callable[[str], bool] = lambda name: True,
    seen: set[str] | None = None,
) -> Iterator[list[os.DirEntry[str]]]:
    """Yield the files of a folder and of those below it: a list for each folder, by name; each folder once.

    Args:
        top: a folder.
        on_error: called with a folder that cannot be read or is too deep, and a predicate that reports it.
        links: whether links to folders are followed.
        inside: whether only those are that lead to somewhere in ``top``; ``on_error`` is called with the others.
        wanted: whether a name is examined, that of a file or a folder.
        seen: real paths of folders that are not gone into, but for ``top``; those that were are added.
    """
    waiting = [(top, 0)]
    seen = set() if seen is None else seen
    within = Path(os.path.realpath(top))
    while waiting:
        folder, depth = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen and depth:  # a link back to where we were
            continue
        seen.add(real)
        if inside and depth and not Path(real).is_relative_to(within):
            on_error(folder, f"is a link to a folder outside of {printable(top)}: name that folder to read it")
            continue
        if depth > _DEEPEST:
            on_error(folder, f"is more than {_DEEPEST} folders deep in {top}")
            continue
        try:
            with os.scandir(folder) as entries:
                found = sorted((e for e in entries if wanted(e.name)), key=lambda entry: entry.name)
        except OSError as error:
            on_error(folder, f"cannot be read: {error.strerror or error}")
            continue
        folders = [entry for entry in found if _is_folder(entry, links)]
        below = {entry.name for entry in folders}
        waiting += [(Path(entry.path), depth + 1) for entry in reversed(folders)]
        yield [entry for entry in found if entry.name not in below]


def _is_folder(entry: os.DirEntry[str], links: bool) -> bool:
    try:
        return entry.is_dir(follow_symlinks=links)
    except OSError:  # a link to itself
        return False


def printable(text: object) -> str:
    r"""Return text whose signs cannot move a terminal's cursor, colour it or turn writing round: ``\x1b`` for
    escape.
    """
    return "".join(
        sign if sign.isprintable() or sign == " " else sign.encode("unicode_escape").decode() for sign in str(text)
    )


def size(count: float) -> str:
    """Return ``12 B``, ``3.4 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
