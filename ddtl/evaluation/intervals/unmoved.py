"""Intervals of multi-class scores that no cluster moves, above all of perfect ones."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ddtl.evaluation.intervals.clusters import Clusters
from ddtl.evaluation.intervals.influence import spread
from ddtl.evaluation.intervals.interval import Interval
from ddtl.evaluation.intervals.robust import mean_limits, robust_intervals
from ddtl.evaluation.metrics import table_mcc

# All but these are means over the classes, each against all others: of the score itself, or of another one.
_OF_ALL = ("accuracy", "mcc", "brier")
_MEAN_OF = {"balanced_accuracy": "sensitivity"}


def unmoved_intervals(
    names: Iterable[str], labels: np.ndarray, probabilities: np.ndarray, clusters: np.ndarray, level: float
) -> dict[str, Interval]:
    """Return what so few clusters leave possible of each score that has the same value without any of them.

    The limits of a mean over the classes are the means of the limits of each class against all others
    (``robust.robust_intervals``): they are too wide rather than too narrow, as the classes need not err together.
    Matthews' coefficient of 1 has as its lower limit the least of the tables in which every class has the lower limit
    of its sensitivity, its errors being predicted as a neighbouring class or all as one class.

    Args:
        names: of the scores that no cluster moves.
        labels: (N,) 0 to K - 1; every class that there is has clusters enough for an interval.
        probabilities: (N, K).
        clusters: (N,) codes.
        level: of the intervals.

    Returns:
        The scores that have an interval.
    """
    predicted = probabilities.argmax(axis=1)
    each = [
        robust_intervals(
            (predicted == k).astype(float),
            Clusters((labels == k).astype(int), clusters),
            0.5,
            level,
            probabilities[:, k],
        )
        for k in range(probabilities.shape[1])
    ]
    found: dict[str, Interval] = {}
    for name in names:
        mean_of = _MEAN_OF.get(name, name)
        of_class = [one[mean_of] for one in each if mean_of in one and name not in _OF_ALL]
        if len(of_class) == len(each):
            low, high = (float(np.mean([getattr(one, end) for one in of_class])) for end in ("low", "high"))
            found[name] = Interval(low, high, "classes")
        elif name == "mcc" and (predicted == labels).all():
            images = np.bincount(labels, minlength=len(each)).astype(float)
            lows = np.array([one["sensitivity"].low if n else 1.0 for one, n in zip(each, images, strict=True)])
            found[name] = Interval(_least_mcc(images, lows), 1.0, "classes")
    return found


def brier_interval(labels: np.ndarray, probabilities: np.ndarray, clusters: np.ndarray, level: float) -> Interval:
    """Return twice the limits of half of the squared errors, which are 0 to 1 each (``robust.mean_limits``)."""
    error = ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1) / 2
    of_images = Clusters((labels == labels[0]).astype(int), clusters)
    of_error = spread((error - error.mean()) / len(error), of_images)
    low, high = mean_limits(error, of_error, of_images, level)
    return Interval(2 * low, 2 * high, "next-patient")


def _least_mcc(images: np.ndarray, sensitivities: np.ndarray) -> float:
    k = len(images)
    right, wrong = images * sensitivities, images * (1 - sensitivities)
    # A neighbour's errors.
    tables = [np.diag(right) + np.roll(np.diag(wrong), shift, axis=1) for shift in range(1, k)]
    for sink in range(k):  # one class's; its own errors are the next one's
        to = np.where(np.arange(k) == sink, (sink + 1) % k, sink)
        table = np.diag(right)
        table[np.arange(k), to] += wrong
        tables.append(table)
    return float(table_mcc(np.stack(tables)).min())
