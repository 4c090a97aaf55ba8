"""A study's tables as text, Markdown and LaTeX, and every score at full precision as CSV, for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict

from ddtl.evaluation.comparison.matrix import Mean
from ddtl.evaluation.intervals.interval import Interval
from ddtl.reports.html.page import Rows, Table
from ddtl.reports.prose import escaped
from ddtl.reports.run.methods import markdown_table, text_of
from ddtl.reports.study.cells import Cells
from ddtl.schema.scores import SCORES
from ddtl.utils.files import spreadsheet_cell

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "±": r"$\pm$", "–": "--", "<": r"$<$", ">": r"$>$",
}  # fmt: skip


def text(tables: Sequence[Table], width: int = 120) -> str:
    """Return tables as for a terminal of that width."""
    from ddtl.reports.comparison.tables import for_terminal
    from ddtl.utils.console import Screen

    out = Screen(file=io.StringIO(), width=width, color_system=None, emoji=False)
    for table in tables:
        out.print(for_terminal(table), "")
    assert isinstance(out.file, io.StringIO)
    return "\n".join(line.rstrip() for line in out.file.getvalue().splitlines()) + "\n"


def markdown(tables: Sequence[Table]) -> str:
    """Return pipe tables, each with its caption before it and its note after it."""
    parts = [
        part
        for table in tables
        for part in (f"**{escaped(table.caption)}**", markdown_table(table), escaped(table.note))
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def latex(tables: Sequence[Table]) -> str:
    """Return ``table`` environments for the package booktabs."""
    return "\n".join(map(_latex, tables))


def as_csv(table: Table) -> str:
    """Return one table as CSV, small print after its number."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([spreadsheet_cell(text_of(cell)) for cell in row] for row in table.rows)
    return buffer.getvalue()


def every_score(found: Cells) -> Table:
    """Return a row for each score of each cell; ``threshold`` says from whose validation images that came."""
    columns = [
        "source", "method", "protocol", "schedule", "patients", "target", "in_domain", "threshold", "score", "mean",
        "sd", "low", "high", "seeds", "seeds_asked", "unit", "units", "images", "excluded", "drop", "drop_low",
        "drop_high", "drop_seeds", "reason",
    ]  # fmt: skip
    rows: Rows = []
    for cell in found.cells:
        row = cell.row
        place = [*(_plain(v) for v in asdict(row).values()), cell.target, str(cell.is_in_domain).lower()]
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


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {"txt": text, "md": markdown, "tex": latex}


def _latex(table: Table) -> str:
    kinds = "".join("l" if i == 0 or i in table.words else "r" for i in range(len(table.columns)))
    head, *rows = (" & ".join(_quoted(text_of(cell)) for cell in row) + r" \\" for row in (table.columns, *table.rows))
    note = rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {_quoted(table.note)}}}"
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_quoted(table.caption)}}}",
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        head,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        *([note] if table.note else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(words: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(words.split()))
