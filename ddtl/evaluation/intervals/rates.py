"""Intervals of rates of images that come in clusters, and of the scores that are functions of such rates.

A rate x / n has the mid-P confidence distribution (Lancaster, 1961, JASA 56:223; Schweder and Hjort, 2016, Confidence,
Likelihood, Probability): an even mixture of Beta(x, n - x + 1) and Beta(x + 1, n - x). Its quantiles are the mid-P
limits. The quantiles of a score over the joint distribution of sensitivity, specificity and prevalence are limits of
the score (Krishnamoorthy and Lee, 2010, Journal of Statistical Planning and Inference 140:1182). That needs no
variance, and so holds where every patient of a class is predicted right. The three are independent but where clusters
differ in size or have images of both classes: then they are as correlated as the clusters show.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ddtl.evaluation.intervals.clusters import Clusters, Sizes, effective_clusters
from ddtl.evaluation.metrics import weighted_scores
from ddtl.schema.scores import FROM_PROBABILITIES, SCORES

# Functions of sensitivity, specificity and the share of positive images.
FROM_RATES = tuple(name for name in SCORES if name not in (*FROM_PROBABILITIES, "sensitivity", "specificity"))

Limits = tuple[float, float]

_NODES = 64  # quantiles of each beta distribution
_POINTS = 4096  # of the joint distribution
_OBSERVED = 2 / 3  # weight of the observed count in a tail of the limits of a rate


@dataclass(frozen=True)
class Rate:
    """A share of hits among images.

    Attributes:
        value: hits / images.
        images, clusters: how many it rests on.
        design_effect: the variance between clusters over that of independent images, at least 1; None where no image,
            or every one, is a hit, which shows no variation.
        effective: how many independent images would tell as much.
    """

    value: float
    images: int
    clusters: int
    design_effect: float | None
    effective: float

    def limits(self, level: float) -> Limits:
        """Return the limits, between mid-P and exact ones; 0 of a rate of 0, and 1 of a rate of 1, are limits of their
        own.

        The observed count has a weight of 2/3 in the tail: of 1/2 in the mid-P limits, which with 20 to 400 independent
        images cover down to 91.8 %, and of 1 in the exact ones of Clopper and Pearson (1934). These cover 93 % or more.
        """
        hits, misses = self._counts
        tail = (1 - level) / 2
        low = 0.0 if not hits else _quantile(hits, misses, tail)
        high = 1.0 if not misses else 1 - _quantile(misses, hits, tail)
        return min(low, self.value), max(high, self.value)

    def nodes(self) -> np.ndarray:
        """Return (2 x 64,) quantiles of the confidence distribution, ascending."""
        from scipy.special import betaincinv

        hits, misses = self._counts
        shares = (np.arange(_NODES) + 0.5) / _NODES
        low = betaincinv(hits, misses + 1, shares) if hits else np.zeros(_NODES)
        high = betaincinv(hits + 1, misses, shares) if misses else np.ones(_NODES)
        return np.sort(np.concatenate([low, high]))

    @property
    def _counts(self) -> Limits:
        return self.value * self.effective, (1 - self.value) * self.effective


def rate(hits: np.ndarray, codes: np.ndarray, level: float, *, prior: float = 1.5, alike: bool = False) -> Rate:
    """Return the share of hits.

    With several images a cluster they are worth fewer: images over the design effect, times (z / t)² for that being
    estimated (Korn and Graubard, 1998, Survey Methodology 24:193; Dean and Pagano, 2015, Journal of Survey Statistics
    and Methodology 3:484). The design effect is seen in the clusters that have the rarer outcome, each counted by its
    part of that (:func:`clusters.effective_clusters`). Where those are few it is taken to be, by ``prior`` such
    clusters, that of clusters whose images all agree; (z / t)² does not make it larger than that.

    Args:
        hits: (N,) 0 or 1; not empty.
        codes: (N,) the cluster of each image.
        level: of the interval that it is for.
        prior: 0 where the outcome says how images were collected, and not what a network made of them.
        alike: whether all images of a cluster have the same outcome by design: then the design effect is no less than
            the sizes of all clusters let expect, also where the large ones happen to have the same outcome.
    """
    from scipy.special import ndtri, stdtrit

    _, codes = np.unique(codes, return_inverse=True)
    counts = np.bincount(codes)
    sizes = Sizes(counts)
    n, k = sizes.images, sizes.clusters
    value = float(hits.mean())
    if n == k:
        return Rate(value, n, k, None if value in (0, 1) else 1.0, float(n))
    if value in (0, 1) or k == 1:
        return Rate(value, n, k, None, sizes.effective)
    found = np.bincount(codes, hits)
    residual = (found - value * counts) / (n - counts)
    variance = (k - 1) / k * float(residual @ residual)
    effect = max(n / sizes.effective if alike else 1.0, variance / (value * (1 - value) / n))
    rarer = effective_clusters(found if value < 0.5 else counts - found)
    seen = rarer / (rarer + prior)
    quantile = (1 + level) / 2
    known = (float(ndtri(quantile)) / float(stdtrit(k - 1, quantile))) ** 2
    estimated, largest = seen * effect / n, (1 - seen) / sizes.effective
    worth = 1 / (estimated / known + largest)
    return Rate(value, n, k, effect, max(worth, min(sizes.effective, 1 / (estimated + largest))))


def rate_limits(predicted: np.ndarray, clusters: Clusters, level: float) -> dict[str, Limits]:
    """Return the limits of sensitivity, specificity and, with both classes, of the scores in ``FROM_RATES``.

    Args:
        predicted: (N,) 1 where an image is predicted positive.
        clusters: of the images.
        level: of the limits.

    Returns:
        Without the scores that are not defined.
    """
    positive = clusters.labels == 1
    found: dict[str, Limits] = {}
    rates: list[Rate] = []
    for name, members, hits in (("sensitivity", positive, predicted), ("specificity", ~positive, 1 - predicted)):
        if members.any():
            rates.append(rate(hits[members], clusters.codes[members], level))
            found[name] = rates[-1].limits(level)
    if len(rates) == 1:
        of_one_class = rate((predicted == clusters.labels).astype(int), clusters.codes, level)
        found["accuracy"] = low, high = of_one_class.limits(level)
        # Of positives alone F1 is 2 s / (1 + s), and the precision is 1 whatever the network says: it has no interval.
        return {**found, "f1": (2 * low / (1 + low), 2 * high / (1 + high))} if positive.all() else found
    sensitivity, specificity = rates
    s, t, prevalence = _joint(sensitivity, specificity, predicted, clusters, level)
    at_estimate = np.array([[sensitivity.value], [specificity.value], [positive.mean()]])
    estimates = scores_of(at_estimate[0], at_estimate[1], at_estimate[2])
    perfect = sensitivity.value == specificity.value == 1
    for name, values in scores_of(s, t, prevalence).items():
        estimate = float(estimates[name][0])
        if np.isfinite(estimate):
            low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
            found[name] = min(float(low), estimate), 1.0 if perfect else max(float(high), estimate)
    return found


def _joint(
    sensitivity: Rate, specificity: Rate, predicted: np.ndarray, clusters: Clusters, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (4096,) points of the joint distribution of sensitivity, specificity and the share of positive images.

    Correlated by a Gaussian copula. Of fixed patients the share varies with how many images each has. Few patients of a
    class may lack the large ones by chance, and then show too little variation too: so it varies no less than with the
    sizes' variation within both classes together.
    """
    from scipy.special import expit, logit, ndtr, ndtri, stdtrit

    covariance = _covariance(predicted, clusters)
    scale = np.sqrt(np.diag(covariance)) + 1e-150  # so that what does not vary has no correlation
    r = 0.99 * covariance / np.outer(scale, scale)
    np.fill_diagonal(r, 1)
    u = ndtr(np.linalg.cholesky(r) @ ndtri(_lattice()))
    at = np.minimum((u * 2 * _NODES).astype(int), 2 * _NODES - 1)
    positive = (clusters.labels == 1).astype(int)
    if clusters.design == "cohort":
        share = rate(positive, clusters.codes, level, prior=0.0, alike=not clusters.mixed)
        prevalence = share.nodes()[at[2]]
    else:
        error = scale[2] if clusters.mixed else max(scale[2], _error_of_log_odds(clusters))
        prevalence = expit(logit(positive.mean()) + error * stdtrit(max(1, clusters.fewest - 1), u[2]))
    return sensitivity.nodes()[at[0]], specificity.nodes()[at[1]], np.asarray(prevalence)


def _error_of_log_odds(clusters: Clusters) -> float:
    """Return the standard error of the log odds of the share of positive images, of sizes that vary alike in both
    classes.
    """
    both = clusters.of_class
    variance = sum(sizes.deviance for sizes in both) / max(1, sum(sizes.clusters - 1 for sizes in both))
    return float(np.sqrt(variance * sum(1 / sizes.clusters for sizes in both)))


def _covariance(predicted: np.ndarray, clusters: Clusters) -> np.ndarray:
    """Return (3, 3) between clusters, of sensitivity, specificity and the logit of the share of positive images."""
    positive = (clusters.labels == 1).astype(float)
    right = (predicted == clusters.labels).astype(float)
    moved = np.zeros((3, clusters.all.clusters))
    for row, mine in enumerate((positive, 1 - positive)):
        moved[row] = np.bincount(clusters.codes, mine * (right - (mine @ right) / mine.sum())) / mine.sum()
        moved[2] += (1 - 2 * row) * np.bincount(clusters.codes, mine) / mine.sum()
    found = np.zeros((3, 3))
    for stratum in clusters.strata:
        part = moved[:, stratum]
        part = part - part.mean(axis=1, keepdims=True)
        count = part.shape[1]
        found += count / max(count - 1, 1) * part @ part.T
    return found


def scores_of(sensitivity: np.ndarray, specificity: np.ndarray, prevalence: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores in ``FROM_RATES``, element by element; NaN where one is not defined."""
    tp, fn = prevalence * sensitivity, prevalence * (1 - sensitivity)
    tn, fp = (1 - prevalence) * specificity, (1 - prevalence) * (1 - specificity)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        found = {
            "accuracy": tp + tn,
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "precision": tp / (tp + fp),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "mcc": (tp * tn - fp * fn) / spread,
        }
    others = [name for name in FROM_RATES if name not in found]
    if others:  # of four images, one of each kind
        labels, p, weights = np.array([1, 0, 1, 0]), np.array([1.0, 1.0, 0.0, 0.0]), np.stack([tp, fp, fn, tn], axis=1)
        values = weighted_scores(labels, p, weights, 0.5)
        found |= {name: values[name] for name in others}
    return found


def _quantile(hits: float, misses: float, share: float) -> float:
    """Return the lower limit."""
    from scipy.optimize import brentq
    from scipy.special import betainc

    def below(v: float) -> float:
        high = betainc(hits + 1, misses, v) if misses else 0.0
        return float(_OBSERVED * betainc(hits, misses + 1, v) + (1 - _OBSERVED) * high) - share

    return float(brentq(below, 0.0, 1.0, xtol=1e-10))


@cache
def _lattice() -> np.ndarray:
    """Return (3, 4096) evenly spread points (the R sequence: powers of the root of x⁴ = x + 1, modulo 1)."""
    step = 1 / 1.2207440846057596
    return np.stack([(0.5 + step ** (k + 1) * np.arange(1, _POINTS + 1)) % 1 for k in range(3)])
