"""A comparison as tables for the terminal, as Markdown and as a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import rich.table
from rich.markup import escape

from ddtl.evaluation.comparison.comparison import Comparison, Result
from ddtl.evaluation.intervals.interval import Interval
from ddtl.reports.comparison import claims
from ddtl.reports.comparison.runs import Compared
from ddtl.reports.html import format
from ddtl.reports.html.page import Cell, Table
from ddtl.reports.prose import escaped
from ddtl.reports.run.methods import markdown_table
from ddtl.schema.scores import TITLES
from ddtl.schema.units import UNITS

_ALSO = ("roc_auc", "accuracy", "sensitivity", "specificity")


def of_methods(compared: Compared, result: Result) -> Table:
    """Return each method's scores with intervals: the one that is judged first."""
    first = result.pairs[0]
    names = [first.score, *(name for name in _ALSO if name != first.score)]
    rows: list[list[str | Cell]] = [
        [one.name, str(one.runs), *(_cell(one.scores[name], one.intervals[name]) for name in names)]
        for one in result.methods
    ]
    run = compared.runs[0].record
    where = {"test": "test", "val": "validation"}[compared.split]
    return Table(
        f"{run['dataset']}, protocol {run['protocol']}, {where}: by image, {claims.images(first)}",
        ["method", "runs", *(_heading(name) for name in names)],
        rows,
    )


def of_pairs(result: Result) -> Table:
    """Return each pair's difference and its p-values."""
    first = result.pairs[0]
    rows: list[list[str | Cell]] = [
        [
            f"{pair.a} – {pair.b}",
            _cell(pair.judged.value, pair.judged.interval),
            *(format.p_value(p) for p in (pair.delong_p, pair.mcnemar_p, pair.holm_p)),
        ]
        for pair in result.pairs
    ]
    tests = {claims.TESTS[pair.test] for pair in result.pairs}
    why = dict.fromkeys(reason for pair in result.pairs for reason in pair.no_tests)
    notes = [
        "DeLong's test is of the ROC AUC, McNemar's of the accuracy.",
        f"Holm p is of {_heading(first.score)}, by {' or '.join(sorted(tests))}"
        + (f", adjusted for {len(result.pairs)} pairs." if len(result.pairs) > 1 else "; one pair needs no adjusting."),
        *(f"{format.NONE}: {reason}." for reason in why),
    ]
    return Table(
        f"{_heading(first.score)} by image, first minus second, {format.level(first.level)} intervals over "
        f"{UNITS[first.unit][1]}",
        ["pair", "difference", "DeLong p", "McNemar p", "Holm p"],
        rows,
        " ".join(notes),
    )


def for_terminal(table: Table) -> rich.table.Table:
    """Return a table with intervals below their numbers, so that it fits into a narrow terminal."""
    drawn = rich.table.Table(
        title=escape(table.caption), title_justify="left", caption=escape(table.note) or None, caption_justify="left"
    )
    for i, heading in enumerate(table.columns):
        drawn.add_column(escape(heading), justify="right" if i else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(
            *(escape(cell if isinstance(cell, str) else f"{cell.text}\n{_bare(cell.note)}".rstrip()) for cell in row)
        )
    return drawn


def _bare(note: str) -> str:
    """Return small print without the brackets that it has after its number, and does not need below it."""
    return note.replace("(", "").replace(")", "")


def markdown(tables: Sequence[Table], sentences: Sequence[str], notes: Sequence[str]) -> str:
    """Return claims, tables and caveats."""
    parts = ["# Comparison", *sentences]
    for table in tables:
        parts += [f"**{escaped(table.caption)}**", markdown_table(table), *([table.note] if table.note else [])]
    parts += ["\n".join(f"- {note}" for note in notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def record(compared: Compared, result: Result) -> dict[str, Any]:
    """Return everything that was computed, for JSON."""
    first = result.pairs[0]
    run = compared.runs[0].record
    return {
        "dataset": run["dataset"],
        "protocol": run["protocol"],
        "split": compared.split,
        "unit": first.unit,
        "units": first.units,
        "images": first.images,
        "score": first.score,
        "level": first.level,
        "methods": [
            {
                "name": one.name,
                "runs": [run.name for run in method.runs],
                "scores": one.scores,
                "intervals": {name: found and asdict(found) for name, found in one.intervals.items()},
            }
            for one, method in zip(result.methods, compared.methods, strict=True)
        ],
        "pairs": [_pair(pair) for pair in result.pairs],
        "caveats": claims.caveats(compared, result.pairs),
    }


def _pair(pair: Comparison) -> dict[str, Any]:
    return {
        "a": pair.a,
        "b": pair.b,
        "differences": {name: asdict(found) for name, found in pair.differences.items()},
        "delong_p": pair.delong_p,
        "mcnemar_p": pair.mcnemar_p,
        "no_tests": list(pair.no_tests),
        "p": pair.p,
        "test": pair.test,
        "paired_seeds": pair.paired_seeds,
        "holm_p": pair.holm_p,
        "smallest_difference": pair.smallest,
        "claimed": claims.claimed(pair),
        "claim": claims.claim(pair),
    }


def _cell(value: float | None, found: Interval | None) -> Cell:
    return Cell(format.score(value), format.interval(None if found is None else asdict(found)))


def _heading(name: str) -> str:
    return TITLES[name].partition(" (")[0]
