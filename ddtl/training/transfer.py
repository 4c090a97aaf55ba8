"""A trained network on the test set of another dataset."""

from __future__ import annotations

import csv
import logging
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from ddtl.config.schema import Config
from ddtl.data.manifest import Manifest
from ddtl.errors import UserError
from ddtl.evaluation import predictions as prediction_table
from ddtl.evaluation.predictions import Predictions
from ddtl.files import write_json
from ddtl.reports.command import write as write_report
from ddtl.training import hardware
from ddtl.training.run_folder import RunFolder
from ddtl.training.scoring import baselines, look, predict, scored, setting
from ddtl.training.train import assemble

log = logging.getLogger(__name__)


def score_elsewhere(folder: RunFolder, config: Config, trained: dict[str, Any]) -> dict[str, Any]:
    """Predict and score; written to ``<run>/evaluations/<dataset>-<protocol>/``.

    Args:
        folder: of the finished run.
        config: the run's, with the other dataset in it and the run's folder as weights.
        trained: the run's own results.

    Raises:
        UserError: the dataset is not there, or has another number of classes.
    """
    run = assemble(config)
    manifest = run.datamodule.manifest
    matched = _matched(manifest, trained["classes"])
    module = run.module()
    if config.trainer.channels_last:
        module.to(memory_format=torch.channels_last)
    trainer = pl.Trainer(
        accelerator=run.machine.accelerator, devices=1, precision=run.machine.precision,
        deterministic=config.trainer.deterministic, logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    results = setting(run) | {
        "trained_on": {"dataset": trained["dataset"], "protocol": trained["protocol"], "run": folder.path.name},
        "seed": trained["seed"],
        "weights": trained["weights"],
        "best_epoch": trained["best_epoch"],
        "look": look(run, folder, trained["best_epoch"]),
    }
    table = predict(trainer, module, run.datamodule, ["test"])
    # How the other dataset was split says nothing here: what matters is whether the run learned from its test images.
    results["leaked_share"] = _seen(folder, table, manifest.dataset == trained["dataset"])
    results["warnings"] = [*manifest.notes, *matched, *_leak(results["leaked_share"])]
    val = prediction_table.read(folder.predictions).of("val")
    results |= scored(table, val, ["test"], config.evaluation, manifest.grouping)
    results["baselines"] = baselines(table, manifest, config.evaluation)
    to = folder.path / "evaluations" / f"{manifest.dataset}-{manifest.protocol}"
    to.mkdir(parents=True, exist_ok=True)
    write_json(to / "environment.json", hardware.environment())
    prediction_table.write(table, to / "predictions.csv")
    write_json(to / "results.json", results)
    write_report(to)
    return results


def _seen(folder: RunFolder, test: Predictions, same_dataset: bool) -> float:
    """The share of the test images whose patient (or group) is among those that the run learned from."""
    if not same_dataset:
        return 0.0
    with folder.split.open(newline="", encoding="utf-8") as file:
        learned = {row["group"] for row in csv.DictReader(file) if row["split"] in ("train", "val")}
    return float(np.mean([group in learned for group in test.group.tolist()]))


def _leak(share: float) -> list[str]:
    if not share:
        return []
    warning = f"{share:.0%} of the test images are of patients or groups that the run learned from: optimistic."
    log.warning(warning)
    return [warning]


def _matched(manifest: Manifest, classes: list[str]) -> list[str]:
    """A warning where the classes go by other names."""
    if len(manifest.classes) != len(classes):
        raise UserError(
            f"The run tells {len(classes)} classes apart ({', '.join(classes)}), and {manifest.dataset} has "
            f"{len(manifest.classes)} ({', '.join(manifest.classes)})."
        )
    if list(manifest.classes) == classes:
        return []
    pairs = ", ".join(f"{ours} for {theirs}" for ours, theirs in zip(manifest.classes, classes, strict=True))
    warning = f"The classes go by other names here and are matched by their order: {pairs}."
    log.warning(warning)
    return [warning]
