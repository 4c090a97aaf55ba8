"""The table and the figure of ``benchmarks.coverage``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One method in one cell of the simulation.

    ``without`` counts the draws in which the method gave no interval; coverage (with its standard error) and mean width
    are those of the others.
    """

    auc: float
    correlation: float
    target: str
    method: str
    truth: float
    draws: int
    without: int
    coverage: float
    standard_error: float
    width: float


TITLES = {
    "roc_auc": "ROC AUC by image",
    "patient_roc_auc": "ROC AUC by patient",
    "accuracy": "Accuracy by image",
    "difference_roc_auc": "Difference of two ROC AUCs",
}
_METHODS = {  # in the figure's order, with colours that differ in lightness, too
    "default": "#0b6e4f",
    "bca": "#3f88c5",
    "percentile": "#f2a541",
    "images as independent": "#c1292e",
}
_LOWEST, _HIGHEST = 0.75, 1.0  # of the figure's axis; what lies below is drawn at the edge with its number
_GOAL = (0.93, 0.97)


def markdown(rows: Sequence[Row]) -> str:
    """A table for each target of ``TITLES``, then the default of every other one."""
    cells = sorted({(row.auc, row.correlation) for row in rows})
    heads = [f"{auc:.2f}, {correlation}" for auc, correlation in cells]
    parts = []
    for target, title in TITLES.items():
        methods = dict.fromkeys(row.method for row in rows if row.target == target)
        lines = [
            [name, *(_cell(rows, cell, target, name) for cell in cells)]
            for name in sorted(methods, key=[*_METHODS, "wilson"].index)
        ]
        parts.append(f"**{title}**\n\n{_table(['AUC, correlation', *heads], lines)}")
    others = dict.fromkeys(row.target for row in rows if row.target not in TITLES)
    lines = [[f"`{name}`", *(_cell(rows, cell, name, "default") for cell in cells)] for name in others]
    parts.append(f"**Every other score, by default**\n\n{_table(['AUC, correlation', *heads], lines)}")
    return "\n\n".join(parts)


def put_table(path: Path, table: str) -> None:
    """Between the two marks of a Markdown file."""
    start, end = "<!-- coverage: begin -->", "<!-- coverage: end -->"
    head, _, rest = path.read_text(encoding="utf-8").partition(start)
    tail = rest.partition(end)[2]
    path.write_text(f"{head}{start}\n\n{table}\n\n{end}{tail}", encoding="utf-8")


def figure(rows: Sequence[Row]) -> str:
    """An SVG: a panel for each target of ``TITLES``, each method a dot with two standard errors."""
    width, height, gap = 470, 300, 30
    panels = [
        f'<g transform="translate({20 + (width + gap) * (i % 2)},{64 + (height + gap) * (i // 2)})">'
        f"{_panel([row for row in rows if row.target == target], title, width, height)}</g>"
        for i, (target, title) in enumerate(TITLES.items())
    ]
    legend = "".join(
        f'<circle cx="{80 + 165 * i}" cy="34" r="5" fill="{colour}"/><text x="{91 + 165 * i}" y="38">{name}</text>'
        for i, (name, colour) in enumerate(_METHODS.items())
    )
    legend += (
        '<rect x="790" y="26" width="24" height="16" fill="#0b6e4f" opacity="0.10"/>'
        f'<text x="821" y="38">{_GOAL[0]:.0%} to {_GOAL[1]:.0%}</text>'
    )
    total_width, total_height = 2 * width + gap + 40, 64 + 2 * (height + gap)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_width} {total_height}" width="{total_width}" '
        f'height="{total_height}" font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#222">\n'
        f'<title>Coverage of 95 % intervals</title>\n<rect width="100%" height="100%" fill="#fff"/>\n{legend}\n'
        + "\n".join(panels)
        + "\n</svg>\n"
    )


def _panel(rows: Sequence[Row], title: str, width: int, height: int) -> str:
    left, top, bottom = 44, 24, height - 44
    cells = sorted({(row.auc, row.correlation) for row in rows})
    column = (width - left) / len(cells)

    def y(share: float) -> float:
        return round(bottom - (max(share, _LOWEST) - _LOWEST) / (_HIGHEST - _LOWEST) * (bottom - top), 1)

    parts = [
        f'<text x="{left}" y="12" font-size="14" font-weight="bold">{title}</text>',
        f'<rect x="{left}" y="{y(_GOAL[1])}" width="{width - left}" height="{y(_GOAL[0]) - y(_GOAL[1]):.1f}" '
        'fill="#0b6e4f" opacity="0.10"/>',
    ]
    for percent in range(75, 101, 5):
        at = y(percent / 100)
        colour, dash = ("#555", ' stroke-dasharray="4 3"') if percent == 95 else ("#ddd", "")
        parts.append(f'<line x1="{left}" x2="{width}" y1="{at}" y2="{at}" stroke="{colour}"{dash}/>')
        parts.append(f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{percent} %</text>')
    for number, cell in enumerate(cells):
        x = left + column * (number + 0.5)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{cell[1]:g}</text>')
        if number and cells[number - 1][0] != cell[0]:
            edge = left + column * number
            parts.append(f'<line x1="{edge:.1f}" x2="{edge:.1f}" y1="{top}" y2="{bottom + 36}" stroke="#bbb"/>')
        parts += _dots([row for row in rows if (row.auc, row.correlation) == cell], x, column, y)
    for auc in sorted({cell[0] for cell in cells}):
        places = [left + column * (n + 0.5) for n, cell in enumerate(cells) if cell[0] == auc]
        middle = sum(places) / len(places)
        parts.append(f'<text x="{middle:.1f}" y="{bottom + 34}" text-anchor="middle">true AUC {auc:.2f}</text>')
    parts.append(f'<text x="{left - 6}" y="{bottom + 17}" text-anchor="end" font-size="10">corr.</text>')
    return "".join(parts)


def _dots(rows: Iterable[Row], x: float, column: float, y: Callable[[float], float]) -> list[str]:
    parts = []
    by_method = {row.method: row for row in rows}
    for place, (name, colour) in enumerate(_METHODS.items()):
        row = by_method.get(name)
        if row is None:
            continue
        at = x + (place - 1.5) * column / 5.5
        if row.coverage < _LOWEST:
            low = y(_LOWEST)
            parts.append(f'<path d="M{at - 5:.1f},{low - 9} h10 l-5,9 z" fill="{colour}"/>')
            parts.append(
                f'<text x="{at:.1f}" y="{low - 13}" text-anchor="middle" font-size="10">{100 * row.coverage:.0f}</text>'
            )
            continue
        ends = [y(min(1.0, row.coverage + sign * 2 * row.standard_error)) for sign in (-1, 1)]
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{ends[0]}" y2="{ends[1]}" stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(f'<circle cx="{at:.1f}" cy="{y(row.coverage)}" r="4" fill="{colour}"/>')
    return parts


def _cell(rows: Sequence[Row], cell: tuple[float, float], target: str, method: str) -> str:
    for row in rows:
        if (row.auc, row.correlation) == cell and (row.target, row.method) == (target, method):
            return f"{100 * row.coverage:.1f} ({row.width:.3f})"
    return "–"


def _table(heads: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, ["---"] * len(heads), *lines])
