"""The default intervals of two classes: made for few patients, uneven numbers of images, and scores near 1.

What they cover is measured: docs/intervals.md and ``benchmarks/coverage.py``.
"""

from __future__ import annotations

import numpy as np

from ddtl.evaluation.intervals.clusters import Clusters, effective_clusters
from ddtl.evaluation.intervals.delong import Components, components
from ddtl.evaluation.intervals.influence import Spread, average_precision, influences, spread
from ddtl.evaluation.intervals.interval import Interval, logit_limits
from ddtl.evaluation.intervals.rates import FROM_RATES, Limits, Rate, rate_limits
from ddtl.evaluation.metrics import weighted_scores
from ddtl.schema.scores import RANGES

# The clusters of a class that are ranked wrong somewhere show how much rankings vary. Where they are few, what is known
# of any ranking takes their place, as if seen in so many clusters. Chosen by simulation.
_PRIOR_AUC, _PRIOR_AP = 2.5, 4.0
_ROUNDING = 1e-12  # a standard error that is nothing but rounding
_MORE = 2  # negative clusters that might come next
_UNSEEN_ERROR = 0.5  # squared error, or share that is ranked wrong, of the patient that might come next


def robust_intervals(
    p: np.ndarray, clusters: Clusters, threshold: float | np.ndarray, level: float, rank: np.ndarray | None = None
) -> dict[str, Interval]:
    """Return an interval of each score in ``schema.scores.SCORES``; without those that are not defined.

    Args:
        p: (N,) probability of the positive class.
        clusters: of the images, with their labels.
        threshold: from which probability on an image is predicted positive; (N,) where images have their own.
        level: of the intervals.
        rank: (N,) what orders the images for ROC AUC and average precision, where that is not ``p``.
    """
    moved = influences(clusters.labels, p, threshold, rank)
    predicted = (p >= threshold).astype(int)
    found = {
        name: Interval(*limits, "mid-p-joint" if name in FROM_RATES else "binomial")
        for name, limits in rate_limits(predicted, clusters, level).items()
    }
    error = (p - clusters.labels) ** 2
    of_error = spread(moved["brier"], clusters)
    found["brier"] = Interval(*mean_limits(error, of_error, clusters, level), "next-patient")
    if "roc_auc" in moved:
        order = p if rank is None else rank
        parts = components(clusters.labels, order)
        limits = auc_limits(parts, spread(moved["roc_auc"], clusters), clusters, level)
        found["roc_auc"] = Interval(*limits, "score")
        found["average_precision"] = _average_precision(order, parts, limits, clusters, level)
    for name in moved.keys() - found.keys():  # scores without an interval of their own
        value = float(weighted_scores(clusters.labels, p, np.ones((1, len(p))), threshold, rank)[name][0])
        of_score = spread(moved[name], clusters)
        if of_score.variance > _ROUNDING**2:
            low, high = student_limits(value, of_score, level)
            least, largest = RANGES.get(name, (0.0, 1.0))
            found[name] = Interval(max(least, low), min(largest, high), "student")
    return found


def student_limits(value: float, of_score: Spread, level: float) -> Limits:
    """Return the limits of a score by Student's t and its cluster-robust variance, on its own scale."""
    from scipy.special import stdtrit

    half = float(stdtrit(of_score.freedom, (1 + level) / 2)) * float(np.sqrt(of_score.variance))
    return value - half, value + half


def auc_limits(parts: Components, of_auc: Spread, clusters: Clusters, level: float) -> Limits:
    """Return the values of the ROC AUC that these images do not contradict.

    The score interval of Newcombe (2006, Stat Med 25:559, method 5): the variance is not that at the estimate but at
    each value that is requested (:func:`newcombe`), for the effective clusters of both classes, times a factor that
    makes it Obuchowski's (1997) at the estimate. So it has a width where the estimate is 1.

    Args:
        parts: what each image contributes.
        of_auc: the variance of the ROC AUC.
        clusters: of the images.
        level: of the limits.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri, stdtrit

    if parts.auc < 0.5:  # the other way round
        mirrored = Clusters(1 - clusters.labels, clusters.codes, clusters.design)
        other = Components(1 - parts.auc, 1 - parts.of_negatives, 1 - parts.of_positives)
        low, high = auc_limits(other, of_auc, mirrored, level)
        return 1 - high, 1 - low
    negatives, positives = clusters.of_class
    m, n = positives.effective, negatives.effective
    auc, wrong = parts.auc, ranked_wrong(parts, clusters)
    seen = wrong / (wrong + _PRIOR_AUC)
    freedom = max(of_auc.freedom if of_auc.variance else 1.0, clusters.fewest - 1)
    t, z = float(stdtrit(freedom, (1 + level) / 2)), float(ndtri((1 + level) / 2))
    factor = of_auc.variance / newcombe(auc, m, n) if auc < 1 else 1.0  # estimated, and so by Student's t
    reach = max(1e-9, seen * factor * t**2 + (1 - seen) * z**2)

    def beyond(value: float) -> float:
        return (auc - value) ** 2 - reach * newcombe(value, m, n)

    edge = 1e-9  # of the values that are requested, and around the estimate, where nothing contradicts
    low = 0.0 if beyond(edge) <= 0 else float(brentq(beyond, edge, auc - 1e-12))
    high = 1.0 if auc > 1 - edge or beyond(1 - edge) <= 0 else float(brentq(beyond, auc + 1e-12, 1 - edge))
    # Errors of a ranking may be those of a single patient, which comes or does not: as in a share of the rarer class.
    rarer = min(m, n)
    alone = Rate(auc, round(rarer), round(rarer), None, rarer).limits(level)[1]
    single = 1 / max(wrong, 1.0)
    low = min(low, (auc * rarer + _UNSEEN_ERROR) / (rarer + 1))  # with the patient that might come next
    return min(low, auc), max(auc, high, (1 - single) * high + single * alone)


def newcombe(auc: float, positives: float, negatives: float) -> float:
    """Return the variance of a ROC AUC of so many independent images (Newcombe, 2006, Stat Med 25:559).

    That of Hanley and McNeil (1982, Radiology 143:29), but with the mean number of both classes in the terms of both.
    Theirs takes for granted that scores spread more in the positives: near 1 it is far too small where negatives are
    few, and exchanging the classes gives another one.
    """
    other = (positives + negatives) / 2 - 1
    pairs = 1 + other * ((1 - auc) / (2 - auc) + auc / (1 + auc))
    return auc * (1 - auc) * pairs / (positives * negatives)


def ranked_wrong(parts: Components, clusters: Clusters) -> float:
    """Return how many clusters are ranked wrong against the other class, in the class where they are fewer.

    Each counts by its part of the errors e: (sum e)² / sum e², so that a large error is not hidden by many small ones.
    """
    return min(
        effective_clusters(np.bincount(clusters.codes[(clusters.labels == 1) == label], 1 - of_images))
        for label, of_images in ((1, parts.of_positives), (0, parts.of_negatives))
    )


def mean_limits(values: np.ndarray, of_mean: Spread, clusters: Clusters, level: float) -> Limits:
    """Return the limits of a mean of (N,) errors between 0 and 1.

    Student's t on the logit scale. Errors are skewed: most are small, and the few large ones may not have come yet. So
    the upper limit is at least that of the same images with one more cluster of average size, whose error is half of
    the highest (a pseudo-observation, as in Agresti and Coull, 1998, American Statistician 52:119).
    """
    from scipy.special import stdtrit

    mean = float(values.mean())
    t = float(stdtrit(of_mean.freedom, (1 + level) / 2))
    error = np.sqrt(of_mean.variance)
    low, high = logit_limits(mean, error, t) if 0 < mean < 1 and error else (mean, mean)
    share = 1 / (clusters.all.effective + 1)
    shifted = (1 - share) * mean + share * _UNSEEN_ERROR
    wider = np.hypot((1 - share) * error, share * (_UNSEEN_ERROR - mean))
    return low, min(1.0, max(high, float(shifted + t * wider)))


def _average_precision(
    order: np.ndarray, parts: Components, of_auc: Limits, clusters: Clusters, level: float
) -> Interval:
    """On the logit scale, by Student's t; where few clusters are ranked wrong no narrower than the ROC AUC's is there.

    Of a perfect ranking, the least that a ROC curve with the lower limit of the ROC AUC allows.
    """
    from scipy.special import logit, stdtrit

    if parts.auc == 1:
        return Interval(least_precision(of_auc[0], float((clusters.labels == 1).mean())), 1.0, "score")
    value, moved = average_precision((clusters.labels == 1).astype(float), order)
    found = spread(moved, clusters)
    half = float(stdtrit(max(found.freedom, clusters.fewest - 1), (1 + level) / 2)) * np.sqrt(found.variance)
    half /= value * (1 - value)
    wrong = ranked_wrong(parts, clusters)
    seen = wrong / (wrong + _PRIOR_AP)
    edge = 1e-12
    of_auc_halves = logit(parts.auc) - logit(max(of_auc[0], edge)), logit(min(of_auc[1], 1 - edge)) - logit(parts.auc)
    down, up = (seen * half + (1 - seen) * max(half, float(other)) for other in of_auc_halves)
    # A positive counts itself in the precision at its rank, so that the estimate is too high on average. The lower
    # limit is around that without itself.
    centre = min(value, _precision_of_others(order, clusters.labels))
    low = logit_limits(centre, centre * (1 - centre), down)[0]
    high = logit_limits(value, value * (1 - value), up)[1]
    return Interval(min(low, _with_more(order, clusters)), high, "influence")


def _ranks(order: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the positives from the highest on, and of each the positives and the negatives that are not below it."""
    positives, negatives = np.sort(order[labels == 1])[::-1], np.sort(order[labels != 1])
    return (
        positives,
        np.searchsorted(-positives, -positives, "right"),  # a group of ties is found together
        len(negatives) - np.searchsorted(negatives, positives, "left"),
    )


def _precision_of_others(order: np.ndarray, labels: np.ndarray) -> float:
    """Return the average precision where no positive counts itself; between 0 and 1 exclusively."""
    positives, found, false = _ranks(order, labels)
    others = (found - 1) * len(positives) / max(len(positives) - 1, 1)
    precision = np.divide(others, others + false, out=np.ones(len(positives)), where=others + false > 0)
    return float(np.clip(precision.mean(), 1e-6, 1 - 1e-9))


def _with_more(order: np.ndarray, clusters: Clusters) -> float:
    """Return the average precision with two more negative clusters of average size, above nine tenths of the
    positives.
    """
    positives, found, false = _ranks(order, clusters.labels)
    added = _MORE * int((clusters.labels != 1).sum()) / clusters.of_class[0].clusters
    return float(np.mean(found / (found + false + np.where(positives <= np.quantile(positives, 0.9), added, 0.0))))


def least_precision(auc: float, prevalence: float) -> float:
    """Return the least average precision that a ROC curve with this area can have.

    At recall r and false positive rate f the precision is r / (r + f / odds), convex in f. So the least mean over r of
    rates with mean 1 - auc has the same slope everywhere: f = sqrt(c r) - odds r for a constant c, within 0 and 1.
    """
    from scipy.optimize import brentq

    odds = prevalence / (1 - prevalence)
    recall = (np.arange(2000) + 0.5) / 2000

    def false(c: float) -> np.ndarray:
        return np.clip(np.sqrt(c * recall) - odds * recall, 0, 1)

    c = brentq(lambda c: false(c).mean() - (1 - auc), 0, (1 + odds) ** 2 * 4000)
    return float(np.mean(odds * recall / (odds * recall + false(c))))
