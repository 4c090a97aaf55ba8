"""Which images are shown: right and wrong ones of each class, those first of which the network was most certain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ddtl.evaluation.predictions import Predictions


@dataclass(frozen=True)
class Group:
    """Images that were decided alike.

    Attributes:
        key: names its files.
        title: names it on pages.
        right: whether the decisions are.
        total: how many images it has.
        rows: of the predictions, the most certain first; no more than are shown.
    """

    key: str
    title: str
    right: bool
    total: int
    rows: np.ndarray


def predicted_classes(predictions: Predictions, threshold: float) -> np.ndarray:
    """Return (N,) the class predicted for each image: with two classes at the threshold, else the most probable one."""
    p = predictions.probabilities
    return (p[:, 1] >= threshold).astype(np.int64) if p.shape[1] == 2 else p.argmax(axis=1)


def groups(predictions: Predictions, threshold: float, most: int) -> list[Group]:
    """Return every kind of decision, those without an image too.

    With two classes these are true and false positives and negatives, else right and wrong ones of each class.

    Args:
        predictions: of one split.
        threshold: from which probability of the last of two classes on an image is predicted as that class.
        most: images of a group.
    """
    decided = predicted_classes(predictions, threshold)
    certainty = predictions.probabilities[np.arange(len(decided)), decided]
    right = decided == predictions.label
    found = []
    for key, title, label, is_right in _kinds(predictions.classes):
        rows = np.flatnonzero((decided == label) & (right == is_right))
        order = np.argsort(-certainty[rows], kind="stable")
        found.append(Group(key, title, is_right, len(rows), rows[order][:most]))
    return found


def _kinds(classes: tuple[str, ...]) -> list[tuple[str, str, int, bool]]:
    """Return key, title, the class called and whether that is right."""
    if len(classes) == 2:
        return [
            ("true_positives", "True positives", 1, True),
            ("false_positives", "False positives", 1, False),
            ("false_negatives", "False negatives", 0, False),
            ("true_negatives", "True negatives", 0, True),
        ]
    return [
        (f"class_{label}_{'right' if is_right else 'wrong'}", f"Called {name}, {'rightly' if is_right else 'wrongly'}",
         label, is_right)
        for label, name in enumerate(classes)
        for is_right in (True, False)
    ]  # fmt: skip
