"""Synthetic run folders with everything that a report reads; nothing is trained.

``write(folder)`` makes one; ``kind`` and ``changes`` vary it. The scores are those of the predictions in the folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ddtl.config.load import load
from ddtl.evaluation import calibration, metrics
from ddtl.evaluation.decision import predictive_values
from ddtl.evaluation.patients import PatientTable, by_patient
from ddtl.evaluation.predictions import Predictions
from ddtl.evaluation.score import score as by_image
from ddtl.records import predictions
from ddtl.schema.scores import SCORES
from ddtl.utils.files import write_json

CLASSES = ("non-COVID", "COVID")
THRESHOLD = 0.41
SLICES = 2  # images a patient
SIGNAL = 1.6  # how far the logits of the classes lie apart


def table(
    classes: tuple[str, ...] = CLASSES,
    *,
    patients: Mapping[str, int] | None = None,
    named: bool = True,
    seed: int = 0,
    signal: float = SIGNAL,
) -> Predictions:
    """Predictions of validation and test; patients of two slices each, classes in turn.

    Args:
        classes: two or more.
        patients: how many in each split.
        named: whether patients are known.
        seed: of the logits.
        signal: 0 for none.
    """
    rng = np.random.default_rng(seed)
    rows: list[tuple[Any, ...]] = []
    for split, n in (patients or {"val": 40, "test": 60}).items():
        for i in range(n):
            label = i % len(classes)
            offset = rng.normal(scale=0.7, size=len(classes))  # slices of one patient are alike
            for j in range(SLICES):
                logits = rng.normal(size=len(classes)) + offset
                logits[label] += signal
                patient = f"{split}-patient-{i}"
                rows.append((split, f"{patient}/{j}.png", patient, patient if named else "", "ulm", label, logits))
    columns = list(zip(*rows, strict=True))
    texts = [np.array(column, dtype=str) for column in columns[:5]]
    return Predictions(classes, *texts, label=np.array(columns[5]), logits=np.array(columns[6]))


def record(table_: Predictions, *, test: bool = True) -> dict[str, Any]:
    """``results.json`` for a table of predictions."""
    classes, named = table_.classes, bool((table_.patient_id != "").all())
    val = table_.of("val")
    fitted = calibration.fit(val.label, val.logits)
    found: dict[str, Any] = {
        "dataset": "covid19ct",
        "protocol": "official",
        "grouping": "patient" if named else "near_duplicate",
        "classes": list(classes),
        "positive": classes[-1] if len(classes) == 2 else None,
        "warnings": [
            "COVID and non-COVID images come from different sources and differ in file format, size and annotations: "
            "a model can score well by telling the sources apart."
        ],
        "leaked_share": 0.0,
        "splits": {
            "train": {"images": 300, "groups": 150, "classes": {name: 300 // len(classes) for name in classes}},
            **{split: _counts(table_.of(split)) for split in ("val", "test")},
        },
        "split_seed": 0,
        "seed": 0,
        "digest": "5ecf41bc5893a7ca4e23bb5d528d9b49f8023e5cf80d93fa0dbe59c0424850e1",
        "weights": {"source": "densenet121-imagenet.safetensors", "digest": "388e25c0989af9400b1a91ce446c8ea3" * 2},
        "monitor": "val/roc_auc",
        "precision": "bf16-mixed",
        "versions": {"ddtl": "0.1.0", "torch": "2.15.0", "torchvision": "0.29.2", "numpy": "2.4.6"},
        "best_epoch": 3,
        "threshold": THRESHOLD,
        "threshold_rule": "sensitivity",
        "threshold_target": 0.9,
        "threshold_on_val": {"sensitivity": 0.95, "specificity": 0.725},
        "threshold_note": None,
        "interval": {
            "level": 0.95,
            "method": "default",
            "replicates": 2000,
            "unit": "patient" if named else "group",
            "assumes": "Patients are taken for independent." if named else "Groups are taken for independent.",
        },
        "calibration": fitted.record(),
        "val": _scores(val, fitted),
    }
    if test:
        found |= {"look": 1, "baselines": _baselines(table_.of("test")), "test": _scores(table_.of("test"), fitted)}
    return found


def write(
    folder: Path,
    table_: Predictions | None = None,
    *,
    test: bool = True,
    overrides: tuple[str, ...] = ("dataset=covid19ct",),
    **changes: Any,
) -> Path:
    """A whole run folder: record, predictions, curves, settings, environment.

    Args:
        folder: made where it is not there.
        table_: the predictions; :func:`table` by default.
        test: whether the test set was scored.
        overrides: the settings of the run.
        changes: what to replace in the record.
    """
    found = _usual(test) if table_ is None else record(table_, test=test)
    table_ = table() if table_ is None else table_
    folder.mkdir(parents=True, exist_ok=True)
    predictions.write(table_ if test else table_.of("val"), folder / "predictions.csv")
    write_json(folder / "results.json", {**found, **changes})
    config = _settings(overrides)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    environment = {
        "command": ["train.py", *overrides],
        "python": "3.11.7",
        "platform": "Linux-6.18.44-x86_64-with-glibc2.36",
        "cpu": "Intel(R) Xeon(R) Processor",
        "cores": 4,
        "threads": 4,
        "gpus": [],
    }
    write_json(folder / "environment.json", environment)
    lines = [json.dumps(row) for row in epochs()]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def epochs(n: int = 6) -> list[dict[str, Any]]:
    """Rows of ``metrics.jsonl``; the fourth is the best."""
    return [
        {
            "epoch": epoch,
            "step": 27 * (epoch + 1),
            "seconds": 61.5,
            "lr": 0.0002,
            "train/loss": 0.7 * 0.8**epoch,
            "val/loss": 0.68 - 0.05 * min(epoch, 3),
            "val/roc_auc": 0.9 - 0.02 * abs(epoch - 3),
        }
        for epoch in range(n)
    ]


@cache
def _usual(test: bool) -> dict[str, Any]:
    return record(table(), test=test)


@cache
def _settings(overrides: tuple[str, ...]) -> dict[str, Any]:
    return load(list(overrides)).model_dump(mode="json")


def _scores(rows: Predictions, fitted: calibration.Calibration) -> dict[str, Any]:
    found = by_image(rows, THRESHOLD)
    found["intervals"] = _intervals(found)
    found["calibration"] = calibration.summary(rows.label, rows.logits, fitted.temperature, fitted.platt)
    patients = by_patient(rows, "mean", THRESHOLD)
    if not isinstance(patients, PatientTable):
        found["patients"] = {"why_not": patients.reason}
        return found
    scores: dict[str, Any] = dict(metrics.binary_scores(patients.label, patients.p, THRESHOLD))
    found["patients"] = {
        **scores,
        "confusion": metrics.confusion(patients.label, patients.p, THRESHOLD),
        "patients": len(patients.p),
        "aggregation": "mean",
        "intervals": _intervals(scores),
        "mixed": patients.mixed,
    }
    found["predictive_values"] = [
        {"prevalence": share, **dict(zip(("ppv", "npv"), values, strict=True))}
        for share in (0.05, 0.1, 0.3)
        for values in [predictive_values(found["sensitivity"], found["specificity"], share)]
    ]
    return found


def _intervals(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Not those of the images: 0.05 to either side, so that texts stay the same whatever the methods do."""
    names = [name for name in scores if name in metrics.binary_scores(np.array([0, 1]), np.array([0.0, 1.0]), 0.5)]
    methods = {"roc_auc": "logit", "f1": "bca", "mcc": "bca", "brier": "bca"}
    return {
        name: None
        if scores[name] is None
        else {
            "low": max(-1.0 if name == "mcc" else 0.0, scores[name] - 0.05),
            "high": min(1.0, scores[name] + 0.05),
            "method": methods.get(name, "wilson"),
        }
        for name in names
    }


def _counts(rows: Predictions) -> dict[str, Any]:
    return {
        "images": len(rows),
        "groups": len(set(rows.group.tolist())),
        "classes": {name: int((rows.label == k).sum()) for k, name in enumerate(rows.classes)},
    }


def _baselines(rows: Predictions) -> dict[str, Any]:
    share = float(max(np.bincount(rows.label)) / len(rows))
    return {
        "majority": {
            **{"roc_auc": 0.5, "average_precision": 1 - share, "accuracy": share, "balanced_accuracy": 0.5},
            **{"sensitivity": 0.0, "specificity": 1.0, "precision": None, "f1": 0.0, "mcc": None, "brier": 0.25},
        },
        "file_facts": {
            **dict.fromkeys(SCORES, 0.6),
            "roc_auc": 0.62,
            "intervals": {"roc_auc": {"low": 0.55, "high": 0.69, "method": "logit"}},
            "features": ["file format", "width", "height"],
        },
    }
