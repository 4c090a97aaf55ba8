"""Several runs one after the other, in processes that the launcher starts once; see test_schedules_distributed.py.

    python -m tests.support.runs_in_a_row FOLDER

FOLDER contains jobs.json: a list of {name, overrides, wrap_again, stop_after}.

Each process writes FOLDER/<name>-<rank>.jsonl, a line for each epoch. Starting Python and torch takes longer than the
runs do.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ddtl.utils.threads import share_out

share_out(2)

import pytorch_lightning as pl  # noqa: E402
import torch  # noqa: E402

from ddtl.config.load import load  # noqa: E402
from ddtl.finetuning import callback  # noqa: E402
from ddtl.models.network import Network  # noqa: E402
from ddtl.training import train  # noqa: E402
from ddtl.training.callbacks import EarlyEnd  # noqa: E402
from ddtl.utils.errors import TrainingFailure  # noqa: E402
from ddtl.utils.files import append_line  # noqa: E402


def digest(tensors: Iterable[torch.Tensor]) -> str:
    """Of their bits."""
    return hashlib.sha256(b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)).hexdigest()


class Record(pl.Callback):
    """Writes what this process holds at the end of each epoch, and what its steps were like."""

    def __init__(self, path: Path, network: Network) -> None:
        self.path = path
        self.network = network
        self.moving = 0
        self.scored = ""

    def on_before_optimizer_step(self, trainer: pl.Trainer, *_: Any) -> None:
        """Inside a step: a stage that stands still holds no gradient, and its BatchNorm is fixed."""
        for name in self.network.frozen:
            stage = self.network.stages[name]
            norms = [m for m in stage.modules() if isinstance(m, torch.nn.BatchNorm2d)]
            self.moving += sum(m.training for m in norms) + sum(p.grad is not None for p in stage.parameters())

    def on_validation_batch_start(self, *_: Any) -> None:
        self.scored = digest(self.network.state_dict().values())  # with the statistics

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        wrapper: Any = trainer.strategy.model
        append_line(
            self.path,
            {
                "epoch": trainer.current_epoch,
                "digest": digest(self.network.parameters()),
                "scored": self.scored,
                "frozen": sorted(self.network.frozen),
                "moving": self.moving,
                "unused": wrapper.find_unused_parameters,
            },
        )


class StopAfter(EarlyEnd):
    """Ends the run after some epochs; the first process alone decides."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def decide(self, trainer: pl.Trainer) -> str | None:
        return "enough" if trainer.current_epoch + 1 >= self.epochs else None


def main(folder: Path) -> None:
    build, wrap = train.build_trainer, callback.wrap_again
    for job in json.loads((folder / "jobs.json").read_text()):

        def recorded(run: Any, *rest: Any, name: str = job["name"], **more: Any) -> pl.Trainer:
            trainer = build(run, *rest, **more)
            path = folder / f"{name}-{trainer.global_rank}.jsonl"
            trainer.callbacks.insert(1, Record(path, run.network))  # behind the schedule, before the run's own check
            return trainer

        train.build_trainer = recorded  # type: ignore[assignment]
        callback.wrap_again = wrap if job["wrap_again"] else lambda strategy: None
        stop_after = job.get("stop_after")
        try:
            train.train(load(job["overrides"]), [StopAfter(stop_after)] if stop_after else [])
        except train.EndedEarly:
            pass
        except TrainingFailure as failure:
            sys.stderr.write(f"{job['name']}: {failure}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
