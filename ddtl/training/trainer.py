"""Lightning's Trainer as the configuration requests it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ddtl.schema.scores import with_unit

if TYPE_CHECKING:
    pass

from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from ddtl.finetuning.callback import ApplySchedule
from ddtl.finetuning.features import FrozenFeatures
from ddtl.records.run_folder import RunFolder
from ddtl.training import lightning
from ddtl.training.callbacks import EarlyEnd, EpochEnd, EpochProgress, Patience, StopOnNonFinite
from ddtl.training.run import Run
from ddtl.training.weight_averaging import MeanOfLast, RunningMean
from ddtl.utils import console


def build_trainer(run: Run, folder: RunFolder, shown_to: list[Logger], more: Sequence[EarlyEnd] = ()) -> pl.Trainer:
    """Return a trainer that writes to ``folder``; ``more`` callbacks come after its own."""
    t = run.config.trainer
    callbacks: list[Callback] = [ApplySchedule(run.network, run.schedule), StopOnNonFinite(run.datamodule.manifest)]
    callbacks.append(FrozenFeatures(run.network, run.schedule, run.datamodule, run.config))
    if t.ema is not None:
        callbacks.append(RunningMean(run.network, t.ema))
    if t.average_last is not None:
        callbacks.append(MeanOfLast(run.network, t.max_epochs - t.average_last))
    if t.patience is not None:
        callbacks.append(Patience(t.monitor, t.patience))
    if not console.out.quiet:
        callbacks.append(EpochProgress(console.err, run.config.dataset.batch_size // t.accumulate))
    callbacks.append(EpochEnd(folder, t.monitor, t.checkpoint_seconds, epoch_line(t.max_epochs, t.monitor)))
    for each in more:
        each.folder = folder
    callbacks += more
    # Deterministic operations else fill all memory that is requested with NaN first: a fifth of a step on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return lightning.build(
        accelerator=run.machine.accelerator,
        devices=t.devices,
        num_nodes=t.num_nodes,
        strategy=t.strategy,
        precision=run.machine.precision,
        max_epochs=t.max_epochs,
        accumulate_grad_batches=t.accumulate,
        gradient_clip_val=t.clip_norm or None,
        deterministic=t.deterministic,
        detect_anomaly=t.detect_anomaly,
        profiler=t.profiler,
        callbacks=callbacks,
        logger=shown_to or False,
        use_distributed_sampler=False,  # the order of the data is ours, see ddtl/data/loading/samplers.py
        num_sanity_val_steps=0,
        enable_progress_bar=False,  # EpochProgress is ours: Lightning's hides the lines of finished epochs
        enable_model_summary=False,
        log_every_n_steps=max(1, run.datamodule.steps_per_epoch),
    )


def epoch_line(max_epochs: int, monitor: str) -> Callable[[Mapping[str, Any]], None]:
    """Return a printer of one line an epoch."""
    width = len(str(max_epochs))

    def show(row: Mapping[str, Any]) -> None:
        parts = [  # a loss and a monitored score are means over images
            f"epoch {row['epoch'] + 1:{width}}/{max_epochs}",
            f"train loss {row['train/loss']:.4f}",
            f"val loss {row['val/loss']:.4f}",
            f"{with_unit(monitor)} {row[monitor]:.4f}{' *' if row['best'] else '  '}",
            f"{row['seconds']:.1f} s",
        ]
        console.line("   ".join(parts))

    return show
