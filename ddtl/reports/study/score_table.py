"""Every score of every cell at full precision: for other programs."""

from __future__ import annotations

from dataclasses import asdict

from ddtl.evaluation.comparison.matrix import Mean
from ddtl.evaluation.intervals.interval import Interval
from ddtl.reports.html.page import Cell as Shown
from ddtl.reports.html.page import Table
from ddtl.reports.study.cells import Cells
from ddtl.schema.scores import SCORES


def every_score(found: Cells) -> Table:
    """A row for each score of each cell; ``threshold`` says from whose validation images that came."""
    columns = [
        "source", "method", "protocol", "schedule", "patients", "target", "in_domain", "threshold", "score", "mean",
        "sd", "low", "high", "seeds", "seeds_asked", "unit", "units", "images", "excluded", "drop", "drop_low",
        "drop_high", "drop_seeds", "reason",
    ]  # fmt: skip
    rows: list[list[str | Shown]] = []
    for cell in found.cells:
        row = cell.row
        place = [*(_plain(v) for v in asdict(row).values()), cell.target, str(cell.home).lower()]
        for label, measured in (("source", cell.measured), ("refitted", cell.refitted)):
            if label == "refitted" and measured is None:
                continue
            for name in SCORES:
                one = measured.scores[name] if measured else Mean(None, None, None)
                lost = cell.drop[name] if cell.drop and label == "source" else None
                where = [measured.unit, measured.units, measured.images] if measured else [None] * 3
                values = [
                    one.value, one.sd, *_limits(one.interval), len(cell.seeds), cell.expected, *where, cell.excluded,
                    lost and lost.value, *_limits(lost.interval if lost else None), cell.drop_seeds if lost else None,
                    "; ".join(f"{lost.which}: {lost.reason}" for lost in cell.lost),
                ]  # fmt: skip
                rows.append([*place, label, name, *(_plain(value) for value in values)])
    return Table("All scores", columns, rows)


def _plain(value: object) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def _limits(found: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if found is None else (found.low, found.high)
