"""A person's own images, listed in a CSV: ``dataset=table``. And reading such CSVs, which ``folder`` does, too."""

from __future__ import annotations

import csv
import difflib
import io
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

from ddtl.data.datasets import classes as class_names, patient_ids
from ddtl.data.datasets.kind import DatasetKind, of_own_files
from ddtl.data.manifest import SPLITS, Manifest, Note, Sample
from ddtl.schema.run import Config, PatientIds
from ddtl.utils import reading
from ddtl.utils.errors import UserError
from ddtl.utils.progress import Progress
from ddtl.utils.suggest import did_you_mean

REQUIRED = ("path", "label")
OPTIONAL = ("sample_id", "patient_id", "site", "split")

_PATIENT_COLUMNS = {
    "patient",
    "pid",
    "subject",
    "subject_id",
    "subjectid",
    "case_id",
    "mrn",
    "person_id",
    "participant",
}
_SHOWN = 10  # problems that a message tells
# Names of columns that a message tells: what is longer or looks otherwise is not a name, but content of the file.
_NAME = re.compile(r"[\w .()/|-]{1,40}")
_SHOWN_NAMES = 20
# A table of 1,000,000 images is within these.
_LARGEST = 512 * reading.MIB
_MOST_LINES = 2_000_000
_MOST_COLUMNS = 1_000
_LONGEST_LINE = 1_000_000  # characters

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a CSV.

    Attributes:
        line: where it is in the file, from 1 (of several lines, the last).
        cells: text by column, without blanks around it; empty where the line has none.
    """

    line: int
    cells: dict[str, str]

    def text(self, column: str) -> str:
        """The text of the cell, in one Unicode form; a path is better read from ``cells``."""
        return nfc(self.cells[column])

    def optional(self, column: str) -> str | None:
        """The same; None where the cell is empty or a program wrote that it is (``nan``, ``NA``, …)."""
        text = self.text(column)
        return None if patient_ids.is_empty(text) else text


def build_manifest(
    name: str,
    table: Path,
    root: Path,
    classes: Sequence[str] | None,
    class_map: Mapping[str, str] | None = None,
    patient_id_mode: PatientIds = "check",
) -> Manifest:
    """The images that a CSV lists, without a split; the column ``split``, where there is one, is the published split.

    Args:
        name: under which results are filed.
        table: a CSV with the columns ``path`` and ``label`` and, where known, ``sample_id`` (else it is the path),
            ``patient_id``, ``site`` and ``split``. UTF-8; separated by commas, semicolons or tabs.
        root: where relative paths start.
        classes: the classes in order, the positive one last; None finds the negative one of two by its name.
        class_map: the class of each label with another name.
        patient_id_mode: what ids with several spellings are, see
            :func:`ddtl.data.datasets.patient_ids.resolve`.

    Raises:
        UserError: the table cannot be used; all its problems, each with its line, in one message.
    """
    rows = read_table(table, REQUIRED, OPTIONAL)
    paths = [root / os.path.expanduser(row.cells["path"]) for row in rows]
    ids = [row.text("sample_id") or _name(path, root) for row, path in zip(rows, paths, strict=True)]
    problems = list(_absent(rows, paths, root))
    try:
        labels = {row.text("label") for row in rows} - {""}
        of_label = class_names.mapped(labels, class_map, str(table))
        names, is_known = class_names.ordered(of_label, classes)
        used = {label: name for label, name in of_label.items() if name in names}
        class_names.check_names(used, str(table), class_map)
    except UserError as error:
        problems = [*_problems(rows, ids), *problems]
        if not problems:
            raise
        raise _unusable(table, [str(error), *problems]) from None
    problems = [*_problems(rows, ids, of_label, names), *problems, *_bare_classes(of_label, names)]
    if problems:
        raise _unusable(table, problems)
    if classes is None:
        class_names.report_order(name, names, is_known)
    patient_of, notes = patient_ids.resolve(
        {i: row.text("patient_id") for row, i in zip(rows, ids, strict=True)},
        patient_id_mode,
        f"{table}, column patient_id",
        "column patient_id",
    )
    return Manifest(
        dataset=name,
        classes=names,
        samples=tuple(
            Sample(
                sample_id=sample_id,
                path=path,
                label=names.index(of_label[row.text("label")]),
                patient_id=patient_of[sample_id],
                site=row.optional("site") or "unknown",
            )
            for row, path, sample_id in zip(rows, paths, ids, strict=True)
        ),
        grouping="patient" if any(patient_of.values()) else "none",
        published={i: split for row, i in zip(rows, ids, strict=True) if (split := row.optional("split"))} or None,
        notes=(*_slips(rows), *notes),
        is_positive_known=is_known,
        labels=tuple(sorted(used.items())),
    )


def _unusable(table: Path, problems: Sequence[str]) -> UserError:
    shown = [*problems[:_SHOWN], *[f"... and {len(problems) - _SHOWN} more"] * (len(problems) > _SHOWN)]
    return UserError("\n  ".join([f"{table} cannot be used as it is:", *shown]) + "\nCorrect the table.")


def read_table(path: Path, required: Sequence[str], optional: Sequence[str] = (), *, empty: bool = False) -> list[Row]:
    """The lines of a CSV, blank ones excluded. Further columns are ignored.

    Args:
        empty: whether there may be no line but the names of the columns.

    Raises:
        UserError: it is not UTF-8, has no line or lacks a required column, or its quotes or commas are out of order.
    """
    lines = _lines(path, (*required, *optional))
    written = next(lines, (1, []))[1]
    header = _known_names(written, (*required, *optional))
    twice = [column for column in (*required, *optional) if header.count(column) > 1]
    if twice:
        raise UserError(f"{path}: the column {twice[0]} is there twice. Rename one of them.")
    lacking = [column for column in required if column not in header]
    if lacking:
        shown = [name for name in written if _NAME.fullmatch(name)][:_SHOWN_NAMES]
        hints = "".join(did_you_mean(column, shown) for column in lacking)
        # Another file may have been named: what is in it is shown only where it is a table of ours.
        is_table = bool(hints) or len(lacking) < len(required)
        names = f" and has: {', '.join(shown) or 'nothing'}" if (is_table and shown) or not written else ""
        raise UserError(
            f"{path}: lacks the column {' and the column '.join(lacking)}; its first line must name the columns"
            f"{names}.{hints}"
        )
    rows: list[Row] = []
    known = {*required, *optional}
    for line, cells in lines:
        if len(cells) > len(header):
            raise UserError(
                f"{path}, line {line}: has {len(cells)} cells under {len(header)} columns. Put quotes around a text "
                "that contains the separator."
            )
        # The names of further columns are read, and no cells of theirs but the first line's.
        found = zip(header, cells + [""] * (len(header) - len(cells)), strict=True)
        read = {name: cell for name, cell in found if not rows or name in known}
        rows.append(Row(line, dict.fromkeys(optional, "") | read))
    if not rows and not empty:
        raise UserError(f"{path}: contains no line but the names of its columns. Add a line for each image.")
    return rows


def _known_names(header: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The names of the columns, those that differ from a known one in case alone as that one."""
    known = {column: column for column in columns}
    taken = set(header) & known.keys()
    return [
        name if name in taken or name.lower() in taken or name.lower() not in known else name.lower() for name in header
    ]


def nfc(text: str) -> str:
    """Text in the Unicode form that Linux and Windows type; macOS takes names apart (``e`` + accent)."""
    return unicodedata.normalize("NFC", text)


def _lines(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line that is not blank."""
    try:
        with reading.opened(path, _LARGEST) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
            yield from _cells(path, text, columns)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error.reason}). Save it as CSV in UTF-8.") from None
    except reading.Unreadable as error:
        raise UserError(f"{path}: {error.reason}. Name a CSV file.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None


def _cells(path: Path, text: Iterable[str], columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    lines = _bounded(path, text)
    begin = list(islice(lines, 1))
    named_separator = re.match(r'"?sep=(.)"?\r?\n', begin[0]) if begin else None
    if named_separator is not None:  # as spreadsheets write it before the names of the columns
        begin = []
    for line in lines if not any(map(str.strip, begin)) else ():
        begin.append(line)
        if line.strip():
            break
    separator = _separator(begin[-1] if begin else "", columns) if named_separator is None else named_separator[1]
    reader = csv.reader(chain(begin, lines), delimiter=separator, strict=True, skipinitialspace=True)
    number = 0
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if not any(stripped):
                continue
            number += 1
            if number > _MOST_LINES or len(cells) > _MOST_COLUMNS:
                raise UserError(
                    f"{path}: has more than {_MOST_LINES:,} lines or {_MOST_COLUMNS:,} columns. Name the table of the "
                    "images."
                )
            yield reader.line_num, stripped
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}. Look for a quote that is not closed.") from None


def _bounded(path: Path, text: Iterable[str]) -> Iterator[str]:
    """The lines of a text; a line break within quotes counts as one."""
    for number, line in enumerate(text, start=1):
        if len(line) > _LONGEST_LINE:
            raise UserError(f"{path}, line {number}: has {len(line):,} characters. Save it as CSV, a line an image.")
        yield line


def _separator(first: str, columns: Sequence[str]) -> str:
    """What divides the first line into the most columns that are searched for."""

    def fit(separator: str) -> tuple[int, int]:
        names = [name.strip(' \t\r\n"') for name in first.split(separator)]
        return sum(name in columns for name in names), len(names)

    return max(",;\t", key=fit)


def _slips(rows: Sequence[Row]) -> list[Note]:
    """A doubt for each column that is not read and may be meant as one that is not there."""
    unused = [column for column in OPTIONAL if not any(row.cells[column] for row in rows)]
    notes = []
    for column in rows[0].cells.keys() - {*REQUIRED, *OPTIONAL}:
        meant = difflib.get_close_matches(column.lower(), unused, n=1, cutoff=0.8)
        if column.lower() in _PATIENT_COLUMNS and "patient_id" in unused:
            meant = ["patient_id"]
        if meant:
            text = f"The column {column!r} of the table is not read; if it is meant as {meant[0]}, call it that."
            notes.append(Note(text, is_doubt=True))
    return sorted(notes, key=lambda note: note.text)


def _name(path: Path, root: Path) -> str:
    """A path as a sample id: as seen from ``root``, so that it is the same on every machine."""
    return nfc(Path(os.path.relpath(path, root)).as_posix())


def _problems(
    rows: Sequence[Row], ids: Sequence[str], of_label: Mapping[str, str] | None = None, classes: Sequence[str] = ()
) -> Iterator[str]:
    """What is wrong with single lines, in their order; with their labels, where the class of each is known."""
    first: dict[str, int] = {}
    for row, sample_id in zip(rows, ids, strict=True):
        line, label, split = row.line, row.text("label"), row.optional("split")
        empty = [column for column in REQUIRED if not row.cells[column]]
        if empty:
            yield f"line {line}: {' and '.join(empty)} must not be empty"
        elif sample_id in first:
            yield f"line {line}: the sample id {sample_id!r} is in line {first[sample_id]} already"
        first.setdefault(sample_id, line)
        if of_label is not None and label and of_label[label] not in classes:
            hint = did_you_mean(label, classes)
            yield f"line {line}: the label {label!r} is not among dataset.classes=[{', '.join(classes)}].{hint}"
        if split is not None and split not in SPLITS:
            yield f"line {line}: the split {split!r} is none of {', '.join(SPLITS)}"


def _absent(rows: Sequence[Row], paths: Sequence[Path], root: Path) -> Iterator[str]:
    """One line for all files that are not there."""
    absent = [(row, path) for row, path in zip(rows, paths, strict=True) if row.cells["path"] and not path.is_file()]
    if absent:
        row, path = absent[0]
        hint = " (folders are divided by /, not by \\)" if "\\" in row.cells["path"] else ""
        relative = "" if os.path.isabs(row.cells["path"]) else f"; relative paths start at dataset.root, here {root}"
        yield (
            f"{len(absent)} of {len(rows)} files are not there, first (line {row.line}): {path.absolute()}{hint}"
            f"{relative}"
        )


def _bare_classes(of_label: Mapping[str, str], classes: Sequence[str]) -> Iterator[str]:
    for name in classes:
        if name not in of_label.values():
            yield f"no line has the label {name!r} of dataset.classes"
    if len(classes) < 2:
        yield f"two classes are needed, and the only label is {', '.join(map(repr, classes)) or 'empty'}"


def _build(config: Config, progress: Progress | None = None) -> Manifest:
    c = config.dataset
    assert c.table is not None, "checked with the configuration"
    path = Path(c.table).expanduser()
    root = path.parent if c.root is None else Path(c.root).expanduser()
    manifest = build_manifest(c.name, path, root, c.classes, c.class_map, c.patient_ids)
    if manifest.published and c.protocol != "official":
        text = "The table's column split is used with dataset.protocol=official alone."
        manifest = replace(manifest, notes=(*manifest.notes, Note(text, is_doubt=True)))
    return of_own_files(manifest, c)


KIND = DatasetKind(_build)
