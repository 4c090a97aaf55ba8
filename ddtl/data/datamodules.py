"""One LightningDataModule a dataset. A new dataset gets its class, and its line in ``DATAMODULES``, here."""

from __future__ import annotations

from pathlib import Path

from ddtl.config.schema import Config
from ddtl.data import covid19ct, phantom, sarscov2ct
from ddtl.data.datamodule import CTDataModule, Progress
from ddtl.data.manifest import Manifest


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


DATAMODULES: dict[str, type[CTDataModule]] = {
    "phantom": PhantomDataModule,
    "covid19ct": Covid19CTDataModule,
    "sarscov2ct": SarsCov2CTDataModule,
}


def build_datamodule(config: Config) -> CTDataModule:
    """The data module that ``config.dataset`` names."""
    return DATAMODULES[config.dataset.name](config)
