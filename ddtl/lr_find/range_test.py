"""Runs a learning-rate range test: a ramp of rates on a copy of a run's network, trained as the run would be."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.optim.lr_scheduler import LambdaLR

from ddtl.finetuning.optimizer import build_optimizer
from ddtl.finetuning.schedule import Schedule, StageState, compile_schedule
from ddtl.lr_find.rules import Curve, Ended, LossWatch
from ddtl.models.network import HEAD
from ddtl.training import lightning
from ddtl.utils.console import Progress

if TYPE_CHECKING:
    from ddtl.models.module import Classifier
    from ddtl.models.network import Network
    from ddtl.schema.run import OptimizerConfig
    from ddtl.training.run import Run


@dataclass(frozen=True)
class RangeTestPlan:
    """The range tests that a schedule gives reason for.

    Attributes:
        head: state of each stage while the head trains alone; None where it never trains.
        network: state of each stage in the epoch in which the most of them train; None where only the head ever does.
        head_rate: the head's rate in the schedule as a multiple of ``optimizer.lr`` × ``finetune.head_lr_ratio``:
            where it trains alone if it does, else where the most stages train.
    """

    head: dict[str, StageState] | None
    network: dict[str, StageState] | None
    head_rate: float


def plan_of(run: Run) -> RangeTestPlan:
    """Return what is tested for a run's schedule, with both ratios of its rates at 1: these are searched for."""
    even = run.config.finetune.model_copy(update={"head_lr_ratio": 1.0, "backbone_lr_ratio": 1.0})
    schedule = compile_schedule(even, list(run.network.stages), run.config.trainer.max_epochs)
    return plan_for(schedule)


def plan_for(schedule: Schedule) -> RangeTestPlan:
    """Return the same as :func:`plan_of`, for a schedule whose ratios are 1."""

    def training(row: Mapping[str, StageState]) -> list[str]:
        return [name for name, state in row.items() if not state.frozen]

    fullest = max(reversed(schedule.epochs), key=lambda row: len(training(row)))
    alone = next((row for row in schedule.epochs if training(row) == [HEAD]), fullest)
    frozen = dict.fromkeys(fullest, StageState(0.0, fixed_statistics=True))
    return RangeTestPlan(
        head=frozen | {HEAD: StageState(1.0, fixed_statistics=False)} if HEAD in training(alone) else None,
        network=fullest if training(fullest) != [HEAD] else None,
        head_rate=alone[HEAD].rate,
    )


def range_test(run: Run, states: Mapping[str, StageState], rates: np.ndarray, progress: Progress) -> Curve:
    """Train a copy of the run's network at ever higher rates, until they are used up or the loss diverges.

    Images, their order and augmentation, dropout, loss, optimiser, clipping and precision are those of the run, by the
    same seeds. Of the run itself nothing changes: no folder, no network, and no image is examined but those of train.

    Args:
        run: assembled.
        states: of each stage; its rate multiplies that of the ramp.
        rates: (n,) of the optimiser's steps.
        progress: called with (done, total) after each step.
    """
    network = copy.deepcopy(run.network)
    network.freeze(
        stages=[name for name, state in states.items() if state.frozen],
        fixed_statistics=[name for name, state in states.items() if state.fixed_statistics],
    )
    module, untrained = (replace(run, network=net).module() for net in (network, copy.deepcopy(network)))
    module.optimizers_for = lambda net: _optimizers(net, run.config.optimizer, states, rates, run.machine.fused)
    if run.config.trainer.channels_last:
        for each in (module, untrained):
            each.to(memory_format=torch.channels_last)
    ramp = _Ramp(len(rates), untrained, progress)
    trainer = _trainer(run, ramp, len(rates))
    try:
        trainer.fit(module, datamodule=run.datamodule)
    finally:
        run.datamodule.trainer = None  # as it was before
    measured = np.array(ramp.losses).reshape(-1, 2)
    return Curve(rates[: len(measured)], measured[:, 0], ramp.end_reason, untrained=measured[:, 1])


def _optimizers(
    network: Network, config: OptimizerConfig, states: Mapping[str, StageState], rates: np.ndarray, fused: bool
) -> dict[str, Any]:
    optimizer = build_optimizer(network, config.model_copy(update={"lr": 1.0}), fused)

    def rate_of(stage: str) -> Callable[[int], float]:
        return lambda step: float(rates[min(step, len(rates) - 1)]) * states[stage].rate

    scheduler = LambdaLR(optimizer, [rate_of(group["stage"]) for group in optimizer.param_groups])
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _trainer(run: Run, ramp: _Ramp, steps: int) -> pl.Trainer:
    """Return a trainer as the run's own, but for a number of steps, without validation, and writing nothing."""
    t = run.config.trainer
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # as in training
    return lightning.build(
        accelerator=run.machine.accelerator,
        precision=run.machine.precision,
        max_epochs=-1,
        max_steps=steps,
        limit_val_batches=0,
        accumulate_grad_batches=t.accumulate,
        gradient_clip_val=t.clip_norm or None,
        deterministic=t.deterministic,
        detect_anomaly=t.detect_anomaly,
        callbacks=[ramp],
        logger=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class _Ramp(pl.Callback):
    """Keeps the loss of each optimiser step, and ends training when it diverges.

    Attributes:
        losses: of each step, over all its batches: of the network that trains, and of the untrained one; all finite.
        end_reason: why training was ended; empty where it was not.
    """

    def __init__(self, steps: int, untrained: Classifier, progress: Progress) -> None:
        self.steps = steps
        self.untrained = untrained
        self.progress = progress
        self.losses: list[tuple[float, float]] = []
        self.watch = LossWatch(steps)
        self.end_reason: Ended = ""
        self._now, self._before = 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.untrained.to(pl_module.device).train()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        pl_module.on_train_batch_start(batch, batch_idx)  # the same seed, so the same dropout
        with torch.no_grad(), trainer.precision_plugin.train_step_context():
            self._before += float(self.untrained.training_step(batch, batch_idx)) / trainer.accumulate_grad_batches

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._now += float(outputs["loss"])  # Lightning has divided it by the number of batches in a step
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self.end_reason = self.watch.ended(self._now)
        if self.end_reason != "not finite":
            self.losses.append((self._now, self._before))
        self._now, self._before = 0.0, 0.0
        if self.end_reason:
            trainer.should_stop = True
        self.progress(len(self.losses), self.steps)
