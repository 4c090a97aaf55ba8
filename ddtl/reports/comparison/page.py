"""Runs against each other on a page: what may be claimed, scores, ROC curves with bands, and how they were trained."""

from __future__ import annotations

from ddtl.evaluation.comparison.comparison import Result
from ddtl.reports.comparison import claims, curves, tables
from ddtl.reports.comparison.runs import Compared
from ddtl.reports.html.page import Page, Section, Text, render
from ddtl.reports.sections import history
from ddtl.utils import wording


def render_comparison(compared: Compared, result: Result) -> str:
    """Return the page as HTML."""
    return render(page(compared, result))


def page(compared: Compared, result: Result) -> Page:
    """Return the page, section by section."""
    made = [
        Section("What may be claimed", [Text(sentence) for sentence in claims.claims(result.pairs)]),
        Section("Scores", [tables.of_methods(compared, result), tables.of_pairs(result)]),
        curves.section(compared),
        Section("Training", history.blocks(_epochs(compared), compared.runs[0].record)),
    ]
    return Page(
        eyebrow="ddtl comparison",
        title=f"{wording.count(len(compared.methods), 'method')} on {compared.runs[0].record['dataset']}",
        subtitle=wording.count(len(compared.runs), "run"),
        warnings=claims.caveats(compared, result.pairs),
        sections=[section for section in made if section.blocks],
    )


def _epochs(compared: Compared) -> dict[str, history.Epochs]:
    """Return the epochs of each method's first run, by the method's name."""
    found: dict[str, history.Epochs] = {}
    start = 0
    for method in compared.methods:
        found[method.name] = compared.runs[start].metrics
        start += len(method.runs)
    return found
