"""What can be said about a dataset's images before anything slow is imported. No torch."""

from __future__ import annotations

from pathlib import Path

from ddtl.config.schema import Config
from ddtl.data import covid19ct, published, sarscov2ct

ORIGINS = {origin.name: origin for origin in (covid19ct.ORIGIN, sarscov2ct.ORIGIN)}


def require_images(config: Config) -> None:
    """Answer at once where a public dataset's images are not here.

    Raises:
        UserError: with the ways to get them.
    """
    origin = ORIGINS.get(config.dataset.name)
    if origin is not None:
        published.require_folder(origin, Path(config.paths.data_dir).expanduser())
