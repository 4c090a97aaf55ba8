"""The predictions of a model: logits, labels, and whose images they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_FIXED = ("split", "sample_id", "group", "patient_id", "site", "label")


@dataclass(frozen=True)
class Predictions:
    """One row an image, in manifest order.

    Attributes:
        classes: class names by label; the last one is the positive class.
        split, sample_id, group, patient_id, site: (N,) strings; ``patient_id`` is empty where it is not known.
        label: (N,) int64.
        logits: (N, classes) float64.
    """

    classes: tuple[str, ...]
    split: np.ndarray
    sample_id: np.ndarray
    group: np.ndarray
    patient_id: np.ndarray
    site: np.ndarray
    label: np.ndarray
    logits: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    @property
    def probabilities(self) -> np.ndarray:
        """(N, classes) softmax of the logits."""
        shifted = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    @property
    def rank(self) -> np.ndarray | None:
        """(N,) positive logit less negative one, where a probability of two classes is rounded to 0 or 1.

        Logits still tell such images apart. None where probabilities do.
        """
        p = self.probabilities[:, 1]
        if len(self.classes) != 2 or not ((p == 0) | (p == 1)).any():
            return None
        return np.asarray(self.logits[:, 1] - self.logits[:, 0], dtype=float)

    def of(self, split: str) -> Predictions:
        """Return the rows of one split."""
        return self.where(self.split == split)

    def where(self, rows: np.ndarray) -> Predictions:
        """Return the (N,) rows that are true, or whose numbers are given, in that order."""
        columns = {name: getattr(self, name)[rows] for name in (*_FIXED, "logits")}
        return Predictions(self.classes, **columns)

    def and_then(self, other: Predictions) -> Predictions:
        """Return these rows, then others of the same dataset."""
        columns = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in (*_FIXED, "logits")}
        return Predictions(self.classes, **columns)
