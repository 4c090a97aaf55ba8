"""Confidence intervals of every score, with the images of one patient never split.

What each method covers is measured: docs/intervals.md and ``benchmarks/coverage.py``.
"""

from __future__ import annotations

import numpy as np

from ddtl.evaluation.intervals import delong
from ddtl.evaluation.intervals.clustered import Clustered, Limits
from ddtl.evaluation.intervals.clusters import MIN_CLUSTERS, Clusters, Design
from ddtl.evaluation.intervals.influence import influences, spread
from ddtl.evaluation.intervals.interval import Interval
from ddtl.evaluation.intervals.proportions import Proportion, proportion, wilson
from ddtl.evaluation.intervals.rates import FROM_RATES, rate, scores_of
from ddtl.evaluation.intervals.robust import least_precision, robust_intervals, student_limits
from ddtl.evaluation.intervals.unmoved import brier_interval, unmoved_intervals
from ddtl.evaluation.metrics import weighted_multiclass, weighted_scores
from ddtl.schema.scores import RANGES, SCORES
from ddtl.utils.errors import UserError

METHODS = ("percentile", "bca", "logit", "wilson")

_SHARES = ("accuracy", "sensitivity", "specificity", "precision")
_ROUNDING = 1e-12  # a standard error that is nothing but rounding


def intervals(
    labels: np.ndarray,
    p: np.ndarray,
    clusters: np.ndarray,
    threshold: float | np.ndarray,
    *,
    method: str = "default",
    design: Design = "case_control",
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
    rank: np.ndarray | None = None,
) -> dict[str, Interval | None]:
    """Return an interval for each score in ``schema.scores.SCORES``.

    Args:
        labels: (N,) 0 or 1.
        p: (N,) probability of the positive class.
        clusters: (N,) a code for each image; images of one patient share one.
        threshold: from which probability on an image is predicted positive; (N,) where images have their own.
        method: one of ``METHODS``, or ``default``: :func:`robust.robust_intervals`. With wilson, a score that is not a
            proportion gets logit.
        design: whether the numbers of patients of both classes were fixed (``case_control``) or came as they did
            (``cohort``).
        level: confidence.
        replicates, seed: of the bootstrap that percentile and bca draw; the others need none.
        rank: (N,) what orders the images for ROC AUC and average precision, where that is not ``p``: logits still tell
            images apart whose probability is rounded to 1.

    Returns:
        None where the score is not defined, or where there are fewer than three clusters of a class. Of the methods
        that are requested by name also where it is not defined without some cluster, or in more than 5 % of the
        bootstrap's replicates; where every cluster agrees they see no variation, and bounds of what so few patients
        leave possible take their place (:func:`_interval_of_agreement`).

    Raises:
        ValueError: a probability is not finite, or the lengths differ.
        UserError: there is no such method.
    """
    _check_method(method, METHODS)
    _check(labels, clusters, p, *(() if rank is None else (rank,)))
    if method == "default":
        given = Clusters(labels, clusters, design)
        some = robust_intervals(p, given, threshold, level, rank) if given.fewest >= MIN_CLUSTERS else {}
        return {name: some.get(name) for name in SCORES}
    order = p if rank is None else rank
    predicted = (p >= threshold).astype(int)
    shares = _shares(labels, predicted, clusters)
    clustered = Clustered(
        lambda weights: weighted_scores(labels, p, weights, threshold, rank),
        labels, clusters, level, replicates, seed, design,
    )  # fmt: skip
    found: dict[str, Interval | None] = {}
    for name in clustered.estimates:
        chosen = "logit" if method == "wilson" and name not in _SHARES else method
        if not clustered.is_defined_without_each(name):
            found[name] = None
        elif name in _SHARES and (chosen == "wilson" or not clustered.varies(name)):
            found[name] = _wilson(shares[name], level)
        elif not clustered.varies(name):
            found[name] = _interval_of_agreement(name, labels, clusters, clustered.estimates, shares, level)
        elif name == "roc_auc" and chosen == "logit":
            found[name] = Interval(*delong.logit_interval(labels, order, clusters, level), "logit-delong")
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
    """Return an interval for each score of ``metrics.multiclass_scores``, with the methods of :func:`intervals`.

    Args:
        labels: (N,) 0 to K - 1.
        probabilities: (N, K).
        clusters: (N,).
        method: as there; wilson is for the accuracy alone.

    Returns:
        None as in :func:`intervals`. A score that no cluster moves, as a perfect one, has the interval of
        :func:`unmoved.unmoved_intervals`.
    """
    _check_method(method, METHODS)
    _check(labels, clusters, probabilities)
    clustered = Clustered(
        lambda weights: weighted_multiclass(labels, probabilities, weights), labels, clusters, level, replicates, seed
    )
    bounds = {**RANGES, "brier": (0.0, 2.0)}
    chosen = dict.fromkeys(clustered.estimates, "logit" if method in ("default", "wilson") else method)
    found = {name: _by(clustered, name, chosen[name], bounds) for name in clustered.estimates}
    right = (probabilities.argmax(axis=1) == labels).astype(int)
    if clustered.is_defined_without_each("accuracy") and method == "default":
        found["accuracy"] = Interval(*rate(right, clusters, level).limits(level), "mid-p")
    elif clustered.is_defined_without_each("accuracy") and (method == "wilson" or not clustered.varies("accuracy")):
        found["accuracy"] = _wilson(proportion(right, np.ones_like(right), clusters), level)
    if clustered.is_defined_without_each("brier") and (method == "default" or not clustered.varies("brier")):
        found["brier"] = brier_interval(labels, probabilities, clusters, level)
    unmoved = [
        n
        for n, one in found.items()
        if one is None and clustered.is_defined_without_each(n) and not clustered.varies(n)
    ]
    return {**found, **unmoved_intervals(unmoved, labels, probabilities, clusters, level)} if unmoved else found


def paired_intervals(
    labels: np.ndarray,
    p_a: np.ndarray,
    p_b: np.ndarray,
    clusters: np.ndarray,
    threshold_a: float | np.ndarray,
    threshold_b: float | np.ndarray,
    *,
    method: str = "default",
    design: Design = "case_control",
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
    rank_a: np.ndarray | None = None,
    rank_b: np.ndarray | None = None,
) -> dict[str, Interval | None]:
    """Return an interval for the difference a - b of each score in ``schema.scores.SCORES``, two models on the same
    images.

    Args:
        method: ``default``, by the cluster-robust variance of the difference of the influence values, with Student's t;
            or percentile or bca, which draw the same clusters for both.
        design, rank_a, rank_b: as in :func:`intervals`.

    Returns:
        None as in :func:`intervals`. Where no cluster sees a difference, ROC AUC, accuracy, sensitivity and
        specificity get the binomial bound on independent patients, the others None.
    """
    _check_method(method, ("percentile", "bca"))
    ranks = [rank for rank in (rank_a, rank_b) if rank is not None]
    _check(labels, clusters, p_a, p_b, *ranks)
    given = Clusters(labels, clusters, design)
    ones = np.ones((1, len(labels)))
    a = weighted_scores(labels, p_a, ones, threshold_a, rank_a)
    b = weighted_scores(labels, p_b, ones, threshold_b, rank_b)
    apart = {name: float(a[name][0] - b[name][0]) for name in SCORES}
    moved_a = influences(labels, p_a, threshold_a, rank_a)
    moved_b = influences(labels, p_b, threshold_b, rank_b)
    if method != "default":
        clustered = Clustered(
            lambda weights: {
                name: values - other
                for (name, values), other in zip(
                    weighted_scores(labels, p_a, weights, threshold_a, rank_a).items(),
                    weighted_scores(labels, p_b, weights, threshold_b, rank_b).values(),
                    strict=True,
                )
            },
            labels, clusters, level, replicates, seed, design,
        )  # fmt: skip
    found: dict[str, Interval | None] = {}
    for name in SCORES:
        if given.fewest < MIN_CLUSTERS or not np.isfinite(apart[name]):
            found[name] = None
            continue
        of_difference = spread(moved_a[name] - moved_b[name], given)
        if of_difference.variance <= _ROUNDING**2:
            found[name] = _same(name, apart[name], given, level)
        elif method == "default":
            low, high = student_limits(apart[name], of_difference, level)
            found[name] = Interval(max(-1.0, low), min(1.0, high), "paired")
        else:
            found[name] = _by(clustered, name, method)
    return found


def _same(name: str, value: float, clusters: Clusters, level: float) -> Interval | None:
    """Where no cluster sees a difference: what so many independent clusters, or pairs of them, leave possible."""
    negatives, positives = (sizes.clusters for sizes in clusters.of_class)
    independent = {
        "roc_auc": delong.independent_pairs(clusters.labels, clusters.codes) if negatives and positives else 0,
        "accuracy": clusters.all.clusters,
        "sensitivity": positives,
        "specificity": negatives,
    }
    if not independent.get(name):
        return None
    return Interval(*delong.around(value, -1, 1, delong.unseen(independent[name], level)), "clopper-pearson")


def _by(clustered: Clustered, name: str, method: str, bounds: dict[str, Limits] = RANGES) -> Interval | None:
    methods = {
        "percentile": clustered.percentile,
        "bca": clustered.bca,
        "logit": lambda name: clustered.logit(name, bounds.get(name, (0.0, 1.0))),
    }
    limits = methods[method](name)
    return Interval(*limits, method) if limits else None


def _shares(labels: np.ndarray, predicted: np.ndarray, clusters: np.ndarray) -> dict[str, Proportion]:
    """Return the scores that are proportions; a score of no image is excluded."""
    of = {
        "accuracy": (predicted == labels, np.ones_like(predicted)),
        "sensitivity": (predicted, labels),
        "specificity": (1 - predicted, 1 - labels),
        "precision": (labels, predicted),
    }
    return {name: proportion(hits, members, clusters) for name, (hits, members) in of.items() if members.any()}


def _wilson(share: Proportion, level: float) -> Interval | None:
    if share.clusters < MIN_CLUSTERS:
        return None
    return Interval(*wilson(share, level), "wilson" if share.images == share.clusters else "wilson-clustered")


def _interval_of_agreement(
    name: str,
    labels: np.ndarray,
    clusters: np.ndarray,
    estimates: dict[str, float],
    shares: dict[str, Proportion],
    level: float,
) -> Interval | None:
    """Return what remains possible where all clusters agree.

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
        return Interval(least_precision(1 - q, float(labels.mean())), 1.0, "clopper-pearson")
    if name in FROM_RATES and name not in _SHARES:
        rates = np.array(
            [[s, t] for s in wilson(shares["sensitivity"], level) for t in wilson(shares["specificity"], level)]
        )
        values = scores_of(rates[:, 0], rates[:, 1], np.full(len(rates), labels.mean()))[name]
        return Interval(float(np.nanmin(values)), float(np.nanmax(values)), "wilson-range")
    return None


def _check_method(method: str, methods: tuple[str, ...]) -> None:
    if method not in ("default", *methods):
        raise UserError(f"evaluation.interval: there is no method {method!r}; take default, {', '.join(methods)}.")


def _check(labels: np.ndarray, clusters: np.ndarray, *probabilities: np.ndarray) -> None:
    for p in probabilities:
        if not len(labels) == len(clusters) == len(p) > 0:
            raise ValueError(f"{len(labels)} labels, {len(clusters)} clusters and {len(p)} probabilities do not match")
        if not np.isfinite(p).all():
            row = int(np.flatnonzero(~np.isfinite(p.reshape(len(p), -1)).all(axis=1))[0])
            raise ValueError(f"the probability of image {row} (counted from 0) is {p[row]}")
