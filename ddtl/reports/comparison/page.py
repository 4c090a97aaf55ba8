"""Runs against each other on a page: what may be claimed, scores, ROC curves with bands, and how they were trained."""

from __future__ import annotations

from collections.abc import Sequence

from ddtl.evaluation.comparison.comparison import Result
from ddtl.reports.comparison import claims, curves, forest, tables
from ddtl.reports.comparison.runs import Compared
from ddtl.reports.html.page import Block, Page, Row, Section, Text, render
from ddtl.reports.run.stored import SPLITS
from ddtl.reports.sections import history
from ddtl.utils import wording

_SIDE_BY_SIDE = 3  # pairs
_NAMED = 3  # methods in the subtitle
_TOGETHER = 2  # claims in one paragraph


def render_comparison(compared: Compared, result: Result) -> str:
    """Return the page as HTML."""
    return render(page(compared, result))


def _subtitle(compared: Compared) -> str:
    """Return what tells a comparison from others: its methods, and what they were compared on."""
    names = [method.name for method in compared.methods]
    shown = names if len(names) <= _NAMED else [*names[:_NAMED], f"{len(names) - _NAMED} more"]
    first = compared.runs[0]
    where = f"{SPLITS[compared.split]} set, protocol {first.record['protocol']}"
    return " · ".join([wording.count(len(compared.runs), "run"), where, wording.listed(shown)])


def page(compared: Compared, result: Result) -> Page:
    """Return the page, section by section."""
    answer, more = _answer(claims.claims(result.pairs))
    leak = claims.leak(compared)
    made = [
        Section("What may be claimed", [*map(Text, more), *_forests(result)]),
        Section("Scores", [tables.of_methods(compared, result), tables.of_pairs(result)]),
        curves.section(compared),
        Section("Training", history.blocks(_epochs(compared), compared.runs[0].record)),
    ]
    return Page(
        eyebrow="ddtl comparison",
        title=f"{wording.count(len(compared.methods), 'method')} on {compared.runs[0].record['dataset']}",
        subtitle=_subtitle(compared),
        answer=answer,
        caveat=" ".join(leak),
        warnings=[text for text in claims.caveats(compared, result.pairs) if text not in leak],
        sections=[section for section in made if section.blocks],
    )


def _answer(sentences: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the claims as they come first: all of a few, of more the first one; and the others."""
    return (" ".join(sentences), ()) if len(sentences) <= _TOGETHER else (sentences[0], sentences[1:])


def _forests(result: Result) -> list[Block]:
    """Return the differences and the scores, side by side where the rows are few."""
    charts = [forest.of_differences(result), forest.of_methods(result)]
    return [Row(charts)] if len(result.pairs) <= _SIDE_BY_SIDE else [*charts]


def _epochs(compared: Compared) -> dict[str, history.Epochs]:
    """Return the epochs of each method's first run, by the method's name."""
    found: dict[str, history.Epochs] = {}
    start = 0
    for method in compared.methods:
        found[method.name] = compared.runs[start].metrics
        start += len(method.runs)
    return found
