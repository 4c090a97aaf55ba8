"""ROC curves of the compared methods in one chart, with bands."""

from __future__ import annotations

from ddtl.evaluation.comparison.paired_predictions import RunPredictions, unit_of
from ddtl.reports.comparison.runs import Compared
from ddtl.reports.html.curves import Curves, curves
from ddtl.reports.html.page import Figure, Section, Text
from ddtl.reports.sections import roc
from ddtl.schema.units import UNITS
from ddtl.utils import wording

_CURVES = 6  # of as many methods: more cover each other


def section(compared: Compared) -> Section:
    """Return the chart: of each method the first run."""
    found: dict[str, Curves] = {}
    for method in compared.methods[:_CURVES]:
        one = _of(method.runs[0]) if method.runs[0].binary else None
        if one is not None:
            found[method.name] = one
    if not found:
        return Section("ROC curves", [Text("There are no curves: they take two classes, and images of both.")])
    unit, _ = unit_of(compared.methods[0].runs[0].predictions)
    several = any(len(method.runs) > 1 for method in compared.methods)
    notes = [
        "Of each method its first run." if several else "",
        f"The first {_CURVES} of {len(compared.methods)}." if len(compared.methods) > _CURVES else "",
        f"Bands, of the first two: the middle 95 % of {roc.REPLICATES} bootstrap draws of {UNITS[unit][1]}, at "
        "each point by itself. Curves whose bands overlap may differ all the same: the test is paired.",
    ]
    alt, caption = f"ROC curves of {wording.listed(list(found))}.", " ".join(filter(None, notes))
    return Section("ROC curves", [Figure("ROC", roc.spec(found, bands=2), alt, caption, square=True)])


def _of(run: RunPredictions) -> Curves | None:
    """Return the curves by image, as the tables are; bands never split what ``comparison.compare`` does not."""
    rows = run.predictions
    return curves(rows.label, rows.probabilities[:, 1], unit_of(rows)[1], replicates=roc.REPLICATES)
