"""From a configuration to a dataset's table, without torch: fetched, built, without excluded images, and split.

A new dataset gets a module in this folder, with its ``KIND``, and its file in ``conf/dataset/``; a public one also the
index table of its images, which ``tools/build_index.py`` makes.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path

from ddtl.data.datasets import classes, pooled
from ddtl.data.datasets.kind import VOLUMES, DatasetKind, of_own_files
from ddtl.data.manifest import Manifest
from ddtl.data.splits import protocols
from ddtl.data.splits.exclusion import leave_out
from ddtl.data.splits.subsets import train_on
from ddtl.schema.run import Config, DatasetConfig
from ddtl.utils import plugins
from ddtl.utils.errors import UserError
from ddtl.utils.progress import Progress


def _kinds() -> dict[str, DatasetKind]:
    """The kinds of dataset that modules of this folder define."""
    package = str(__package__)
    names = [name for _, name, _ in pkgutil.iter_modules([str(Path(__file__).parent)]) if name != "registry"]
    found = {name: getattr(import_module(f"{package}.{name}"), "KIND", None) for name in names}
    return {name: kind for name, kind in found.items() if isinstance(kind, DatasetKind)}


def _of_volumes(name: str) -> DatasetKind:
    """Return the kind of dataset that a module of ``volumes`` reads, which is loaded where one is used."""

    def build(config: Config, progress: Progress | None = None) -> Manifest:
        reader = import_module(f"{__package__}.volumes.{name}")
        return of_own_files(reader.build_manifest(config.dataset, progress), config.dataset)

    return DatasetKind(build)


def _build_pooled(config: Config, progress: Progress | None = None) -> Manifest:
    """Several datasets as one, each split by itself."""
    sources = []
    for site, dataset in config.dataset.of_sources().items():
        part = config.model_copy(update={"dataset": dataset})
        kind = kind_of(dataset.kind)
        manifest = split(kind.build(part, progress), dataset)
        hashes = pooled.image_hashes(manifest, published=kind.origin is not None)
        sources.append(pooled.Source(site, manifest, hashes))
    return classes.renamed(pooled.pool(config.dataset.name, sources), config.dataset.class_map)


DATASETS: dict[str, DatasetKind] = {
    **_kinds(),
    **{name: _of_volumes(name) for name in VOLUMES},
    "pooled": DatasetKind(_build_pooled),
}
ORIGINS = {name: kind.origin for name, kind in DATASETS.items() if kind.origin is not None}


def kind_of(name: str) -> DatasetKind:
    """Return the kind of dataset of a name: one of ``DATASETS``, or one that a plugin has added.

    Raises:
        UserError: there is none here.
    """
    more = plugins.added("dataset", DATASETS)
    if name in DATASETS:
        return DATASETS[name]
    build = more.get(name)
    if build is None:
        raise UserError(
            f"dataset.kind={name}: no such kind here. Where a plugin has it, name that: {plugins.VARIABLE}=MODULE."
        )
    return DatasetKind(build)


def require_images(config: Config) -> None:
    """Fetch the images of a public dataset that are not here yet; files that are here are left as they are.

    Where all are here this takes one listing of each class folder.

    Raises:
        UserError: they cannot be had; the message names what to do.
    """
    if config.dataset.kind == "pooled":
        for dataset in config.dataset.of_sources().values():
            require_images(config.model_copy(update={"dataset": dataset}))
    origin = ORIGINS.get(config.dataset.kind)
    if origin is None:
        return
    from ddtl.data.download import fetching
    from ddtl.utils import console

    data_dir = Path(config.paths.data_dir).expanduser()
    missing = fetching.missing(origin, data_dir)
    if missing:
        with console.progress(f"fetching {origin.name}") as progress:
            fetching.fetch(origin, data_dir, missing, mirror=config.paths.data_mirror, progress=progress)


def build(config: Config, progress: Progress | None = None) -> Manifest:
    """Return the table of ``config.dataset`` without a split and without the images that ``dataset.exclude`` names.

    Args:
        config: what is read of it is ``dataset`` and ``paths``.
        progress: called with (done, total) where images are drawn.

    Raises:
        UserError: images are absent, or the dataset or the list cannot be used.
    """
    manifest = kind_of(config.dataset.kind).build(config, progress)
    exclude = config.dataset.exclude
    return manifest if exclude is None else leave_out(manifest, Path(exclude).expanduser())


def prepared(config: Config, progress: Progress | None = None, *, tested_only: bool = False) -> Manifest:
    """Return the table as a run uses it: split, and with as many training patients as requested.

    Args:
        config: what is read of it is ``dataset`` and ``paths``.
        progress: called with (done, total) where images are drawn.
        tested_only: whether nothing is trained on the images.

    Raises:
        UserError: as for :func:`build`, or the table cannot be split so.
    """
    c = config.dataset
    manifest = split(build(config, progress), c, tested_only=tested_only)
    return manifest if c.train_patients is None else train_on(manifest, c.train_patients, c.split_seed)


def split(manifest: Manifest, c: DatasetConfig, *, tested_only: bool = False) -> Manifest:
    """Return the table with the split that the configuration requests; as it is where its builder has split it.

    Raises:
        UserError: it cannot be split so.
    """
    if manifest.protocol:
        return manifest
    assert c.val_fraction is not None, "null in a pool alone, whose sources have their own"
    assert c.test_fraction is not None, "as above"
    return protocols.assign(
        manifest,
        c.protocol,
        seed=c.split_seed,
        val_fraction=c.val_fraction,
        test_fraction=c.test_fraction,
        n_folds=c.n_folds,
        fold=c.fold,
        tested_only=tested_only,
    )
