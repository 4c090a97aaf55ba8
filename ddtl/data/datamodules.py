"""One LightningDataModule a dataset. A new dataset gets its class, and its line in ``DATAMODULES``, here."""

from __future__ import annotations

import logging
from pathlib import Path

from ddtl.config.schema import Config
from ddtl.config.sources import source_datasets
from ddtl.data import covid19ct, folder, phantom, pooled, sarscov2ct, table
from ddtl.data.catalogue import ORIGINS
from ddtl.data.datamodule import CTDataModule, Progress
from ddtl.data.manifest import Manifest

logger = logging.getLogger(__name__)


class PhantomDataModule(CTDataModule):
    """Procedural chest CT, drawn at first use."""

    def build_manifest(self, progress: Progress | None) -> Manifest:
        settings = self.config.dataset.phantom
        assert settings is not None, "checked with the configuration"
        root = Path(self.config.paths.cache_dir).expanduser()
        return phantom.build_manifest(phantom.PhantomSpec(**settings.model_dump()), root, progress)


class Covid19CTDataModule(CTDataModule):
    """COVID19-CT (UCSD-AI4H/COVID-CT)."""

    def build_manifest(self, progress: Progress | None) -> Manifest:
        return covid19ct.build_manifest(Path(self.config.paths.data_dir).expanduser())


class SarsCov2CTDataModule(CTDataModule):
    """SARS-CoV-2 CT-scan (Soares et al. 2020)."""

    def build_manifest(self, progress: Progress | None) -> Manifest:
        return sarscov2ct.build_manifest(Path(self.config.paths.data_dir).expanduser())


class FolderDataModule(CTDataModule):
    """A person's own images in one folder a class."""

    def build_manifest(self, progress: Progress | None) -> Manifest:
        c = self.config.dataset
        assert c.root is not None, "checked with the configuration"
        patients = None if c.patients is None else Path(c.patients).expanduser()
        return folder.build_manifest(c.name, Path(c.root).expanduser(), c.classes, c.patient_regex, patients)


class TableDataModule(CTDataModule):
    """A person's own images, listed in a CSV."""

    def build_manifest(self, progress: Progress | None) -> Manifest:
        c = self.config.dataset
        assert c.table is not None, "checked with the configuration"
        path = Path(c.table).expanduser()
        root = path.parent if c.root is None else Path(c.root).expanduser()
        manifest = table.build_manifest(c.name, path, root, c.classes)
        if manifest.published and c.protocol != "official":
            logger.warning("%s: its column split is used with dataset.protocol=official alone.", path)
        return manifest


class PooledDataModule(CTDataModule):
    """Several of the others as one, each split by itself."""

    def build_manifest(self, progress: Progress | None) -> Manifest:
        sources = []
        for site, dataset in source_datasets(self.config.dataset).items():
            part = build_datamodule(self.config.model_copy(update={"dataset": dataset}))
            manifest = part.split(part.build_manifest(progress))
            hashes = pooled.picture_hashes(manifest, published=dataset.kind in ORIGINS)
            sources.append(pooled.Source(site, manifest, hashes))
        return pooled.pool(self.config.dataset.name, sources)


DATAMODULES: dict[str, type[CTDataModule]] = {
    "phantom": PhantomDataModule,
    "covid19ct": Covid19CTDataModule,
    "sarscov2ct": SarsCov2CTDataModule,
    "folder": FolderDataModule,
    "table": TableDataModule,
    "pooled": PooledDataModule,
}


def build_datamodule(config: Config) -> CTDataModule:
    """The data module of ``config.dataset.kind``."""
    return DATAMODULES[config.dataset.kind](config)
