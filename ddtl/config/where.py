"""Where the configuration files are, and which there are."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import yaml

from ddtl.schema.backbones import BACKBONES
from ddtl.utils import reading
from ddtl.utils.errors import UserError

_MOST_VALUES = 100_000  # of a configuration file


def conf_dir() -> Path:
    """``conf/`` inside the installed package, or next to it in a checkout."""
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


def text_of(path: Path) -> str:
    """A configuration file's text, which stands for no more values than its size says: aliases copy what they name.

    Raises:
        UserError: it is not a regular file, too large, cannot be read, or stands for too many values.
    """
    try:
        data = reading.read_bytes(path, reading.SETTINGS)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from None
    text = data.decode("utf-8", "replace")
    # Both signs are needed to copy anything, and files without them need no look.
    if "&" in text and "*" in text and reading.count_values(text) > _MOST_VALUES:
        raise UserError(f"{path}: its YAML aliases stand for more than {_MOST_VALUES:,} values. Write them out.")
    return text


@lru_cache(maxsize=8)
def _groups(path: Path, _changed: int, _size: int) -> dict[str, str | None]:
    """As above; a sweep calls it for each of its trials."""
    try:
        defaults = yaml.safe_load(text_of(path))["defaults"]
    except UserError:
        raise
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())}).") from error
    return {group: option for entry in defaults if isinstance(entry, dict) for group, option in entry.items()}


def bases_of(path: Path) -> list[Path]:
    """The files of the same folder that a file begins with, and of which it contains only what differs."""
    defaults = (yaml.safe_load(text_of(path)) or {}).get("defaults", ())
    return [path.with_name(f"{name}.yaml") for name in defaults if isinstance(name, str) and name != "_self_"]


def keys_in(path: Path) -> set[str]:
    """The keys of an option's file, those that it begins with included."""
    own = set(yaml.safe_load(text_of(path))) - {"defaults"}
    return own.union(*map(keys_in, bases_of(path)))


def options(group: str) -> list[str]:
    """The options of a group: the files of its folder but those named ``_…``, and in ``model`` every backbone."""
    files = {path.stem for path in (conf_dir() / group).glob("*.yaml") if not path.name.startswith("_")}
    return sorted(files | BACKBONES.keys() if group == "model" else files)
