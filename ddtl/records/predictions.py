"""``predictions.csv``: written, and read back to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddtl.evaluation.predictions import _FIXED, Predictions
from ddtl.schema.units import SPLITS
from ddtl.utils.files import write_csv
from ddtl.utils.reading import Unreadable, read_table


def write(predictions: Predictions, path: Path) -> None:
    """Write predictions as CSV: the fixed columns, then a logit and a probability for each class."""
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
    """Return the table that :func:`write` wrote; logits come back to the bit.

    Raises:
        FileNotFoundError: it is not there.
        UserError: it is damaged: something that scores cannot be computed from.
    """
    table = _read(path)
    if len(np.unique(table.sample_id)) < len(table):
        raise Unreadable(path, "is damaged: one image is in it more than once", AGAIN)
    if not (np.abs(table.logits) <= _LARGEST_LOGIT).all():  # NaN is not
        raise Unreadable(path, "is damaged: logits are not finite numbers within 1e9", AGAIN)
    return table


AGAIN = "Delete it and repeat the command that made the run: it predicts again, without training."
_LARGEST_LOGIT = 1e9
_MOST_CHARACTERS = 500_000_000


def _read(path: Path) -> Predictions:
    try:
        rows = list(read_table(path))
    except Unreadable as problem:
        raise Unreadable(path, problem.reason, AGAIN) from None
    if not rows:
        raise Unreadable(path, "is damaged: it contains no row", AGAIN)
    lacking = [name for name in _FIXED if name not in rows[0]]
    classes = tuple(name.removeprefix("logit_") for name in rows[0] if name.startswith("logit_"))
    if lacking or len(classes) < 2:
        raise Unreadable(path, f"is damaged: it lacks the column {(*lacking, 'logit_…')[0]}", AGAIN)
    of = {name: label for label, name in enumerate(classes)}
    logits = [f"logit_{name}" for name in classes]
    numbers = np.empty((len(rows), len(classes)))
    labels = np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        if row["split"] not in SPLITS or row["label"] not in of:
            what = "split" if row["split"] not in SPLITS else "label"
            raise Unreadable(path, f"is damaged: row {i + 1} has a {what} that there is not", AGAIN)
        labels[i] = of[row["label"]]
        try:
            numbers[i] = [float(row[name]) for name in logits]
        except ValueError:
            raise Unreadable(path, f"is damaged: row {i + 1} has a logit that is not a number", AGAIN) from None
    longest = max(len(row[name]) for row in rows for name in _FIXED)
    if longest * len(rows) > _MOST_CHARACTERS:  # each takes as much room as the longest one
        raise Unreadable(path, "is damaged: it contains a name that is too long", AGAIN)
    texts = {name: np.array([row[name] for row in rows], dtype=str) for name in _FIXED if name != "label"}
    return Predictions(classes=classes, **texts, label=labels, logits=numbers)
