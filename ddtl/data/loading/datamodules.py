"""One LightningDataModule a dataset. A new dataset gets its class, and its line in ``DATAMODULES``, here.

How each builds its table stands in ``ddtl/data/datasets/registry.py``, which does without torch.
"""

from __future__ import annotations

from ddtl.data.datasets import registry
from ddtl.data.loading.datamodule import CTDataModule, Progress
from ddtl.data.manifest import Manifest
from ddtl.schema.run import Config


class PhantomDataModule(CTDataModule):
    """Procedural chest CT, drawn at first use."""

    def build_manifest(self, progress: Progress | None) -> Manifest:
        return registry.build_phantom(self.config, progress)


class Covid19CTDataModule(CTDataModule):
    """COVID19-CT (UCSD-AI4H/COVID-CT)."""

    def build_manifest(self, progress: Progress | None) -> Manifest:
        return registry.build_covid19ct(self.config, progress)


class SarsCov2CTDataModule(CTDataModule):
    """SARS-CoV-2 CT-scan (Soares et al. 2020)."""

    def build_manifest(self, progress: Progress | None) -> Manifest:
        return registry.build_sarscov2ct(self.config, progress)


class FolderDataModule(CTDataModule):
    """A person's own images in one folder a class."""

    def build_manifest(self, progress: Progress | None) -> Manifest:
        return registry.build_folder(self.config, progress)


class TableDataModule(CTDataModule):
    """A person's own images, listed in a CSV."""

    def build_manifest(self, progress: Progress | None) -> Manifest:
        return registry.build_table(self.config, progress)


class PooledDataModule(CTDataModule):
    """Several of the others as one, each split by itself."""

    def build_manifest(self, progress: Progress | None) -> Manifest:
        return registry.build_pooled(self.config, progress)


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
