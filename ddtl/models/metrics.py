"""The scores of a validation epoch; ``ddtl/schema/scores.py`` lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryAveragePrecision,
    BinaryF1Score,
    MulticlassAccuracy,
)
from torchmetrics.functional.classification import (
    multiclass_auroc,
    multiclass_average_precision,
    multiclass_f1_score,
    multiclass_recall,
)
from torchmetrics.utilities import dim_zero_cat

from ddtl.evaluation.patients import Aggregation, WhyNot, patient_roc_auc
from ddtl.evaluation.predictions import Predictions


def epoch_scores(n_classes: int) -> MetricCollection:
    """With two classes, of the positive one; with more, means over the classes, each against all others.

    A class without a validation image has no part in these means, so that what is monitored stays a number.
    """
    return MetricCollection(_two() if n_classes == 2 else _more(n_classes), prefix="val/", compute_groups=False)


def update(scores: MetricCollection, logits: Tensor, labels: Tensor) -> None:
    """Take in a batch, which must not be empty: logits (N, classes) and labels (N,)."""
    # In double precision, as scores are computed of stored predictions: in single, sure answers become equal ones.
    probabilities = logits.double().softmax(dim=1)
    two = logits.shape[1] == 2
    for name, metric in scores.items():
        if two and name.endswith("balanced_accuracy"):
            metric.update(logits.argmax(dim=1), labels)
        else:
            metric.update(probabilities[:, -1] if two else probabilities, labels)


def of_predictions(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """The scores of a validation epoch, ``val/loss`` included, of logits (N, classes) and labels (N,)."""
    scores = epoch_scores(logits.shape[1])
    for metric in scores.values():
        metric.distributed_available_fn = lambda: False  # these are all of them already, in every process
    update(scores, logits, labels)
    loss = F.cross_entropy(logits.double(), labels)
    return {name: float(value) for name, value in {**scores.compute(), "val/loss": loss}.items()}


def _two() -> dict[str, Metric | MetricCollection]:
    return {
        "roc_auc": BinaryAUROC(),
        "average_precision": BinaryAveragePrecision(),
        "accuracy": BinaryAccuracy(),
        "balanced_accuracy": MulticlassAccuracy(num_classes=2, average="macro"),
        "f1": BinaryF1Score(),
    }


def _more(n: int) -> dict[str, Metric | MetricCollection]:
    return {
        "roc_auc": _MeanOverClasses(partial(multiclass_auroc, num_classes=n, average="none")),
        "average_precision": _MeanOverClasses(partial(multiclass_average_precision, num_classes=n, average="none")),
        "accuracy": MulticlassAccuracy(n, average="micro"),
        "balanced_accuracy": _MeanOverClasses(partial(multiclass_recall, num_classes=n, average="none")),
        "f1": _MeanOverClasses(partial(multiclass_f1_score, num_classes=n, average="none")),
    }


class _MeanOverClasses(Metric):
    """The mean of a score over the classes that there are images of; torchmetrics' own counts the others as 0.

    Args:
        score: (N, classes) probabilities and (N,) labels to a number for each class.
    """

    probabilities: list[Tensor]
    labels: list[Tensor]

    def __init__(self, score: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.score = score
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        self.probabilities.append(probabilities)
        self.labels.append(labels)

    def compute(self) -> Tensor:
        probabilities, labels = dim_zero_cat(self.probabilities), dim_zero_cat(self.labels)
        return self.score(probabilities, labels)[labels.unique()].mean()


class PatientRocAuc(Metric):
    """The ROC AUC over patients of two classes.

    Args:
        patient_ids: of each manifest row.
        aggregation: how a patient's images are put together.
    """

    rows: list[Tensor]
    logits: list[Tensor]
    labels: list[Tensor]

    def __init__(self, patient_ids: Sequence[str], aggregation: Aggregation) -> None:
        super().__init__()
        self.patient_ids = np.array(patient_ids, dtype=str)
        self.aggregation = aggregation
        for name in ("rows", "logits", "labels"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, rows: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: manifest rows (N,), logits (N, 2) and labels (N,)."""
        self.rows.append(rows)
        self.logits.append(logits.double())
        self.labels.append(labels)

    def compute(self) -> Tensor:
        rows, logits, labels = (dim_zero_cat(part).cpu().numpy() for part in (self.rows, self.logits, self.labels))
        order = np.argsort(rows, kind="stable")  # so that the sums are those of one process
        found = of_patients(self.patient_ids[rows[order]], logits[order], labels[order], self.aggregation)
        return torch.tensor(float("nan") if isinstance(found, WhyNot) else found, dtype=torch.float64)


def of_patients(
    patient_ids: np.ndarray, logits: np.ndarray, labels: np.ndarray, aggregation: Aggregation
) -> float | WhyNot:
    """The ROC AUC over patients, of patient ids (N,), logits (N, classes) and labels (N,)."""
    classes = tuple(map(str, range(logits.shape[1])))
    texts = dict.fromkeys(("split", "sample_id", "group", "site"), np.full(len(labels), ""))
    predictions = Predictions(classes, patient_id=patient_ids, label=labels, logits=logits, **texts)
    return patient_roc_auc(predictions, aggregation)
