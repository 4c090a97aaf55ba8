"""Made-up test sets whose patients and models are known, and the folders of runs on them."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ddtl.config.load import load
from ddtl.evaluation.comparison.paired_predictions import RunPredictions
from ddtl.evaluation.predictions import Predictions
from ddtl.evaluation.score import score as by_image
from ddtl.records import predictions as prediction_table

CLASSES = ("non-COVID", "COVID")


class Hospital:
    """Patients with one to several images; models answer them with a binormal score and faults of their own."""

    def __init__(self, patients: int, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.clusters = np.repeat(np.arange(patients), 1 + self.random.poisson(1, patients))
        self.labels = (np.arange(patients) % 2)[self.clusters]
        self.shared = self.random.normal(size=patients)[self.clusters]

    def run(self, separation: float, name: str = "run", threshold: float = 0.5) -> RunPredictions:
        """A model whose positives lie ``separation`` above its negatives; AUC = Phi(separation / 2)."""
        n = len(self.labels)
        own = self.random.normal(size=self.clusters.max() + 1)[self.clusters]
        x = separation * (self.labels - 0.5) + self.shared + 0.8 * own + 0.6 * self.random.normal(size=n)
        return answers(self.labels, np.stack([-x / 2, x / 2], axis=1), self.clusters, name, threshold)


def answers(
    labels: np.ndarray,
    logits: np.ndarray,
    clusters: np.ndarray,
    name: str = "run",
    threshold: float = 0.5,
    classes: tuple[str, ...] = CLASSES,
) -> RunPredictions:
    n = len(labels)
    ids = np.array([f"image{i:04d}" for i in range(n)])
    patients = np.array([f"p{c}" for c in clusters])
    site = np.full(n, "here")
    predictions = Predictions(classes, np.full(n, "test"), ids, patients, patients, site, labels, logits)
    return RunPredictions(name, "covid19ct, protocol official", predictions, threshold)


@cache
def _usual() -> dict[str, Any]:
    return load(["dataset=covid19ct"]).model_dump(mode="json")


def folder(path: Path, run: RunPredictions, config: dict[str, Any] | None = None, **record: Any) -> Path:
    """A finished run's folder with the parts that a comparison reads."""
    path.mkdir(parents=True)
    split = str(run.predictions.split[0])
    prediction_table.write(run.predictions, path / "predictions.csv")
    settings: dict[str, Any] = copy.deepcopy(_usual())
    for key, value in (config or {}).items():
        group, _, name = key.rpartition(".")
        (settings.setdefault(group, {}) if group else settings)[name] = value
    (path / "config.yaml").write_text(yaml.safe_dump(settings))
    scores = by_image(run.predictions, run.threshold)
    counts = {key: scores[key] for key in ("images", "groups", "classes")}
    results = {
        "dataset": "covid19ct",
        "protocol": "official",
        "grouping": "patient",
        "classes": list(run.predictions.classes),
        "positive": run.predictions.classes[-1] if len(run.predictions.classes) == 2 else None,
        "splits": {part: dict(counts) for part in ("train", "val", "test")},
        "leaked_share": 0.0,
        "warnings": [],
        "threshold": run.threshold,
        split: scores,
        **record,
    }
    (path / "results.json").write_text(json.dumps(results))
    return path


def good_and_poor(path: Path) -> tuple[Path, Path]:
    """A good and a poor model on the same test set."""
    hospital = Hospital(95)
    return (
        folder(path / "good", hospital.run(3.0), look=1),
        folder(
            path / "poor",
            hospital.run(1.0),
            {"model.name": "squeezenet1_1", "model.head.dropout": 0.5, "optimizer.lr": 0.1},
            look=2,
        ),
    )
