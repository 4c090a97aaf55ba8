"""The tables and the figure of ``benchmarks.coverage``."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GOAL = (0.93, 0.975)
VALID = GOAL[0]  # the coverage from which on an interval can be chosen instead of the default one


@dataclass(frozen=True)
class Cell:
    """One score in one corner of the simulation.

    Attributes:
        corner: the settings of the corner.
        unit, score: by image or by patient, and of ``schema.scores.SCORES``.
        truth: its value on endless patients.
        draws: test sets with at least three patients of each class in which the score is defined.
        given: how many of them have an interval.
        coverage: the share of the draws whose interval contains the truth.
        width: the mean of the given intervals.
        other, other_width: the narrowest method that can be chosen instead and covers ``VALID``, and its mean width;
            empty where none is, or none was tried.
    """

    corner: dict[str, Any]
    unit: str
    score: str
    truth: float
    draws: int
    given: int
    coverage: float
    width: float
    other: str = ""
    other_width: float = 0.0

    @property
    def error(self) -> float:
        """The standard error of the coverage."""
        return float((self.coverage * (1 - self.coverage) / max(self.draws, 1)) ** 0.5)


_COLUMNS = ("prevalence", "patients", "images", "correlation", "auc", "scores", "design", "shift")
_TYPES = (float, int, str, float, float, str, str, float)


def write(cells: Iterable[Cell], path: Path) -> None:
    """A line for each cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        cells = list(cells)
        others = ["other", "other_width"] if any(cell.other for cell in cells) else []
        table.writerow([*_COLUMNS, "unit", "score", "truth", "draws", "given", "coverage", "width", *others])
        for cell in cells:
            numbers = [f"{value:.4g}" for value in (cell.truth, cell.draws, cell.given, cell.coverage, cell.width)]
            numbers[1:3] = [str(cell.draws), str(cell.given)]
            corner = [f"{value:.4g}" if isinstance(value, float) else value for value in cell.corner.values()]
            other = [cell.other, f"{cell.other_width:.4g}" if cell.other else ""] if others else []
            table.writerow([*corner, cell.unit, cell.score, *numbers, *other])


def read(path: Path) -> list[Cell]:
    """Return what :func:`write` wrote; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return [
            Cell(
                {name: kind(row[name]) for name, kind in zip(_COLUMNS, _TYPES, strict=True)},
                row["unit"], row["score"], float(row["truth"]), int(row["draws"]), int(row["given"]),
                float(row["coverage"]), float(row["width"]),
                row.get("other", ""), float(row.get("other_width") or 0),
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


def grid_table(cells: Sequence[Cell]) -> str:
    """Return a row for each corner: the lowest and the highest coverage over all scores, by image and by patient."""
    lines = []
    for corner in _corners(cells):
        of_corner = [cell for cell in cells if cell.corner == corner and cell.given]
        row = [_named(corner)]
        for unit in ("image", "patient"):
            found = [cell for cell in of_corner if cell.unit == unit]
            if not found:  # one image a patient: the same test set
                row += ["as by image", "", ""]
                continue
            auc = next((cell for cell in found if cell.score == "roc_auc"), None)
            low, high = (pick(found, key=lambda cell: cell.coverage) for pick in (min, max))
            row += [
                f"{100 * auc.coverage:.1f} ({auc.width:.3f})" if auc else "–",
                f"{100 * low.coverage:.1f} `{low.score}`",
                f"{100 * high.coverage:.1f} `{high.score}`",
            ]
        lines.append(row)
    heads = ["test set", "ROC AUC by image", "lowest", "highest", "ROC AUC by patient", "lowest", "highest"]
    return _table(heads, lines)


def worst(cells: Sequence[Cell], count: int = 20) -> list[Cell]:
    """Return the cells with the lowest coverage, one of each corner."""
    found: dict[str, Cell] = {}
    for cell in sorted((cell for cell in cells if cell.given), key=lambda cell: cell.coverage):
        found.setdefault(str(cell.corner), cell)
    return list(found.values())[:count]


def worst_table(cells: Sequence[Cell]) -> str:
    """Return the 20 corners that are covered least, each by its worst score."""
    lines = [
        [
            f"`{cell.score}` by {cell.unit}", _named(cell.corner), f"{cell.truth:.3f}",
            f"{100 * cell.coverage:.1f} ± {100 * cell.error:.1f}", f"{cell.width:.3f}",
            f"`{cell.other}` {cell.other_width:.3f}" if cell.other else "–", f"{cell.draws:,}",
        ]
        for cell in worst(cells)
    ]  # fmt: skip
    return _table(["score", "test set", "truth", "coverage, %", "mean width", "best alternative", "draws"], lines)


def put_table(path: Path, name: str, table: str) -> None:
    """Between the two marks of this name in a Markdown file."""
    start, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, _, rest = path.read_text(encoding="utf-8").partition(start)
    tail = rest.partition(end)[2]
    path.write_text(f"{head}{start}\n\n{table}\n\n{end}{tail}", encoding="utf-8")


def figure(cells: Sequence[Cell]) -> str:
    """Return an SVG of the 20 corners that are covered least: a dot with two standard errors each."""
    shown = worst(cells)
    left, top, row, width = 420, 60, 22, 940
    low, high = 0.88, 1.0

    def x(share: float) -> float:
        return round(left + (min(max(share, low), high) - low) / (high - low) * (width - left - 30), 1)

    bottom = top + row * len(shown)
    parts = [
        f'<rect x="{x(GOAL[0])}" y="{top - 14}" width="{x(GOAL[1]) - x(GOAL[0]):.1f}" height="{bottom - top + 8}" '
        'fill="#0b6e4f" opacity="0.12"/>',
        f'<text x="{left}" y="24" font-size="15" font-weight="bold">Coverage of 95 % intervals: '
        f"the {len(shown)} corners that are covered least</text>",
    ]
    for percent in range(88, 101, 2):
        at = x(percent / 100)
        parts.append(f'<line x1="{at}" x2="{at}" y1="{top - 14}" y2="{bottom - 6}" stroke="#ddd"/>')
        parts.append(f'<text x="{at}" y="{bottom + 14}" text-anchor="middle">{percent} %</text>')
    parts.append(f'<line x1="{x(0.95)}" x2="{x(0.95)}" y1="{top - 14}" y2="{bottom - 6}" stroke="#555" '
                 'stroke-dasharray="4 3"/>')  # fmt: skip
    for number, cell in enumerate(shown):
        y = top + row * number
        half = 2 * cell.error
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{cell.score} by {cell.unit}: '
                     f'{_named(cell.corner)}</text>')  # fmt: skip
        parts.append(f'<line x1="{x(cell.coverage - half)}" x2="{x(cell.coverage + half)}" y1="{y}" y2="{y}" '
                     'stroke="#0b6e4f" stroke-width="2"/>')  # fmt: skip
        parts.append(f'<circle cx="{x(cell.coverage)}" cy="{y}" r="4" fill="#0b6e4f"/>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 30}" width="{width}" '
        f'height="{bottom + 30}" font-family="Helvetica, Arial, sans-serif" font-size="11" fill="#222">\n'
        '<title>Coverage of 95 % intervals</title>\n<rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _corners(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        found.setdefault(str(cell.corner), cell.corner)
    return list(found.values())


def _named(corner: dict[str, Any]) -> str:
    """Return a corner in a line."""
    positive = round(corner["patients"] * corner["prevalence"])
    design = "cohort" if corner["design"] == "cohort" else "fixed"
    shift = f", shift {corner['shift']:g}" if corner["shift"] else ""
    return (
        f"{positive} + {corner['patients'] - positive} {design}, {corner['images']}, "
        f"correlation {corner['correlation']:g}, AUC {corner['auc']:g}, {corner['scores']}{shift}"
    )


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
