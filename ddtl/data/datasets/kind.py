"""What a kind of dataset is; ``ddtl/data/datasets/registry.py`` finds each by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ddtl.data.datasets import classes, patient_ids
from ddtl.data.download.published import Origin, published_manifest
from ddtl.data.images.levels import CTWindow, Window
from ddtl.data.manifest import Manifest
from ddtl.schema.run import Config, DatasetConfig
from ddtl.utils.progress import Progress

VOLUMES = ("dicom", "nifti")  # kinds whose files contain Hounsfield units


@dataclass(frozen=True)
class DatasetKind:
    """A kind of dataset, which ``dataset.kind`` names.

    Attributes:
        build: makes its table of the settings, of which it reads ``dataset`` and ``paths``; without a split, unless the
            table is put together from parts that are split. It reports (done, total) where it takes time.
        origin: where its images are published; None where they are a person's own, or drawn.
    """

    build: Callable[[Config, Progress | None], Manifest]
    origin: Origin | None = None


def published_kind(origin: Origin) -> DatasetKind:
    """Return the kind of a public dataset, whose images are in the folder of its name under ``paths.data_dir``."""

    def build(config: Config, progress: Progress | None = None) -> Manifest:
        manifest = published_manifest(origin, Path(config.paths.data_dir).expanduser())
        return classes.renamed(manifest, config.dataset.class_map)

    return DatasetKind(build, origin)


def of_own_files(manifest: Manifest, c: DatasetConfig) -> Manifest:
    """Return a person's own images with what is doubtful about them, and the window through which they are decoded."""
    manifest = replace(manifest, notes=(*manifest.notes, *classes.doubts(manifest), *patient_ids.doubts(manifest)))
    window = window_of(c)
    if window is None:
        return manifest
    return replace(manifest, samples=tuple(replace(s, window=s.window or window) for s in manifest.samples))


def window_of(c: DatasetConfig) -> Window | CTWindow | None:
    """Return the window of ``dataset.window``; None where there is none."""
    if c.kind in VOLUMES:
        assert c.window is not None, "checked with the configuration"
        extent = None if c.spacing is None else float(c.spacing) * c.image_size
        others = tuple((float(one.center), float(one.width)) for one in c.window.others)
        return CTWindow(float(c.window.center), float(c.window.width), extent, others=others)
    if c.window is None:
        return None
    return Window(**{key: float(value) for key, value in c.window.model_dump().items()})
