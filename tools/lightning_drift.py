"""Measures the figures of ``docs/lightning_finetuning_drift.md``: two processes under Lightning's BackboneFinetuning.

    python tools/lightning_drift.py

Two processes of one machine train ResNet-18 for four epochs on random images, first under Lightning's own callback,
then under ddtl's; the backbone is frozen for the first two epochs. After each epoch: the largest difference between
the two processes' parameters. The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from datetime import UTC, datetime
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.nn.functional as F
from pytorch_lightning.callbacks import BackboneFinetuning
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from ddtl.config.load import load
from ddtl.finetuning.callback import ApplySchedule
from ddtl.finetuning.optimizer import configure
from ddtl.finetuning.schedule import compile_schedule
from ddtl.models.network import Network

EPOCHS, FROZEN, IMAGES, BATCH = 4, 2, 64, 8


class Model(pl.LightningModule):
    """A network, and the optimiser that its callback wants to find."""

    def __init__(self, network: Network, optimizers: Any) -> None:
        super().__init__()
        self.network = network
        self.optimizers_as_wanted = optimizers

    @property
    def backbone(self) -> nn.Module:
        """Where Lightning's callback looks for it."""
        return self.network.backbone

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.network(images), labels)

    def configure_optimizers(self) -> Any:
        return self.optimizers_as_wanted


class Differences(pl.Callback):
    """The largest difference between the processes' parameters, after each epoch."""

    def __init__(self) -> None:
        self.largest: list[float] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        mine = nn.utils.parameters_to_vector(p.detach() for p in pl_module.parameters())
        first = mine.clone()
        dist.broadcast(first, src=0)
        difference = (mine - first).abs().max()
        dist.all_reduce(difference, op=dist.ReduceOp.MAX)
        self.largest.append(float(difference))


def differences(whose: str) -> list[float]:
    """Train under one of the two callbacks; the largest difference after each epoch."""
    config = load(
        [
            "model=resnet18", "model.weights=none", "logger=none", "optimizer=sgd", "optimizer.lr=0.01",
            f"trainer.max_epochs={EPOCHS}", "finetune=lp_ft",
            f"finetune.phases=[{{name: probe, train: [head], epochs: {FROZEN}}}, "
            f"{{name: all, train: [all], epochs: {EPOCHS - FROZEN}}}]",
        ]
    )  # fmt: skip
    torch.manual_seed(0)
    network = Network(config.model, n_classes=2)
    data = TensorDataset(torch.rand(IMAGES, 1, 32, 32), torch.randint(2, (IMAGES,)))
    callback: pl.Callback
    optimizers: Any
    if whose == "lightning":
        callback = BackboneFinetuning(unfreeze_backbone_at_epoch=FROZEN, backbone_initial_lr=0.001)
        optimizers = torch.optim.SGD(network.head.parameters(), lr=0.01, momentum=0.9)
    else:
        schedule = compile_schedule(config.finetune, list(network.stages), EPOCHS)
        callback = ApplySchedule(network, schedule)
        steps = IMAGES // (2 * BATCH)
        optimizers = configure(network, config.optimizer, schedule, steps_per_epoch=steps, fused=False)
    found = Differences()
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=EPOCHS, callbacks=[callback, found], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False,
    )  # fmt: skip
    sampler: DistributedSampler[Any] = DistributedSampler(data, num_replicas=2, rank=trainer.global_rank)
    trainer.fit(Model(network, optimizers), DataLoader(data, batch_size=BATCH, sampler=sampler))
    return found.largest


def main() -> None:
    warnings.filterwarnings("ignore")
    found = {whose: differences(whose) for whose in ("lightning", "ddtl")}
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    for whose, values in found.items():
        print(f"{whose:10s}", *(f"{value:12.3g}" for value in values))
    versions = {"torch": torch.__version__, "pytorch_lightning": pl.__version__, "python": sys.version.split()[0]}
    print(json.dumps({**found, **versions, "date": datetime.now(UTC).date().isoformat()}))


if __name__ == "__main__":
    main()
