"""Applies the schedule's table to the network at the start of every epoch."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy

from ddtl.finetuning.schedule import Schedule
from ddtl.models.network import Network


def apply_epoch(network: Network, schedule: Schedule, epoch: int) -> bool:
    """Bring every stage into the state that the table gives it for ``epoch``; whether other stages train now."""
    states = schedule.at(epoch)
    before = network.frozen, network.subsets
    network.freeze(
        stages=[name for name, state in states.items() if state.frozen],
        fixed_statistics=[name for name, state in states.items() if state.fixed_statistics],
        subsets={name: state.parameters for name, state in states.items() if state.parameters != "all"},
    )
    return (network.frozen, network.subsets) != before


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
        others_train = apply_epoch(self.network, self.schedule, trainer.current_epoch)
        if others_train and isinstance(trainer.strategy, DDPStrategy):
            wrap_again(trainer.strategy)


def wrap_again(strategy: DDPStrategy) -> None:
    """Let distributed training average the gradients of the parameters that train now, of all and of no others.

    DistributedDataParallel registers the parameters that require a gradient when it is built, once. A stage thawed
    later would train on each process's own images alone, and the processes would drift apart without a word; a stage
    frozen later would be waited for. Registering everything and setting ``find_unused_parameters`` is right, too, but
    searches the graph and averages the frozen stages' zeros at every step; a new wrapper costs less than one step.
    Every process comes here in the same epochs, because the table is the same, and the model's buffers are taken over
    from the first process, as at the start.
    """
    assert strategy.lightning_module is not None
    strategy.model = strategy.lightning_module
    strategy.configure_ddp()
