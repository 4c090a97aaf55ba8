"""Mean ROC curves over the seeds of a study: a chart for each test set."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ddtl.evaluation.comparison.matrix import Measured
from ddtl.evaluation.comparison.paired_predictions import unit_of
from ddtl.reports.html import format
from ddtl.reports.html.curves import GRID, roc_over_seeds
from ddtl.reports.html.figures import Spec, stroke
from ddtl.reports.html.page import Figure, Section, side_by_side
from ddtl.reports.sections import roc
from ddtl.reports.study.cells import SCORE, Cells

_CURVES = 6  # on one chart


def section(found: Cells) -> Section:
    """Return the charts, of each test set what was trained on it first."""
    charts: list[Figure] = []
    for target in found.targets:
        at = sorted((cell for cell in found.cells if cell.target == target), key=lambda cell: not cell.is_in_domain)
        runs = {cell.folders: cell for cell in reversed(at)}  # methods that share their runs here share their curve
        at = [cell for cell in at if runs[cell.folders] is cell]
        known = {found.name(cell.row): cell.measured for cell in at if cell.measured is not None}
        places = {found.name(cell.row): found.place(cell.row) for cell in at}
        shown = dict(list(known.items())[:_CURVES])
        spec = _spec(shown, places)
        if spec is None:
            continue
        more = f" The first {_CURVES} of {len(known)}." if len(known) > _CURVES else ""
        areas = ", ".join(f"{name} {format.score(one.scores[SCORE].value)}" for name, one in shown.items())
        caption = (
            "Sensitivities are means over the seeds at each specificity; the bands, of the first two, are "
            f"{format.level(found.settings.level)} limits for other patients and seeds, point by point.{more}"
        )
        charts.append(
            Figure(f"Tested on {target}", spec, f"ROC curves on {target}; areas: {areas}.", caption, square=True)
        )
    return Section("ROC curves", side_by_side(charts))


def _spec(cells: Mapping[str, Measured], places: Mapping[str, int]) -> Spec | None:
    """Draw the curves by name, the first two with bands; None where there is no curve."""
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
    corner = np.append(0, GRID)  # from (0, 0) on, where a curve rises at once
    lines = [stroke(corner, np.append(0, line), name, places[name]) for name, (line, _) in found.items()]
    return roc.drawn(lines, [(places[name], limits) for name, (_, limits) in found.items()], legend="outside")
