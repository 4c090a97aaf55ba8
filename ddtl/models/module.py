"""The LightningModule: loss, scores of an epoch, optimiser, and the predict pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric

from ddtl.models.losses import Loss, cross_entropy
from ddtl.models.metrics import PatientRocAuc, epoch_scores, update
from ddtl.models.mixing import mix
from ddtl.models.network import Network
from ddtl.schema.scores import BY_PATIENT


class Classifier(pl.LightningModule):
    """Trains a :class:`Network`.

    A batch is a dict of ``image`` (N, 1, H, W) float in [0, 1], ``label`` (N,) int, ``row`` (N,) index into the
    manifest and ``real`` (N,) bool, False for copies that only fill up the last batch of a distributed evaluation.
    Instead of ``image`` it may contain ``features``, what the network's first ``depth`` stages make of it.

    Args:
        network: the model.
        optimizers_for: makes what Lightning's ``configure_optimizers`` returns.
        seed: of the run; dropout is a function of it, the step and the rank.
        loss: what is minimised; ``val/loss`` is cross-entropy whatever it is, so that runs can be compared.
        class_weights: of the loss, by label; None weighs all alike.
        mixing: parameters of MixUp and CutMix; see :mod:`ddtl.models.mixing`.
        by_patient: the score over patients, where it is monitored.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        network: Network,
        optimizers_for: Callable[[Network], Any],
        *,
        seed: int,
        loss: Loss = cross_entropy,
        class_weights: Sequence[float] | None = None,
        mixing: tuple[float, float] = (0.0, 0.0),
        by_patient: PatientRocAuc | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizers_for = optimizers_for
        self.seed = seed
        self.loss = loss
        self.mixing = mixing
        self.by_patient = by_patient
        self.scores = epoch_scores(network.n_classes)
        self.val_loss = MeanMetric(nan_strategy="disable")
        self.train_loss = MeanMetric(nan_strategy="disable")  # StopOnNonFinite tells
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) to logits (N, classes)."""
        # torch.compile replaces the call and not `forward`. Evaluation goes without it: a last batch of another size,
        # and the mode itself, would each cost as long a compilation as training does.
        return self.network(images) if self.training else self.network.forward(images)

    def _logits(self, batch: dict[str, Any]) -> Tensor:
        """(N, classes) float32."""
        if "features" in batch:
            return self.network.classify(batch["features"], batch["depth"]).float()
        return self(batch["image"]).float()

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Make dropout a function of (seed, step, rank): a resumed run draws what an uninterrupted one draws."""
        words = np.random.SeedSequence([self.seed, self.trainer.global_step, batch_idx, self.global_rank])
        seed = int(words.generate_state(1, np.uint64)[0] >> 1)
        # torch.manual_seed does as much for every kind of device there is, and notes a stack trace for the absent ones.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        if any(self.mixing):
            loss = self._mixed_loss(batch, batch_idx)
        else:
            loss = self.loss(self._logits(batch), batch["label"], self.class_weights)
        self.train_loss.update(loss.detach())
        return loss

    def _mixed_loss(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        seed = (self.seed, self.trainer.global_step, batch_idx, self.global_rank)
        mixture = mix(batch["image"], *self.mixing, seed)
        logits = self._logits({**batch, "image": mixture.images})
        return mixture.loss(lambda labels: self.loss(logits, labels, self.class_weights), batch["label"])

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", self.train_loss.compute())
        self.train_loss.reset()

    def on_validation_start(self) -> None:
        """Let all processes score the first one's network, which is the one that is kept.

        Since the last step each has BatchNorm statistics of its own images; the next step takes the first one's, too.
        """
        if self.trainer.world_size > 1:
            for statistics in self.network.buffers():
                dist.broadcast(statistics, src=0)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        real = batch["real"]
        logits = self._logits(batch)[real]
        labels = batch["label"][real]
        if not len(labels):  # fillers alone, in a distributed evaluation's last batch
            return
        update(self.scores, logits, labels)
        if self.by_patient is not None:
            self.by_patient.update(batch["row"][real], logits, labels)
        # One value an image: MeanMetric with nan_strategy="disable" takes no notice of weights (torchmetrics 1.9).
        self.val_loss.update(F.cross_entropy(logits, labels, reduction="none"))

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.scores.compute())
        if self.by_patient is not None:
            self.log(BY_PATIENT, self.by_patient.compute())
            self.by_patient.reset()
        self.log("val/loss", self.val_loss.compute())
        self.scores.reset()
        self.val_loss.reset()

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Manifest rows and float32 logits of the images that are not fillers."""
        real = batch["real"]
        return {"row": batch["row"][real].cpu(), "logits": self._logits(batch)[real].cpu()}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by norm. Lightning's own refuses fused optimisers, though without a gradient scaler nothing is amiss."""
        if gradient_clip_val:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def configure_optimizers(self) -> Any:
        return self.optimizers_for(self.network)
