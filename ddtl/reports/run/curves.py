"""ROC and precision-recall curves of a run, with bands."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ddtl.reports.html import format
from ddtl.reports.html.curves import Curves, curves
from ddtl.reports.html.figures import Spec, band, chance, chart, point, share, square, stroke
from ddtl.reports.html.page import Figure, Row, Section, Text
from ddtl.reports.run.stored import Stored
from ddtl.reports.sections import roc
from ddtl.schema.units import GROUPS

Point = tuple[float, float]


def section(stored: Stored) -> Section:
    """Return both charts: by patient and by image, or each class against the others."""
    drawn = _drawn(stored)
    if not drawn:
        return Section("Curves", [Text("There are no curves: the images are all of one class.")])
    _, recall, prevalence = _operating_point(stored.main["confusion"]) if stored.binary else (None, None, None)
    precise = f"average precision by {stored.unit} {format.with_interval(stored.main, 'average_precision')}"
    dotted = " Dotted: the share of positives, which is what chance reaches." if stored.binary else ""
    charts = [
        _roc(stored, drawn),
        Figure(
            "Precision-recall curve",
            _precision_recall(drawn, prevalence, recall),
            f"Precision-recall curve: {precise}.",
            f"{_band_note(stored)}{dotted}".strip(),
            square=True,
        ),
    ]
    return Section("Curves", [Row(charts)])


def roc_figure(stored: Stored) -> Figure | None:
    """Return the ROC curve of the page; None where the images are all of one class."""
    drawn = _drawn(stored)
    return _roc(stored, drawn) if drawn else None


def _roc(stored: Stored, drawn: Mapping[str, Curves]) -> Figure:
    at, *_ = _operating_point(stored.main["confusion"]) if stored.binary else (None,)
    seen = f"ROC AUC by {stored.unit} {format.with_interval(stored.main, 'roc_auc')}"
    return Figure("ROC curve", roc.spec(drawn, at), f"ROC curve: {seen}.", _band_note(stored), square=True)


def _operating_point(c: Mapping[str, int]) -> tuple[Point | None, Point | None, float]:
    """Return where the threshold is on the ROC and on the precision-recall curve, and the share of positives."""
    positives, negatives, predicted = c["tp"] + c["fn"], c["fp"] + c["tn"], c["tp"] + c["fp"]
    on_roc = (c["fp"] / negatives, c["tp"] / positives) if positives and negatives else None
    on_precision_recall = (c["tp"] / positives, c["tp"] / predicted) if positives and predicted else None
    return on_roc, on_precision_recall, positives / (positives + negatives)


def _drawn(stored: Stored) -> dict[str, Curves]:
    """Return the curves by patient, with a band, then by image; or by image alone, with a band; of more than two
    classes each against the others.
    """
    if not stored.binary:
        return _one_vs_rest(stored)
    labels, p, clusters = stored.unit_arrays()
    first = curves(labels, p, clusters, level=stored.level, replicates=roc.REPLICATES)
    found: dict[str, Curves | None] = {f"by {stored.unit}": first}
    if stored.unit == "patient":
        rows = stored.predictions.of(stored.split)
        found["by image"] = curves(rows.label, rows.probabilities[:, 1])
    return {name: part for name, part in found.items() if part is not None}


def _one_vs_rest(stored: Stored) -> dict[str, Curves]:
    rows = stored.predictions.of(stored.split)
    found = {
        name: curves((rows.label == k).astype(int), rows.probabilities[:, k]) for k, name in enumerate(rows.classes)
    }
    return {name: part for name, part in found.items() if part is not None}


def _band_note(stored: Stored) -> str:
    if not stored.binary:
        return ""
    drawn = GROUPS[stored.record["grouping"]] if stored.record["grouping"] != "none" else "images"
    middle = f"the middle {format.level(stored.level)} of {roc.REPLICATES} bootstrap draws of {drawn}"
    return f"Band: {middle}, at each point by itself."


def _precision_recall(drawn: Mapping[str, Curves], prevalence: float | None, at: Point | None) -> Spec:
    """Draw the curves by name, the first with its band.

    Args:
        drawn: in the order of the legend.
        prevalence: share of positives: the precision of chance.
        at: recall and precision at the threshold in use.
    """
    traces = [part for curve in list(drawn.values())[:1] for part in band(curve.precision_recall_band)]
    if prevalence is not None:
        traces.append(chance(np.array([0.0, 1.0]), np.full(2, prevalence)))
    traces += [stroke(*c.precision_recall, name, i, shape="vh") for i, (name, c) in enumerate(drawn.items())]
    if at is not None:
        traces.append(point(*at, "at the threshold"))
    return square(chart(traces, share("recall (sensitivity)"), share("precision (PPV)"), legend="bottom left"))
