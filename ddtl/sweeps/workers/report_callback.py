"""A trial's word with its sweep after every epoch: the score goes out, and the answer may end the trial."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from ddtl.records import epochs, run as results_of
from ddtl.records.checking import is_number
from ddtl.records.run_folder import RunFolder
from ddtl.training.callbacks import EarlyEnd
from ddtl.utils.reading import Unreadable

if TYPE_CHECKING:
    from ddtl.sweeps.store.store import Store

PRUNED, STOPPED = "pruned", "stopped"
_AGAIN = "Train the run again with run.overwrite=true."


class AskSweep(EarlyEnd):
    """Reports the monitor after each epoch and ends the fit where the pruner, or the sweep's user, wants it to end.

    The scores are those of the run's own record, so a run that is resumed, or that another trial has begun,
    reports its earlier epochs first.
    """

    def __init__(self, store: Store | None, number: int, monitor: str, stop: Path) -> None:
        """Args:
        store: of the sweep; None in all processes of a distributed run but the first.
        number: the trial's.
        monitor: the score that is searched for.
        stop: the file whose presence requests the end of all trials.
        """
        super().__init__()
        self.store = store
        self.number = number
        self.monitor = monitor
        self.stop = stop
        self.seconds: dict[str, float] = {}  # by Lightning's stage: fit, predict
        self._began = 0.0
        self._reported_epochs = 0  # epochs reported by this process

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._began = time.monotonic()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        name = TrainerFn(stage).value
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - self._began

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.store is not None:
            self.store.note(self.number, {"run": str(self.folder.path.absolute())})

    def decide(self, trainer: pl.Trainer) -> str | None:
        if self.reported(self.folder):
            return PRUNED
        return STOPPED if self.stop.exists() else None

    def reported(self, folder: RunFolder) -> bool:
        """Report the epochs of a run's record that are new; whether the pruner wants the trial to end with the last."""
        assert self.store is not None, "only the first process reports"
        verdict = False
        for row in folder.epochs()[self._reported_epochs :]:
            verdict = self.store.report(self.number, row["epoch"], row[self.monitor])
            self._reported_epochs += 1
        return verdict


def objectives(folder: RunFolder, names: tuple[str, ...]) -> list[float]:
    """Return the values of a finished run.

    Args:
        folder: of the run.
        names: ``score``, the monitor in the epoch that was kept, and ``seconds`` of training, all epochs together.
    """
    results = results_of.read(folder.path)
    rows = folder.epochs()
    # Averaged weights have a row of their own, behind that of their last epoch.
    every = epochs.read(folder.path)
    results_of.require(folder.results, results, "best_epoch", "monitor")
    kept: dict[str, Any] = next((row for row in reversed(every) if row["epoch"] == results["best_epoch"]), {})
    if not is_number(kept.get(results["monitor"])) or not all("seconds" in row for row in rows):
        raise Unreadable(folder.metrics, "lacks the epoch that is scored, or its seconds", _AGAIN)
    value: dict[str, Callable[[], float]] = {
        "score": lambda: float(kept[results["monitor"]]),
        "seconds": lambda: sum(float(row["seconds"]) for row in rows),
    }
    return [value[name]() for name in names]
