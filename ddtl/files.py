"""Files that are either whole or not there."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddtl.errors import UserError


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Makes an ``OSError`` say which file it is about: one from a full disk does not by itself."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def replace_file(temporary: Path, path: Path) -> None:
    """Move a finished file over ``path`` so that a crash leaves the old one or the new one, never a part."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` as a whole."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with _named(path):
            temporary.write_bytes(data)
            replace_file(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as a whole, in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, NaN refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table with a header line."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one JSON object as a line and make it last. One process at a time may do so."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with _named(path), path.open("a+b") as file:
        file.seek(0)
        _, _, tail = file.read().rpartition(b"\n")
        if parsed_line(tail) is not None:
            line = b"\n" + line  # whole, and only its line break is missing
        elif tail:
            file.truncate(file.tell() - len(tail))  # cut off by a crash; what is new must not be glued to it
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file of lines; a last line that a crash cut off is left out.

    Raises:
        UserError: a line before the last one is damaged.
    """
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    *lines, tail = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        row = parsed_line(line)
        if row is None:
            raise UserError(f"{path}, line {number}: is damaged, no JSON object. Mend that line, or delete it.")
        rows.append(row)
    last = parsed_line(tail)
    return rows if last is None else [*rows, last]


def parsed_line(line: bytes) -> dict[str, Any] | None:
    """The JSON object on a line; None where there is no whole one."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def require_run_folder(folder: Path) -> None:
    """Refuse what is no folder where a run's is wanted.

    Raises:
        UserError: there is nothing, or a file.
    """
    if folder.is_dir():
        return
    if folder.exists():
        in_a_run = (folder.absolute().parent / "results.json").exists()
        wanted = folder.parent if in_a_run else "that of a run, as runs/<dataset>/<run>"
        raise UserError(f"{folder}: is a file. Name a folder: {wanted}.")
    raise UserError(f"{folder}: there is no such folder. Name the folder of a run, as runs/<dataset>/<run>.")


def cannot_write(folder: Path) -> str:
    """Why nothing can be written into a folder that is there or is still to be made; empty where it can."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".ddtl-", dir=there):
            return ""
    except OSError as error:
        return f"{there} cannot be written to ({error.strerror})"


def output_folder(text: str) -> Path:
    """What a command's ``output=`` names.

    Raises:
        ValueError: it is a file, or a run's folder, or cannot be written to.
    """
    path = Path(text).expanduser()
    if not text or (path.exists() and not path.is_dir()):
        raise ValueError("name a folder; it is made where there is none.")
    if (path / "config.yaml").exists():
        raise ValueError("a run's folder holds its record alone. Name another folder.")
    if problem := cannot_write(path):
        raise ValueError(f"{problem}. Name another folder.")
    return path
