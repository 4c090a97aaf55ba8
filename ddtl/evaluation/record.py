"""Predictions to what ``results.json`` says about them: scores by image and by patient, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ddtl.errors import UserError
from ddtl.evaluation import calibration, thresholds
from ddtl.evaluation.calibration import Calibration
from ddtl.evaluation.clusters import MIN_CLUSTERS, Clusters, Design
from ddtl.evaluation.decision import predictive_values
from ddtl.evaluation.influence import influences, spread
from ddtl.evaluation.interval import Interval
from ddtl.evaluation.intervals import intervals, multiclass_intervals, paired_intervals
from ddtl.evaluation.metrics import binary_scores, confusion, multiclass_scores
from ddtl.evaluation.patients import WhyNot, by_patient
from ddtl.evaluation.predictions import Predictions
from ddtl.evaluation.score import score

if TYPE_CHECKING:
    from ddtl.config.schema import EvaluationConfig

# What an interval takes for granted, by what is resampled.
ASSUMES = {
    "patient": "Patients are independent of each other; the images of one patient may be alike.",
    "group": (
        "Not every image has a patient id: groups of near-duplicate images are taken for independent. Where a patient "
        "stands in several groups the true interval is wider."
    ),
    "image": (
        "Not every image has a patient id: images are taken for independent. Where patients have several images the "
        "true interval is wider, easily twice as wide."
    ),
}
DESIGNS = {
    "case_control": "How many of each class are in the test set was fixed when it was collected.",
    "cohort": "How many of each class are in the test set is left to chance, as patients came.",
}
WORSE = "is worse than chance: the classes may be inverted"
_UNITS = {"patient": "patient", "near_duplicate": "group", "none": "image"}


@dataclass(frozen=True)
class Learnt:
    """What the validation images decide, before a test image is looked at.

    Attributes:
        threshold: from which probability on an image is called positive.
        reached: sensitivity and specificity on validation at a threshold that was chosen there.
        note: what a reader of the threshold must know.
        calibration: the corrections of the probabilities.
    """

    threshold: float
    reached: Mapping[str, float] | None
    note: str | None
    calibration: Calibration


def learn(val: Predictions, config: EvaluationConfig) -> Learnt:
    """Choose the threshold and fit the calibration.

    Args:
        val: predictions of the validation split.

    Raises:
        UserError: the threshold is to be chosen on images of one class, or with more than two classes.
    """
    fitted = calibration.fit(val.label, val.logits)
    rule = config.threshold
    if not isinstance(rule, str):
        return Learnt(rule, None, None, fitted)
    if len(val.classes) != 2:
        raise UserError(
            f"evaluation.threshold={rule}: with {len(val.classes)} classes an image is called the likeliest, and no "
            "threshold plays a part. Set evaluation.threshold=0.5."
        )
    chosen = thresholds.choose(val.label, val.probabilities[:, 1], rule, config.target)
    return Learnt(chosen.value, chosen.reached, chosen.note, fitted)


def setting(learnt: Learnt, config: EvaluationConfig, grouping: str) -> dict[str, Any]:
    """What holds for every split: threshold, calibration, and how intervals are made."""
    unit = _UNITS[grouping]
    return {
        "threshold": learnt.threshold,
        "threshold_rule": config.threshold if isinstance(config.threshold, str) else "fixed",
        "threshold_target": config.target if config.threshold in ("sensitivity", "specificity") else None,
        "threshold_on_val": None if learnt.reached is None else dict(learnt.reached),
        "threshold_note": learnt.note,
        "calibration": learnt.calibration.record(),
        "interval": {
            "level": config.level,
            "method": config.interval,
            "design": config.design,
            "replicates": config.replicates,
            "unit": unit,
            "assumes": f"{ASSUMES[unit]} {DESIGNS[config.design]}",
        },
    }


def of_split(predictions: Predictions, learnt: Learnt, config: EvaluationConfig) -> dict[str, Any]:
    """Everything that is said about one split."""
    scores = score(predictions, learnt.threshold)
    two = len(predictions.classes) == 2
    return {
        **scores,
        "intervals": _written(_intervals(predictions, learnt.threshold, config)),
        **({"clustering": clustering(predictions, learnt.threshold, config.design)} if two else {}),
        "patients": _by_patient(predictions, learnt.threshold, config),
        "calibration": calibration.summary(
            predictions.label, predictions.logits, learnt.calibration.temperature, learnt.calibration.platt
        ),
        **({"predictive_values": _predictive_values(scores, config.prevalences)} if two else {}),
    }


def clustering(predictions: Predictions, threshold: float, design: Design) -> dict[str, Any] | None:
    """How much alike the images of a patient are, for each score by image; None where every image stands alone.

    Returns:
        By score: ``design_effect``, the variance between patients over that of as many independent images;
        ``correlation``, which within patients would give it; ``effective_images``, how many independent images would
        tell as much. And ``effective_patients`` of each class, (sum k)² / sum k² of their numbers of images k.
    """
    clusters = Clusters(predictions.label, predictions.group, design)
    if clusters.independent or clusters.fewest < MIN_CLUSTERS:
        return None
    moved = influences(predictions.label, predictions.probabilities[:, 1], threshold, predictions.rank)
    weighted = (
        clusters.all.images / clusters.all.effective
    )  # images that share a patient with an image, itself included
    found: dict[str, Any] = {}
    for name, values in moved.items():
        of_score = spread(values, clusters)
        if of_score.of_images > 0:
            effect = of_score.variance / of_score.of_images
            found[name] = {
                "design_effect": effect,
                "correlation": (effect - 1) / (weighted - 1),
                "effective_images": len(predictions) / max(effect, 1.0),
            }
    negatives, positives = clusters.of_class
    return {"scores": found, "effective_patients": [negatives.effective, positives.effective]}


def worse_than_chance(results: Mapping[str, Any], splits: Sequence[str]) -> list[str]:
    """A sentence for each split whose ROC AUC is below 0.5 with its whole interval, by image or by patient."""
    sentences = []
    for split in splits:
        for unit, scores in (("image", results[split]), ("patient", results[split]["patients"])):
            interval = (scores.get("intervals") or {}).get("roc_auc")
            if interval is not None and interval["high"] < 0.5:
                sentences.append(
                    f"{split}: ROC AUC {scores['roc_auc']:.3f} by {unit} ({interval['low']:.3f} to "
                    f"{interval['high']:.3f}) {WORSE}. Check which class is the positive one (dataset.classes, "
                    "dataset.class_map)."
                )
                break
    return sentences


def majority(train: Mapping[str, int], test: Predictions) -> dict[str, Any]:
    """The scores of saying for every image how common the classes are in training.

    Args:
        train: training images of each class, in the order of the classes.
    """
    counts = np.array([train[name] for name in test.classes], dtype=float)
    shares = np.tile(counts / counts.sum(), (len(test), 1))
    if len(test.classes) == 2:
        return dict(binary_scores(test.label, shares[:, 1], 0.5))
    return dict(multiclass_scores(test.label, shares)[0])


def baseline(probabilities: np.ndarray, test: Predictions, config: EvaluationConfig) -> dict[str, Any]:
    """The scores, with intervals, of other probabilities for the same test images.

    With two classes also ``difference``: the ROC AUC of the model minus this one, paired by patient.

    Args:
        probabilities: (N,) of the positive class, or (N, K) with more than two classes.
    """
    if probabilities.ndim == 1:
        probabilities = np.column_stack([1 - probabilities, probabilities])
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(probabilities), -1e3)  # finite, and the probabilities come back
    table = Predictions(**{**vars(test), "logits": logits})
    scores = score(table, 0.5)
    found = {**scores, "intervals": _written(_intervals(table, 0.5, config))}
    if len(test.classes) != 2:
        return found
    pair = paired_intervals(
        test.label, test.probabilities[:, 1], table.probabilities[:, 1], test.group, 0.5, 0.5,
        design=config.design, level=config.level, rank_a=test.rank, rank_b=table.rank,
    )["roc_auc"]  # fmt: skip
    own = binary_scores(test.label, test.probabilities[:, 1], 0.5, test.rank)["roc_auc"]
    if pair is None or own is None:
        return found
    return {**found, "difference": {"roc_auc": own - scores["roc_auc"], "interval": asdict(pair)}}


def _intervals(predictions: Predictions, threshold: float, config: EvaluationConfig) -> dict[str, Interval | None]:
    given: Any = {"level": config.level, "replicates": config.replicates}
    if len(predictions.classes) != 2:
        return multiclass_intervals(predictions.label, predictions.probabilities, predictions.group, **given)
    return intervals(
        predictions.label, predictions.probabilities[:, 1], predictions.group, threshold,
        method=config.interval, design=config.design, rank=predictions.rank, **given,
    )  # fmt: skip


def _by_patient(predictions: Predictions, threshold: float, config: EvaluationConfig) -> dict[str, Any]:
    table = by_patient(predictions, config.patient, threshold)
    if isinstance(table, WhyNot):
        return {"why_not": table.reason}
    found = intervals(
        table.label, table.p, table.patient_id, table.threshold,
        method=config.interval, design=config.design, level=config.level, replicates=config.replicates,
        rank=table.rank,
    )  # fmt: skip
    return {
        **binary_scores(table.label, table.p, table.threshold, table.rank),
        "confusion": confusion(table.label, table.p, table.threshold),
        "patients": len(table.label),
        "aggregation": config.patient,
        "mixed": table.mixed,
        "intervals": _written(found),
    }


def _predictive_values(scores: Mapping[str, Any], prevalences: Sequence[float]) -> list[dict[str, float | None]]:
    rows = []
    for prevalence in prevalences:
        ppv, npv = predictive_values(scores["sensitivity"], scores["specificity"], prevalence)
        rows.append({"prevalence": prevalence, "ppv": ppv, "npv": npv})
    return rows


def _written(found: Mapping[str, Interval | None]) -> dict[str, Any]:
    return {name: None if interval is None else asdict(interval) for name, interval in found.items()}
