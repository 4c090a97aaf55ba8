"""BatchNorm's statistics measured again: on the test images (adaptation), or on the training images (mean of weights).

Adaptation at test time: Nado et al. 2020 (Evaluating prediction-time batch normalization, arXiv 2006.10963) and
Schneider et al. 2020 (Improving robustness against common corruptions by covariate shift adaptation, NeurIPS), who mix
them with the training's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor

from ddtl.data.loading.datamodule import CTDataModule
from ddtl.models.module import Classifier
from ddtl.models.network import BatchNorm
from ddtl.schema.run import EvaluationConfig
from ddtl.utils.errors import UserError


@contextmanager
def adapt_statistics(
    trainer: pl.Trainer, module: Classifier, datamodule: CTDataModule, config: EvaluationConfig
) -> Iterator[None]:
    """Give the network the statistics of the test images where ``evaluation.batchnorm=adapt``; afterwards its own
    again.

    Raises:
        UserError: the network has no BatchNorm, or there is one test image.
    """
    if config.batchnorm == "stored":
        yield
        return
    layers = layers_of(module)
    if not layers:
        raise UserError("evaluation.batchnorm=adapt: the network has no BatchNorm. Set evaluation.batchnorm=stored.")
    before = [{name: value.clone() for name, value in layer.named_buffers()} for layer in layers]
    measure(trainer, module, datamodule, "test", layers, config.batchnorm_prior)
    try:
        yield
    finally:
        for layer, values in zip(layers, before, strict=True):
            for name, value in layer.named_buffers():
                value.copy_(values[name])


def layers_of(module: Classifier) -> list[BatchNorm]:
    """Return the BatchNorm layers, in the network's order."""
    return [layer for layer in module.network.modules() if isinstance(layer, BatchNorm)]


def statistics(layer: BatchNorm) -> tuple[Tensor, Tensor]:
    """Return a copy of the mean and the variance that a layer keeps."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return layer.running_mean.clone(), layer.running_var.clone()


def measure(
    trainer: pl.Trainer,
    module: Classifier,
    datamodule: CTDataModule,
    split: str,
    layers: Sequence[BatchNorm],
    prior: int = 0,
) -> None:
    """Give layers the mean and the variance of what they meet in one pass over a split, as it is, labels unused.

    In the pass the images come in large batches, mixed, and each layer normalises by its batch. Mean and variance are
    those of all N images; with a prior of n they become (n · stored + N · measured) / (n + N).

    Raises:
        UserError: the split has one image.
    """
    n = len(datamodule.manifest.rows(split))
    if n < 2:
        raise UserError(f"BatchNorm's statistics cannot be measured on the {n} image of {split}.")
    meter = _Meter(layers)
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.append(meter)
    try:
        trainer.predict(module, dataloaders=datamodule.shuffled_loader(split))
    finally:
        callbacks.remove(meter)
    for layer, (mean, variance), sums in zip(layers, meter.before, meter.sums, strict=True):
        count, total, squares = sums.to(mean.device)
        measured = total / count
        spread = (squares / count - measured**2).clamp(min=0) * count / (count - 1)
        layer.running_mean.copy_((prior * mean + n * measured) / (prior + n))  # type: ignore[union-attr]
        layer.running_var.copy_((prior * variance + n * spread) / (prior + n))  # type: ignore[union-attr]


class _Meter(pl.Callback):
    """Adds up what layers meet, in float64, while they normalise by their batch.

    Attributes:
        before: each layer's mean and variance before the pass.
        sums: for each layer (3, channels): values met, their sum and the sum of their squares.
    """

    def __init__(self, layers: Sequence[BatchNorm]) -> None:
        self.layers = layers
        self.before: list[tuple[Tensor, Tensor]] = []
        self.sums: list[Tensor] = []

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.before = [statistics(layer) for layer in self.layers]
        self.sums = [mean.new_zeros(3, len(mean), dtype=torch.float64) for mean, _ in self.before]
        self._hooks = [
            layer.register_forward_pre_hook(self._adder(sums))
            for layer, sums in zip(self.layers, self.sums, strict=True)
        ]
        for layer in self.layers:
            layer.training = True  # not by train(), which leaves fixed statistics alone

    @staticmethod
    def _adder(sums: Tensor) -> Any:
        def add(layer: BatchNorm, inputs: tuple[Tensor]) -> None:
            x = inputs[0].float()
            n = x.numel() // x.shape[1]
            variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
            mean = mean.double()
            sums.add_(n * torch.stack([torch.ones_like(mean), mean, variance.double() + mean**2]))

        return add

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for hook in self._hooks:
            hook.remove()
        for layer in self.layers:
            layer.training = False
        for sums in self.sums:
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(sums)
