"""ROC and precision-recall curves, with the bands in which those of other patients would be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ddtl.evaluation.comparison.repeated import draw_seeds
from ddtl.evaluation.intervals.resampling import cluster_weights

GRID = np.linspace(0, 1, 101)
_MOST_POINTS = 1000  # of a curve: more cannot be seen


@dataclass(frozen=True)
class Band:
    """Where the curve is in the middle ``level`` of the bootstrap replicates, at each point of ``GRID`` by itself.

    Attributes:
        low, high: (G,)
    """

    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Curves:
    """Both curves of one score.

    Attributes:
        roc: (x, y): false-positive and true-positive rate, from (0, 0) to (1, 1).
        precision_recall: (x, y): recall, rising, and the precision from the point before on; the area under
            these steps is the average precision.
        roc_band, precision_recall_band: None where no replicate has both classes, or no clusters are given.
    """

    roc: tuple[np.ndarray, np.ndarray]
    precision_recall: tuple[np.ndarray, np.ndarray]
    roc_band: Band | None = None
    precision_recall_band: Band | None = None


def curves(
    labels: np.ndarray,
    p: np.ndarray,
    clusters: np.ndarray | None = None,
    *,
    level: float = 0.95,
    replicates: int = 500,
    seed: int = 0,
) -> Curves | None:
    """Return ROC and precision-recall curve; None where a class is missing.

    Args:
        labels: (N,) 0 or 1, 1 being the positive class.
        p: (N,) its probability.
        clusters: (N,) codes; those who share one are drawn together. None: no bands.
        level: share of the replicates within a band.
        replicates: how many are drawn.
        seed: of the drawing.
    """
    if len(np.unique(labels)) < 2:
        return None
    order = np.argsort(-p, kind="stable")
    positive = labels[order] == 1
    ends = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)  # equal probabilities count at once
    points = _Points(positive, ends)
    ones = np.ones(len(p), dtype=int)
    roc, pr = points.roc(ones), points.precision_recall(ones)
    pr = np.append(0, pr[0]), np.append(pr[1][0], pr[1])
    if clusters is None:
        return Curves(_thinned(*roc), _thinned(*pr))
    drawn = cluster_weights(clusters, replicates, seed)[:, order]
    both = drawn[:, positive].any(axis=1) & drawn[:, ~positive].any(axis=1)
    lines = [(_roc_at(points.roc(w)), _precision_at(points.precision_recall(w))) for w in drawn[both]]
    bands = [_band([line[i] for line in lines], level) for i in (0, 1)]
    return Curves(_thinned(*roc), _thinned(*pr), *bands)


def roc_over_seeds(
    labels: np.ndarray,
    ps: Sequence[np.ndarray],
    clusters: np.ndarray,
    *,
    level: float = 0.95,
    replicates: int = 200,
    seed: int = 0,
) -> tuple[np.ndarray, Band | None] | None:
    """Return (G,) the mean of networks' sensitivities at each specificity of ``GRID``; None where a class is missing.

    Vertical averaging (Fawcett 2006, Pattern Recognit Lett 27:861). The band resamples clusters, the same for all, and
    the networks, of R networks R - 1.

    Args:
        labels: (N,) 0 or 1.
        ps: of each network, (N,) probabilities of the positive class.
        clusters: (N,) codes; those who share one are drawn together.
        level, replicates, seed: of the band.
    """
    if len(np.unique(labels)) < 2:
        return None
    networks = []
    for p in ps:
        order = np.argsort(-p, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)
        networks.append((order, _Points(labels[order] == 1, ends)))

    def lines(weights: np.ndarray, which: Iterable[int]) -> np.ndarray:
        each = [_roc_at(networks[i][1].roc(weights[networks[i][0]])) for i in which]
        mean: np.ndarray = np.mean(each, axis=0)
        return mean

    drawn = cluster_weights(clusters, replicates, seed)
    both = [w for w in drawn if w[labels == 1].any() and w[labels != 1].any()]
    seeds = draw_seeds(len(ps), len(both), (seed, 0))
    band = _band([lines(w, which) for w, which in zip(both, seeds.tolist(), strict=True)], level)
    return lines(np.ones(len(labels), dtype=int), range(len(ps))), band


@dataclass(frozen=True)
class _Points:
    """Samples by falling probability: (N,) whether positive, and (M,) where each run of equal probabilities ends."""

    positive: np.ndarray
    ends: np.ndarray

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (M,) true and (M,) false positives at every threshold."""
        return np.cumsum(weights * self.positive)[self.ends], np.cumsum(weights * ~self.positive)[self.ends]

    def roc(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tp, fp = self.counts(weights)
        return np.append(0, fp / fp[-1]), np.append(0, tp / tp[-1])

    def precision_recall(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tp, fp = self.counts(weights)
        predicted = tp + fp > 0  # at a threshold above all that were drawn nobody is positive: there is no precision
        return tp[predicted] / tp[-1], tp[predicted] / (tp + fp)[predicted]


def _roc_at(roc: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return np.interp(GRID, *roc)


def _precision_at(curve: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    recall, precision = curve
    at: np.ndarray = precision[np.searchsorted(recall, GRID).clip(max=len(recall) - 1)]
    return at


def _band(lines: list[np.ndarray], level: float) -> Band | None:
    if not lines:
        return None
    low, high = np.quantile(lines, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Band(low, high)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points without those inside a horizontal or a vertical part; of very many, evenly chosen ones."""
    level, vertical = np.diff(y) == 0, np.diff(x) == 0
    needed = np.ones(len(x), dtype=bool)
    needed[1:-1] = ~((level[:-1] & level[1:]) | (vertical[:-1] & vertical[1:]))
    remaining = np.flatnonzero(needed)
    if len(remaining) > _MOST_POINTS:
        remaining = remaining[np.linspace(0, len(remaining) - 1, _MOST_POINTS).round().astype(int)]
    return x[remaining], y[remaining]
