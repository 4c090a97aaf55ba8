"""Where the configuration files lie, and which there are."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import yaml

from ddtl.errors import UserError


def conf_dir() -> Path:
    """``conf/`` inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def groups(config_name: str = "train") -> dict[str, str | None]:
    """The groups in the defaults list of ``conf/<config_name>.yaml``, each with the option taken if none is named.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    path = conf_dir() / f"{config_name}.yaml"
    try:
        state = path.stat()
    except FileNotFoundError as error:
        raise UserError(f"the configuration files are missing: there is no {path}. Install ddtl again.") from error
    return dict(_groups(path, state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=8)
def _groups(path: Path, _changed: int, _size: int) -> dict[str, str | None]:
    """As above; a sweep asks for each of its trials."""
    try:
        defaults = yaml.safe_load(path.read_text(encoding="utf-8"))["defaults"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())}).") from error
    return {group: option for entry in defaults if isinstance(entry, dict) for group, option in entry.items()}


def options(group: str) -> list[str]:
    """The options of a group: the files of its folder."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
