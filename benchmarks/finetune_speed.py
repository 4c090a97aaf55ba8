"""How much time frozen stages save: a linear probe on stored features, and an epoch with blocks 1 to 3 frozen.

    python -m benchmarks.finetune_speed paths.data_dir=…                  # DenseNet121, covid19ct's training images
    python -m benchmarks.finetune_speed dataset=phantom --images 64 --epochs 4 --rounds 1

- probe_ratio: seconds in fit of a linear probe of `--epochs` epochs, computed each time over stored, whose first pass
  through the backbone counts. Computed each time, `--few` epochs are measured and the others taken to be as long as
  those behind the first.
- frozen_prefix_ratio: seconds of an epoch of full fine-tuning over one with the first four stages frozen.
- cached_prefix_ratio: the same with their output stored, in an epoch behind the one that stores it.

Everything is train.py's own path with validation, metrics and checkpoints, from random weights and without
augmentation. Also reported: the largest difference between the weights and validation scores of the two probes.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import finish, interleaved, ratio, summary

PROBE = ("finetune=linear_probe",)
PREFIX = ("finetune=surgical", "finetune.stages=[block4,norm,head]")
NOTHING_STORED = "finetune.cache_gb=0"


@dataclass(frozen=True)
class Fit:
    """A training: seconds of it all and of each epoch, the weights, and the last scores."""

    seconds: float
    epochs: list[float]
    weights: dict[str, Any]
    scores: dict[str, float]

    def lasting(self, epochs: int) -> float:
        """Return seconds that it would take with more epochs of the length of those behind the first."""
        later = self.epochs[1:]
        return self.seconds + (epochs - len(self.epochs)) * sum(later) / len(later)


def main() -> None:
    arguments, settings = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(settings, Path(folder))
        stored, computed = (bench.fit(*PROBE, *s, epochs=arguments.few) for s in ((), (NOTHING_STORED,)))
        figures = interleaved(
            {
                "probe_stored": lambda: bench.fit(*PROBE, epochs=arguments.epochs).seconds,
                "probe_computed": lambda: bench.fit(*PROBE, NOTHING_STORED, epochs=arguments.few).lasting(
                    arguments.epochs
                ),
                "full_epoch": lambda: bench.fit("finetune=full", epochs=2).epochs[1],
                "frozen_epoch": lambda: bench.fit(*PREFIX, NOTHING_STORED, epochs=2).epochs[1],
                "stored_epoch": lambda: bench.fit(*PREFIX, epochs=2).epochs[1],
            },
            arguments.rounds,
        )
    ratios = {
        "probe": ratio(figures, "probe_computed", "probe_stored"),
        "frozen_prefix": ratio(figures, "full_epoch", "frozen_epoch"),
        "cached_prefix": ratio(figures, "full_epoch", "stored_epoch"),
    }
    finish(
        benchmark="finetune_speed",
        **{f"{name}_ratio": found["median"] for name, found in ratios.items()},
        ratios=ratios,
        seconds=summary(figures),
        computed_probe=f"{arguments.few} epochs measured, extrapolated linearly to {arguments.epochs}",
        weights_differ_by=max(float((stored.weights[n] - w).abs().max()) for n, w in computed.weights.items()),
        scores_differ_by=max(abs(stored.scores[name] - score) for name, score in computed.scores.items()),
        settings=settings,
    )


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30, help="of the linear probe")
    parser.add_argument("--few", type=int, default=3, help="epochs of it that are measured where it is slow; 2 or more")
    parser.add_argument("--images", type=int, help="training images an epoch; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("settings", nargs="*", help="what train.py takes")
    arguments = parser.parse_intermixed_args()
    settings = ["dataset=covid19ct", "model=densenet121", "model.weights=none", "augment=none", "logger=none"]
    settings += arguments.settings
    if arguments.images is not None:
        from ddtl.config.load import load

        settings.append(f"trainer.limit_batches={max(1, arguments.images // load(settings).dataset.batch_size)}")
    return arguments, settings


class Bench:
    """Trainings of one configuration under different schedules, each in a folder of its own."""

    def __init__(self, settings: list[str], folder: Path) -> None:
        import torch

        from ddtl.utils import console
        from ddtl.utils.memory import tune_allocator

        tune_allocator()
        console.set_up_logging()
        torch.set_float32_matmul_precision("high")
        self.settings = settings
        self.folder = folder
        self.number = itertools.count()

    def fit(self, *more: str, epochs: int) -> Fit:
        """Train as train.py does, up to the final scores."""
        import pytorch_lightning as pl
        import torch

        from ddtl.config.load import load
        from ddtl.records.run_folder import RunFolder
        from ddtl.training.train import assemble
        from ddtl.training.trainer import build_trainer

        run = assemble(load([*self.settings, *more, f"trainer.max_epochs={epochs}", f"paths.runs_dir={self.folder}"]))
        module = run.module().to(memory_format=torch.channels_last)
        to = RunFolder(self.folder / str(next(self.number)))
        to.last.parent.mkdir(parents=True)
        trainer = build_trainer(run, to, [])
        starts: list[float] = []

        class Clock(pl.Callback):
            def on_train_epoch_start(self, *_: Any) -> None:
                starts.append(time.perf_counter())

        trainer.callbacks.insert(0, Clock())  # type: ignore[attr-defined]
        started = time.perf_counter()
        trainer.fit(module, datamodule=run.datamodule)
        ended = time.perf_counter()
        return Fit(
            ended - started,
            [after - before for before, after in itertools.pairwise([*starts, ended])],
            {name: value.detach().float().cpu().clone() for name, value in run.network.state_dict().items()},
            {name: float(value) for name, value in trainer.callback_metrics.items()},
        )


if __name__ == "__main__":
    main()
