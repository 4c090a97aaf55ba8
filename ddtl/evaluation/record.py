"""From predictions to their part of ``results.json``: scores by image and by patient, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ddtl.evaluation import calibration, thresholds
from ddtl.evaluation.calibration import Calibration
from ddtl.evaluation.decision import (
    Rates,
    decision_curve,
    net_benefit_limits,
    predictive_value_limits,
    predictive_values,
)
from ddtl.evaluation.intervals.clusters import MIN_CLUSTERS, Clusters, Design
from ddtl.evaluation.intervals.influence import influences, spread
from ddtl.evaluation.intervals.interval import Interval
from ddtl.evaluation.intervals.intervals import intervals, multiclass_intervals, paired_intervals
from ddtl.evaluation.metrics import binary_scores, confusion, multiclass_scores
from ddtl.evaluation.miscalibration import patient_logits
from ddtl.evaluation.patients import PatientTable, WhyNot, by_patient, threshold_table
from ddtl.evaluation.predictions import Predictions
from ddtl.evaluation.score import score
from ddtl.evaluation.thresholds import Expected
from ddtl.schema.scores import AIMED, GUARANTEED
from ddtl.utils.errors import UserError

if TYPE_CHECKING:
    from ddtl.schema.run import EvaluationConfig

# What an interval takes for granted, by what is resampled.
ASSUMES = {
    "patient": "Patients are independent of each other; the images of one patient may be alike.",
    "group": (
        "Not every image has a patient id: groups of near-duplicate images are taken for independent. Where a patient "
        "is in several groups the true interval is wider."
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
Unit = Literal["image", "patient"]
_UNITS = {"patient": "patient", "near_duplicate": "group", "none": "image"}


@dataclass(frozen=True)
class ValidationChoices:
    """What the validation images decide, before a test image is examined.

    Attributes:
        threshold: from which probability on an image is predicted positive.
        reached: sensitivity and specificity on validation at a threshold that was chosen there.
        note: what a reader of the threshold must know.
        calibration: the corrections of the probabilities.
        unit: whether images or patients chose it; None where it was fixed.
        expected: what it gives for other patients; None where it was fixed or there are too few.
    """

    threshold: float
    reached: Mapping[str, float] | None
    note: str | None
    calibration: Calibration
    unit: Unit | None = None
    expected: Expected | None = None


def choose_on_validation(val: Predictions, config: EvaluationConfig) -> ValidationChoices:
    """Choose the threshold and fit the calibration.

    Args:
        val: predictions of the validation split.

    Raises:
        UserError: the threshold would be chosen on images of one class, or with more than two classes.
    """
    fitted = calibration.fit(val.label, val.logits, val.group, config.level)
    rule = config.threshold
    if not isinstance(rule, str):
        return ValidationChoices(rule, None, None, fitted)
    _check_classes(rule, len(val.classes))
    labels, p, clusters, unit = _choosing(val, config)
    _check_guarantee(rule, config, labels, clusters, unit)
    chosen = thresholds.choose(labels, p, rule, config.target, level=config.level, unit=unit)
    found = thresholds.expected(labels, p, clusters, rule, config.target, config.level)
    return ValidationChoices(chosen.value, chosen.reached, chosen.note, fitted, unit, found)


def check_threshold(
    config: EvaluationConfig, n_classes: int, labels: np.ndarray, patients: np.ndarray, groups: np.ndarray
) -> None:
    """Refuse a threshold rule that the validation images cannot meet, whatever the network predicts.

    Args:
        config: the settings.
        n_classes: of the dataset.
        labels, patients, groups: (N,) of the validation images; a patient is empty where it is not known.

    Raises:
        UserError: with what to do instead.
    """
    rule = config.threshold
    if not isinstance(rule, str):
        return
    _check_classes(rule, n_classes)
    n = len(labels)
    texts = {name: np.full(n, "") for name in ("split", "sample_id", "site")}
    val = Predictions(("0", "1"), group=groups, patient_id=patients, label=labels, logits=np.zeros((n, 2)), **texts)
    own, _, clusters, unit = _choosing(val, config)
    _check_guarantee(rule, config, own, clusters, unit)
    thresholds.check_classes(own, rule, unit)


def _check_classes(rule: str, n_classes: int) -> None:
    if n_classes != 2:
        raise UserError(
            f"evaluation.threshold={rule}: with {n_classes} classes an image is predicted as the likeliest, and no "
            "threshold plays a part. Set evaluation.threshold=0.5."
        )


def _choosing(val: Predictions, config: EvaluationConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray, Unit]:
    """Return labels, probabilities and clusters of what chooses the threshold: patients, where scores are given by
    patient.
    """
    images = val.label, val.probabilities[:, 1], val.group
    if config.threshold_unit == "image":
        return *images, "image"
    table = threshold_table(val, config.patient)
    if isinstance(table, WhyNot):
        if config.threshold_unit == "patient":
            raise UserError(
                f"evaluation.threshold_unit=patient: of validation, {table.reason}. Set evaluation.threshold_unit=auto."
            )
        return *images, "image"
    if config.threshold_unit == "auto" and len(np.unique(table.label)) < 2:
        return *images, "image"  # patients with images of both classes are excluded
    return table.label, table.p, table.patient_id, "patient"


def _check_guarantee(
    rule: thresholds.Rule, config: EvaluationConfig, labels: np.ndarray, clusters: np.ndarray, unit: Unit
) -> None:
    """Refuse a guarantee that needs more patients, or to know who they are."""
    if rule not in GUARANTEED:
        return
    if len(np.unique(clusters)) < len(clusters):
        fix = (
            "Set evaluation.threshold_unit=auto"
            if config.threshold_unit == "image"
            else f"Give patient ids, or set evaluation.threshold={rule.removesuffix('_guaranteed')}"
        )
        raise UserError(
            f"evaluation.threshold={rule}: a guarantee is for patients, and here the images choose, several of one "
            f"patient or group. {fix}."
        )
    assert config.target is not None, "checked with the configuration"
    positives = int((labels == 1).sum())
    counts = {"positive": positives, "negative": len(labels) - positives}
    thresholds.check_patients(counts, rule, config.target, config.level, unit)


def setting(choices: ValidationChoices, config: EvaluationConfig, grouping: str) -> dict[str, Any]:
    """Return what holds for every split: threshold, calibration, and how intervals are made."""
    unit = _UNITS[grouping]
    return {
        "threshold": choices.threshold,
        "threshold_rule": config.threshold if isinstance(config.threshold, str) else "fixed",
        "threshold_target": config.target if config.threshold in AIMED else None,
        "threshold_unit": choices.unit,
        "threshold_on_val": None if choices.reached is None else dict(choices.reached),
        "threshold_expected": None if choices.expected is None else choices.expected.record(),
        "threshold_note": choices.note,
        "calibration": choices.calibration.record(),
        "interval": {
            "level": config.level,
            "method": config.interval,
            "design": config.design,
            "replicates": config.replicates,
            "unit": unit,
            "assumes": f"{ASSUMES[unit]} {DESIGNS[config.design]}",
        },
    }


def of_split(predictions: Predictions, choices: ValidationChoices, config: EvaluationConfig) -> dict[str, Any]:
    """Return everything that is reported about one split."""
    scores = score(predictions, choices.threshold)
    found = _intervals(predictions, choices.threshold, config)
    worth: dict[str, Any] = {}
    clustered: dict[str, Any] = {}
    if len(predictions.classes) == 2:
        clustered = {"clustering": clustering(predictions, choices.threshold, config.design)}
        p = predictions.probabilities[:, 1]
        worth = _worth(scores, found, config.prevalences, predictions.label, p, choices.threshold)
    return {
        **scores,
        "intervals": _format(found),
        **clustered,
        "patients": _by_patient(predictions, choices, config),
        "calibration": calibration.summary(
            predictions.label, predictions.logits, choices.calibration.temperature, choices.calibration.platt,
            predictions.group, config.level,
        ),
        **worth,
    }  # fmt: skip


def clustering(predictions: Predictions, threshold: float, design: Design) -> dict[str, Any] | None:
    """Return how much alike the images of a patient are, for each score by image; None where every image is alone.

    Returns:
        By score: ``design_effect``, the variance between patients over that of as many independent images;
        ``correlation``, which within patients would give it (1 where none would give as much);
        ``effective_images``, how many independent images would tell as much. And ``effective_patients`` of each class,
        (sum k)² / sum k² of their numbers of images k.
    """
    clusters = Clusters(predictions.label, predictions.group, design)
    if clusters.independent or clusters.fewest < MIN_CLUSTERS:
        return None
    moved = influences(predictions.label, predictions.probabilities[:, 1], threshold, predictions.rank)
    # Images that share a patient with an image, itself included.
    weighted = clusters.all.images / clusters.all.effective
    found: dict[str, Any] = {}
    for name, values in moved.items():
        of_score = spread(values, clusters)
        if of_score.of_images > 0:
            effect = of_score.variance / of_score.of_images
            found[name] = {
                "design_effect": effect,
                "correlation": min((effect - 1) / (weighted - 1), 1.0),
                "effective_images": len(predictions) / max(effect, 1.0),
            }
    negatives, positives = clusters.of_class
    return {"scores": found, "effective_patients": [negatives.effective, positives.effective]}


def worse_than_chance(results: Mapping[str, Any], splits: Sequence[str]) -> list[str]:
    """Return a sentence for each split whose ROC AUC is below 0.5 with its whole interval, by image or by patient."""
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
    """Return the scores of saying for every image how common the classes are in training.

    Args:
        train: training images of each class, in the order of the classes.
    """
    counts = np.array([train[name] for name in test.classes], dtype=float)
    shares = np.tile(counts / counts.sum(), (len(test), 1))
    if len(test.classes) == 2:
        return dict(binary_scores(test.label, shares[:, 1], 0.5))
    return dict(multiclass_scores(test.label, shares)[0])


def baseline(probabilities: np.ndarray, test: Predictions, config: EvaluationConfig) -> dict[str, Any]:
    """Return the scores, with intervals, of other probabilities for the same test images.

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
    found = {**scores, "intervals": _format(_intervals(table, 0.5, config))}
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


def _by_patient(predictions: Predictions, choices: ValidationChoices, config: EvaluationConfig) -> dict[str, Any]:
    table = by_patient(predictions, config.patient, choices.threshold)
    if isinstance(table, WhyNot):
        return {"why_not": table.reason}
    found = intervals(
        table.label, table.p, table.patient_id, table.threshold,
        method=config.interval, design=config.design, level=config.level, replicates=config.replicates,
        rank=table.rank,
    )  # fmt: skip
    scores = binary_scores(table.label, table.p, table.threshold, table.rank)
    p = None if config.patient == "vote" else table.p  # a share of votes is not a probability
    return {
        **scores,
        "confusion": confusion(table.label, table.p, table.threshold),
        "patients": len(table.label),
        "aggregation": config.patient,
        "mixed": table.mixed,
        "intervals": _format(found),
        "calibration": None if p is None else _patient_calibration(predictions, table, choices, config),
        **_worth(scores, found, config.prevalences, table.label, p, table.threshold),
    }


def _patient_calibration(
    predictions: Predictions, table: PatientTable, choices: ValidationChoices, config: EvaluationConfig
) -> dict[str, Any] | None:
    """Return the calibration of the patients' probabilities, as predicted and from temperature-scaled images."""
    rows = np.isin(predictions.patient_id, table.patient_id)
    difference = predictions.logits[rows, 1] - predictions.logits[rows, 0]

    def measured(temperature: float) -> dict[str, Any] | None:
        logit = patient_logits(difference / temperature, predictions.patient_id[rows], config.patient)
        two = np.column_stack([np.zeros(len(logit)), logit])
        return calibration.summary(table.label, two, None, None, table.patient_id, config.level)

    found, temperature = measured(1.0), choices.calibration.temperature
    if found is not None and temperature is not None:
        found["temperature"] = {
            key: value for key, value in (measured(temperature) or {}).items() if key not in ("temperature", "platt")
        }
    return found


def _worth(
    scores: Mapping[str, Any],
    found: Mapping[str, Interval | None],
    prevalences: Sequence[float],
    labels: np.ndarray,
    p: np.ndarray | None,
    threshold: float,
) -> dict[str, Any]:
    """Predictive values at each prevalence and the net benefit at the threshold, with their intervals."""
    limits = {name: None if one is None else (one.low, one.high) for name, one in found.items()}
    rates = Rates(limits["sensitivity"], limits["specificity"])
    both = scores["sensitivity"], scores["specificity"]
    rows = []
    for prevalence in prevalences:
        values = predictive_values(*both, prevalence)
        intervals_ = predictive_value_limits(*both, prevalence, rates)
        rows.append(
            {
                "prevalence": prevalence,
                "ppv": values[0],
                "npv": values[1],
                "ppv_interval": _limits(intervals_[0]),
                "npv_interval": _limits(intervals_[1]),
            }
        )
    benefit = None
    if p is not None and None not in both:
        (at,) = decision_curve(labels, p, [threshold])
        known = net_benefit_limits(at, float(np.mean(labels == 1)), rates, scores["specificity"])
        benefit = {**asdict(at), "interval": _limits(known)}
    return {"predictive_values": rows, "net_benefit": benefit}


def _limits(found: tuple[float, float] | None) -> dict[str, float] | None:
    return None if found is None else {"low": found[0], "high": found[1]}


def _format(found: Mapping[str, Interval | None]) -> dict[str, Any]:
    return {name: None if interval is None else asdict(interval) for name, interval in found.items()}
