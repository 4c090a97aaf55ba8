"""The nearest training images of each test image, by the features of a frozen backbone: a baseline next to a probe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from ddtl.evaluation import record
from ddtl.evaluation.patients import WhyNot, patient_roc_auc
from ddtl.evaluation.predictions import Predictions
from ddtl.models.metrics import of_predictions
from ddtl.schema.run import EvaluationConfig

NUMBERS = (1, 3, 5, 9, 15, 25, 51, 101)  # of neighbours; validation chooses


def baseline(
    train: tuple[np.ndarray, np.ndarray],
    val: tuple[np.ndarray, Predictions],
    test: tuple[np.ndarray, Predictions],
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Return the scores on the test set, and ``neighbours``: of those numbers of neighbours the one with the best ROC
    AUC on validation, by patient where patients are known, of equal ones the largest.

    Args:
        train: embeddings (N, F) and labels (N,).
        val, test: embeddings and the predictions of the same images, whose labels and patients count.
        config: how scores are computed.
    """
    (embeddings, labels), of_val = (_unit(train[0]), train[1]), _unit(val[0])
    chosen, best = None, -1.0
    for number in NUMBERS:
        if number > len(labels):
            break
        model = KNeighborsClassifier(number, metric="cosine").fit(embeddings, labels)
        score = _score(model.predict_proba(of_val), val[1], config)
        if score >= best:
            chosen, best = model, score
    assert chosen is not None, "there is a training image of each class"
    shares = chosen.predict_proba(_unit(test[0]))
    probabilities = shares[:, 1] if len(test[1].classes) == 2 else shares
    return {**record.baseline(probabilities, test[1], config), "neighbours": int(chosen.n_neighbors)}


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """Return them at length 1; none is so long that its square is too large for a number."""
    found = embeddings.astype(np.float64)
    found /= np.maximum(np.abs(found).max(axis=1, keepdims=True), 1e-300)
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-300))


def _score(shares: np.ndarray, val: Predictions, config: EvaluationConfig) -> float:
    logits = np.log(np.maximum(shares, 1e-30))
    found = patient_roc_auc(replace(val, logits=logits), config.patient)
    if not isinstance(found, WhyNot):
        return found
    return of_predictions(torch.from_numpy(logits), torch.from_numpy(val.label))["val/roc_auc"]
