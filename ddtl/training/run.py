"""The parts of one run, put together before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import Logger

from ddtl.data.loading.datamodule import CTDataModule
from ddtl.finetuning.optimizer import configure
from ddtl.finetuning.schedule import Schedule, compile_schedule
from ddtl.models.file_encoder import FileEncoder
from ddtl.models.losses import build_loss
from ddtl.models.metrics import PatientRocAuc
from ddtl.models.module import Classifier
from ddtl.models.network import Network
from ddtl.models.weights import Weights
from ddtl.records.run_folder import RunFolder
from ddtl.schema.run import OWN_FILES, Config
from ddtl.schema.scores import BY_PATIENT
from ddtl.training.hardware import Hardware
from ddtl.training.identity import identity, run_name
from ddtl.utils.redaction import redact_tree


@dataclass(frozen=True)
class Run:
    """What a run is made of; the data is loaded and the network has its initial weights."""

    config: Config
    machine: Hardware
    datamodule: CTDataModule
    weights: Weights
    network: Network

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that changes the result."""
        found = identity(self.config, self.machine, self.datamodule.digest, self.weights)
        encoder = self.network.backbone
        return found | ({"model.file": f"sha256:{encoder.digest}"} if isinstance(encoder, FileEncoder) else {})

    @property
    def runs_dir(self) -> Path:
        """Folder of all runs."""
        return Path(self.config.paths.runs_dir).expanduser()

    @property
    def path(self) -> Path:
        """The run's own folder."""
        return self.runs_dir / self.config.dataset.name / run_name(self.config, self.identity)

    @cached_property
    def schedule(self) -> Schedule:
        """Which stages train when."""
        return compile_schedule(self.config.finetune, list(self.network.stages), self.config.trainer.max_epochs)

    def module(self) -> Classifier:
        """Return the LightningModule around the network."""
        optimizers_for = partial(
            configure,
            config=self.config.optimizer,
            schedule=self.schedule,
            steps_per_epoch=self.datamodule.steps_per_epoch,
            fused=self.machine.fused,
        )
        return Classifier(
            self.network,
            optimizers_for,
            seed=self.config.seed,
            loss=build_loss(self.config.loss),
            class_weights=self.class_weights(),
            mixing=(self.config.augment.mixup, self.config.augment.cutmix),
            by_patient=self._by_patient(),
        )

    def _by_patient(self) -> PatientRocAuc | None:
        """Return the score over patients, where it is monitored."""
        if self.config.trainer.monitor != BY_PATIENT:
            return None
        samples = self.datamodule.manifest.samples
        return PatientRocAuc([sample.patient_id or "" for sample in samples], self.config.evaluation.patient)

    def public_settings(self) -> dict[str, Any]:
        """Return the settings that loggers may show: no local path, no file name."""
        config = self.config
        hidden: Any = {"paths": True, "run": True, "logger": True, "dataset": {*OWN_FILES, "source_settings"}}
        settings = config.model_dump(mode="json", exclude=hidden)
        settings["model"]["weights"] = config.model.weights if config.model.weights in ("imagenet", "none") else "file"
        settings["model"] |= {} if config.model.file is None else {"file": Path(config.model.file).suffix}
        settings["model"]["weights_digest"] = self.weights.digest
        settings["dataset"]["digest"] = self.datamodule.digest
        return dict(redact_tree(settings))

    def class_weights(self) -> tuple[float, ...] | None:
        """Return inverse shares of the classes in train, 1 on average."""
        if self.config.loss.class_weights == "none":
            return None
        manifest = self.datamodule.manifest
        labels = self.datamodule.labels[manifest.rows("train")]
        counts = np.bincount(labels, minlength=len(manifest.classes))
        return tuple((len(labels) / (len(counts) * counts)).tolist())


@dataclass(frozen=True)
class ScoredRun:
    """A run that was scored just now.

    Attributes:
        run: its parts.
        folder: with its predictions, weights and ``results.json``.
        results: the same as a dict.
        loggers: open ones; none where it had been finished before.
        step: how many optimiser steps it made.
    """

    run: Run
    folder: RunFolder
    results: Mapping[str, Any]
    loggers: Sequence[Logger] = ()
    step: int = 0
