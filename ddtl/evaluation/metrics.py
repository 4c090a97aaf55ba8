"""Scores of a prediction, each by the library that the field trusts for it; and of weighted images, many at once.

A new score gets its title in ``ddtl/schema/scores.py`` and its line in ``_of_one_class`` and in
``_weighted_of_one_class``. Tables, pages, intervals and comparisons then have it.
"""

from __future__ import annotations

import numpy as np

Scores = dict[str, float | None]
Replicates = dict[str, np.ndarray]

_NOTHING = 1e-300  # in place of a weight of 0 below a fraction whose numerator is 0


def binary_scores(
    labels: np.ndarray,
    probabilities: np.ndarray,
    threshold: float | np.ndarray,
    rank: np.ndarray | None = None,
) -> Scores:
    """Return the scores named in ``schema.scores.SCORES``.

    Args:
        labels: (N,) 0 or 1, 1 being the positive class.
        probabilities: (N,) probability of the positive class.
        threshold: from which probability on a sample is predicted positive; (N,) where samples have their own.
        rank: (N,) what orders the samples for ROC AUC and average precision, where that is not ``probabilities``.

    Returns:
        Each score by name; None where it is not defined, as a ROC AUC is not with one class.
    """
    return _of_one_class(labels, probabilities, (probabilities >= threshold).astype(int), rank)


def multiclass_scores(labels: np.ndarray, probabilities: np.ndarray) -> tuple[Scores, list[Scores]]:
    """Return the scores named in ``schema.scores.SCORES`` for more than two classes; a sample is predicted as the
    likeliest of them.

    A score that knows positives and negatives is the plain mean over the classes, each against all others (macro);
    balanced accuracy is the mean sensitivity. Accuracy and Matthews' coefficient are those of the whole table. The
    Brier score is Brier's own, the squared error summed over the classes, from 0 to 2; for two classes that would be
    twice what ``binary_scores`` gives.

    Args:
        labels: (N,) class of each sample, 0 to K - 1.
        probabilities: (N, K).

    Returns:
        The scores, and those of each class against all others. None where a score is not defined. A mean over the
        classes is not defined where a class has no sample, nor where the score of one class is not: a class that is
        never predicted leaves the precision undefined.
    """
    from sklearn import metrics

    predicted = probabilities.argmax(axis=1)
    truth = np.eye(probabilities.shape[1])[labels]
    each = [
        _of_one_class((labels == k).astype(int), probabilities[:, k], (predicted == k).astype(int))
        for k in range(probabilities.shape[1])
    ]
    several = len(np.unique(labels)) > 1 and len(np.unique(predicted)) > 1
    everyone = len(np.unique(labels)) == probabilities.shape[1]
    means = {name: _mean([scores[name] for scores in each]) if everyone else None for name in each[0]}
    whole = {
        "accuracy": float(np.mean(predicted == labels)),
        "balanced_accuracy": means["sensitivity"],
        "mcc": float(metrics.matthews_corrcoef(labels, predicted)) if several else None,
        "brier": float(np.mean(((probabilities - truth) ** 2).sum(axis=1))),
    }
    return {**means, **whole}, each


def confusion(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> dict[str, int]:
    """Count of true and false positives and negatives at the threshold."""
    predicted = probabilities >= threshold
    positive = labels == 1
    return {
        "tp": int((predicted & positive).sum()),
        "fp": int((predicted & ~positive).sum()),
        "fn": int((~predicted & positive).sum()),
        "tn": int((~predicted & ~positive).sum()),
    }


def multiclass_confusion(labels: np.ndarray, probabilities: np.ndarray) -> list[list[int]]:
    """Return (K, K) counts: a row for each true class, a column for each predicted class."""
    n = probabilities.shape[1]
    counts = np.zeros((n, n), dtype=int)
    np.add.at(counts, (labels, probabilities.argmax(axis=1)), 1)
    table: list[list[int]] = counts.tolist()
    return table


def weighted_scores(
    labels: np.ndarray,
    p: np.ndarray,
    weights: np.ndarray,
    threshold: float | np.ndarray,
    rank: np.ndarray | None = None,
) -> Replicates:
    """Return the scores of :func:`binary_scores` for every row of weights.

    Args:
        labels: (N,) 0 or 1.
        p: (N,) probability of the positive class; ties are handled as scikit-learn does.
        weights: (B, N) not negative.
        threshold: from which probability on a sample is predicted positive; (N,) where samples have their own.
        rank: (N,) what orders the samples for ROC AUC and average precision, where that is not ``p``.

    Returns:
        (B,) values by name of score, NaN where a score is not defined.
    """
    return _weighted_of_one_class(labels, p, (p >= threshold).astype(int), weights, p if rank is None else rank)


def weighted_multiclass(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> Replicates:
    """Return the scores of :func:`multiclass_scores` for every row of weights.

    Args:
        labels: (N,) 0 to K - 1.
        probabilities: (N, K).
        weights: (B, N) not negative.
    """
    n_classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    each = [
        _weighted_of_one_class(
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
        "accuracy": _ratios(np.trace(table, axis1=1, axis2=2), table.sum(axis=(1, 2))),
        "balanced_accuracy": means["sensitivity"],
        "mcc": table_mcc(table),
        "brier": _ratios(weights @ error, table.sum(axis=(1, 2))),
    }


def _of_one_class(
    labels: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray, rank: np.ndarray | None = None
) -> Scores:
    """``labels`` and ``predicted`` (N,) are 1 for the positive class and 0 for the rest."""
    from sklearn import metrics

    order = probabilities if rank is None else rank

    assert len(labels) == len(probabilities) > 0
    tn, fp, fn, tp = metrics.confusion_matrix(labels, predicted, labels=[0, 1]).ravel().tolist()
    both = 0 < labels.sum() < len(labels)
    sensitivity, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    return {
        "roc_auc": float(metrics.roc_auc_score(labels, order)) if both else None,
        "average_precision": float(metrics.average_precision_score(labels, order)) if both else None,
        "accuracy": (tp + tn) / len(labels),
        "balanced_accuracy": _mean([sensitivity, specificity]),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": _ratio(tp, tp + fp),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": float(metrics.matthews_corrcoef(labels, predicted))
        if both and 0 < predicted.sum() < len(predicted)
        else None,
        "brier": float(np.mean((probabilities - labels) ** 2)),
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _weighted_of_one_class(
    labels: np.ndarray, p: np.ndarray, predicted: np.ndarray, weights: np.ndarray, rank: np.ndarray
) -> Replicates:
    """``labels`` and ``predicted`` (N,) are 1 for the positive class and 0 for the rest."""
    weights = weights.astype(np.float64)
    sums = weights @ np.stack([np.ones(len(p)), labels, predicted, labels * predicted, (p - labels) ** 2], axis=1)
    total, positive, yes, tp, error = sums.T
    negative = total - positive
    fp, fn = yes - tp, positive - tp
    tn = negative - fp
    sensitivity, specificity = _ratios(tp, positive), _ratios(tn, negative)
    auc, precision_at_recall = _ranking(labels, rank, weights)
    return {
        "roc_auc": _ratios(auc, positive * negative),
        "average_precision": np.where(negative > 0, _ratios(precision_at_recall, positive), np.nan),
        "accuracy": _ratios(tp + tn, total),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": _ratios(tp, yes),
        "f1": _ratios(2 * tp, 2 * tp + fp + fn),
        "mcc": _ratios(tp * tn - fp * fn, np.sqrt(positive * negative * yes * (total - yes))),
        "brier": _ratios(error, total),
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
    return _ratios(covariance, np.sqrt(spread))


def _ratios(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
