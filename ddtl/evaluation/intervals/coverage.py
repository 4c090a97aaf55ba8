"""What share of the default intervals held the truth in simulation, for reports that state it."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

_FARTHEST = 0.1  # of the score from a simulated truth: beyond, nothing was measured
_OTHER_SIZE = 1.6  # times as many patients, or as few


@dataclass(frozen=True)
class Coverage:
    """What the default 95 % interval of a score held in simulated test sets.

    Attributes:
        share: of the intervals that held the truth.
        patients, positives: of those test sets.
        truth: the score on endless patients.
    """

    share: float
    patients: int
    positives: int
    truth: float


def measured_coverage(
    score: str, unit: Literal["image", "patient"], estimate: float, patients: int, positives: int, images: int
) -> Coverage | None:
    """Return the coverage in test sets like this one (``coverage.csv``, written by ``benchmarks/coverage.py``).

    Args:
        score: one of ``schema.scores.SCORES``.
        unit: what it is of.
        estimate: its value; the nearest simulated truth counts.
        patients, positives: how many there are, and of the positive class.
        images: how many there are; with one a patient the simulation of single images counts.

    Returns:
        None where nothing near was simulated: another number of patients or share of positives, or another score.
    """
    kind = "one" if unit == "image" and images == patients else "tail"
    rarer = min(positives, patients - positives)
    rows = [row for row in _table() if (row["score"], row["unit"], row["images"]) == (score, unit, kind)]
    if not rows or not rarer:
        return None

    def distance(row: dict[str, str]) -> tuple[float, float]:
        simulated = int(row["patients"]), int(row["patients"]) * float(row["prevalence"])
        apart = max(abs(math.log(patients / simulated[0])), abs(math.log(rarer / min(simulated[1], patients))))
        return round(apart, 6), abs(float(row["truth"]) - estimate)

    nearest = min(rows, key=distance)
    apart, of_score = distance(nearest)
    if apart > math.log(_OTHER_SIZE) or of_score > _FARTHEST:
        return None
    count = int(nearest["patients"])
    return Coverage(
        float(nearest["coverage"]), count, round(count * float(nearest["prevalence"])), float(nearest["truth"])
    )


@cache
def _table() -> list[dict[str, str]]:
    """Return the cells of usual test sets: fixed numbers of both classes, correlation 0.5, normal scores."""
    usual = {"design": "case_control", "scores": "normal", "correlation": "0.5", "shift": "0"}
    with resources.files("ddtl.evaluation").joinpath("coverage.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if all(row[name] == value for name, value in usual.items())]
