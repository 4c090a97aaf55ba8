"""Names of images and patients in text that is meant for others: a page to share has none, whoever wrote the record."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ddtl.evaluation.predictions import Predictions
from ddtl.records import predictions, small
from ddtl.records.checking import alike
from ddtl.reports.run.stored import Stored
from ddtl.reports.study.cells import Cells
from ddtl.reports.sweep.record import Sweep
from ddtl.utils.errors import UserError
from ddtl.utils.reading import Unreadable

MASK = "…"
_MOST_PARTS = 12  # words and numbers in a name
_WORD = re.compile(r"\w+")
_NAMING = re.compile(r"(?i)\b(patients?|samples?|images?|slices?|groups?|cases?|ids?|names?)\W{0,4}$")
_STRUCTURE = {"classes", "positive", "dataset", "sources", "protocol", "monitor", "method", "name", "kind", "state"}


class Names:
    """The names of a dataset's images and patients.

    Short ones, such as the number of a patient, are names only after a word such as ``patient 12``.
    """

    def __init__(self, names: Iterable[object]) -> None:
        bare = {str(name).strip() for name in names}
        trimmed = {match[0] for name in bare if (match := re.search(r"\w(.*\w)?", name, re.DOTALL))}
        self._short = {name for name in trimmed if len(name) < 4 or (name.isdigit() and len(name) < 6)}
        self._long = trimmed - self._short

    def masked(self, value: Any) -> Any:
        """Return the value with a mask in place of each name in a text; keys and what a page is built by stay."""
        if isinstance(value, str):
            return self._masked_text(value)
        if isinstance(value, Mapping):
            return {
                key: each if key in _STRUCTURE and not isinstance(each, Mapping) else self.masked(each)
                for key, each in value.items()
            }
        return [self.masked(each) for each in value] if isinstance(value, list | tuple) else value

    def _masked_text(self, text: str) -> str:
        words = [match.span() for match in _WORD.finditer(text)]
        parts, done, at = [], 0, 0
        while at < len(words):
            begin = words[at][0]
            # The longest name that begins here.
            last = next((i for i in range(min(at + _MOST_PARTS, len(words)) - 1, at - 1, -1)
                         if self._is_name(text, begin, words[i][1])), None)  # fmt: skip
            if last is not None:
                parts += [text[done:begin], MASK]
                done, at = words[last][1], last
            at += 1
        return "".join([*parts, text[done:]]) if parts else text

    def _is_name(self, text: str, begin: int, end: int) -> bool:
        part = text[begin:end]
        return part in self._long or (
            part in self._short and _NAMING.search(text[max(0, begin - 20) : begin]) is not None
        )


def without_names(stored: Stored) -> Stored:
    """Return a run whose texts name none of its images and patients."""
    hidden = Names({*_predicted(stored.predictions), *_split(stored.folder)})
    parts = {name: getattr(stored, name) for name in ("record", "config", "environment")}
    return dataclasses.replace(stored, **{name: alike(part, hidden.masked(part)) for name, part in parts.items()})


def cells_without_names(found: Cells) -> Cells:
    """Return a study whose texts name none of its images and patients; why runs failed, in any words, is excluded."""
    names: set[object] = set()
    for folder in {folder for cell in found.cells for folder in cell.folders}:
        names |= _split(folder)
        with suppress(UserError):
            names |= _predicted(predictions.read(folder / "predictions.csv"))
    hidden = Names(names)
    cells = [
        dataclasses.replace(
            cell,
            lost=tuple(dataclasses.replace(each, reason="the reason is in study.json") for each in cell.lost),
            records=tuple(hidden.masked(record) for record in cell.records),
        )
        for cell in found.cells
    ]
    return dataclasses.replace(found, cells=cells, study=alike(found.study, hidden.masked(found.study)))


def sweep_without_words(found: Sweep) -> Sweep:
    """Return a sweep without what failed trials printed, which may name images and patients."""
    trials = [{**trial, "words": "excluded from a page to share" if trial["words"] else ""} for trial in found.trials]
    return dataclasses.replace(found, record={**found.record, "trials": trials})


def _predicted(table: Predictions) -> set[object]:
    return {*table.sample_id, *table.group, *table.patient_id}


def _split(folder: Path) -> set[object]:
    """Return the names in a run's split; none where it has none that can be read."""
    with suppress(OSError, Unreadable):
        return {name for row in small.split(folder / "split.csv") for name in (row.get("sample_id", ""), row["group"])}
    return set()
