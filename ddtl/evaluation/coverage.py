"""What share of the default intervals held the truth in simulation, for reports that state it."""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources

_FARTHEST = 0.1  # from a simulated truth: beyond, nothing was measured


def measured_coverage(score: str, estimate: float) -> float | None:
    """The coverage of the default 95 % interval of a score, where the truth is near ``estimate``.

    Measured on test sets of 53 and 42 patients (``coverage.csv``, written by ``benchmarks/coverage.py``; see
    docs/intervals.md).

    Args:
        score: one of ``names.SCORES``, by image; or ``patient_roc_auc``, by patient.
        estimate: the score's value. The nearest of the three simulated truths counts.

    Returns:
        A share of 1: the lowest over the simulated correlations within a patient (0, 0.3 and 0.6). None where the score
        was not simulated, or not within 0.1 of the estimate.
    """
    rows = [row for row in _table() if row["target"] == score]
    if not rows:
        return None
    nearest = min(rows, key=lambda row: abs(float(row["truth"]) - estimate))
    if abs(float(nearest["truth"]) - estimate) > _FARTHEST:
        return None
    return min(float(row["coverage"]) for row in rows if row["auc"] == nearest["auc"])


@cache
def _table() -> list[dict[str, str]]:
    with resources.files("ddtl.evaluation").joinpath("coverage.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["method"] == "default"]
