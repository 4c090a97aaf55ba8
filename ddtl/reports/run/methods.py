"""``methods.md``: what a paper must say about a run, as far as the run knows it.

Everything comes from the record; what no record can know is a blank, ``[to be filled in: …]``.
"""

from __future__ import annotations

from ddtl.reports.html.page import Cell, Table
from ddtl.reports.run import checklist, paragraphs, scores
from ddtl.reports.run.paragraphs import blank, escaped
from ddtl.reports.run.stored import Stored


def render(stored: Stored) -> str:
    """The text, in Markdown."""
    parts = {
        "Data": paragraphs.data(stored),
        "Model and training": " ".join(
            [paragraphs.network(stored), paragraphs.training(stored), paragraphs.selection(stored)]
        ),
        "Evaluation": paragraphs.evaluation(stored),
        "Software and hardware": f"{paragraphs.software(stored)} {paragraphs.command(stored)}".rstrip(),
    }
    heading = escaped(f"{stored.record['dataset']}, protocol {stored.record['protocol']}, {stored.folder.name}")
    return (
        "\n\n".join(
            [
                f"# Methods and checklist: {heading}",
                f"Written from the run's record. What it cannot know is marked {blank('…')}.",
                "## Methods",
                *(f"**{title}.** {text}" for title, text in parts.items()),
                "## Results",
                results(stored),
                "## Checklist for Artificial Intelligence in Medical Imaging (CLAIM)",
                "Items by number as in Mongan, Moy & Kahn 2020 (Radiology: Artificial Intelligence 2:e200029); what "
                "each asks for is said in our words.",
                checklist.table(stored),
            ]
        )
        + "\n"
    )


def results(stored: Stored) -> str:
    """The table of scores."""
    table = scores.table(stored)
    note = f"\n\n{escaped(table.note)}" if table.note else ""
    marked = "Scores are optimistic: leaky split.\n\n" if stored.leaky else ""
    return marked + markdown_table(table) + note


def markdown_table(table: Table) -> str:
    """A pipe table; numbers to the right."""
    rule = ["---", *["---:"] * (len(table.columns) - 1)]
    lines = [
        rule if line is rule else [escaped(_text(cell)) for cell in line] for line in (table.columns, rule, *table.rows)
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(value: str | Cell) -> str:
    return value if isinstance(value, str) else f"{value.text} {value.note}".strip()
