"""What users add to ddtl without changing it: losses, backbones, kinds of datasets, samplers of searches.

A plugin is a module that calls :func:`loss`, :func:`backbone`, :func:`dataset` or :func:`sampler` when it is imported.
It is named by the variable ``DDTL_PLUGINS=module,…``, or by an entry point of an installed package in the group
``ddtl.plugins``; nothing in the current folder is imported. Where the module is a package with a folder
``conf/``, its files are options, as those of ``DDTL_CONF`` are.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, TypeVar

from ddtl.utils.errors import PluginFailure, UserError
from ddtl.utils.reading import printable

VARIABLE, GROUP = "DDTL_PLUGINS", "ddtl.plugins"

T = TypeVar("T")
_NAME = re.compile(r"[\w-]{1,60}", re.ASCII)


@dataclass(frozen=True)
class Plugin:
    """A module that was imported.

    Attributes:
        module: its name.
        version: of the installed package it belongs to, or its own ``__version__``; empty where there is none.
        sha256: of its source files.
        conf: its folder of options, where it has one.
        place: its file, or its folder where it is a package.
    """

    module: str
    version: str
    sha256: str
    conf: Path | None
    place: Path

    @property
    def identity(self) -> str:
        """What must be the same for its results to be the same."""
        return f"{self.version} sha256:{self.sha256}".strip()


_added: dict[str, dict[str, tuple[Any, str]]] = {}  # kind -> name -> what was added, and by which module
_loaded: dict[str, Plugin] = {}
_adding: list[str] = []  # the module that is being imported


def loss(name: str) -> Callable[[T], T]:
    """Add a loss: a function as those of ``ddtl/models/losses.py``, whose options have their file in ``loss/``."""
    return _adder("loss", name)


def backbone(spec: T) -> T:
    """Add a network, a :class:`ddtl.schema.backbones.BackboneSpec` with ``build``; ``model=NAME`` takes it."""
    return _adder("backbone", spec.name)(spec)  # type: ignore[attr-defined]


def dataset(name: str) -> Callable[[T], T]:
    """Add a kind of dataset: a function of a :class:`~ddtl.schema.run.Config` and a progress that returns a
    :class:`~ddtl.data.manifest.Manifest`. Its file is ``dataset/NAME.yaml``, with ``kind: NAME``.
    """
    return _adder("dataset", name)


def sampler(cls: T) -> T:
    """Add a sampler of searches, a class of Optuna's ``BaseSampler``; ``sampler.name=CLASS`` takes it."""
    return _adder("sampler", cls.__name__)(cls)  # type: ignore[attr-defined]


def added(kind: str, own: Container[str]) -> dict[str, Any]:
    """Return what plugins added of a kind, by name.

    Args:
        kind: ``loss``, ``backbone``, ``dataset`` or ``sampler``.
        own: the names that ddtl has itself.

    Raises:
        UserError: a plugin adds one of these.
    """
    load()
    for name, (_, module) in _added.get(kind, {}).items():
        if name in own:
            raise UserError(
                f"{VARIABLE}: {module} adds the {kind} {name}, which ddtl has itself. Give it another name."
            )
    return {name: value for name, (value, _) in _added.get(kind, {}).items()}


def of(names: Mapping[str, str]) -> list[Plugin]:
    """Return the plugins that some things come from.

    Args:
        names: by kind, the name that is used.
    """
    load()
    modules = {_added[kind][name][1] for kind, name in names.items() if name in _added.get(kind, {})}
    return [_loaded[module] for module in sorted(modules)]


def failure(error: BaseException) -> PluginFailure | None:
    """Return the failure that an exception is, where it was raised by a plugin's code or by what that called.

    Args:
        error: with its traceback.
    """
    own = Path(__file__).resolve().parents[1]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename).resolve()
        if file.is_relative_to(own):
            return None
        for plugin in _loaded.values():
            if file.is_relative_to(plugin.place) if plugin.place.is_dir() else file == plugin.place:
                words = printable(" ".join(str(error).split()))[:300]
                return PluginFailure(
                    f"the plugin {plugin.module} failed in {frame.name}, {printable(file)}:{frame.lineno} "
                    f"({type(error).__name__}{': ' if words else ''}{words})."
                )
    return None


def load() -> list[Plugin]:
    """Import the plugins that are named, each once; all of them.

    Raises:
        UserError: one cannot be imported, or adds what is there already.
    """
    for module in _named():
        if module in _loaded or module in _adding:
            continue
        _adding.append(module)
        try:
            found = import_module(module)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            why = f"{type(error).__name__}: {printable(str(error))[:300]}"
            raise UserError(
                f"{VARIABLE}: the plugin {printable(module)} cannot be imported ({why}). Install it, or put its folder "
                "on PYTHONPATH, with its absolute path."
            ) from None
        finally:
            _adding.remove(module)
        _loaded[module] = _described(module, found)
    return list(_loaded.values())


def _named() -> list[str]:
    given = [name.strip() for name in os.environ.get(VARIABLE, "").split(",")]
    return list(dict.fromkeys(filter(None, [*_installed(), *given])))


@cache
def _installed() -> tuple[str, ...]:
    return tuple(entry.value.partition(":")[0] for entry in metadata.entry_points(group=GROUP))


def _adder(kind: str, name: str) -> Callable[[T], T]:
    def add(value: T) -> T:
        if not _adding:
            raise UserError(f"{kind} {name}: is added by a plugin; name the module by {VARIABLE}=module.")
        if not _NAME.fullmatch(name):
            raise UserError(
                f"{VARIABLE}: {_adding[-1]} adds the {kind} {printable(name)!r}: letters, digits, _ and - make a name."
            )
        before = _added.setdefault(kind, {}).get(name)
        if before is not None and before[1] != _adding[-1]:
            raise UserError(f"{VARIABLE}: {before[1]} and {_adding[-1]} both add the {kind} {name}. Leave one out.")
        _added[kind][name] = value, _adding[-1]
        return value

    return add


def _described(module: str, found: Any) -> Plugin:
    file = Path(getattr(found, "__file__", None) or "")
    is_package = hasattr(found, "__path__")
    sources = sorted(file.parent.rglob("*.py")) if is_package else [file]
    content = hashlib.sha256()
    for source in sources:
        content.update(f"{source.relative_to(file.parent).as_posix()}\0".encode())
        content.update(source.read_bytes() + b"\0")
    try:
        version = metadata.version(module.partition(".")[0].replace("_", "-"))
    except metadata.PackageNotFoundError:
        version = str(getattr(sys.modules[module], "__version__", ""))
    conf, place = file.parent / "conf", (file.parent if is_package else file).resolve()
    return Plugin(module, version, content.hexdigest()[:16], conf if is_package and conf.is_dir() else None, place)
