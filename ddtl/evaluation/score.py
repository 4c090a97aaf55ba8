"""Predictions to the part of ``results.json`` that holds the scores of a split."""

from __future__ import annotations

from typing import Any

from ddtl.evaluation.metrics import binary_scores, confusion
from ddtl.evaluation.predictions import Predictions


def score(predictions: Predictions, threshold: float) -> dict[str, Any]:
    """Scores by image, with the counts that they rest on.

    Args:
        predictions: of one split.
        threshold: from which probability on an image is called positive.
    """
    positive = len(predictions.classes) - 1
    labels = (predictions.label == positive).astype(int)
    probabilities = predictions.probabilities[:, positive]
    counts = {name: int((predictions.label == label).sum()) for label, name in enumerate(predictions.classes)}
    return {
        **binary_scores(labels, probabilities, threshold),
        "confusion": confusion(labels, probabilities, threshold),
        "images": len(predictions),
        "groups": len(set(predictions.group.tolist())),
        "classes": counts,
    }
