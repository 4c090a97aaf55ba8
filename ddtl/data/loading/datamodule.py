"""The LightningDataModule of every dataset; a dataset itself only builds its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader

from ddtl.data.datasets import classes, registry
from ddtl.data.images import contents
from ddtl.data.images.cache import DecodedCache, open_cache
from ddtl.data.images.harmonize import Counts, Harmonizer, build_harmonizer, pooled_histogram
from ddtl.data.loading.dataset import Slices, build_loader
from ddtl.data.loading.samplers import EvalBatches, MixedBatches, Shares, TrainBatches
from ddtl.data.loading.transforms import Augmenter
from ddtl.data.manifest import Manifest
from ddtl.data.splits import protocols
from ddtl.schema.augment import NONE, AugmentConfig
from ddtl.schema.run import Config
from ddtl.utils.errors import UserError
from ddtl.utils.progress import Progress


class Features(Protocol):
    """What may feed the network instead of images, in epochs whose first stages are frozen."""

    def views(self, epoch: int) -> int:
        """How many fixed augmentations an image has in an epoch; 0 where each epoch draws new ones."""
        ...

    def loader(self, images: DataLoader, split: Literal["train", "val"]) -> Iterable[dict[str, Any]]:
        """As many batches as ``images``, of the same rows."""
        ...


class CTDataModule(pl.LightningDataModule):
    """Manifest, split, decoded cache and loaders of one dataset.

    ``load`` must have been called before anything else; it is kept out of the constructor because it takes time
    and shows progress.
    """

    manifest: Manifest
    cache: DecodedCache
    # sha256 of the rows, the split and the image files.
    digest: str
    features: Features | None = None
    # The histogram to match; None for that of the dataset's own training images.
    reference: Counts | None = None
    # Classes of a network that is only tested on the dataset; None where one is trained on it.
    classes: Sequence[str] | None = None
    _harmonizer: Harmonizer | None = None

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def load(self, progress: Progress | None = None) -> None:
        """Build the manifest, split it, and open the decoded cache.

        Args:
            progress: called with (done, total) where drawing or decoding images takes time.

        Raises:
            UserError: images are absent or broken, or cannot be split as requested.
        """
        c = self.config.dataset
        manifest = registry.prepared(self.config, progress, tested_only=self.classes is not None)
        if c.protocol != "random":
            protocols.assert_disjoint(manifest)
        if self.classes is None:
            classes.require_positive(manifest)
            self.manifest = manifest
        else:
            self.manifest = classes.for_network(manifest, self.classes)
        root = Path(self.config.paths.cache_dir).expanduser()
        self.cache = open_cache(manifest, size=c.image_size, root=root, progress=progress)
        # Of the images and labels as the dataset has them: the same, whatever network is tested on it.
        self.digest = manifest.digest(self.cache.file_hashes)
        self.manifest = contents.checked(
            self.manifest,
            self.cache,
            allow_label_conflicts=c.allow_label_conflicts,
            allow_few_grey_levels=c.allow_few_grey_levels,
        )
        # The sources of a pool each by a map of their own. A dataset's own sites may go with its classes, and a map for
        # each of them would then tell the class.
        sites = [sample.site if c.kind == "pooled" else "" for sample in self.manifest.samples]
        train = self.manifest.rows("train")
        self._harmonizer = build_harmonizer(c.harmonize, self.cache, sites, train, self.reference)
        n_train = len(self.manifest.rows("train"))
        if n_train < c.batch_size and (n_train or self.classes is None):
            raise UserError(f"dataset.batch_size={c.batch_size} is more than the {n_train} training images.")

    def content(self, split: str) -> str:
        """Return the sha256 of the contents of a split's images, whatever they and the dataset are called."""
        hashes = sorted({self.cache.file_hashes[row] for row in self.manifest.rows(split)})
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()

    def histogram(self) -> Counts:
        """How many pixels of the training images have each grey level, as the images were decoded."""
        return pooled_histogram(self.cache, self.manifest.rows("train"))

    @property
    def labels(self) -> np.ndarray:
        """Label of each manifest row, int64."""
        return np.array([sample.label for sample in self.manifest.samples], dtype=np.int64)

    @property
    def shares(self) -> Shares:
        """How the global batch is divided; one process before a trainer is attached."""
        trainer = self.trainer
        world, rank = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        return Shares(self.config.dataset.batch_size, world, rank, self.config.trainer.accumulate)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps; the same for any number of processes."""
        return self._train_batches().steps

    def train_dataloader(self) -> Iterable[dict[str, Any]]:
        images = self._loader(self._train_batches(), self.config.augment)
        return self.features.loader(images, "train") if self.features else images

    def val_dataloader(self) -> Iterable[dict[str, Any]]:
        images = self.eval_loader("val")
        return self.features.loader(images, "val") if self.features else images

    def eval_loader(self, *names: str) -> DataLoader:
        """The images of some splits in manifest order, as they are."""
        shares = self.shares
        rows = [row for name in names for row in self.manifest.rows(name)]
        return self._loader(EvalBatches(rows, shares.evaluated, shares.world, shares.rank), NONE)

    def shuffled_loader(self, split: str) -> DataLoader:
        """The images of a split as they are, mixed, in large batches."""
        return self._loader(MixedBatches(self.manifest.rows(split), self.shares.world, self.shares.rank), NONE)

    def _train_batches(self) -> TrainBatches:
        config, rows, limit = self.config, self.manifest.rows("train"), self.config.trainer.limit_batches
        balance_by = self.labels[rows] if config.dataset.sampling == "balanced" else None
        views = self.features.views if self.features else lambda epoch: 0
        return TrainBatches(rows, self.shares, config.seed, self._epoch, limit, balance_by, views)

    def _epoch(self) -> int:
        # From the optimiser's steps, which a checkpoint contains exactly, rather than from Lightning's epoch counters.
        assert self.trainer is not None
        return self.trainer.global_step // self.steps_per_epoch

    def _loader(self, batches: TrainBatches | EvalBatches | MixedBatches, spec: AugmentConfig) -> DataLoader:
        augmenter = Augmenter(spec, self.config.dataset.image_size)
        slices = Slices(self.cache, self.labels, augmenter, self.config.seed, self._harmonizer)
        pin = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return build_loader(slices, batches, self.config.dataset.num_workers, pin)
