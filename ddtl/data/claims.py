"""Files that nobody here has named: a stored configuration does, and that may be a stranger's."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddtl.config.schema import OWN_FILES, DatasetConfig
from ddtl.errors import Unwritable, UserError
from ddtl.reading import printable

_FILES = ("root", "table", "patients", "exclude")


@contextmanager
def named_by(config_file: Path, dataset: DatasetConfig) -> Iterator[None]:
    """While images are read that a stored configuration names: what is wrong with them is said without their content.

    A shared run may name any file of this machine. Its names, columns and labels are nobody's business but the owner's,
    who learns them from the command in the message.

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
        raise UserError(f"{config_file} names {_shown(named)}. {_why(named, dataset)}") from None
    finally:
        logger.setLevel(level)


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


def _shown(named: dict[str, str]) -> str:
    return " and ".join(f"{key}={shlex.quote(printable(value))}" for key, value in named.items())


def _why(named: dict[str, str], dataset: DatasetConfig) -> str:
    absent = [key for key, value in named.items() if not os.path.exists(os.path.expanduser(value))]
    if absent:
        return f"{absent[0]} is not on this machine, so the run's images cannot be read."
    words = [f"{key}={printable(value)}" for key, value in named.items()]
    line = shlex.join(["ddtl", "audit", f"dataset={dataset.kind}", *words])
    return f"These are no longer the images of the run. If they are yours, this says what is wrong with them: {line}"
