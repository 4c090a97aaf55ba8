"""Confidence intervals of every score, with the images of one patient kept together.

What each method covers is measured: docs/intervals.md and ``benchmarks/coverage.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ddtl.errors import UserError
from ddtl.evaluation import delong
from ddtl.evaluation.clustered import MIN_CLUSTERS, Clustered, Limits
from ddtl.evaluation.proportions import Proportion, proportion, wilson
from ddtl.evaluation.resampling import Replicates, weighted_multiclass, weighted_scores

METHODS = ("percentile", "bca", "logit", "wilson")

# What the methods of an ``Interval`` are, for texts.
DESCRIPTIONS = {
    "mover": "from the intervals of two independent scores (Zou and Donner, 2008)",
    "percentile": "percentile bootstrap of whole clusters, drawn class by class",
    "bca": "bias-corrected and accelerated bootstrap (Efron, 1987) of whole clusters, drawn class by class",
    "logit": "logit-transformed, cluster jackknife variance, Student's t",
    "logit-delong": "logit-transformed, variance of Obuchowski (1997; DeLong's for single images), Student's t",
    "delong": "variance of Obuchowski (1997; DeLong's for single images), Student's t",
    "jackknife": "cluster jackknife variance, Student's t",
    "wilson": "Wilson (1927)",
    "wilson-clustered": "Wilson (1927) at the effective number of images (Korn and Graubard, 1998)",
    "wilson-range": "range over the Wilson intervals of sensitivity and specificity, as every patient agrees",
    "clopper-pearson": "exact binomial bound on independent patients, as every one of them agrees",
}

_WILSON = ("accuracy", "sensitivity", "specificity")  # by default, of independent images
_SHARES = (*_WILSON, "precision")
_FROM_CALLS = ("balanced_accuracy", "f1", "mcc")
_BOUNDS: dict[str, Limits] = {"mcc": (-1.0, 1.0)}


@dataclass(frozen=True)
class Interval:
    """A confidence interval and the key of ``DESCRIPTIONS`` that made it."""

    low: float
    high: float
    method: str


def intervals(
    labels: np.ndarray,
    p: np.ndarray,
    clusters: np.ndarray,
    threshold: float | np.ndarray,
    *,
    method: str = "default",
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """An interval for each score in ``names.SCORES``.

    Args:
        labels: (N,) 0 or 1.
        p: (N,) probability of the positive class.
        clusters: (N,) a code for each image; images of one patient share one.
        threshold: from which probability on an image is called positive; (N,) where images have their own.
        method: one of ``METHODS``, or ``default``: what covers best, which is logit; of independent images wilson for
            accuracy, sensitivity and specificity. A score that is no proportion gets logit where wilson is wanted.
        level: confidence.
        replicates, seed: of the bootstrap that percentile and bca draw; the others need none.

    Returns:
        None where the score is not defined, where there are fewer than three clusters of a class, where it is not
        defined without some cluster, or where it is not in more than 5 % of the bootstrap's replicates. Where every
        cluster agrees, as with a perfect score, no method sees a variation, and bounds of what so few patients leave
        possible take its place; see :func:`_agreed`.

    Raises:
        ValueError: a probability is not finite, or the lengths differ.
        UserError: there is no such method.
    """
    _known(method, METHODS)
    _check(labels, clusters, p)
    called = (p >= threshold).astype(int)
    shares = _shares(labels, called, clusters)
    clustered = Clustered(
        lambda weights: weighted_scores(labels, p, weights, threshold), labels, clusters, level, replicates, seed
    )
    found: dict[str, Interval | None] = {}
    for name in clustered.estimates:
        chosen = _chosen(name, method, clustered.independent)
        if not clustered.bears(name):
            found[name] = None
        elif name in _SHARES and (chosen == "wilson" or not clustered.varies(name)):
            found[name] = _wilson(shares[name], level)
        elif not clustered.varies(name):
            found[name] = _agreed(name, labels, clusters, clustered.estimates, shares, level)
        elif name == "roc_auc" and chosen == "logit":
            found[name] = Interval(*delong.logit_interval(labels, p, clusters, level), "logit-delong")
        else:
            found[name] = _by(clustered, name, chosen)
    return found


def multiclass_intervals(
    labels: np.ndarray,
    probabilities: np.ndarray,
    clusters: np.ndarray,
    *,
    method: str = "default",
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """An interval for each score of ``metrics.multiclass_scores``, with the methods of :func:`intervals`.

    Args:
        labels: (N,) 0 to K - 1.
        probabilities: (N, K).
        clusters: (N,).
        method: as there; wilson is for the accuracy alone.

    Returns:
        None as in :func:`intervals`; a perfect score has an interval for the accuracy only.
    """
    _known(method, METHODS)
    _check(labels, clusters, probabilities)
    clustered = Clustered(
        lambda weights: weighted_multiclass(labels, probabilities, weights), labels, clusters, level, replicates, seed
    )
    bounds = {**_BOUNDS, "brier": (0.0, 2.0)}
    chosen = {
        name: "logit" if method == "wilson" else _chosen(name, method, independent=False)
        for name in clustered.estimates
    }
    found = {name: _by(clustered, name, chosen[name], bounds) for name in clustered.estimates}
    right = (probabilities.argmax(axis=1) == labels).astype(int)
    wilsons = _chosen("accuracy", method, clustered.independent) == "wilson"
    if clustered.bears("accuracy") and (wilsons or not clustered.varies("accuracy")):
        found["accuracy"] = _wilson(proportion(right, np.ones_like(right), clusters), level)
    return found


def paired_intervals(
    labels: np.ndarray,
    p_a: np.ndarray,
    p_b: np.ndarray,
    clusters: np.ndarray,
    threshold_a: float | np.ndarray,
    threshold_b: float | np.ndarray,
    *,
    method: str = "default",
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """An interval for the difference a - b of each score in ``names.SCORES``, two models on the same images.

    Every replicate draws, or leaves out, the same clusters for both.

    Args:
        method: ``default``, by the variance between clusters (``delong.paired`` for the ROC AUC, the jackknife for the
            others), or percentile or bca.

    Returns:
        None as in :func:`intervals`. Where no cluster sees a difference, ROC AUC, accuracy, sensitivity and
        specificity get the binomial bound on independent patients, the others None.
    """
    _known(method, ("percentile", "bca"))
    _check(labels, clusters, p_a, p_b)

    def difference(weights: np.ndarray) -> Replicates:
        a = weighted_scores(labels, p_a, weights, threshold_a)
        b = weighted_scores(labels, p_b, weights, threshold_b)
        return {name: a[name] - b[name] for name in a}

    clustered = Clustered(difference, labels, clusters, level, replicates, seed)
    found: dict[str, Interval | None] = {}
    for name in clustered.estimates:
        if clustered.bears(name) and name == "roc_auc" and (method == "default" or not clustered.varies(name)):
            pair = delong.paired(labels, p_a, p_b, clusters, level=level)
            found[name] = Interval(pair.low, pair.high, "delong" if pair.standard_error else "clopper-pearson")
        elif clustered.bears(name) and name in _WILSON and not clustered.varies(name):
            share = _shares(labels, labels, clusters)[name]
            q = delong.unseen(share.clusters, level)
            found[name] = Interval(*delong.around(clustered.estimates[name], -1, 1, q), "clopper-pearson")
        else:
            found[name] = _by(clustered, name, "jackknife" if method == "default" else method)
    return found


def _chosen(name: str, method: str, independent: bool) -> str:
    if method == "default":
        return "wilson" if independent and name in _WILSON else "logit"
    return "logit" if method == "wilson" and name not in _SHARES else method


def _by(clustered: Clustered, name: str, method: str, bounds: dict[str, Limits] = _BOUNDS) -> Interval | None:
    ways = {
        "percentile": clustered.percentile,
        "bca": clustered.bca,
        "jackknife": clustered.student,
        "logit": lambda name: clustered.logit(name, bounds.get(name, (0.0, 1.0))),
    }
    limits = ways[method](name)
    return Interval(*limits, method) if limits else None


def _shares(labels: np.ndarray, called: np.ndarray, clusters: np.ndarray) -> dict[str, Proportion]:
    """The scores that are proportions; a score of no image is left out."""
    of = {
        "accuracy": (called == labels, np.ones_like(called)),
        "sensitivity": (called, labels),
        "specificity": (1 - called, 1 - labels),
        "precision": (labels, called),
    }
    return {name: proportion(hits, members, clusters) for name, (hits, members) in of.items() if members.any()}


def _wilson(share: Proportion, level: float) -> Interval | None:
    if share.clusters < MIN_CLUSTERS:
        return None
    return Interval(*wilson(share, level), "wilson" if share.images == share.clusters else "wilson-clustered")


def _agreed(
    name: str,
    labels: np.ndarray,
    clusters: np.ndarray,
    estimates: dict[str, float],
    shares: dict[str, Proportion],
    level: float,
) -> Interval | None:
    """What remains possible where all clusters agree.

    ROC AUC: :func:`delong.unseen` of pairs of patients. Average precision of 1: the least that the bound of the ROC AUC
    allows. Balanced accuracy, F1 and Matthews' coefficient: the range over the Wilson intervals of sensitivity and
    specificity. None for the Brier score, and with one class.
    """
    if len(np.unique(labels)) < 2:
        return None
    q = delong.unseen(delong.independent_pairs(labels, clusters), level)
    if name == "roc_auc":
        return Interval(*delong.around(estimates[name], 0, 1, q), "clopper-pearson")
    if name == "average_precision" and estimates["roc_auc"] == 1:
        return Interval(_least_precision(1 - q, float(labels.mean())), 1.0, "clopper-pearson")
    if name in _FROM_CALLS:
        rates = np.array(
            [[s, t] for s in wilson(shares["sensitivity"], level) for t in wilson(shares["specificity"], level)]
        )
        values = _from_rates(rates[:, 0], rates[:, 1], float(labels.mean()))[name]
        return Interval(float(np.nanmin(values)), float(np.nanmax(values)), "wilson-range")
    return None


def _from_rates(sensitivity: np.ndarray, specificity: np.ndarray, prevalence: float) -> dict[str, np.ndarray]:
    tp, fn = prevalence * sensitivity, prevalence * (1 - sensitivity)
    tn, fp = (1 - prevalence) * specificity, (1 - prevalence) * (1 - specificity)
    spread = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "f1": 2 * tp / (2 * tp + fp + fn),
        "mcc": np.divide(tp * tn - fp * fn, spread, out=np.full_like(spread, np.nan), where=spread > 0),
    }


def _least_precision(auc: float, prevalence: float) -> float:
    """The least average precision that a ROC curve with this area can have.

    At recall r and false positive rate f the precision is r / (r + f / odds), convex in f. So the least mean over r of
    rates with mean 1 - auc has the same slope everywhere: f = sqrt(c r) - odds r for a constant c, within 0 and 1.
    """
    from scipy.optimize import brentq

    odds = prevalence / (1 - prevalence)
    recall = (np.arange(2000) + 0.5) / 2000

    def rate(c: float) -> np.ndarray:
        return np.clip(np.sqrt(c * recall) - odds * recall, 0, 1)

    c = brentq(lambda c: rate(c).mean() - (1 - auc), 0, (1 + odds) ** 2 * 4000)
    return float(np.mean(odds * recall / (odds * recall + rate(c))))


def _known(method: str, methods: tuple[str, ...]) -> None:
    if method not in ("default", *methods):
        raise UserError(f"evaluation.interval: there is no method {method!r}; take default, {', '.join(methods)}.")


def _check(labels: np.ndarray, clusters: np.ndarray, *probabilities: np.ndarray) -> None:
    for p in probabilities:
        if not len(labels) == len(clusters) == len(p) > 0:
            raise ValueError(f"{len(labels)} labels, {len(clusters)} clusters and {len(p)} probabilities do not match")
        if not np.isfinite(p).all():
            row = int(np.flatnonzero(~np.isfinite(p.reshape(len(p), -1)).all(axis=1))[0])
            raise ValueError(f"the probability of image {row} (counted from 0) is {p[row]}")
