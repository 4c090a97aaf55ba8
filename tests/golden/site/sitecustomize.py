"""Register the golden network in every Python process that has this folder in PYTHONPATH.

A command of ddtl starts other processes (trials, workers), which must know the network as well. Python imports this
module at its start; the network is registered when the module that lists the backbones is imported.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

NAME = "golden"
STAGES = ("stem", "layer1", "layer2", "layer3")
WIDTH = 12


def _build(weights: Any = None) -> Any:
    from torch import nn

    def block(inputs: int) -> nn.Module:
        layers = nn.Conv2d(inputs, WIDTH, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()
        return nn.Sequential(*layers)

    return nn.Sequential(OrderedDict((name, block(WIDTH if i else 3)) for i, name in enumerate(STAGES)))


def _register(backbones: ModuleType) -> None:
    backbones.BACKBONES[NAME] = backbones.BackboneSpec(
        name=NAME,
        about="Of the golden archives.",
        build=_build,
        stages={name: (name,) for name in STAGES},
        features=WIDTH,
        trunk="",
    )


REGISTER: dict[str, Callable[[ModuleType], None]] = {
    "ddtl.schema.backbones": _register,
}


class _Finder(MetaPathFinder):
    """Finds the module as usual, and registers the network behind it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in REGISTER:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            REGISTER[fullname](module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Finder())
