"""Whole clusters drawn with replacement, and the scores of every such replicate at once.

A replicate is a row of weights: how often each image is in it. Scores are computed from the weights, so that no image
is ever copied and the images are sorted once for all replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

_CELLS = 1 << 19  # of a block of weights: a few MB, whatever the numbers of images and replicates

_MOST_LEFT_OUT = 500  # turns of a jackknife in a stratum
_NOTHING = 1e-300  # in place of a weight of 0 below a fraction whose numerator is 0

Replicates = dict[str, np.ndarray]


def cluster_codes(clusters: np.ndarray) -> np.ndarray:
    """Return (N,) 0 to C - 1 for (N,) names of any kind."""
    codes: np.ndarray = np.unique(np.asarray(clusters), return_inverse=True)[1].ravel()
    return codes


def cluster_weights(clusters: np.ndarray, n_replicates: int, seed: int, labels: np.ndarray | None = None) -> np.ndarray:
    """Return how often each image is drawn when whole clusters are drawn with replacement, as many as there are.

    Args:
        clusters: (N,) a code for each image; images of one patient share one.
        n_replicates: B.
        seed: of the draw; a prefix of the replicates is the same for every B.
        labels: (N,) classes. With them clusters are drawn class by class, so that every replicate has as many patients
            of each class as there are; not where a cluster has images of several classes.

    Returns:
        (B, N) integers.
    """
    return np.concatenate(list(_blocks(clusters, n_replicates, seed, labels)))


def strata(clusters: np.ndarray, labels: np.ndarray | None) -> list[np.ndarray]:
    """Cluster codes class by class; all in one where there are no labels, or a cluster with images of two classes."""
    codes = cluster_codes(clusters)
    everyone = [np.arange(codes.max() + 1)]
    if labels is None:
        return everyone
    by_class = [np.unique(codes[labels == label]) for label in np.unique(labels)]
    return by_class if sum(map(len, by_class)) == len(everyone[0]) else everyone


def resample(
    statistic: Callable[[np.ndarray], Replicates],
    clusters: np.ndarray,
    labels: np.ndarray | None,
    n_replicates: int,
    seed: int,
) -> Replicates:
    """``statistic`` of the weights of :func:`cluster_weights`, block by block: memory does not grow with B x N."""
    parts = [statistic(block) for block in _blocks(clusters, n_replicates, seed, labels)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def jackknife(
    statistic: Callable[[np.ndarray], Replicates], clusters: np.ndarray, labels: np.ndarray | None
) -> list[Replicates]:
    """``statistic`` with each cluster excluded in turn, a table for each of the :func:`strata`.

    More than 500 clusters are excluded by groups of them (the delete-a-group jackknife; Kott, 2001, Journal of
    Official Statistics 17:521), assigned at random.
    """
    codes = cluster_codes(clusters)
    rows = max(1, _CELLS // len(codes))
    tables = []
    for stratum in strata(clusters, labels):
        groups = min(len(stratum), _MOST_LEFT_OUT)
        group_of = np.full(codes.max() + 1, -1)
        group_of[np.random.default_rng(0).permutation(stratum)] = np.arange(len(stratum)) % groups
        group = group_of[codes]
        parts = [
            statistic((group != np.arange(start, min(start + rows, groups))[:, None]).astype(np.float64))
            for start in range(0, groups, rows)
        ]
        tables.append({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    return tables


def weighted_scores(
    labels: np.ndarray,
    p: np.ndarray,
    weights: np.ndarray,
    threshold: float | np.ndarray,
    rank: np.ndarray | None = None,
) -> Replicates:
    """Return the scores of ``metrics.binary_scores`` for every row of weights.

    Args:
        labels: (N,) 0 or 1.
        p: (N,) probability of the positive class; ties are handled as scikit-learn does.
        weights: (B, N) not negative.
        threshold: from which probability on a sample is predicted positive; (N,) where samples have their own.
        rank: (N,) what orders the samples for ROC AUC and average precision, where that is not ``p``.

    Returns:
        (B,) values by name of score, NaN where a score is not defined.
    """
    return _of_one_class(labels, p, (p >= threshold).astype(int), weights, p if rank is None else rank)


def weighted_multiclass(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> Replicates:
    """Return the scores of ``metrics.multiclass_scores`` for every row of weights.

    Args:
        labels: (N,) 0 to K - 1.
        probabilities: (N, K).
        weights: (B, N) not negative.
    """
    n_classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    each = [
        _of_one_class(
            (labels == k).astype(int), probabilities[:, k], (predicted == k).astype(int), weights, probabilities[:, k]
        )
        for k in range(n_classes)
    ]
    table = (weights @ np.eye(n_classes**2)[labels * n_classes + predicted]).reshape(-1, n_classes, n_classes)
    everyone = (table.sum(axis=2) > 0).all(axis=1)
    means = {name: np.where(everyone, np.mean([one[name] for one in each], axis=0), np.nan) for name in each[0]}
    error = ((probabilities - np.eye(n_classes)[labels]) ** 2).sum(axis=1)
    return {
        **means,
        "accuracy": _ratio(np.trace(table, axis1=1, axis2=2), table.sum(axis=(1, 2))),
        "balanced_accuracy": means["sensitivity"],
        "mcc": table_mcc(table),
        "brier": _ratio(weights @ error, table.sum(axis=(1, 2))),
    }


def _blocks(clusters: np.ndarray, n_replicates: int, seed: int, labels: np.ndarray | None) -> Iterator[np.ndarray]:
    codes = cluster_codes(clusters)
    count = codes.max() + 1
    groups = strata(clusters, labels)
    # A stream of its own for each class: a block's size does not change what is drawn.
    generators = [np.random.default_rng([seed, k]) for k in range(len(groups))]
    rows = max(1, _CELLS // len(codes))
    for start in range(0, n_replicates, rows):
        block = min(rows, n_replicates - start)
        drawn = np.concatenate(
            [
                group[generator.integers(len(group), size=(block, len(group)))]
                for group, generator in zip(groups, generators, strict=True)
            ],
            axis=1,
        )
        cells = (drawn + count * np.arange(block)[:, None]).ravel()
        yield np.bincount(cells, minlength=block * count).reshape(block, count)[:, codes]


def _of_one_class(
    labels: np.ndarray, p: np.ndarray, predicted: np.ndarray, weights: np.ndarray, rank: np.ndarray
) -> Replicates:
    """``labels`` and ``predicted`` (N,) are 1 for the positive class and 0 for the rest."""
    weights = weights.astype(np.float64)
    sums = weights @ np.stack([np.ones(len(p)), labels, predicted, labels * predicted, (p - labels) ** 2], axis=1)
    total, positive, yes, tp, error = sums.T
    negative = total - positive
    fp, fn = yes - tp, positive - tp
    tn = negative - fp
    sensitivity, specificity = _ratio(tp, positive), _ratio(tn, negative)
    auc, precision_at_recall = _ranking(labels, rank, weights)
    return {
        "roc_auc": _ratio(auc, positive * negative),
        "average_precision": np.where(negative > 0, _ratio(precision_at_recall, positive), np.nan),
        "accuracy": _ratio(tp + tn, total),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": _ratio(tp, yes),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": _ratio(tp * tn - fp * fn, np.sqrt(positive * negative * yes * (total - yes))),
        "brier": _ratio(error, total),
    }


def _ranking(labels: np.ndarray, p: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (B,) weight of pairs in the right order, ties by half, and (B,) weight of positives times precision at
    theirs.
    """
    order = np.argsort(-p, kind="stable")
    positives = weights[:, order]
    negatives = positives * (1 - labels[order])
    positives *= labels[order]
    starts = np.flatnonzero(np.diff(p[order], prepend=np.inf))  # the first image of each group of ties
    if len(starts) < len(p):
        positives = np.add.reduceat(positives, starts, axis=1)
        negatives = np.add.reduceat(negatives, starts, axis=1)
    above = np.cumsum(positives, axis=1)
    everyone = np.cumsum(negatives, axis=1)
    everyone += above
    precision = above / np.maximum(everyone, _NOTHING)
    pairs = np.einsum("bg,bg->b", negatives, above) - np.einsum("bg,bg->b", negatives, positives) / 2
    return pairs, np.einsum("bg,bg->b", positives, precision)


def table_mcc(table: np.ndarray) -> np.ndarray:
    """Return Matthews' coefficient of (B, K, K) tables (Gorodkin, 2004, Computational Biology and Chemistry 28:367)."""
    truth, predicted = table.sum(axis=2), table.sum(axis=1)
    total = table.sum(axis=(1, 2))
    covariance = np.trace(table, axis1=1, axis2=2) * total - (truth * predicted).sum(axis=1)
    spread = (total**2 - (truth**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
    return _ratio(covariance, np.sqrt(spread))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
