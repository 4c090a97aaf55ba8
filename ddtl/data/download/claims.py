"""Files that nobody here has named: a stored configuration does, and that may be a stranger's."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddtl.data.phantom.dataset import drawn_into
from ddtl.data.phantom.render import PhantomSpec
from ddtl.schema.run import OWN_FILES, Config, DatasetConfig, PhantomConfig
from ddtl.utils.errors import Unwritable, UserError
from ddtl.utils.reading import printable

_FILES = ("root", "table", "labels", "patients", "exclude")
_PIXELS = 100_000_000  # ten times those of the phantom as it is by default


@contextmanager
def named_by(config_file: Path, dataset: DatasetConfig) -> Iterator[None]:
    """While images of a stored configuration are read: their faults are reported without their content.

    A shared run may name any file of this machine. Its names, columns and labels are nobody's business but the owner's,
    who sees them by the command in the message.

    Args:
        config_file: which names them.
        dataset: its section.

    Raises:
        UserError: in place of another one, where the dataset is a person's own.
    """
    named = own_files(dataset)
    if not named:
        yield
        return
    logger = logging.getLogger("ddtl.data")
    level = logger.level
    logger.setLevel(logging.ERROR)  # doubts name columns and labels
    try:
        yield
    except Unwritable:
        raise
    except UserError:
        raise UserError(f"{config_file} names {_format(named)}. {_why(named, dataset)}") from None
    finally:
        logger.setLevel(level)


def require_drawable(config_file: Path, config: Config) -> None:
    """Refuse a phantom of a stored configuration that would take long to draw and is not drawn yet.

    Raises:
        UserError: it is many times the default one. Whoever wants it draws it by a command of their own.
    """
    for settings in _phantoms(config.dataset):
        spec = PhantomSpec(**settings.model_dump())
        if pixels(settings) <= _PIXELS or (drawn_into(spec, Path(config.paths.cache_dir).expanduser())).exists():
            continue
        words = [f"dataset.phantom.{key}={value}" for key, value in settings.model_dump().items() if key != "sites"]
        line = shlex.join(["ddtl", "audit", "phantom", *words, f"dataset.phantom.sites=[{','.join(settings.sites)}]"])
        raise UserError(
            f"{config_file} requests {settings.n_patients * settings.slices_per_patient:,} images of the phantom to be "
            f"drawn, of {settings.size} x {settings.size} pixels. If the run is yours, draw them first: {line}"
        )


def pixels(settings: PhantomConfig | None) -> int:
    """How many a phantom has in all."""
    return 0 if settings is None else settings.n_patients * settings.slices_per_patient * settings.size**2


def _phantoms(dataset: DatasetConfig) -> Iterator[PhantomConfig]:
    for one in (dataset, *(dataset.source_settings or {}).values()):
        if one.kind == "phantom" and one.phantom is not None:
            yield one.phantom


def own_files(dataset: DatasetConfig) -> dict[str, str]:
    """The files and folders that a dataset, or a source of it, names, by dotted key."""
    found = {f"dataset.{key}": value for key in _FILES if (value := getattr(dataset, key)) is not None}
    for name, source in {**(dataset.source_settings or {}), **(dataset.own or {})}.items():
        found |= {
            f"dataset.own.{name}.{key}": value
            for key in _FILES
            if key in OWN_FILES and (value := getattr(source, key, None)) is not None
        }
    return found


def _format(named: dict[str, str]) -> str:
    return " and ".join(f"{key}={shlex.quote(printable(value))}" for key, value in named.items())


def _why(named: dict[str, str], dataset: DatasetConfig) -> str:
    absent = [key for key, value in named.items() if not os.path.exists(os.path.expanduser(value))]
    if absent:
        return f"{absent[0]} is not on this machine, so the run's images cannot be read."
    words = [f"{key}={printable(value)}" for key, value in named.items()]
    line = shlex.join(["ddtl", "audit", f"dataset={dataset.kind}", *words])
    return f"These are no longer the images of the run. If they are yours, this says what is wrong with them: {line}"
