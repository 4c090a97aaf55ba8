"""ddtl: deep transfer learning on small chest-CT datasets, with results that can be defended.

The names in ``__all__`` are what scripts and notebooks may use; all else may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddtl.utils.version import VERSION

if TYPE_CHECKING:
    from ddtl.api import (
        Audit,
        Batch,
        Dataset,
        HeatMaps,
        Run,
        Scored,
        Study,
        Sweep,
        audit,
        compare,
        dataset,
        evaluate,
        load,
        runs,
        study,
        sweep,
        train,
    )
    from ddtl.utils import plugins
    from ddtl.utils.errors import TrainingFailure, UserError

__version__ = VERSION
__all__ = [
    "Audit", "Batch", "Dataset", "HeatMaps", "Run", "Scored", "Study", "Sweep", "TrainingFailure", "UserError", "audit",
    "compare", "dataset", "evaluate", "load", "plugins", "runs", "study", "sweep", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what is requested: ``import ddtl`` alone stays quick, and the commands import what they need."""
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'ddtl' has no attribute {name!r}")
    if name == "plugins":
        return import_module("ddtl.utils.plugins")
    return getattr(import_module("ddtl.utils.errors" if name in ("TrainingFailure", "UserError") else "ddtl.api"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
