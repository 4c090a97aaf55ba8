"""The table of predictions: what every score is computed from, now and later."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddtl.errors import UserError
from ddtl.files import write_csv

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

    def of(self, split: str) -> Predictions:
        """The rows of one split."""
        return self.where(self.split == split)

    def where(self, rows: np.ndarray) -> Predictions:
        """The (N,) rows that are true, or whose numbers are given, in that order."""
        columns = {name: getattr(self, name)[rows] for name in (*_FIXED, "logits")}
        return Predictions(self.classes, **columns)

    def and_then(self, other: Predictions) -> Predictions:
        """These rows, then others of the same dataset."""
        columns = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in (*_FIXED, "logits")}
        return Predictions(self.classes, **columns)


def write(predictions: Predictions, path: Path) -> None:
    """As CSV: the fixed columns, then a logit and a probability for each class."""
    columns = [*_FIXED, *(f"{kind}_{name}" for kind in ("logit", "probability") for name in predictions.classes)]
    label_names = [predictions.classes[label] for label in predictions.label]
    probabilities = predictions.probabilities
    write_csv(
        path,
        columns,
        (
            (
                predictions.split[i],
                predictions.sample_id[i],
                predictions.group[i],
                predictions.patient_id[i],
                predictions.site[i],
                label_names[i],
                *(repr(float(x)) for x in predictions.logits[i]),
                *(f"{x:.6f}" for x in probabilities[i]),
            )
            for i in range(len(predictions))
        ),
    )


def read(path: Path) -> Predictions:
    """The table that :func:`write` wrote; logits come back to the bit.

    Raises:
        FileNotFoundError: it is not there.
        UserError: it is damaged: something that scores cannot be computed from.
    """
    try:
        table = _read(path)
        names, counts = np.unique(table.sample_id, return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"{names[counts > 1][0]} stands in it more than once")
        finite = np.isfinite(table.logits).all(axis=1)
        if not finite.all():
            raise ValueError(f"the logits of {table.sample_id[~finite][0]} are no finite numbers")
    except (ValueError, KeyError, TypeError, IndexError, csv.Error) as error:
        raise UserError(
            f"{path} is damaged: {error}. Delete it and repeat the command that made the run: it predicts again, "
            "without training."
        ) from error
    return table


def _read(path: Path) -> Predictions:
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        names, rows = table.fieldnames or (), list(table)
    if not rows:
        raise ValueError("it holds no row")
    classes = tuple(name.removeprefix("logit_") for name in names if name.startswith("logit_"))
    texts = {name: np.array([row[name] for row in rows], dtype=str) for name in _FIXED if name != "label"}
    return Predictions(
        classes=classes,
        **texts,
        label=np.array([classes.index(row["label"]) for row in rows], dtype=np.int64),
        logits=np.array([[float(row[f"logit_{name}"]) for name in classes] for row in rows]).reshape(-1, len(classes)),
    )
