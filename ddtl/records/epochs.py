"""``metrics.jsonl``: a row for each epoch. A last line that a crash cut off is none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from ddtl.records.checking import OPEN, Count, Number, Seconds, check, fits
from ddtl.utils.reading import TABLE, opened, parse_line, read_lines

NAME = "metrics.jsonl"
# The key that marks a row, and results, as those of the mean of the last epochs' weights.
AVERAGED = "averaged_epochs"
TAIL = 4 << 20  # bytes: 12,000 epochs or more
_FIX = "Fix that line, or delete it."

Epoch = TypedDict(
    "Epoch",
    {
        "epoch": Count,
        "step": NotRequired[Count],
        "seconds": NotRequired[Seconds],
        "lr": NotRequired[Number | None],
        "train/loss": NotRequired[Number | None],
        "val/loss": NotRequired[Number | None],
        "val/roc_auc": NotRequired[Number | None],
        "val/average_precision": NotRequired[Number | None],
        "val/accuracy": NotRequired[Number | None],
        "val/balanced_accuracy": NotRequired[Number | None],
        "val/f1": NotRequired[Number | None],
    },
)
with_config(OPEN)(Epoch)


def read(folder: Path) -> list[dict[str, Any]]:
    """Return all rows, that of averaged weights included; none where there is no file.

    Raises:
        Unreadable: a line is damaged.
    """
    path = folder / NAME
    return [check(path, row, Epoch, _FIX, f"line {number}") for number, row in enumerate(read_lines(path), start=1)]


def of_epochs(folder: Path) -> list[dict[str, Any]]:
    """Return the rows that are of one epoch each; errors as of :func:`read`."""
    return [row for row in read(folder) if AVERAGED not in row]


def last(folder: Path, limit: int = TAIL) -> list[dict[str, Any]]:
    """Return the rows of the last epochs, as far as the end of the file of that many bytes contains them; damaged ones
    excluded.

    Raises:
        Unreadable: it is not a regular file, or too large.
    """
    try:
        with opened(folder / NAME, TABLE) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - limit))
            lines = file.read(limit).split(b"\n")
    except FileNotFoundError:
        return []
    if size > limit:
        del lines[0]  # the end of a line that began before
    rows = [row for line in lines if line and (row := parse_line(line)) is not None]
    return [row for row in rows if AVERAGED not in row and fits(row, Epoch)]
