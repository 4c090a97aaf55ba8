"""From logits to the scores of an image and of a patient, by the run's own record. No torch, no files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ddtl.evaluation.calibration import apply_temperature
from ddtl.evaluation.patients import Aggregation, aggregate, patient_threshold


@dataclass(frozen=True)
class Rule:
    """How a run's logits are read.

    Attributes:
        classes: by label, the positive one last.
        threshold: from which probability on an image is predicted positive; without effect with more than two classes.
        temperature: what the logits are divided by; None where none could be fitted.
        aggregation: how a patient's images make one score.
    """

    classes: tuple[str, ...]
    threshold: float
    temperature: float | None
    aggregation: Aggregation

    @classmethod
    def of(cls, results: Mapping[str, Any]) -> Rule:
        """Return the rule that is in a run's ``results.json``: its validation images have decided it."""
        return cls(
            classes=tuple(results["classes"]),
            threshold=results["threshold"],
            temperature=results["calibration"]["temperature"],
            aggregation=results["evaluation"]["patient"],
        )

    @property
    def binary(self) -> bool:
        return len(self.classes) == 2

    def decide(self, p: np.ndarray, threshold: float) -> str:
        """Return the class that (classes,) probabilities are read as."""
        label = int(p[-1] >= threshold) if self.binary else int(p.argmax())
        return self.classes[label]


def columns(rule: Rule) -> list[str]:
    """Return the names of the numbers of an image, as :func:`row` gives them."""
    return [f"{kind}_{name}" for kind in ("logit", "probability", "calibrated") for name in rule.classes]


def row(rule: Rule, logits: np.ndarray) -> dict[str, Any]:
    """Return the scores of one image.

    Args:
        logits: (classes,) float64, finite.

    Returns:
        Logits, probabilities and calibrated probabilities (None without a temperature) by class, and ``decision``.
    """
    p = apply_temperature(logits[np.newaxis], 1.0)[0]
    calibrated = None if rule.temperature is None else apply_temperature(logits[np.newaxis], rule.temperature)[0]
    values: list[Any] = [*logits.tolist(), *p.tolist()]
    values += [None] * len(rule.classes) if calibrated is None else calibrated.tolist()
    return dict(zip(columns(rule), values, strict=True)) | {"decision": rule.decide(p, rule.threshold)}


@dataclass
class Patients:
    """Collects the images of each patient: two numbers an image, whatever its size.

    With more than two classes nothing is collected: scores by patient are for two.
    """

    rule: Rule
    _of: dict[str, list[tuple[float, float | None, bool | None, str | None]]] = field(default_factory=dict)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add the row of an image: :func:`row`'s, and ``patient_id``, ``series`` and ``far_from_training``."""
        if entry["patient_id"] and self.rule.binary:
            name = self.rule.classes[-1]
            numbers = (
                entry[f"probability_{name}"],
                entry[f"calibrated_{name}"],
                entry["far_from_training"],
                entry["series"],
            )
            self._of.setdefault(entry["patient_id"], []).append(numbers)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each patient, in the order in which they came, scored as ``evaluation.patient`` says."""
        return [self._row(patient, images) for patient, images in self._of.items()]

    def _row(self, patient: str, images: list[tuple[float, float | None, bool | None, str | None]]) -> dict[str, Any]:
        rule, name = self.rule, self.rule.classes[-1]
        p, calibrated, is_ood, series = zip(*images, strict=True)
        score = self._score(p)
        positive = score >= patient_threshold(rule.aggregation, rule.threshold)
        return {
            "patient_id": patient,
            "pictures": len(images),
            "series": len(set(series) - {None, ""}),
            "far_from_training": None if None in is_ood else sum(is_ood),
            f"score_{name}": score,
            # A vote counts decisions, which no temperature changes.
            f"calibrated_{name}": None if rule.temperature is None or rule.aggregation == "vote"
            else self._score(calibrated),
            "decision": rule.classes[int(positive)],
        }  # fmt: skip

    def _score(self, p: tuple[float, ...]) -> float:
        one = np.zeros(len(p), dtype=np.int64)
        return float(aggregate(np.array(p), one, np.array([len(p)]), self.rule.aggregation, self.rule.threshold)[0])
