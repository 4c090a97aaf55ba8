"""Runs against each other on a page: what may be claimed, ROC curves with bands, and how they were trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddtl.evaluation.comparison.comparison import Result
from ddtl.evaluation.comparison.paired_predictions import RunPredictions, unit_of
from ddtl.reports.comparison import claims, tables
from ddtl.reports.comparison.runs import Compared
from ddtl.reports.html import figures
from ddtl.reports.html.curves import Curves, curves
from ddtl.reports.html.figures import Spec
from ddtl.reports.html.page import Block, Figure, Page, Row, Section, Text, render
from ddtl.schema.scores import by_image
from ddtl.schema.units import UNITS
from ddtl.utils import wording

_CURVES = 6  # of as many runs: more lie over each other
_BANDS = ("var(--band)", "var(--band-2)")
_REPLICATES = 500  # of the bands: they are looked at, not read off


def render_comparison(compared: Compared, result: Result) -> str:
    """The page as HTML."""
    return render(page(compared, result))


def page(compared: Compared, result: Result) -> Page:
    """The page, part by part."""
    said: list[Block] = [Text(sentence) for sentence in claims.claims(result.pairs)]
    trained = training({method.name: run.metrics for method, run in _first_runs(compared)}, compared.runs[0].record)
    return Page(
        eyebrow="ddtl comparison",
        title=f"{wording.count(len(compared.methods), 'way')} on {compared.runs[0].record['dataset']}",
        subtitle=wording.count(len(compared.runs), "run"),
        warnings=claims.caveats(compared, result.pairs),
        sections=[
            Section("What may be claimed", said),
            Section("Scores", [tables.of_methods(compared, result), tables.of_pairs(result)]),
            Section("ROC curves", _roc(compared)),
            *([Section("Training", trained)] if trained else []),
        ],
    )


def _first_runs(compared: Compared) -> list[tuple[Any, Any]]:
    """Each method with the first of its runs."""
    found, start = [], 0
    for method in compared.methods:
        found.append((method, compared.runs[start]))
        start += len(method.runs)
    return found


def _roc(compared: Compared) -> list[Block]:
    several = any(len(method.runs) > 1 for method in compared.methods)
    found: dict[str, Curves] = {}
    for method in compared.methods[:_CURVES]:
        one = _of(method.runs[0]) if method.runs[0].binary else None
        if one is not None:
            found[method.name] = one
    if not found:
        return [Text("There are no curves: they take two classes, and images of both.")]
    spec = figures.roc(found)
    rest = list(found.values())[1 : len(_BANDS)]
    bands = [part for i, one in enumerate(rest) for part in figures.band(one.roc_band, _BANDS[i + 1])]
    spec["data"] = [*bands, *spec["data"]]
    unit, _ = unit_of(compared.methods[0].runs[0].predictions)
    notes = [
        "Of each way its first run." if several else "",
        f"The first {_CURVES} of {len(compared.methods)}." if len(compared.methods) > _CURVES else "",
        f"Bands, of the first two: the middle 95 % of {_REPLICATES} bootstrap draws of {UNITS[unit][1]}, at "
        "each point by itself. Curves whose bands overlap may differ all the same: the test is paired.",
    ]
    alt = f"ROC curves of {wording.listed(list(found))}."
    return [Figure("ROC", spec, alt, " ".join(filter(None, notes)))]


def _of(run: RunPredictions) -> Curves | None:
    """By image, as the tables are; bands never split what ``comparison.compare`` does not."""
    rows = run.predictions
    return curves(rows.label, rows.probabilities[:, 1], unit_of(rows)[1], replicates=_REPLICATES)


def training(rows: Mapping[str, Sequence[Mapping[str, Any]]], record: Mapping[str, Any]) -> list[Block]:
    """Validation loss and the monitored score over the epochs, a line for each run; nothing where none was recorded.

    Args:
        rows: those of ``metrics.jsonl``, by the run's name.
        record: with ``monitor``, the score that chooses the epoch.
    """
    known = {name: found for name, found in rows.items() if found}
    if not known:
        return []
    monitor = str(record.get("monitor") or "val/loss")
    shown = dict.fromkeys(["val/loss", monitor])
    drawn = [
        Figure(
            by_image(name), lines(known, name), f"{by_image(name)} over the epochs of {wording.listed(list(known))}."
        )
        for name in shown
    ]
    return [Row(drawn)]


def lines(rows: Mapping[str, Sequence[Mapping[str, Any]]], key: str) -> Spec:
    """One value of each epoch, a line for each run."""
    traces = [
        figures.stroke(
            [row["epoch"] + 1 for row in found], [row.get(key) for row in found], name, i, mode="lines+markers"
        )
        for i, (name, found) in enumerate(rows.items())
    ]
    return figures.chart(traces, {**figures.scale("epoch"), "nticks": 8}, figures.scale(key), legend="outside")
