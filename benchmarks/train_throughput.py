"""Images a second in training: train.py's own path, the stock Lightning loop, and a bare loop on tensors in memory.

    python -m benchmarks.train_throughput                             # CPU, DenseNet121, 224 px, batch 16
    python -m benchmarks.train_throughput --accelerator gpu --batch 256 --steps 30 [--compile]

- ddtl: the trainer, the data module (decoded cache, standard augmentation) and the callbacks that train.py uses.
- lightning: what one writes first: fp32, PIL decoding of the same PNG files, torchvision transforms, two workers.
- bare: a loop over one batch of tensors that are on the device, channels_last and in ddtl's precision: the upper bound.

All train the same network with AdamW from random weights on the same phantom. A figure is the mean over the steps of
a round behind the first ones; each contender has a process of its own, and their rounds take turns.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measuring import finish, in_own_process, interleaved, ratio, summary
from ddtl.config.load import load
from ddtl.training.hardware import resolve

WARM_UP = 2  # steps of a round that are not counted


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        settings = _settings(arguments, folder)
        contenders = {
            "ddtl": in_own_process(ours, settings, folder),
            "lightning": in_own_process(stock_lightning, settings, arguments),
            "bare": in_own_process(bare, settings, arguments),
        }
        figures = interleaved(contenders, arguments.rounds)
    finish(
        benchmark="train_throughput",
        ratio_vs_lightning=ratio(figures, "ddtl", "lightning")["median"],
        ratio_vs_bare=ratio(figures, "ddtl", "bare")["median"],
        ratios={theirs: ratio(figures, "ddtl", theirs) for theirs in ("lightning", "bare")},
        images_per_second=summary(figures),
        **{**vars(arguments), "precision": resolve(load(settings).trainer).precision},
    )


def _settings(arguments: argparse.Namespace, folder: str) -> list[str]:
    """Return the words for train.py, the same for all."""
    gpu = arguments.accelerator == "gpu"
    return [
        f"model={arguments.model}", "model.weights=none", "logger=none", f"paths.runs_dir={folder}",
        f"dataset.phantom.n_patients={max(60, 3 * arguments.batch * (arguments.steps + 1) // 8 // 2 * 2)}",
        "dataset.phantom.slices_per_patient=4", f"dataset.phantom.size={arguments.size}",
        "dataset.val_fraction=0.1", "dataset.test_fraction=0.1",
        f"dataset.image_size={arguments.size}", f"dataset.batch_size={arguments.batch}",
        f"dataset.num_workers={arguments.workers}", f"trainer.accelerator={arguments.accelerator}",
        f"trainer.limit_batches={arguments.steps}", "trainer.max_epochs=1",
        f"trainer.precision={arguments.precision}", f"trainer.compile={str(arguments.compile).lower()}",
        f"trainer.deterministic={str(not gpu).lower()}",
    ]  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="densenet121")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8, help="in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=0, help="loader processes of ddtl")
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--precision", choices=("auto", "32", "bf16-mixed"), default="auto")
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


class Clock:
    """Images a second between the end of the warm-up and the end of the last step."""

    def __init__(self, batch: int, steps: int) -> None:
        self.batch, self.steps = batch, steps
        self.done, self.started, self.figure = 0, 0.0, 0.0

    def step_done(self) -> None:
        import torch

        self.done += 1
        if self.done in (WARM_UP, self.steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if self.done == WARM_UP:
                self.started = time.perf_counter()
            else:
                self.figure = self.batch * (self.steps - WARM_UP) / (time.perf_counter() - self.started)


def _timer(clock: Clock) -> Any:
    import pytorch_lightning as pl

    class Timer(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            clock.step_done()

    return Timer()


def ours(settings: list[str], folder: str) -> Callable[[], float]:
    """Return a round of training as ``train.py`` does it, up to the scores."""
    import torch

    from ddtl.records.run_folder import RunFolder
    from ddtl.training.train import assemble
    from ddtl.training.trainer import build_trainer
    from ddtl.utils.memory import tune_allocator

    tune_allocator()
    torch.set_float32_matmul_precision("high")
    run = assemble(load(settings))
    if run.config.trainer.compile:
        run.network.compile()
    module = run.module().to(memory_format=torch.channels_last)
    counter = itertools.count()

    def measure() -> float:
        to = RunFolder(Path(folder) / f"round{next(counter)}")
        to.last.parent.mkdir(parents=True)
        trainer = build_trainer(run, to, [])
        clock = Clock(run.config.dataset.batch_size, run.config.trainer.limit_batches or 0)
        trainer.callbacks.append(_timer(clock))  # type: ignore[attr-defined]
        trainer.fit(module, datamodule=run.datamodule)
        return clock.figure

    return measure


def stock_lightning(settings: list[str], arguments: argparse.Namespace) -> Callable[[], float]:
    """Return the loop of Lightning's own tutorials on the same files."""
    import pytorch_lightning as pl
    import torch
    import torchvision
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    from ddtl.data.loading.datamodule import CTDataModule

    datamodule = CTDataModule(load(settings))
    datamodule.load()
    manifest = datamodule.manifest
    samples = [manifest.samples[row] for row in manifest.rows("train")]
    prepare = transforms.Compose([
        transforms.Resize((arguments.size, arguments.size)),
        transforms.RandomHorizontalFlip(),
        transforms.RandomAffine(degrees=10, translate=(0.05, 0.05), scale=(0.9, 1.1)),
        transforms.ColorJitter(brightness=0.1, contrast=0.1),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip

    class Files(Dataset[Any]):
        def __len__(self) -> int:
            return len(samples)

        def __getitem__(self, index: int) -> Any:
            with Image.open(samples[index].path) as image:
                return prepare(image.convert("RGB")), samples[index].label

    class Stock(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = torchvision.models.get_model(arguments.model, weights=None, num_classes=2)

        def training_step(self, batch: Any, _: int) -> Any:
            images, labels = batch
            loss = torch.nn.functional.cross_entropy(self.model(images), labels)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-4)

    module = Stock()

    def measure() -> float:
        loader = DataLoader(
            Files(), arguments.batch, shuffle=True, num_workers=2, pin_memory=arguments.accelerator == "gpu"
        )
        clock = Clock(arguments.batch, arguments.steps)
        trainer = pl.Trainer(
            accelerator=arguments.accelerator, devices=1, max_epochs=1, limit_train_batches=arguments.steps,
            callbacks=[_timer(clock)], logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, loader)
        return clock.figure

    return measure


def bare(settings: list[str], arguments: argparse.Namespace) -> Callable[[], float]:
    """Forward, backward and step on one batch that is there already."""
    import torch
    import torchvision

    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if arguments.accelerator == "gpu" else "cpu")
    bf16 = resolve(load(settings).trainer).precision == "bf16-mixed"

    model = torchvision.models.get_model(arguments.model, weights=None, num_classes=2)
    model = model.to(device, memory_format=torch.channels_last)
    if arguments.compile:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    images = torch.rand(arguments.batch, 3, arguments.size, arguments.size, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, 2, (arguments.batch,), device=device)

    def measure() -> float:
        clock = Clock(arguments.batch, arguments.steps)
        model.train()
        for _ in range(arguments.steps):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = torch.nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            clock.step_done()
        return clock.figure

    return measure


if __name__ == "__main__":
    main()
