"""What runs answered on the same images."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ddtl.evaluation.intervals.clusters import Design
from ddtl.evaluation.metrics import (
    Replicates,
    Scores,
    binary_scores,
    multiclass_scores,
    weighted_multiclass,
    weighted_scores,
)
from ddtl.evaluation.predictions import Predictions
from ddtl.utils.errors import UserError
from ddtl.utils.reading import printable

Unit = Literal["patient", "group", "image"]


@dataclass(frozen=True)
class RunPredictions:
    """One run's answers on one split.

    Attributes:
        name: what messages call the run.
        images: what messages call its images, as "covid19ct, protocol official".
        predictions: of that split alone.
        threshold: from which probability on an image is predicted positive, (N,) where images have their own; without
            effect for more than two classes.
        design: of the test set, as the run recorded it.
        content: sha256 of the contents of the images; None where it is not known.
    """

    name: str
    images: str
    predictions: Predictions
    threshold: float | np.ndarray
    design: Design = "case_control"
    content: str | None = None

    @property
    def binary(self) -> bool:
        return len(self.predictions.classes) == 2

    @property
    def p(self) -> np.ndarray:
        """(N,) probability of the positive class."""
        return self.predictions.probabilities[:, 1]

    @property
    def rank(self) -> np.ndarray | None:
        """What orders the images where probabilities are rounded; see ``Predictions.rank``."""
        return self.predictions.rank

    @property
    def right(self) -> np.ndarray:
        """(N,) whether each image is predicted correctly."""
        predicted = self.p >= self.threshold if self.binary else self.predictions.probabilities.argmax(axis=1)
        return np.asarray(predicted == self.predictions.label)

    def scores(self) -> Scores:
        """Return the scores in ``schema.scores.SCORES``."""
        labels = self.predictions.label
        if self.binary:
            return binary_scores(labels, self.p, self.threshold, self.rank)
        return multiclass_scores(labels, self.predictions.probabilities)[0]

    def weighted(self, weights: np.ndarray) -> Replicates:
        """Return (B,) of each score, for (B, N) weights of the images."""
        labels = self.predictions.label
        if self.binary:
            return weighted_scores(labels, self.p, weights, self.threshold, self.rank)
        return weighted_multiclass(labels, self.predictions.probabilities, weights)


@dataclass(frozen=True)
class Method:
    """Runs that differ in nothing but the seed. Its score is the mean of theirs."""

    name: str
    runs: tuple[RunPredictions, ...]


def unit_of(predictions: Predictions) -> tuple[Unit, np.ndarray]:
    """Return what images come in, and the (N,) names of those: patients where every image has one, else groups."""
    if np.all(predictions.patient_id != ""):
        return "patient", predictions.patient_id
    alone = len(np.unique(predictions.group)) == len(predictions)
    return "image" if alone else "group", predictions.group


def join(runs: Sequence[RunPredictions]) -> list[RunPredictions]:
    """Return the runs with their images in the order of the first one's.

    Raises:
        UserError: they are not the same images, classes, labels or patients; it says what differs.
    """
    first = runs[0]
    return [first, *(_ordered_as(first, run) for run in runs[1:])]


def _ordered_as(first: RunPredictions, run: RunPredictions) -> RunPredictions:
    ours, theirs = first.predictions, run.predictions
    if ours.classes != theirs.classes:
        raise UserError(
            f"{first.name} tells {' / '.join(ours.classes)} apart and {run.name} {' / '.join(theirs.classes)}: only "
            "runs with the same classes in the same order can be compared. Set the same dataset.classes for both."
        )
    if first.design != run.design:
        raise UserError(
            f"{first.name} was scored with evaluation.design={first.design} and {run.name} with "
            f"evaluation.design={run.design}: of a test set only one is true. Score both alike, without training: "
            f"`ddtl evaluate {shlex.quote(run.name)} evaluation.design={first.design}`"
        )
    row = {sample_id: i for i, sample_id in enumerate(theirs.sample_id.tolist())}
    order = np.array([row[name] for name in ours.sample_id.tolist() if name in row], dtype=np.intp)
    if not len(order) == len(ours) == len(theirs):
        raise UserError(
            f"{first.name} was tested on {len(ours)} images of {first.images}, {run.name} on {len(theirs)} of "
            f"{run.images}: {len(order)} of them are the same. Only runs on the same images can be compared: give "
            "them the same dataset, dataset.protocol, dataset.split_seed and dataset.fold, or test one of them on the "
            "other's images with `ddtl evaluate`."
        )
    if None not in (first.content, run.content) and first.content != run.content:
        raise UserError(
            f"{first.name} was tested on {first.images}, {run.name} on {run.images}: their images have the same names "
            "and other contents. Only runs on the same images can be compared: test one of them on the other's images "
            "with `ddtl evaluate`."
        )
    columns = ("split", "sample_id", "group", "patient_id", "site", "label", "logits")
    table = Predictions(theirs.classes, **{name: getattr(theirs, name)[order] for name in columns})
    _check_same(first, run, "label", *(np.array(one.classes)[one.label] for one in (ours, table)))
    _check_same(first, run, "patient", ours.patient_id, table.patient_id)
    _check_same(first, run, "group", ours.group, table.group)
    threshold = run.threshold[order] if isinstance(run.threshold, np.ndarray) else run.threshold
    return replace(run, predictions=table, threshold=threshold)


def _check_same(first: RunPredictions, run: RunPredictions, what: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    differs = np.flatnonzero(ours != theirs)
    if len(differs):
        i = differs[0]
        raise UserError(
            f"{len(differs)} of {len(ours)} images have another {what} in {first.name} than in {run.name}, as "
            f"{_format(first.predictions.sample_id[i])}: {_format(ours[i])} and {_format(theirs[i])}. Only runs on the "
            "same data can be compared: train or evaluate the older one again."
        )


def _format(value: object) -> str:
    """Return a cell of a table on a line: without control characters, and not longer than a name is."""
    return printable(value)[:100] or "none"
