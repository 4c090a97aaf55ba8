"""How far a score moves with the weight of each image, and the variance between clusters that follows.

A score's influence values are its derivatives with respect to the images' weights (the infinitesimal jackknife; Efron,
1982, The Jackknife, the Bootstrap and Other Resampling Plans, chapter 6). Those of a cluster are added up and enlarged
by 1 / (1 - its share of the images), as leaving the cluster out would: for a mean that is the jackknife, and the
cluster-robust variance CR3 (Bell and McCaffrey, 2002, Survey Methodology 28:169).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddtl.evaluation.intervals.clusters import Clusters
from ddtl.evaluation.intervals.delong import components
from ddtl.evaluation.metrics import weighted_scores
from ddtl.schema.scores import ALWAYS_RECORDED, SCORES

Influences = dict[str, np.ndarray]

_STEP = 1e-4  # of a weight
_CELLS = 1 << 19  # of a block of weights


@dataclass(frozen=True)
class Spread:
    """The variance of a score.

    Attributes:
        variance: between clusters.
        freedom: Satterthwaite's degrees of freedom, each class counting its effective clusters.
        of_images: the variance if every image were a cluster of its own.
    """

    variance: float
    freedom: float
    of_images: float


def influences(
    labels: np.ndarray, p: np.ndarray, threshold: float | np.ndarray, rank: np.ndarray | None = None
) -> Influences:
    """Return (N,) influence values of each score in ``schema.scores.SCORES``; without those that are not defined.

    Args:
        labels: (N,) 0 or 1.
        p: (N,) probability of the positive class.
        threshold: from which probability on an image is predicted positive; (N,) where images have their own.
        rank: (N,) what orders the images for ROC AUC and average precision, where that is not ``p``.
    """
    y, predicted = (labels == 1).astype(float), (p >= threshold).astype(float)
    n, positive = len(y), y.sum()
    tp, fp, fn, tn = y * predicted, (1 - y) * predicted, y * (1 - predicted), (1 - y) * (1 - predicted)
    right = tp + tn
    error = (p - y) ** 2
    found = {"accuracy": (right - right.mean()) / n, "brier": (error - error.mean()) / n}
    if positive:
        found["sensitivity"] = y * (predicted - tp.sum() / positive) / positive
    if positive < n:
        found["specificity"] = (1 - y) * (1 - predicted - tn.sum() / (n - positive)) / (n - positive)
    if predicted.any():
        found["precision"] = predicted * (y - tp.sum() / predicted.sum()) / predicted.sum()
    if positive or predicted.any():
        whole = 2 * tp + fp + fn
        found["f1"] = (2 * tp - 2 * tp.sum() / whole.sum() * whole) / whole.sum()
    if 0 < positive < n:
        found["balanced_accuracy"] = (found["sensitivity"] + found["specificity"]) / 2
        order = p if rank is None else rank
        parts = components(labels, order)
        found["roc_auc"] = np.empty(n)
        found["roc_auc"][y == 1] = (parts.of_positives - parts.auc) / positive
        found["roc_auc"][y == 0] = (parts.of_negatives - parts.auc) / (n - positive)
        found["average_precision"] = average_precision(y, order)[1]
        if 0 < predicted.sum() < n:
            found["mcc"] = _of_mcc(tp, fp, fn, tn)
    # The scores above, where they are defined, have closed forms.
    missing = [name for name in SCORES if name not in found and name not in ALWAYS_RECORDED]
    return {**found, **numeric_influences(missing, labels, p, threshold, rank)} if missing else found


def numeric_influences(
    names: Sequence[str],
    labels: np.ndarray,
    p: np.ndarray,
    threshold: float | np.ndarray,
    rank: np.ndarray | None = None,
) -> Influences:
    """Return the influence values of scores without a closed form here, by central differences of the weights.

    Args:
        names: of scores in ``schema.scores.SCORES``.
        labels, p, threshold, rank: as in :func:`influences`.

    Returns:
        (N,) values by name; without the scores that are not defined.
    """
    n, rows = len(labels), max(1, _CELLS // len(labels))
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for start in range(0, n, rows):
        moved = np.zeros((min(rows, n - start), n))
        moved[np.arange(len(moved)), start + np.arange(len(moved))] = _STEP
        above, below = (weighted_scores(labels, p, 1 + sign * moved, threshold, rank) for sign in (1, -1))
        for name in names:
            parts[name].append((above[name] - below[name]) / (2 * _STEP))
    found = {name: np.concatenate(values) for name, values in parts.items()}
    return {name: values for name, values in found.items() if np.isfinite(values).all()}


def spread(values: np.ndarray, clusters: Clusters) -> Spread:
    """Return the variance of a score from its (N,) influence values."""
    sums = np.bincount(clusters.codes, values / np.maximum(1 - clusters.leverage, 1e-9))
    variance = 0.0
    for stratum in clusters.strata:
        part = sums[stratum]
        centred = part - part.mean() if len(clusters.strata) > 1 else part
        variance += (len(part) - 1) / len(part) * float(centred @ centred)
    return Spread(variance, _freedom(values, clusters), float(values @ values))


def _freedom(values: np.ndarray, clusters: Clusters) -> float:
    """Return Satterthwaite's, over the classes; with clusters of both classes those of the class with fewer."""
    sizes = [each for each in clusters.of_class if each.clusters]
    if clusters.mixed or len(sizes) == 1:
        return min(each.freedom for each in sizes)
    parts = []
    for label in (0, 1):
        mine = (clusters.labels == 1) == label
        sums = np.bincount(clusters.codes[mine], values[mine])
        parts.append(float(sums @ sums))
    squares = sum(part**2 / each.freedom for part, each in zip(parts, clusters.of_class, strict=True))
    return sum(parts) ** 2 / squares if squares else min(each.freedom for each in sizes)


def average_precision(y: np.ndarray, order: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the average precision of (N,) images of class 0 or 1, ranked by (N,) ``order``, and its (N,) influence
    values.
    """
    ranked = np.argsort(-order, kind="stable")
    truth = y[ranked]
    last = np.append(np.flatnonzero(np.diff(order[ranked])), len(y) - 1)  # the last image of each group of ties
    above, everyone = np.cumsum(truth)[last], last + 1.0
    positives = np.diff(above, prepend=0.0)
    precision = above / everyone
    value = float(positives @ precision) / y.sum()
    group = np.searchsorted(last, np.arange(len(y)))
    # What an image adds to the precision at every positive that is ranked at or below it.
    gained = np.cumsum((positives / everyone)[::-1])[::-1][group]
    lost = np.cumsum((positives * above / everyone**2)[::-1])[::-1][group]
    found = np.empty(len(y))
    found[ranked] = (truth * (precision[group] - value + gained) - lost) / y.sum()
    return value, found


def _of_mcc(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
    a, b, c, d = (float(part.sum()) for part in (tp, fp, fn, tn))
    root = np.sqrt((a + b) * (a + c) * (d + b) * (d + c))
    half = (a * d - b * c) / root / 2
    predicted, positive, negative, passed = 1 / (a + b), 1 / (a + c), 1 / (d + b), 1 / (d + c)
    return np.asarray(
        tp * (d / root - half * (predicted + positive))
        + tn * (a / root - half * (negative + passed))
        + fp * (-c / root - half * (predicted + negative))
        + fn * (-b / root - half * (positive + passed))
    )
