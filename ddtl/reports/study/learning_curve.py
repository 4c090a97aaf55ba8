"""A score against the number of training patients, where a study is of that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddtl.evaluation.comparison.matrix import Measured
from ddtl.reports.html import format
from ddtl.reports.html.curves import Band
from ddtl.reports.html.figures import REFERENCE, Spec, band, chart, scale, stroke
from ddtl.reports.html.page import Figure
from ddtl.reports.study.cells import SCORE, Cells
from ddtl.schema.scores import title_of


def blocks(found: Cells) -> list[Figure]:
    """Return the chart; nothing where there are no two points."""
    if found.study["study"] != "learning_curve":
        return []
    points = []
    for cell in found.cells:
        groups = cell.records[0].get("splits", {}).get("train", {}).get("groups") if cell.records else None
        if cell.measured is not None and groups is not None:
            points.append((int(groups), cell.measured))
    if len(points) < 2:
        return []
    points.sort(key=lambda point: point[0])
    title = f"{title_of(SCORE)} by training patients"
    seen = ", ".join(f"{n}: {format.score(measured.scores[SCORE].value)}" for n, measured in points)
    metadata = _metadata(found)
    caption = "The band is the interval of the mean, for other patients and other seeds, at each number by itself. "
    caption += "Dotted: chance." + (" Dashed: a classifier of file metadata, no pixel." if metadata is not None else "")
    return [Figure(title, _spec(points, metadata), f"{title}: {seen}.", caption)]


def _metadata(found: Cells) -> float | None:
    """Return the score of file metadata, trained on all patients; None where it was not computed."""
    records = [record for cell in found.cells if cell.row.patients is None for record in cell.records]
    baselines = [(record.get("baselines") or {}).get("file_facts") or {} for record in records]
    return next((one[SCORE] for one in baselines if one.get(SCORE) is not None), None)


def _spec(points: Sequence[tuple[int, Measured]], metadata: float | None) -> Spec:
    """Draw the means, their interval and each seed, by rising number of patients."""
    x = [n for n, _ in points]
    scores = [measured.scores[SCORE] for _, measured in points]
    limits = [(one.interval.low, one.interval.high) if one.interval else (np.nan, np.nan) for one in scores]
    low, high = np.array(limits).T
    each = [run[SCORE] for _, measured in points for run in measured.runs.points]
    n_each = [n for n, measured in points for _ in measured.runs.points]
    dots = stroke(n_each, each, "each seed", color=REFERENCE, mode="markers")
    line = stroke(x, [one.value for one in scores], "mean over seeds", mode="lines+markers")
    axis = {**scale("training patients (or groups)"), "rangemode": "tozero"}
    ends = [0, max(x)]
    levels = [stroke(ends, [0.5, 0.5], "chance", color=REFERENCE, dash="dot", width=1.5)]
    if metadata is not None:
        levels.append(stroke(ends, [metadata] * 2, "file metadata, all patients", 1, dash="dash", width=1.5))
    return chart(
        [*levels, *band(Band(low, high), x=x), dots, line], axis, scale(f"test {title_of(SCORE)}"), legend="outside"
    )
