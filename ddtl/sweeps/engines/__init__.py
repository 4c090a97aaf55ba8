"""Where workers run. An engine only places them: each is a thin layer on what exists, and all share one store.

A new engine is a module of this folder with :class:`Engine`'s ``run``, and its settings in ``conf/engine/``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from ddtl.sweeps.workers import stopping
from ddtl.sweeps.workers.stopping import Stop
from ddtl.sweeps.workers.worker import Show
from ddtl.utils.errors import Stopped, TrainingFailure

if TYPE_CHECKING:
    from ddtl.sweeps.store.store import Store


class Engine(Protocol):
    """What such a module offers."""

    def run(self, store: Store, stop: Stop, show: Show) -> str | None:
        """Place the workers and wait for them; why continuing is pointless, None where there is no reason."""


def run(store: Store, show: Show) -> None:
    """Run the trials that are left.

    Args:
        store: of the sweep.
        show: called about once a second with the state of the sweep.

    Raises:
        UserError: the machine or the cluster is not as the engine's settings say.
        TrainingFailure: continuing is pointless.
        Stopped: by a signal. The trials that were running can be resumed.
    """
    if not store.snapshot().left:
        return  # before anything slow is imported
    engine: Engine = import_module(f"{__name__}.{store.plan.settings.engine.kind}")
    with stopping.opened(store.folder) as stop, stop.by_signals():
        problem = engine.run(store, stop, show)
        if stop.signum is not None:
            raise Stopped(stop.signum)
        if problem is not None:
            raise TrainingFailure(problem)
