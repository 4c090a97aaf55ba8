"""What can be said about a dataset's images before anything slow is imported. No torch."""

from __future__ import annotations

from pathlib import Path

from ddtl.config.sources import source_datasets
from ddtl.data.datasets import covid19ct, sarscov2ct
from ddtl.schema.run import Config

ORIGINS = {origin.name: origin for origin in (covid19ct.ORIGIN, sarscov2ct.ORIGIN)}


def require_images(config: Config) -> None:
    """Fetch the images of a public dataset that are not here yet; files that are here are left as they are.

    Where all are here this takes one listing of each class folder.

    Raises:
        UserError: they cannot be had; the message names the ways on.
    """
    if config.dataset.kind == "pooled":
        for dataset in source_datasets(config.dataset).values():
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
