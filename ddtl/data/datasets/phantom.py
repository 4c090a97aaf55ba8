"""Procedural chest CT, drawn at first use: ``dataset=phantom``."""

from __future__ import annotations

from pathlib import Path

from ddtl.data.datasets.kind import DatasetKind
from ddtl.data.manifest import Manifest
from ddtl.schema.run import Config
from ddtl.utils.progress import Progress


def _build(config: Config, progress: Progress | None = None) -> Manifest:
    # SciPy takes a third of a second, which nothing else needs so early.
    from ddtl.data.phantom.dataset import PhantomSpec, build_manifest

    settings = config.dataset.phantom
    assert settings is not None, "checked with the configuration"
    root = Path(config.paths.cache_dir).expanduser()
    return build_manifest(PhantomSpec(**settings.model_dump()), root, progress)


KIND = DatasetKind(_build)
