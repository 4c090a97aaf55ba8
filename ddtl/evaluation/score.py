"""Predictions to the part of ``results.json`` that contains the scores of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddtl.evaluation.metrics import Scores, binary_scores, confusion, multiclass_confusion, multiclass_scores
from ddtl.evaluation.predictions import Predictions
from ddtl.schema.scores import PER_CLASS


def score(predictions: Predictions, threshold: float) -> dict[str, Any]:
    """Return scores by image, with the counts that they rest on.

    Args:
        predictions: of one split.
        threshold: from which probability on an image is predicted positive. With more than two classes it plays no
            part: an image is predicted as the likeliest class.
    """
    counts = {name: int((predictions.label == label).sum()) for label, name in enumerate(predictions.classes)}
    return {
        **(_two(predictions, threshold) if len(predictions.classes) == 2 else _more(predictions, counts)),
        "images": len(predictions),
        "groups": len(set(predictions.group.tolist())),
        "classes": counts,
    }


def _two(predictions: Predictions, threshold: float) -> dict[str, Any]:
    labels = (predictions.label == 1).astype(int)
    probabilities = predictions.probabilities[:, 1]
    return {
        **binary_scores(labels, probabilities, threshold, predictions.rank),
        "confusion": confusion(labels, probabilities, threshold),
    }


def _more(predictions: Predictions, counts: dict[str, int]) -> dict[str, Any]:
    labels, probabilities = predictions.label, predictions.probabilities
    means, each = multiclass_scores(labels, probabilities)
    return {
        **means,
        "undefined": _reasons_undefined(means, each, counts),
        "averaging": "macro one-vs-rest",
        "decision": "argmax",
        "confusion": {
            "classes": list(predictions.classes),
            "rows": "true class",
            "columns": "called class",
            "counts": multiclass_confusion(labels, probabilities),
        },
        "per_class": {
            name: {**{key: scores[key] for key in PER_CLASS}, "images": counts[name]}
            for name, scores in zip(predictions.classes, each, strict=True)
        },
    }


def _reasons_undefined(means: Scores, each: Sequence[Scores], counts: Mapping[str, int]) -> dict[str, str]:
    """Return why each score that is None is not defined, in a few words."""
    absent = [name for name, images in counts.items() if not images]
    reasons = {}
    for name in (name for name, value in means.items() if value is None):
        without = [of for of, scores in zip(counts, each, strict=True) if scores.get(name) is None]
        if name == "mcc":
            reasons[name] = "one class, or all predicted alike"
        elif absent:
            reasons[name] = f"no image of {_some(absent)}"
        else:
            one = f"no image is predicted {without[0]}"
            reasons[name] = one if len(without) == 1 else f"{len(without)} classes are predicted for no image"
    return reasons


def _some(classes: Sequence[str]) -> str:
    return classes[0] if len(classes) == 1 else f"{len(classes)} classes"
