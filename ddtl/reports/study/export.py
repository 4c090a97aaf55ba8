"""A table as text, Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from ddtl.reports.html.page import Cell, Table
from ddtl.reports.prose import escaped
from ddtl.reports.run.methods import markdown_table
from ddtl.utils.files import spreadsheet_cell

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "±": r"$\pm$", "–": "--", "<": r"$<$", ">": r"$>$",
}  # fmt: skip


def text(tables: Sequence[Table], width: int = 120) -> str:
    """As for a terminal of that width."""
    from ddtl.reports.comparison.tables import for_terminal
    from ddtl.utils.console import Screen

    out = Screen(file=io.StringIO(), width=width, color_system=None, emoji=False)
    for table in tables:
        out.print(for_terminal(table), "")
    assert isinstance(out.file, io.StringIO)
    return "\n".join(line.rstrip() for line in out.file.getvalue().splitlines()) + "\n"


def markdown(tables: Sequence[Table]) -> str:
    """Pipe tables, each with its caption before it and its note behind."""
    parts = [
        part
        for table in tables
        for part in (f"**{escaped(table.caption)}**", markdown_table(table), escaped(table.note))
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def latex(tables: Sequence[Table]) -> str:
    """``table`` environments for the package booktabs."""
    return "\n".join(map(_latex, tables))


def as_csv(table: Table) -> str:
    """Lines of one table, small print behind its number."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([spreadsheet_cell(_one_line(cell)) for cell in row] for row in table.rows)
    return buffer.getvalue()


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {"txt": text, "md": markdown, "tex": latex}


def _latex(table: Table) -> str:
    kinds = "".join("l" if i == 0 or i in table.words else "r" for i in range(len(table.columns)))
    head, *rows = (
        " & ".join(_quoted(_one_line(cell)) for cell in row) + r" \\" for row in (table.columns, *table.rows)
    )
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


def _one_line(cell: str | Cell) -> str:
    return cell if isinstance(cell, str) else f"{cell.text} {cell.note}".strip()


def _quoted(words: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(words.split()))
