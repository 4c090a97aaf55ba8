"""Means of the weights, which are then what is scored and kept."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from ddtl.models.network import Network


class RunningMean(pl.Callback):
    """The exponential mean of the network's weights and statistics over the optimiser's steps.

    After step t it is Σ d^(t-i) w_i / Σ d^(t-i), i = 1 … t: a mean of what training has come to, without the initial
    weights, so it is right from the first step on, where it is w_1. (Adam's correction of the bias, Kingma & Ba 2015.)
    Validation sees the mean; training resumes from the weights themselves.

    Args:
        network: whose weights.
        decay: d, between 0 and 1.
    """

    state_key = "running_mean"

    def __init__(self, network: Network, decay: float) -> None:
        self.network = network
        self.decay = decay
        self.mean: dict[str, Tensor] = {}
        self._seen = 0
        self._aside: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.mean = state_dict["mean"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seen = trainer.global_step
        self.mean = {name: value.to(pl_module.device) for name, value in self.mean.items()}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step > self._seen:  # not after every batch, where several make a step
            self._seen = trainer.global_step
            self.update(trainer.global_step)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they are after the optimiser's step number ``step``, which counts from 1."""
        now = self.network.state_dict()
        if step == 1 or not self.mean:
            self.mean = {name: value.clone() for name, value in now.items()}
            return
        share = (1 - self.decay) / (1 - self.decay**step)
        for name, value in now.items():
            if value.is_floating_point():
                self.mean[name].lerp_(value, share)
            else:
                self.mean[name].copy_(value)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._aside = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.mean)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.network.load_state_dict(self._aside)
        self._aside = {}


class MeanOfLast(pl.Callback):
    """The mean of the network's weights after each of the last epochs.

    Stochastic weight averaging (Izmailov et al. 2018, Averaging weights leads to wider optima and better
    generalization, UAI) at a step of one epoch, under the learning rate that the run has. Training and validation
    continue with the weights themselves; BatchNorm's statistics of the mean are measured when it is scored.

    Args:
        network: whose weights.
        first: the first epoch that counts, from 0.
    """

    state_key = "mean_of_last"

    def __init__(self, network: Network, first: int) -> None:
        self.network = network
        self.first = first
        self.mean: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.mean = state_dict["mean"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.update(trainer.current_epoch)

    @torch.no_grad()
    def update(self, epoch: int) -> None:
        """Take in the weights as they are after an epoch, which counts from 0."""
        if epoch < self.first:
            return
        for name, value in self.network.state_dict().items():
            if epoch == self.first or not value.is_floating_point():
                self.mean[name] = value.clone()
            else:
                self.mean[name] = self.mean[name].to(value.device).lerp(value, 1 / (epoch - self.first + 1))


def scored_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights that a checkpoint's scores are of, by the network's names: a mean where there is one."""
    for kept in (RunningMean.state_key, MeanOfLast.state_key):
        if kept in checkpoint["callbacks"]:
            mean: dict[str, Tensor] = checkpoint["callbacks"][kept]["mean"]
            return mean
    state: dict[str, Tensor] = checkpoint["state_dict"]
    return {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
