"""Workers in other processes, perhaps on other machines: placed, watched, and placed again where some were lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from ddtl.sweeps.workers.stopping import Stop
from ddtl.sweeps.workers.worker import Show
from ddtl.utils import threads
from ddtl.utils.errors import UserError

if TYPE_CHECKING:
    from ddtl.sweeps.store.store import Store

log = logging.getLogger(__name__)

_CHECK_SECONDS = 1.0  # seconds between two checks of the workers


class Placed(Protocol):
    """A worker on another machine, which runs :func:`ddtl.sweeps.workers.worker.run_remote`."""

    def ended(self) -> bool:
        """Return whether it is gone."""

    def result(self) -> str | None:
        """Return what ``alone`` returned; raises where the worker did not come to its end."""

    def end(self) -> None:
        """End it now."""


def run(
    store: Store, stop: Stop, show: Show, count: int, place: Callable[[Sequence[str]], Sequence[Placed]]
) -> str | None:
    """Place workers until no trial is left; lost ones are replaced up to ``sweep.retries`` times.

    Args:
        store: of the sweep.
        stop: ends the sweep.
        show: called about once a second.
        count: how many workers there are at most.
        place: starts a worker for each name.

    Returns:
        Why continuing is pointless; None where there is no reason.
    """
    for _ in range(store.plan.settings.sweep.retries + 1):
        now = store.snapshot()
        if not now.left or stop.is_requested():
            return None
        problem = _wait_for_round(store, show, place([f"worker {i}" for i in range(min(count, now.left))]))
        if problem is not None:
            return problem
    if stop.is_requested() or not store.snapshot().left:
        return None
    return "the workers have ended, and trials are left. Their logs are in the sweep's folder."


def _wait_for_round(store: Store, show: Show, workers: Sequence[Placed]) -> str | None:
    """Wait for a round of workers; the first problem that makes it pointless to continue."""
    try:
        while not all(worker.ended() for worker in workers):
            show(store.snapshot())
            time.sleep(_CHECK_SECONDS)
    except BaseException:
        for worker in workers:
            worker.end()
        raise
    show(store.snapshot())
    problems = []
    for worker in workers:
        try:
            problems.append(worker.result())
        except Exception as error:
            log.warning("a worker was lost: %s", (str(error).strip() or type(error).__name__).splitlines()[-1])
    return next(filter(None, problems), None)


def fitting(count: int, each: int) -> int:
    """Return the number of trials at a time, if this machine has a core for each of their processes.

    Args:
        count: trials at a time.
        each: processes of a trial.

    Raises:
        UserError: it has not.
    """
    cores = threads.cores()
    if count * each > cores:
        most = max(1, cores // each)
        raise UserError(
            f"engine.workers={count}: {count * each} processes on {cores} cores would only wait for each other. "
            f"Set engine.workers={most}."
        )
    return count
