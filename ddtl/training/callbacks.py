"""What happens at the end of an epoch, and when a loss is not a number."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import Tensor

from ddtl.data.manifest import Manifest
from ddtl.records.run_folder import MACHINE, RunFolder
from ddtl.schema.scores import MONITORS
from ddtl.training import hardware
from ddtl.utils.errors import NotFinite, TrainingFailure
from ddtl.utils.files import append_line, replace_file, temporary_path, write_text
from ddtl.utils.ranks import gather
from ddtl.utils.wording import duration


class EpochEnd(Checkpoint):
    """Writes the epoch's row to ``metrics.jsonl``, then ``best.ckpt`` and ``last.ckpt``.

    The order makes a kill at any moment harmless: ``last.ckpt`` comes last, and everything written after it for an
    epoch that it does not know is written again, the same, when that epoch is run again.

    A subclass of Lightning's ``Checkpoint`` because those run after all other callbacks.
    """

    def __init__(
        self, folder: RunFolder, monitor: str, seconds_between: float, report: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self.folder = folder
        self.monitor = monitor
        self.seconds_between = seconds_between
        self.sign = 1.0 if MONITORS[monitor] == "max" else -1.0
        self.report = report
        self.best_score: float | None = None
        self.best_epoch: int | None = None
        self._started = 0.0
        self._saved = -math.inf
        self._rows: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_score = state_dict["best_score"]
        self.best_epoch = state_dict["best_epoch"]

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Start the next epoch as an uninterrupted run would.

        Lightning's own loop state, saved here, is between two epochs: restored, it would skip the next epoch's
        start hooks. So only the counts are taken from the checkpoint, into loops that are otherwise fresh.
        """
        checkpoint.pop("loops")
        epoch, step = checkpoint["epoch"] + 1, checkpoint["global_step"]
        loop = trainer.fit_loop
        for counts in (loop.epoch_progress.current, loop.epoch_progress.total):
            counts.ready = counts.started = counts.processed = counts.completed = epoch  # type: ignore[attr-defined]
        steps = loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step
        steps.total.ready = steps.total.completed = step
        loop.epoch_loop._batches_that_stepped = step

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note what the epoch was validated on: on another machine its score may differ by rounding."""
        checkpoint[MACHINE] = hardware.arithmetic()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            known = [row for row in self.folder.epochs() if row["epoch"] < trainer.current_epoch]
            write_text(self.folder.metrics, "".join(json.dumps(row) + "\n" for row in known))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.monotonic()
        self._rows = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._rows.append(batch["row"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._check_finite(scores, trainer.current_epoch)
        _assert_ranks_agree(trainer, pl_module)
        score = scores[self.monitor]
        improved = self.best_score is None or self.sign * score > self.sign * self.best_score
        if improved:
            self.best_score, self.best_epoch = score, trainer.current_epoch
        if trainer.is_global_zero:
            row = {
                "epoch": trainer.current_epoch,
                "step": trainer.global_step,
                "seconds": round(time.monotonic() - self._started, 3),
                "lr": max(group["lr"] for group in trainer.optimizers[0].param_groups),
                **{name: value if math.isfinite(value) else None for name, value in sorted(scores.items())},
                "order": self._order(),
            }
            self.report({**row, "best": improved})
            try:
                append_line(self.folder.metrics, row)
            except OSError as error:
                raise self._unwritable(self.folder.metrics, error) from error
        if improved or self._is_due(trainer):
            self._save(trainer, improved)
            self._saved = time.monotonic()

    def _is_due(self, trainer: pl.Trainer) -> bool:
        """Return whether the last checkpoint is old, or this epoch may be the last one; the first process decides
        for all.
        """
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        due = ends or time.monotonic() - self._saved >= self.seconds_between
        return bool(trainer.strategy.broadcast(due))

    def _order(self) -> str:
        """Return which images this process trained on in the epoch, in their order, as a short hash."""
        return hashlib.sha256(torch.cat(self._rows).cpu().numpy().tobytes()).hexdigest()[:12]

    def _save(self, trainer: pl.Trainer, improved: bool) -> None:
        last, best = self.folder.last, self.folder.best
        fresh, fresh_best = temporary_path(last), temporary_path(best)
        try:
            trainer.save_checkpoint(fresh, weights_only=False)  # model, optimiser and all
            if not trainer.is_global_zero:
                return
            if improved:
                _link_or_copy(fresh, fresh_best)
                replace_file(fresh_best, best)
            replace_file(fresh, last)  # Lightning swallows a refused write; this finds it
        except OSError as error:
            for partial in (fresh, fresh_best):
                partial.unlink(missing_ok=True)
            raise self._unwritable(last, error) from error

    @staticmethod
    def _unwritable(path: Path, error: OSError) -> TrainingFailure:
        return TrainingFailure(f"could not write {path}: {error.strerror or error}. Make room or repair the folder.")

    def _check_finite(self, scores: Mapping[str, float], epoch: int) -> None:
        for name in ("train/loss", "val/loss", self.monitor):
            if not math.isfinite(scores[name]):
                raise NotFinite(
                    f"{name} is {scores[name]} after epoch {epoch + 1}. "
                    "Lower optimizer.lr, or look for the cause with debug=anomaly."
                )


def _assert_ranks_agree(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """Check that the processes of a distributed run have the same weights to the bit."""
    if trainer.world_size == 1:
        return
    digest = hashlib.sha256()
    for parameter in pl_module.parameters():
        digest.update(parameter.detach().float().cpu().numpy().tobytes())
    if len(set(gather([digest.hexdigest()]))) > 1:
        raise TrainingFailure(
            f"the processes have different weights after epoch {trainer.current_epoch + 1}. Their result would be "
            "that of none of them; run with trainer.devices=1 trainer.num_nodes=1, and report this."
        )


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # not every file system has hard links
        shutil.copyfile(source, target)


class EarlyEnd(Checkpoint):
    """May end a fit at its start, and after any epoch but the last one once the epoch is recorded.

    The run is then not scored, and can be resumed. All processes of a distributed run follow the first one.
    Of Lightning's ``Checkpoint`` for the same reason as :class:`EpochEnd`, behind which it comes.

    Attributes:
        ended: why the fit was ended; None where it was not.
        folder: of the run; there from the moment when the trainer is built.
    """

    folder: RunFolder

    def __init__(self) -> None:
        self.ended: str | None = None

    def decide(self, trainer: pl.Trainer) -> str | None:
        """Return why the fit is to end with what is done; None lets it continue. Called in the first process alone."""
        raise NotImplementedError

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # The process before may have been killed between its checkpoint and its decision.
        self._ask(trainer, done=trainer.current_epoch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._ask(trainer, done=trainer.current_epoch + 1)

    def _ask(self, trainer: pl.Trainer, done: int) -> None:
        if trainer.should_stop or done == trainer.max_epochs:
            return
        self.ended = trainer.strategy.broadcast(self.decide(trainer) if trainer.is_global_zero else None)
        trainer.should_stop = self.ended is not None


class EpochProgress(pl.Callback):
    """How far an epoch is: a bar at a terminal, on the console whose lines then appear above it; else lines.

    Args:
        console: where it is shown.
        batch: images of one batch, over all processes.
        seconds: between two lines, without a terminal.
    """

    def __init__(self, console: Console, batch: int, seconds: float = 30.0) -> None:
        self.console = console
        self.batch = batch
        self.seconds = seconds
        self.bar: Progress | None = None
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[how]}"),
            )
            self.bar = Progress(*columns, console=console, transient=True)
            self.task = self.bar.add_task("", total=None, how="")
        self._begin = self._shown_at = 0.0
        self._done = 0  # batches of this process

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin = self._shown_at = time.monotonic()
        if self.bar is not None:
            self.bar.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.bar is not None:
            self.bar.reset(self.task, total=int(trainer.num_training_batches), description=_epoch(trainer))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._done += 1
        now = time.monotonic()
        is_due = now - self._shown_at >= (1.0 if self.bar is not None else self.seconds)
        if self.bar is not None:
            self.bar.update(self.task, completed=batch_idx + 1)
        if not is_due:
            return  # a loss that is read every time would make the device wait
        self._shown_at = now
        how = self._how(trainer, float(outputs["loss"]), batch_idx, now)
        if self.bar is not None:
            self.bar.update(self.task, how=how)
        else:
            self.console.print(f"{_epoch(trainer)}   batch {batch_idx + 1}/{trainer.num_training_batches}   {how}")

    def _how(self, trainer: pl.Trainer, loss: float, batch_idx: int, now: float) -> str:
        per_batch = (now - self._begin) / self._done  # validation between epochs included
        each = int(trainer.num_training_batches)
        left = each * ((trainer.max_epochs or 0) - trainer.current_epoch) - batch_idx - 1
        return f"loss {loss:.4f}   {self.batch / per_batch:.1f} images/s   about {duration(left * per_batch)} left"

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.bar is not None:
            self.bar.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self.bar is not None:
            self.bar.stop()


def _epoch(trainer: pl.Trainer) -> str:
    return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"


class Patience(EarlyStopping):
    """Early stopping that stays stopped: a run killed after the decision does not train on when it is resumed."""

    def __init__(self, monitor: str, patience: int) -> None:
        super().__init__(
            monitor=monitor, mode=MONITORS[monitor], patience=patience, check_on_train_epoch_end=True, verbose=False
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class StopOnNonFinite(pl.Callback):
    """Ends training at the first loss that is not a number, naming the step and the images.

    The check examines the batch before, whose loss the device has long computed, so it costs no waiting.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._before: tuple[int, Tensor, Tensor] | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._check()
        self._before = (trainer.global_step, outputs["loss"].detach(), batch["row"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check()
        self._before = None

    def _check(self) -> None:
        if self._before is None:
            return
        step, loss, rows = self._before
        if not torch.isfinite(loss):
            names = [self.manifest.samples[row].sample_id for row in rows.tolist()]
            raise NotFinite(
                f"the loss became {float(loss)} at step {step}, on the images {', '.join(names)}. "
                "Lower optimizer.lr, set trainer.clip_norm, or look for the cause with debug=anomaly."
            )
