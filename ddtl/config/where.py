"""Where the configuration files are, and which there are."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import yaml

from ddtl.schema.backbones import BACKBONES, backbones
from ddtl.utils import plugins, reading
from ddtl.utils.errors import UserError
from ddtl.utils.suggest import did_you_mean

OWN = "DDTL_CONF"  # the variable that names a folder of one's own
_MOST_VALUES = 100_000  # of a configuration file


def conf_dir() -> Path:
    """``conf/`` inside the installed package, or next to it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def own_dirs() -> list[Path]:
    """The folders with further options of the groups: that of ``DDTL_CONF``, and those of plugins.

    Raises:
        UserError: one is not there, has files for no group, or one of the name of another option.
    """
    named = os.environ.get(OWN)
    folders = [_own_dir(named)] if named else []
    for plugin in plugins.load():
        if plugin.conf is not None:
            _check_options(plugin.conf)
            folders.append(plugin.conf)
    seen: dict[tuple[str, str], Path] = {}
    for folder in folders if len(folders) > 1 else []:
        for path in folder.glob("*/*.yaml"):
            if (other := seen.setdefault((path.parent.name, path.name), path)) != path:
                raise UserError(f"{path}: {other} is an option of the same name. Give one another name.")
    return folders


def _own_dir(named: str) -> Path:
    folder = Path(named).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"{OWN}={named}: there is no such folder. It has options in it, such as finetune/mine.yaml.")
    _check_options(folder)
    return folder


def _check_options(folder: Path) -> None:
    _check_own(folder, tuple(sorted((path, path.stat().st_mtime_ns) for path in folder.glob("*/*.yaml"))))


@lru_cache(maxsize=4)
def _check_own(folder: Path, files: tuple[tuple[Path, int], ...]) -> None:
    known = {*_group_names("train"), *_group_names("sweep")}
    for path, _ in files:
        group = path.parent.name
        if group not in known:
            raise UserError(
                f"{path}: there is no group {group}.{did_you_mean(group, known)} There are {', '.join(sorted(known))}."
            )
        if (conf_dir() / group / path.name).exists() or (group == "model" and path.stem in BACKBONES):
            raise UserError(f"{path}: {group}={path.stem} is an option of ddtl's. Give the file another name.")
    for path in folder.glob("*.yaml"):
        raise UserError(f"{path}: an option is in the folder of its group, as {folder / 'finetune' / path.name}.")


def _group_names(config_name: str) -> set[str]:
    return set(groups(config_name))


def option_file(group: str, option: str) -> Path:
    """The file of an option: one's own or ddtl's; that of a backbone may not exist."""
    paths = [folder / group / f"{option}.yaml" for folder in own_dirs()]
    return next((path for path in paths if path.exists()), conf_dir() / group / f"{option}.yaml")


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
    names = [name for name in defaults if isinstance(name, str) and name != "_self_"]
    return [option_file(path.parent.name, name) for name in names]


def keys_in(path: Path) -> set[str]:
    """The keys of an option's file, those that it begins with included."""
    own = set(yaml.safe_load(text_of(path))) - {"defaults"}
    return own.union(*map(keys_in, bases_of(path)))


def options(group: str) -> list[str]:
    """The options of a group: the files of its folder but those named ``_…``, and in ``model`` every backbone."""
    folders = [folder / group for folder in (conf_dir(), *own_dirs())]
    files = {path.stem for folder in folders for path in folder.glob("*.yaml") if not path.name.startswith("_")}
    return sorted(files | backbones().keys() if group == "model" else files)
