"""Predictions and the manifest, put together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddtl.data.manifest import Manifest
from ddtl.evaluation.predictions import Predictions


def join(manifest: Manifest, rows: Sequence[int], logits: np.ndarray) -> Predictions:
    """Predictions with what the manifest knows about their images.

    Args:
        manifest: the dataset.
        rows: manifest row of each prediction, each at most once, in any order.
        logits: (N, classes).
    """
    assert len(rows) == len(logits), "a prediction belongs to one image"
    assert len(set(rows)) == len(rows), "an image must be predicted once"
    order = np.argsort(rows, kind="stable")
    samples = [manifest.samples[rows[i]] for i in order]
    return Predictions(
        classes=manifest.classes,
        split=np.array([s.split for s in samples], dtype=str),
        sample_id=np.array([s.sample_id for s in samples], dtype=str),
        group=np.array([s.group for s in samples], dtype=str),
        patient_id=np.array([s.patient_id or "" for s in samples], dtype=str),
        site=np.array([s.site for s in samples], dtype=str),
        label=np.array([s.label for s in samples], dtype=np.int64),
        logits=np.asarray(logits, dtype=np.float64)[order],
    )
