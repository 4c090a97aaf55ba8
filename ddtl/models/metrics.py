"""The scores of a validation epoch; ``ddtl/schema/scores.py`` lists them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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
