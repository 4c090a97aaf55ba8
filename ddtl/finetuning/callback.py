"""Applies the schedule's table to the network at the start of every epoch."""

from __future__ import annotations

import pytorch_lightning as pl

from ddtl.finetuning.schedule import Schedule
from ddtl.models.network import Network


def apply_epoch(network: Network, schedule: Schedule, epoch: int) -> None:
    """Bring every stage into the state that the table gives it for ``epoch``."""
    states = schedule.at(epoch)
    network.freeze(
        stages=[name for name, state in states.items() if state.frozen],
        fixed_statistics=[name for name, state in states.items() if state.fixed_statistics],
    )


class ApplySchedule(pl.Callback):
    """A function of the epoch alone, so a resumed run is in the right phase without any state of its own."""

    def __init__(self, network: Network, schedule: Schedule) -> None:
        self.network = network
        self.schedule = schedule

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Before distributed training wraps the model, which counts the parameters that train."""
        if stage == "fit":
            apply_epoch(self.network, self.schedule, 0)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        apply_epoch(self.network, self.schedule, trainer.current_epoch)
