"""From images to patients: one probability for each patient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ddtl.evaluation.metrics import binary_scores
from ddtl.evaluation.predictions import Predictions

Aggregation = Literal["mean", "max", "vote"]


@dataclass(frozen=True)
class PatientTable:
    """One row a patient, by patient id.

    Attributes:
        patient_id: (P,) strings.
        label: (P,) 0 or 1, 1 being the positive class.
        p: (P,) the patient's score, 0 to 1.
        images: (P,) how many images it comes from.
        threshold: from which score on a patient is predicted positive.
        mixed: how many patients are excluded because they have images of both classes.
        rank: (P,) what orders the patients where a score is rounded to 0 or 1; None where the scores do.
    """

    patient_id: np.ndarray
    label: np.ndarray
    p: np.ndarray
    images: np.ndarray
    threshold: float
    mixed: int
    rank: np.ndarray | None = None


@dataclass(frozen=True)
class WhyNot:
    """Why there is no table: the end of a sentence that begins with "no scores by patient:"."""

    reason: str


def by_patient(predictions: Predictions, aggregation: Aggregation, threshold: float) -> PatientTable | WhyNot:
    """Return a score for each patient.

    Args:
        predictions: of one split, of two classes.
        aggregation: ``mean`` or ``max``: of the probabilities of the patient's images; the patient is predicted
            positive at the same threshold as an image. ``vote``: the share of the images that are predicted positive;
            the patient is predicted positive where that is half of them or more.
        threshold: from which probability on an image is predicted positive.
    """
    reason = _why_not(predictions)
    if reason is not None:
        return WhyNot(reason)
    names, of_image = np.unique(predictions.patient_id, return_inverse=True)
    images = np.bincount(of_image)
    positive = np.bincount(of_image, predictions.label == 1)
    pure = (positive == 0) | (positive == images)
    if not pure.any():
        return WhyNot("every patient has images of both classes")
    score = aggregate(predictions.probabilities[:, 1], of_image, images, aggregation, threshold)
    return PatientTable(
        patient_id=names[pure],
        label=(positive[pure] > 0).astype(int),
        p=score[pure],
        images=images[pure],
        threshold=patient_threshold(aggregation, threshold),
        mixed=int((~pure).sum()),
        rank=_rank(predictions, of_image, aggregation, pure),
    )


def patient_roc_auc(predictions: Predictions, aggregation: Aggregation) -> float | WhyNot:
    """Return the ROC AUC over the patients of :func:`by_patient`; votes are counted at a threshold of 0.5."""
    table = by_patient(predictions, aggregation, 0.5)
    if isinstance(table, WhyNot):
        return table
    found = binary_scores(table.label, table.p, table.threshold, table.rank)["roc_auc"]
    return WhyNot("every patient is of one class") if found is None else found


def threshold_table(predictions: Predictions, aggregation: Aggregation) -> PatientTable | WhyNot:
    """Return :func:`by_patient` with the scores that a threshold on an image is compared with.

    With ``mean`` and ``max`` these are the patients' own. With ``vote`` a patient's is the highest threshold at which
    half of the images or more are predicted positive.
    """
    table = by_patient(predictions, aggregation, 0.5)
    if isinstance(table, WhyNot) or aggregation != "vote":
        return table
    rows = np.isin(predictions.patient_id, table.patient_id)
    of_image = np.unique(predictions.patient_id[rows], return_inverse=True)[1]
    p = predictions.probabilities[rows, 1]
    order = np.lexsort((-p, of_image))
    first = np.cumsum(table.images) - table.images
    return replace(table, p=p[order][first + (table.images + 1) // 2 - 1])


def patient_threshold(aggregation: Aggregation, threshold: float) -> float:
    """Return from which score on a patient is predicted positive, where an image is from ``threshold`` on."""
    return 0.5 if aggregation == "vote" else threshold


def _why_not(predictions: Predictions) -> str | None:
    if len(predictions) == 0:
        return "there are no images"
    if len(predictions.classes) != 2:
        return f"they are for two classes, and there are {len(predictions.classes)}"
    unnamed = int((predictions.patient_id == "").sum())
    return f"{unnamed} of {len(predictions)} images have no patient id" if unnamed else None


def aggregate(
    p: np.ndarray, of_image: np.ndarray, images: np.ndarray, aggregation: Aggregation, threshold: float
) -> np.ndarray:
    """Return (P,) scores from (N,) probabilities, (N,) the patient's number of each image and (P,) counts, none of
    them 0.
    """
    if aggregation == "max":
        highest = np.zeros(len(images))
        np.maximum.at(highest, of_image, p)
        return highest
    votes = p if aggregation == "mean" else p >= threshold
    mean = np.bincount(of_image, votes) / images
    # Between the patient's lowest and highest, so that the mean of equal probabilities is that probability.
    low, high = np.full(len(images), np.inf), np.full(len(images), -np.inf)
    np.minimum.at(low, of_image, votes)
    np.maximum.at(high, of_image, votes)
    return np.clip(mean, low, high)


def _rank(
    predictions: Predictions, of_image: np.ndarray, aggregation: Aggregation, chosen: np.ndarray
) -> np.ndarray | None:
    """Return the logit of the patients' scores, from the images' logits, where probabilities are rounded to 0 or 1."""
    rank = predictions.rank
    if rank is None or aggregation == "vote":
        return None
    if aggregation == "max":
        highest = np.full(len(chosen), -np.inf)
        np.maximum.at(highest, of_image, rank)
        return highest[chosen]
    positive, negative = np.full(len(chosen), -np.inf), np.full(len(chosen), -np.inf)
    np.logaddexp.at(positive, of_image, -np.logaddexp(0, -rank))
    np.logaddexp.at(negative, of_image, -np.logaddexp(0, rank))
    return np.asarray((positive - negative)[chosen])
