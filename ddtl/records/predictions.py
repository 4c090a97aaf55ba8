"""The table of predictions: what every score is computed from, now and later."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddtl.utils.files import write_csv
from ddtl.utils.reading import Unreadable, read_table

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
    table = _read(path)
    if len(np.unique(table.sample_id)) < len(table):
        raise Unreadable(path, "is damaged: one image stands in it more than once", AGAIN)
    if not (np.abs(table.logits) <= _LARGEST_LOGIT).all():  # NaN is not
        raise Unreadable(path, "is damaged: logits are no finite numbers within 1e9", AGAIN)
    return table


AGAIN = "Delete it and repeat the command that made the run: it predicts again, without training."
_LARGEST_LOGIT = 1e9
_MOST_CHARACTERS = 500_000_000
_SPLITS = ("train", "val", "test")


def _read(path: Path) -> Predictions:
    rows: list[dict[str, str]] = []
    try:
        for row in read_table(path):
            rows.append(row)
    except Unreadable as problem:
        raise Unreadable(path, problem.reason, AGAIN) from None
    if not rows:
        raise Unreadable(path, "is damaged: it holds no row", AGAIN)
    lacking = [name for name in _FIXED if name not in rows[0]]
    classes = tuple(name.removeprefix("logit_") for name in rows[0] if name.startswith("logit_"))
    if lacking or len(classes) < 2:
        raise Unreadable(path, f"is damaged: it lacks the column {(*lacking, 'logit_…')[0]}", AGAIN)
    of = {name: label for label, name in enumerate(classes)}
    logits = [f"logit_{name}" for name in classes]
    numbers = np.empty((len(rows), len(classes)))
    labels = np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        if row["split"] not in _SPLITS or row["label"] not in of:
            what = "split" if row["split"] not in _SPLITS else "label"
            raise Unreadable(path, f"is damaged: row {i + 1} has a {what} that there is not", AGAIN)
        labels[i] = of[row["label"]]
        try:
            numbers[i] = [float(row[name]) for name in logits]
        except ValueError:
            raise Unreadable(path, f"is damaged: row {i + 1} has a logit that is no number", AGAIN) from None
    longest = max(len(row[name]) for row in rows for name in _FIXED)
    if longest * len(rows) > _MOST_CHARACTERS:  # each takes as much room as the longest one
        raise Unreadable(path, "is damaged: it holds a name that is too long", AGAIN)
    texts = {name: np.array([row[name] for row in rows], dtype=str) for name in _FIXED if name != "label"}
    return Predictions(classes=classes, **texts, label=labels, logits=numbers)
