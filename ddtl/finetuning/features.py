"""Activations instead of images: what frozen stages make of an image is computed once a phase, where that pays.

The stages before the first one that trains map an image to the same activations throughout a phase. In such a phase
the loaders hand out stored activations; labels, rows, order, dropout and all else stay what they are. The store is
memory of this process, filled at the phase's first step, in batches that are a function of the configuration alone:
a resumed run fills it with the same numbers, and nothing on disk can be stale.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ddtl.data.loading.datamodule import CTDataModule
from ddtl.data.loading.dataset import Slices, build_loader
from ddtl.data.loading.samplers import EvalBatches, Key, TrainBatches
from ddtl.finetuning.feature_plan import Demand, decide, sentence
from ddtl.finetuning.fitted_head import fit, penalty_of
from ddtl.finetuning.schedule import Phase, Schedule
from ddtl.models.module import Classifier
from ddtl.models.network import Network
from ddtl.schema.run import Config
from ddtl.utils import console
from ddtl.utils.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """Activations of some images, found by their keys.

    Attributes:
        depth: how many stages they have passed.
        place: the row of each key.
        values: (N, numbers of one image), each row in the memory layout that the network made.
        shape, strides: of a batch of activations, without its first axis.
    """

    depth: int
    place: dict[Key, int]
    values: Tensor
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def batch(self, keys: Sequence[Key], slices: Slices) -> dict[str, Any]:
        """What :class:`Slices` makes of the keys, with ``features`` and ``depth`` instead of ``image``."""
        features = self.shaped(self.values[self.places(keys)])
        return {"features": features, "depth": self.depth, **slices.facts(list(keys))}

    def places(self, keys: Sequence[Key]) -> Tensor:
        """(N,) rows of some keys."""
        return torch.tensor([self.place[_plain(key)] for key in keys])

    def shaped(self, rows: Tensor) -> Tensor:
        """Rows (N, numbers) as the batch of activations that they are; no copy."""
        return rows.as_strided((len(rows), *self.shape), (rows.shape[1], *self.strides))


class FrozenFeatures(pl.Callback):
    """Decides at the start of each phase, stores, and is between the data module's loaders and the trainer.

    In a distributed run every process stores the images that it will draw itself, so nothing is exchanged.

    Args:
        network: whose first stages may be frozen.
        schedule: when they are.
        datamodule: whose loaders are fed.
        config: of the run.
    """

    def __init__(self, network: Network, schedule: Schedule, datamodule: CTDataModule, config: Config) -> None:
        self.network = network
        self.schedule = schedule
        self.datamodule = datamodule
        self.config = config
        self._penalty: float | None = None  # of the head that was fitted last
        self._forget()

    def _forget(self) -> None:
        self._phase: Phase | None = None
        self._train: Stored | None = None
        self._val: Stored | None = None
        self._keep_val = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._trainer = trainer
            self.datamodule.features = self

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.datamodule.features = None
        self._forget()

    def views(self, epoch: int) -> int:
        """How many fixed augmentations an image has in an epoch; 0 where each epoch draws new ones."""
        depth = self.schedule.prefix(epoch)
        if not self.config.augment.steps(self.config.dataset.image_size):
            return 1 if depth else 0
        return self.config.finetune.cached_views if depth == self._backbone else 0

    @property
    def _backbone(self) -> int:
        """How many stages the backbone has."""
        return len(self.network.backbone.stages)

    def loader(self, images: DataLoader, split: Literal["train", "val"]) -> Iterable[dict[str, Any]]:
        """Batches of activations in epochs that have them, and after those whose phase keeps them, else of images."""
        return _Loader(images, self._train_epoch if split == "train" else self._val_epoch)

    def _train_epoch(self, images: DataLoader) -> Iterator[dict[str, Any]]:
        # Reached at an epoch's first step: every stage is in that epoch's state.
        phase = self.schedule.phase(self._trainer.current_epoch)
        if phase != self._phase:
            self._forget()
            self._phase = phase
            depth = self.schedule.prefix(phase.first)
            if depth:
                self._begin(phase, depth, images)
        if self.schedule.penalties is not None:
            self._fit_head(self._trainer.current_epoch, images)
        yield from self._batches(images, self._train)

    def _fit_head(self, epoch: int, images: DataLoader) -> None:
        """Fit the head to the stored features, with the epoch's penalty."""
        assert self._train is not None, "a phase that is not stored is refused"
        assert self.schedule.penalties is not None
        self._penalty = penalty_of(epoch, len(self.schedule.epochs), self.schedule.penalties)
        labels = cast(Slices, images.dataset).facts(list(self._train.place))["label"].numpy()
        if len(set(labels.tolist())) < self.network.n_classes:
            raise UserError(
                f"finetune={self.config.finetune.name}: a class has no image among those that are fitted. Set "
                "trainer.limit_batches=null."
            )
        weights = cast(Classifier, self._trainer.lightning_module).class_weights
        slopes, biases, is_reached = fit(
            self._train.values.float().numpy(),
            labels,
            self.network.n_classes,
            self._penalty,
            None if weights is None else weights.double().cpu().numpy(),
        )
        if not is_reached:
            log.warning("epoch %d: the fit with penalty %.3g ended before its least value.", epoch + 1, self._penalty)
        linear = cast(nn.Linear, self.network.head.layers[-1])
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(slopes))
            linear.bias.copy_(torch.from_numpy(biases))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the epoch's row have the penalty of its head."""
        if self._penalty is not None:
            pl_module.log("penalty", self._penalty)

    def _val_epoch(self, images: DataLoader) -> Iterator[dict[str, Any]]:
        if self._keep_val and self._val is None:
            assert self._phase is not None
            batches = cast(EvalBatches, images.batch_sampler).batches
            self._val = self._store(images, batches, self.schedule.prefix(self._phase.first))
        yield from self._batches(images, self._val)

    @staticmethod
    def _batches(images: DataLoader, stored: Stored | None) -> Iterable[dict[str, Any]]:
        if stored is None:
            return images
        slices = cast(Slices, images.dataset)
        return (stored.batch(keys, slices) for keys in cast(Iterable[list[Key]], images.batch_sampler))

    def _begin(self, phase: Phase, depth: int, images: DataLoader) -> None:
        """Decide about a phase, report it, and store its training images. The validation's come in its first pass."""
        epochs = range(phase.first, phase.end)
        order = cast(TrainBatches, images.batch_sampler)
        drawn = [key for epoch in epochs for keys in order.in_epoch(epoch) for key in keys]
        keys = list(dict.fromkeys(drawn))
        val_rows = len(self.datamodule.manifest.rows("val"))
        example = self._example(images, keys[0], depth)
        slow = self._slow_to_fetch(example)
        augment = self.config.augment
        mixed = "augment.mixup and augment.cutmix mix images" if augment.mixup or augment.cutmix else ""
        views = self.views(phase.first)
        advice = "finetune.cached_views=4 would keep four views" if depth == self._backbone else "augment=none does not"
        fits = len(keys) if self.schedule.penalties is not None else 0
        train = Demand(
            of="views of training images" if views > 1 else "training images",
            passes=len(drawn) + fits,
            distinct=len(keys),
            why_not=mixed or slow if views else f"each epoch augments them differently; {advice}",
        )
        val = Demand("validation images", len(epochs) * val_rows, val_rows, slow or self._other_weights(phase, depth))
        bytes_each = example.numel() * example.element_size()
        plan = decide([train, val], bytes_each, self.config.finetune.cache_gb, self.config.trainer.devices)
        console.line(sentence(phase, depth, plan))
        keep_train, self._keep_val = plan.kept
        if fits and not keep_train:
            raise UserError(
                f"finetune={self.config.finetune.name} fits the head to stored features, and those of the training "
                f"images cannot be stored: {plan.reason}."
            )
        if keep_train:
            # In batches of training's own size, so that the arithmetic is training's own.
            size = order.shares.per_device
            self._train = self._store(images, _filled_up(keys, size), depth)

    def _slow_to_fetch(self, example: Tensor) -> str:
        """Why activations should not be fetched from memory to the device."""
        pixels = 4 * self.config.dataset.channels * self.config.dataset.image_size**2
        if self._trainer.strategy.root_device.type != "cpu" and example.numel() * example.element_size() > pixels:
            return "more bytes than the image, which takes longer to bring to the GPU"
        return ""

    def _other_weights(self, phase: Phase, depth: int) -> str:
        """Why validation may see other weights in the frozen stages than training does."""
        trained = any(self.schedule.prefix(epoch) < depth for epoch in range(phase.first))
        return "trainer.ema still moves the frozen stages" if self.config.trainer.ema is not None and trained else ""

    def _example(self, images: DataLoader, key: Key, depth: int) -> Tensor:
        """One image's activations."""
        return self._activations(cast(Slices, images.dataset).__getitems__([key]), depth)[0]

    def _store(self, images: DataLoader, batches: list[list[Key]], depth: int) -> Stored:
        """The activations of all keys, computed batch by batch."""
        place: dict[Key, int] = {}
        for keys in batches:
            for key in keys:
                place.setdefault(_plain(key), len(place))
        loader = build_loader(cast(Slices, images.dataset), batches, images.num_workers, images.pin_memory)
        stored: Stored | None = None
        for keys, batch in zip(batches, loader, strict=True):
            x = self._activations(batch, depth)
            if stored is None:
                values = torch.empty(len(place), x[0].numel(), dtype=x.dtype)
                stored = Stored(depth, place, values, tuple(x.shape[1:]), torch.empty_like(x).stride()[1:])
            rows = values.new_empty(len(keys), values.shape[1])
            stored.shaped(rows).copy_(x)
            values[stored.places(keys)] = rows
        assert stored is not None
        return stored

    def _activations(self, batch: dict[str, Tensor], depth: int) -> Tensor:
        """What the first ``depth`` stages make of a batch of images, as training computes it."""
        strategy, network = self._trainer.strategy, self.network
        batch = strategy.batch_to_device(batch)
        was_training = network.training
        network.eval()
        with torch.no_grad(), self._trainer.precision_plugin.forward_context():
            x = network.embed(batch["image"], depth)
            if depth == self._backbone:
                # The head's first step, done once for all; doing it again on one number changes nothing.
                x = x.mean(dim=(2, 3), keepdim=True)
        network.train(was_training)
        return x


class _Loader:
    """A loader whose batches are decided about when an epoch's first one is requested."""

    def __init__(self, images: DataLoader, epoch: Callable[[DataLoader], Iterator[dict[str, Any]]]) -> None:
        self.images = images
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.epoch(self.images))


def _filled_up(keys: Sequence[Key], size: int) -> list[list[Key]]:
    """Batches of one size, the last one filled up with copies of the last key."""
    batches = [list(keys[i : i + size]) for i in range(0, len(keys), size)]
    batches[-1] += batches[-1][-1:] * (size - len(batches[-1]))
    return batches


def _plain(key: Key) -> Key:
    """The key under which an image is stored: a filler is a copy of a real image."""
    row, view, before = key
    return row, max(view, 0), before
