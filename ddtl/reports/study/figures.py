"""Charts of a study as plain Plotly specifications, from its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ddtl.evaluation import calibration
from ddtl.evaluation.calibration import Bin
from ddtl.evaluation.comparison.matrix import Measured
from ddtl.evaluation.comparison.paired_predictions import unit_of
from ddtl.reports.html.curves import GRID, Band, roc_over_seeds
from ddtl.reports.html.figures import REFERENCE, Spec, band, chart, reliability, scale, share, stroke

_FILLS = ("var(--band)", "var(--band-2)")


def roc(cells: Mapping[str, Measured]) -> Spec | None:
    """Mean ROC curves over seeds on one test set, by name; the first two with bands. None where there is no curve."""
    found = {}
    for name, measured in cells.items():
        runs = measured.method.runs
        if runs[0].binary:
            _, clusters = unit_of(runs[0].predictions)
            labels, level = runs[0].predictions.label, measured.settings.level
            curve = roc_over_seeds(labels, [run.p for run in runs], clusters, level=level)
            if curve is not None:
                found[name] = curve
    if not found:
        return None
    traces = [stroke(GRID, GRID, "chance", color=REFERENCE, dash="dot", width=1)]
    for (_, limits), fill in zip(found.values(), _FILLS, strict=False):
        traces += band(limits, fill)
    corner = np.append(0, GRID)  # from (0, 0) on, where a curve rises at once
    traces += [stroke(corner, np.append(0, line), name, i) for i, (name, (line, _)) in enumerate(found.items())]
    return chart(traces, share("1 - specificity"), share("sensitivity"), legend="outside")


def bins(measured: Measured) -> list[Bin]:
    """Of the reliability diagram, all runs together."""
    runs = measured.method.runs
    p = np.concatenate([run.p for run in runs])
    return calibration.reliability(np.tile(runs[0].predictions.label, len(runs)), p)


def calibration_shift(by_target: Mapping[str, Measured]) -> Spec:
    """Reliability of the same networks on several test sets."""
    found = {target: bins(measured) for target, measured in by_target.items()}
    return reliability(found, "predicted probability", "share of positives")


def learning_curve(points: Sequence[tuple[int, Measured]], score: str, title: str) -> Spec:
    """A score against the number of training patients.

    Args:
        points: number and cell, by rising number.
        score: which.
        title: of the axis.
    """
    x = [n for n, _ in points]
    scores = [measured.scores[score] for _, measured in points]
    limits = [(one.interval.low, one.interval.high) if one.interval else (np.nan, np.nan) for one in scores]
    low, high = np.array(limits).T
    each = [run[score] for _, measured in points for run in measured.runs.points]
    n_each = [n for n, measured in points for _ in measured.runs.points]
    dots = stroke(n_each, each, "each seed", color=REFERENCE, mode="markers")
    line = stroke(x, [one.value for one in scores], "mean over seeds", mode="lines+markers")
    axis = {**scale("training patients (or groups)"), "rangemode": "tozero"}
    return chart([*band(Band(low, high), x=x), dots, line], axis, scale(title), legend="outside")
