"""Tests that tell a difference between two models from chance, and which difference a test set could have shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddtl.evaluation.intervals.resampling import cluster_codes


@dataclass(frozen=True)
class McNemar:
    """What the images that only one of two models calls right say about the two.

    Attributes:
        only_a, only_b: images that only the first, only the second model calls right.
        statistic: chi-square with one degree of freedom.
        p_value: two-sided and exact, see :func:`mcnemar`; 1 where the two models differ on no image.
    """

    only_a: int
    only_b: int
    statistic: float
    p_value: float


def mcnemar(right_a: np.ndarray, right_b: np.ndarray, clusters: np.ndarray | None = None) -> McNemar:
    """Return McNemar's test, and where images come in clusters (patients) Obuchowski's, which allows for it.

    With d_k being the images of cluster k that only a calls right less those that only b does, Obuchowski's statistic
    is (K - 1) / K * (sum d_k)^2 / sum d_k^2 (Obuchowski 1998, Stat Med 17:1495, in the form of Yang, Sun and Hardin
    2010, Biom J 52:638). Its p-value is exact, as McNemar's is here: where it does not matter which model is which,
    d_k is as likely as -d_k, and all assignments of signs to the d_k are counted (sum d_k^2 stays). With one image a
    cluster that is McNemar's exact test.

    Args:
        right_a, right_b: (N,) whether each model calls the image right.
        clusters: (N,) whose images are not independent of each other; None where all are.
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    if clusters is None:
        from statsmodels.stats.contingency_tables import mcnemar as independent

        table = [[0, only_a], [only_b, 0]]
        statistic = float(independent(table, exact=False, correction=False).statistic) if only_a + only_b else 0.0
        return McNemar(only_a, only_b, statistic, min(1.0, float(independent(table, exact=True).pvalue)))
    d = np.bincount(cluster_codes(clusters), right_a.astype(int) - right_b.astype(int))
    squares = float((d**2).sum())
    statistic = (len(d) - 1) / len(d) * float(d.sum()) ** 2 / squares if squares else 0.0
    return McNemar(only_a, only_b, statistic, _sign_flip_p(d))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values of several tests, adjusted so that the chance of any false claim keeps its level.

    Holm 1979, Scand J Stat 6:65. A test that could not be made (None) stays None and does not count.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = largest
    return adjusted


def _sign_flip_p(d: np.ndarray) -> float:
    """Return how often the d_k (whole numbers) with signs tossed sum up to at least as far from 0 as they do."""
    steps = np.abs(d[d != 0]).astype(int)
    chance = np.ones(1)  # of each sum that the steps so far can have, from the lowest to the highest
    for step in steps:
        longer = np.zeros(len(chance) + 2 * step)
        longer[: len(chance)] += chance / 2
        longer[2 * step :] += chance / 2
        chance = longer
    sums = np.arange(len(chance)) - steps.sum()
    return min(1.0, float(chance[np.abs(sums) >= abs(d.sum())].sum()))
