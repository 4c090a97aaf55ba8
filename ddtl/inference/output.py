"""``predictions.csv`` and ``predictions.json``, written a row at a time and there only when they are whole."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from ddtl.utils.errors import UserError
from ddtl.utils.files import Fresh, spreadsheet_cell, write_csv

CSV, JSON, PATIENTS = "predictions.csv", "predictions.json", "patients.csv"
IMAGE_ROWS, PATIENT_ROWS = "pictures", "patients"  # keys of the JSON
OOD = "far_from_training"  # and of an image's row, whether it is out of distribution


class Tables:
    """What is written about the images; a context whose failure leaves nothing behind.

    Args:
        folder: made where it isn't there.
        columns: of an image's row.
        head: what is before the images in the JSON.
    """

    def __init__(self, folder: Path, columns: Sequence[str], head: Mapping[str, Any]) -> None:
        self.folder = folder
        self._columns = list(columns)
        self._new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
        self._fresh: dict[str, Fresh] = {}
        self._files: dict[str, TextIO] = {}
        self._rows = 0
        with _named_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for name in (CSV, JSON):
                self._fresh[name] = Fresh(folder / name)
                self._files[name] = io.TextIOWrapper(self._fresh[name].file, encoding="utf-8", newline="")
        self._csv = csv.writer(self._files[CSV], lineterminator="\n")
        self._csv.writerow(self._columns)
        self._files[JSON].write(f'{_json(head)[:-1]}, "{IMAGE_ROWS}": [')

    def add(self, row: Mapping[str, Any]) -> None:
        """One image."""
        with _named_errors(self.folder):
            self._csv.writerow([_cell(row[name]) for name in self._columns])
            self._files[JSON].write(f"{',' if self._rows else ''}\n{_json(row)}")
        self._rows += 1

    def finish(self, patients: Sequence[Mapping[str, Any]], tail: Mapping[str, Any]) -> None:
        """Write the patients and what follows them in the JSON; all files appear."""
        with _named_errors(self.folder):
            end = {PATIENT_ROWS: list(patients), **tail}
            self._files[JSON].write(f"\n], {_json(end)[1:]}\n")
            if patients:
                rows = ([_cell(value) for value in row.values()] for row in patients)
                write_csv(self.folder / PATIENTS, list(patients[0]), rows)
            for name, file in self._files.items():
                file.close()
                self._fresh[name].keep()

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in self._files.values():
            with suppress(OSError):
                file.close()
        for fresh in self._fresh.values():
            fresh.drop()
        if kind is not None:
            with suppress(OSError):
                for path in self._new_folders:
                    path.rmdir()


def existing(folder: Path) -> list[str]:
    """Return which of the tables are in a folder already."""
    return [name for name in (CSV, JSON, PATIENTS) if (folder / name).exists()]


@contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: cannot be written ({error.strerror}). Make room, or name another folder with "
            "output=FOLDER."
        ) from error


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        value = _CONTROLS.sub(lambda sign: sign[0].encode("unicode_escape").decode(), value)
    return "" if value is None else repr(value) if isinstance(value, float) else spreadsheet_cell(value)


# Signs that move a terminal's cursor, or turn writing round, where a table is examined. The JSON keeps them.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
