"""The variance of a ROC AUC and of the difference of two, for independent images and for images of the same patients.

DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44:837, for independent images; Obuchowski (1997), Biometrics
53:567, for clustered ones. With one image a cluster the second is the first: the factors I / (I - 1) of Obuchowski's
sums over clusters are then DeLong's m / (m - 1), so that both give the same number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ddtl.evaluation.intervals.interval import logit_limits
from ddtl.evaluation.intervals.resampling import cluster_codes

ROUNDING = 1e-12  # a standard error that is nothing but rounding


@dataclass(frozen=True)
class Paired:
    """Two models on the same images: a against b.

    Attributes:
        difference: ``auc_a - auc_b``.
        p_value: two-sided, of no difference.
        low, high: interval of the difference.
    """

    auc_a: float
    auc_b: float
    difference: float
    standard_error: float
    p_value: float
    low: float
    high: float


@dataclass(frozen=True)
class Components:
    """What each image contributes to an AUC: (m,) the share of negatives below a positive, (n,) of positives above."""

    auc: float
    of_positives: np.ndarray
    of_negatives: np.ndarray

    def __sub__(self, other: Components) -> Components:
        return Components(
            self.auc - other.auc, self.of_positives - other.of_positives, self.of_negatives - other.of_negatives
        )


def compare_paired(
    labels: np.ndarray, p_a: np.ndarray, p_b: np.ndarray, clusters: np.ndarray | None = None, *, level: float = 0.95
) -> Paired:
    """Return the difference of two AUCs on the same images, with test and interval.

    Independent images take the normal distribution, as DeLong does; clustered ones Student's t with Satterthwaite's
    degrees of freedom. Where no image tells the two models apart the variance is 0, and the interval and an upper bound
    of the p-value come from :func:`unseen`: k pairs of patients that all show the same difference d have, without a
    true difference, a probability of (1 + abs(d)) ** -k at most.

    Raises:
        ValueError: a class has fewer than two clusters, or a probability is not a number.
    """
    from scipy.special import stdtr, stdtrit

    a, b = components(labels, p_a), components(labels, p_b)
    difference = a - b
    d = difference.auc
    spread, freedom = variance(labels, difference, clusters)
    error = float(np.sqrt(spread))
    if error <= ROUNDING:
        k = independent_pairs(labels, clusters)
        p_value = min(1.0, 2 * (1 + abs(d)) ** -k)
        return Paired(a.auc, b.auc, d, 0.0, p_value, *around(d, -1, 1, unseen(k, level)))
    if clusters is None:
        freedom = np.inf  # the normal distribution
    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    p_value = float(2 * stdtr(freedom, -abs(d) / error))
    return Paired(a.auc, b.auc, d, error, p_value, max(-1.0, d - half), min(1.0, d + half))


def logit_interval(labels: np.ndarray, p: np.ndarray, clusters: np.ndarray, level: float) -> tuple[float, float]:
    """Interval of a ROC AUC between 0 and 1: logit-transformed, Student's t with Satterthwaite's degrees of freedom.

    On the logit scale as in Pepe (2003), The Statistical Evaluation of Medical Tests for Classification and Prediction;
    the degrees of freedom after Satterthwaite (1946), Biometrics Bulletin 2:110.
    """
    from scipy.special import stdtrit

    parts = components(labels, p)
    spread, freedom = variance(labels, parts, clusters)
    return logit_limits(parts.auc, float(np.sqrt(spread)), float(stdtrit(freedom, (1 + level) / 2)))


def components(labels: np.ndarray, p: np.ndarray) -> Components:
    """Return DeLong's structural components, by sorting.

    Raises:
        ValueError: there is one class only, or a probability is not a number.
    """
    if np.isnan(p).any():
        raise ValueError(f"the probability of image {int(np.isnan(p).argmax())} (counted from 0) is not a number")
    positives, negatives = p[labels == 1], p[labels != 1]
    if not len(positives) or not len(negatives):
        raise ValueError("a ROC AUC needs images of both classes")
    of_positives = _share_below(negatives, positives)
    return Components(float(of_positives.mean()), of_positives, 1 - _share_below(positives, negatives))


def variance(labels: np.ndarray, parts: Components, clusters: np.ndarray | None) -> tuple[float, float]:
    """Return the variance of ``parts.auc``, and Satterthwaite's degrees of freedom of that variance.

    Each class adds the variance between its clusters; clusters with images of both classes add a covariance.
    """
    codes = np.arange(len(labels)) if clusters is None else cluster_codes(clusters)
    count = codes.max() + 1
    positive = labels == 1
    x = np.bincount(codes[positive], parts.of_positives - parts.auc, count) / positive.sum()
    y = np.bincount(codes[~positive], parts.of_negatives - parts.auc, count) / (~positive).sum()
    of_x, of_y = len(np.unique(codes[positive])), len(np.unique(codes[~positive]))
    if min(of_x, of_y) < 2:
        raise ValueError("the variance of a ROC AUC needs two clusters of each class at least")
    var_x, var_y = of_x / (of_x - 1) * float(x @ x), of_y / (of_y - 1) * float(y @ y)
    both = count / (count - 1) * 2 * float(x @ y)
    squares = var_x**2 / (of_x - 1) + var_y**2 / (of_y - 1)
    freedom = (var_x + var_y) ** 2 / squares if squares else float(min(of_x, of_y) - 1)
    return max(0.0, var_x + var_y + both), freedom


def independent_pairs(labels: np.ndarray, clusters: np.ndarray | None) -> int:
    """Return how many pairs of a positive and a negative can be formed with each cluster in one pair at most."""
    codes = np.arange(len(labels)) if clusters is None else cluster_codes(clusters)
    sizes = [len(np.unique(codes[labels == label])) for label in (0, 1)]
    return min(*sizes, len(np.unique(codes)) // 2)


def unseen(k: int, level: float) -> float:
    """Return the largest share of exceptions that k independent observations without one leave possible.

    The upper limit of Clopper and Pearson (1934), Biometrika 26:404, for 0 of k; about 3.7 / k at 95 %. Pairs of
    patients from different classes are independent and each is in the right order with probability AUC, so an
    observed AUC of 1 leaves ``1 - unseen(k)`` possible, k being the patients of the smaller class.
    """
    return float(1 - ((1 - level) / 2) ** (1 / k))


def around(value: float, least: float, most: float, share: float) -> tuple[float, float]:
    """Return the means that are possible where all but ``share`` of the population have ``value``."""
    return value - share * (value - least), value + share * (most - value)


def _share_below(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return the share of ``values`` below each limit, ties by half."""
    ordered = np.sort(values)
    below, not_above = (np.searchsorted(ordered, limits, side) for side in ("left", "right"))
    return (below + not_above) / (2 * len(values))
