"""Hydra composes the files, OmegaConf resolves references; what comes out is plain dicts and lists."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from ddtl.config.overrides import Setting, format_value
from ddtl.config.where import conf_dir, own_dirs, text_of
from ddtl.schema.backbones import backbones
from ddtl.schema.run import MOVED, moved
from ddtl.utils.errors import UserError
from ddtl.utils.reading import printable, walk
from ddtl.utils.suggest import did_you_mean

# OmegaConf's words, and ours.
_REFERENCES = (
    (r"Recursive interpolation detected", "refers to itself"),
    (r"Unsupported interpolation type (\w+)", r"no function is called \1"),
    (r"""^\w+ raised while resolving interpolation: ("?)(.*)\1$""", r"cannot be worked out: \2"),
)


# Of an environment that contains keys and passwords; what ``${oc.env:…}`` reads ends up in records and names.
_READABLE = re.compile(r"(?!DDTL_SWEEP_STORAGE$)DDTL_\w+|HOME|TMPDIR|SCRATCH|SLURM_(TMPDIR|JOB_ID|ARRAY_(JOB|TASK)_ID)")


def _variable(name: str, *default: Any) -> Any:
    """OmegaConf's ``oc.env`` for the variables that settings may read."""
    if not _READABLE.fullmatch(name):
        raise ValueError(
            "settings may read variables whose names begin with DDTL_, HOME, TMPDIR, SCRATCH and SLURM's numbers, not "
            f'{printable(name)}. To let them: export DDTL_VALUE="${printable(name)}", and read that one'
        )
    return oc.env(name, *default)


@contextmanager
def _variables() -> Iterator[None]:
    """While settings are resolved. Other users of OmegaConf in this process have it as it was."""
    OmegaConf.register_new_resolver("oc.env", _variable, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


@_variables()
def composed(config_name: str, choices: Mapping[str, str]) -> DictConfig:
    """The files of the chosen options put together, references unresolved. Not to be changed: it is shared.

    Raises:
        UserError: a file under ``conf/`` is not in order.
    """
    # Hydra takes a tenth of a second, and the jobs of a sweep mostly differ in values alone.
    folder, own = conf_dir(), tuple(own_dirs())
    folders = [folder, *own]
    state = tuple((path, about.st_mtime_ns, about.st_size) for each in folders for path, about in _files(each))
    return _composed(folder, own, state, config_name, tuple(choices.items()))


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of settings and the stat result of each; a link that leads nowhere, as editors make, is none."""
    for files in walk(folder, _unreadable):
        for entry in files:
            if entry.name.endswith(".yaml"):
                with suppress(FileNotFoundError):
                    yield Path(entry.path), entry.stat()


def _unreadable(folder: Path, why: str) -> NoReturn:
    raise UserError(f"{folder} {why}. Files of settings are searched for there.")


@contextmanager
def _backbones(folder: Path) -> Iterator[None]:
    """Let Hydra find every backbone as an option, with the settings of the one that has a file."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    before = store.repo.pop("model", None)
    for name in backbones():
        if not (folder / "model" / f"{name}.yaml").exists():
            store.store(group="model", name=name, node={"defaults": ["densenet121"], "name": name})
    try:
        yield
    finally:
        store.repo.pop("model", None)
        if before is not None:
            store.repo["model"] = before


# Settings of Hydra itself, and what YAML reads as a number of base 60: 12:30 as 750.
_FOR_HYDRA = re.compile(r"^(?:hydra\s*:|#\s*@package\s+hydra\b)", re.MULTILINE)
_BASE_60 = re.compile(r"^[^#\n'\"]*:\s+([-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?)\s*(?:#.*)?$", re.MULTILINE)


@lru_cache(maxsize=8)
def _check(state: tuple[tuple[Path, int, int], ...]) -> None:
    for path, *_ in state:
        text = text_of(path)
        if _FOR_HYDRA.search(text):
            raise UserError(f"{path}: has settings of Hydra's own, which ddtl does not use. Remove hydra from it.")
        if found := _BASE_60.search(text):
            raise UserError(
                f"{path}: YAML reads {found[1]} as a number of base 60. Write it in quotes if it is a text, else as an "
                "ordinary number."
            )


@lru_cache(maxsize=64)
def _composed(
    folder: Path,
    own: tuple[Path, ...],
    state: tuple[tuple[Path, int, int], ...],
    config_name: str,
    choices: tuple[tuple[str, str], ...],
) -> DictConfig:
    """As above; ``state`` of the files is there to be compared with that of an earlier call."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    _check(state)
    GlobalHydra.instance().clear()
    places = " or ".join(map(str, (folder, *own)))
    try:
        with _backbones(folder), initialize_config_dir(str(folder), version_base="1.3"):
            search = (
                [f"hydra.searchpath={format_value([f'file://{path}' for path in own], quoted=True)}"] if own else []
            )
            config = compose(config_name, overrides=[*search, *(f"{group}='{option}'" for group, option in choices)])
        tree = OmegaConf.to_container(config, resolve=False)
        many = expansion(tree) > _MOST_VALUES
        if (now := moved(tree)) is not tree:  # a file of a user's own has the names of before
            config = OmegaConf.create(now)
    except Exception as error:  # Hydra, OmegaConf and YAML meet files that are not in order with almost any
        os.getcwd()  # raises where the current folder is gone, which is another mistake
        raise UserError(f"a file under {places} is not in order: {_one_line(error) or type(error).__name__}") from error
    if many:
        raise UserError(
            f"a file under {places} is not in order: its references stand for more than {_MOST_VALUES:,} values"
        )
    return config


_MOST_VALUES = 100_000  # that the references of a configuration stand for
_MOST_NESTED = 8  # references whose name is made of references
_REFERENCE = re.compile(r"\$\{([^{}$:]+)\}")
_VALUE_OF = re.compile(r"\$\{\s*oc\.(?:env|decode)\s*:")  # calls that stand for one value


def expansion(tree: Any) -> int:
    """Return how many values a configuration stands for once its references are copies; over the limit, any number.

    Args:
        tree: of dicts, lists and values, references unresolved.
    """
    known: dict[str, int] = {}
    nested = 0

    def size(value: Any, key: str) -> int:
        nonlocal nested
        if isinstance(value, dict):
            return 1 + sum(size(inner, f"{key}.{name}" if key else str(name)) for name, inner in value.items())
        if isinstance(value, list):
            return 1 + sum(size(inner, f"{key}[{number}]") for number, inner in enumerate(value))
        if not isinstance(value, str) or "${" not in value:
            return 1
        names = _REFERENCE.findall(value)
        nested += value.count("${") - len(names) - len(_VALUE_OF.findall(value))
        return 1 + sum(target(_absolute(name.strip(), key)) for name in names)

    def target(name: str) -> int:
        if name not in known:
            known[name] = 1  # one that leads back to itself is refused when it is resolved
            found = _at_reference(tree, name)
            known[name] = size(found, name)
        return known[name]

    total = size(tree, "")
    return total if nested <= _MOST_NESTED else _MOST_VALUES + nested


def _absolute(name: str, key: str) -> str:
    """A reference as a key from the top: each dot in front is a level up."""
    inner = name.lstrip(".")
    up = len(name) - len(inner)
    if not up:
        return name
    above = re.split(r"\.|(?=\[)", key)[:-up]
    return ".".join([*above, inner]).replace(".[", "[")


def _at_reference(tree: Any, name: str) -> Any:
    for part in re.findall(r"[^.\[\]]+", name):
        if isinstance(tree, list):
            tree = tree[int(part)] if part.isdecimal() and int(part) < len(tree) else None
        else:
            tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def check_keys(
    config: DictConfig, settings: Iterable[Setting], groups: Iterable[str]
) -> tuple[list[Setting], list[str]]:
    """The settings whose key exists, dicts taken apart, the last of each key; and a line for each of the others."""
    tree = OmegaConf.to_container(config, resolve=False)
    there = list(_keys(tree))
    found: dict[str, Setting] = {}
    problems: list[str] = []
    for part in (part for whole in settings for part in _parts(whole, _at(tree, whole.key))):
        setting = Setting(MOVED.get(part.key, part.key), part.value, part.text)
        # A dict of the command line, such as dataset.own={third: …}, to which dataset.own.third.class_map adds.
        dicts = (key for key, one in found.items() if isinstance(one.value, dict))
        whole = next((key for key in dicts if setting.key.startswith(f"{key}.")), None)
        if setting.key in there:
            found.pop(setting.key, None)
            found[setting.key] = setting
        elif whole is not None:
            value = copy.deepcopy(found[whole].value)
            _set_inside(value, setting.key.removeprefix(f"{whole}.").split("."), setting.value)
            found[whole] = Setting(whole, value, found[whole].text)
        else:
            problems.append(f"{setting.text}: {_unknown(setting.key, there, groups)}")
    return list(found.values()), problems


def _set_inside(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        inner = tree.get(name)
        tree[name] = tree = inner if isinstance(inner, dict) else {}
    tree[path[-1]] = value


@_variables()
def resolved(config: DictConfig, settings: Sequence[Setting]) -> tuple[dict[str, Any], list[str]]:
    """``config`` with ``settings`` as plain data, references resolved; a line for each setting that had to stay out."""
    changed = copy.deepcopy(config)
    problems: dict[str, str] = {}
    for step in (_put, _check_reference):
        for setting in settings:
            try:
                step(changed, setting)
            except OmegaConfBaseException as error:
                problems.setdefault(setting.key, f"{setting.text}: {_reason(error, config)}")
    if problems:
        tree, more = resolved(config, [setting for setting in settings if setting.key not in problems])
        return tree, [*problems.values(), *more]
    try:
        return _plain(changed), []
    except OmegaConfBaseException as error:
        raise UserError(f"a file under {conf_dir()} is not in order: {_one_line(error)}") from error


def _put(config: DictConfig, setting: Setting) -> None:
    parent = setting.key.rpartition(".")[0]
    if parent and not isinstance(OmegaConf.select(config, parent), DictConfig):
        raise OmegaConfBaseException(f"{parent} is given another value on the same command line")
    OmegaConf.update(config, setting.key, setting.value, merge=False)


def _check_reference(config: DictConfig, setting: Setting) -> None:
    _plain(OmegaConf.select(config, setting.key))


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, (DictConfig, ListConfig)) else value


def _reason(error: OmegaConfBaseException, config: DictConfig) -> str:
    """What is wrong with a reference such as ``${optimizer.lr}``."""
    message = _one_line(error)
    missing = re.match(r"Interpolation key '(.*?)' not found", message)
    if missing is not None:
        return f"refers to {missing[1]}, and there is no such key.{did_you_mean(missing[1], keys(config))}"
    for theirs, ours in _REFERENCES:
        message = re.sub(theirs, ours, message)
    return f"{message.removesuffix('.')}."


def _one_line(error: Exception) -> str:
    """The error's words without OmegaConf's technical lines (full_key, object_type) below them."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("full_key:", "object_type=")))


def keys(config: DictConfig) -> list[str]:
    """Every key, sections included."""
    return list(_keys(OmegaConf.to_container(config, resolve=False)))


def _keys(tree: Any, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _parts(setting: Setting, now: Any) -> Iterator[Setting]:
    """A dict given to a section says something about each of its keys, and nothing about the others."""
    if not (isinstance(now, dict) and isinstance(setting.value, dict)):
        yield setting
        return
    for name, value in setting.value.items():
        key = f"{setting.key}.{name}"
        yield from _parts(Setting(key, value, f"{key}={format_value(value)}"), now.get(name))


def _unknown(key: str, keys: Sequence[str], groups: Iterable[str]) -> str:
    parent = key.rpartition(".")[0]
    if parent in keys and not any(name.startswith(parent + ".") for name in keys):
        return f"{parent} has no keys of its own here."
    if re.match(r"hydra\b", key):
        return "ddtl reads its files with Hydra but has none of its settings; see paths.runs_dir and run.name."
    # Groups come first: `modle` is as like `model` as the end of `logger.wandb.mode`.
    return f"no such key.{did_you_mean(key, [*groups, *keys])}"
