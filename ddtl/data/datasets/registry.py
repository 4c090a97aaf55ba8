"""From a configuration to a dataset's table, without torch: built, rid of the images to leave out, and split.

A new dataset gets its function, and its line in ``BUILDERS``, here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ddtl.config.sources import source_datasets
from ddtl.data.catalogue import ORIGINS
from ddtl.data.datasets import classes, covid19ct, folder, patient_ids, pooled, sarscov2ct, table
from ddtl.data.images.decode import Window
from ddtl.data.manifest import Manifest, Note
from ddtl.data.phantom import dataset as phantom
from ddtl.data.splits import protocols
from ddtl.data.splits.exclusion import leave_out
from ddtl.data.splits.subsets import train_on
from ddtl.schema.run import Config, DatasetConfig
from ddtl.utils.progress import Progress

Builder = Callable[[Config, Progress | None], Manifest]


def build_phantom(config: Config, progress: Progress | None = None) -> Manifest:
    """Procedural chest CT, drawn at first use."""
    settings = config.dataset.phantom
    assert settings is not None, "checked with the configuration"
    root = Path(config.paths.cache_dir).expanduser()
    return phantom.build_manifest(phantom.PhantomSpec(**settings.model_dump()), root, progress)


def build_covid19ct(config: Config, progress: Progress | None = None) -> Manifest:
    """COVID19-CT (UCSD-AI4H/COVID-CT)."""
    return classes.renamed(covid19ct.build_manifest(_data_dir(config)), config.dataset.class_map)


def build_sarscov2ct(config: Config, progress: Progress | None = None) -> Manifest:
    """SARS-CoV-2 CT-scan (Soares et al. 2020)."""
    return classes.renamed(sarscov2ct.build_manifest(_data_dir(config)), config.dataset.class_map)


def _data_dir(config: Config) -> Path:
    return Path(config.paths.data_dir).expanduser()


def build_folder(config: Config, progress: Progress | None = None) -> Manifest:
    """A person's own images in one folder a class."""
    c = config.dataset
    assert c.root is not None, "checked with the configuration"
    patients = None if c.patients is None else Path(c.patients).expanduser()
    root = Path(c.root).expanduser()
    return _own(
        folder.build_manifest(c.name, root, c.classes, c.patient_regex, patients, c.class_map, c.patient_ids), c
    )


def build_table(config: Config, progress: Progress | None = None) -> Manifest:
    """A person's own images, listed in a CSV."""
    c = config.dataset
    assert c.table is not None, "checked with the configuration"
    path = Path(c.table).expanduser()
    root = path.parent if c.root is None else Path(c.root).expanduser()
    manifest = table.build_manifest(c.name, path, root, c.classes, c.class_map, c.patient_ids)
    if manifest.published and c.protocol != "official":
        text = "The table's column split is used with dataset.protocol=official alone."
        manifest = replace(manifest, notes=(*manifest.notes, Note(text, is_doubt=True)))
    return _own(manifest, c)


def _own(manifest: Manifest, c: DatasetConfig) -> Manifest:
    """A person's own images with what is doubtful about them, and the window through which they are decoded."""
    manifest = replace(manifest, notes=(*manifest.notes, *classes.doubts(manifest), *patient_ids.doubts(manifest)))
    window = window_of(c)
    if window is None:
        return manifest
    return replace(manifest, samples=tuple(replace(sample, window=window) for sample in manifest.samples))


def window_of(c: DatasetConfig) -> Window | None:
    """The window of ``dataset.window``; None where there is none."""
    if c.window is None:
        return None
    return Window(**{key: float(value) for key, value in c.window.model_dump().items()})


def build_pooled(config: Config, progress: Progress | None = None) -> Manifest:
    """Several datasets as one, each split by itself."""
    sources = []
    for site, dataset in source_datasets(config.dataset).items():
        part = config.model_copy(update={"dataset": dataset})
        manifest = split(BUILDERS[dataset.kind](part, progress), dataset)
        hashes = pooled.picture_hashes(manifest, published=dataset.kind in ORIGINS)
        sources.append(pooled.Source(site, manifest, hashes))
    return classes.renamed(pooled.pool(config.dataset.name, sources), config.dataset.class_map)


BUILDERS: dict[str, Builder] = {
    "phantom": build_phantom,
    "covid19ct": build_covid19ct,
    "sarscov2ct": build_sarscov2ct,
    "folder": build_folder,
    "table": build_table,
    "pooled": build_pooled,
}


def build(config: Config, progress: Progress | None = None) -> Manifest:
    """The table of ``config.dataset`` without a split and without the images that ``dataset.exclude`` names.

    Args:
        config: what is read of it is ``dataset`` and ``paths``.
        progress: told (done, total) where images are drawn.

    Raises:
        UserError: images are absent, or the dataset or the list cannot be used.
    """
    return without_excluded(BUILDERS[config.dataset.kind](config, progress), config.dataset)


def prepared(manifest: Manifest, c: DatasetConfig) -> Manifest:
    """A table as a run uses it: without the images to leave out, split, and with as many training patients as asked.

    Raises:
        UserError: the list of images cannot be used, or the table cannot be split so.
    """
    manifest = split(without_excluded(manifest, c), c)
    return manifest if c.train_patients is None else train_on(manifest, c.train_patients, c.split_seed)


def without_excluded(manifest: Manifest, c: DatasetConfig) -> Manifest:
    """The table without the images that ``dataset.exclude`` names.

    Raises:
        UserError: the list cannot be used.
    """
    return manifest if c.exclude is None else leave_out(manifest, Path(c.exclude).expanduser())


def split(manifest: Manifest, c: DatasetConfig) -> Manifest:
    """The table with the split that the configuration asks for; as it is where its builder has split it.

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
    )
