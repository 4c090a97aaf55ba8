"""Scores of a two-class prediction, each by the library that the field trusts for it."""

from __future__ import annotations

import numpy as np


def binary_scores(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> dict[str, float | None]:
    """The scores named in ``names.SCORES``.

    Args:
        labels: (N,) 0 or 1, 1 being the positive class.
        probabilities: (N,) probability of the positive class.
        threshold: from which probability on a sample is called positive.

    Returns:
        Each score by name; None where it is not defined, as a ROC AUC is not with one class.
    """
    from sklearn import metrics

    assert len(labels) == len(probabilities) > 0
    called = (probabilities >= threshold).astype(int)
    tn, fp, fn, tp = metrics.confusion_matrix(labels, called, labels=[0, 1]).ravel().tolist()
    both = 0 < labels.sum() < len(labels)
    sensitivity, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    return {
        "roc_auc": float(metrics.roc_auc_score(labels, probabilities)) if both else None,
        "average_precision": float(metrics.average_precision_score(labels, probabilities)) if both else None,
        "accuracy": (tp + tn) / len(labels),
        "balanced_accuracy": (sensitivity + specificity) / 2
        if sensitivity is not None and specificity is not None
        else None,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": _ratio(tp, tp + fp),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": float(metrics.matthews_corrcoef(labels, called)) if both and 0 < called.sum() < len(called) else None,
        "brier": float(np.mean((probabilities - labels) ** 2)),
    }


def confusion(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> dict[str, int]:
    """Counts of true and false positives and negatives at the threshold."""
    called = probabilities >= threshold
    positive = labels == 1
    return {
        "tp": int((called & positive).sum()),
        "fp": int((called & ~positive).sum()),
        "fn": int((~called & positive).sum()),
        "tn": int((~called & ~positive).sum()),
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
