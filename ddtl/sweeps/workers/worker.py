"""A worker: takes trials from the store, runs each in a process of its own, and tells the store how it ended."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ddtl.sweeps.store import open, outcome as settle
from ddtl.sweeps.store.task import Task
from ddtl.sweeps.workers import cleanup, processes
from ddtl.sweeps.workers.processes import Slot, TrialProcess
from ddtl.sweeps.workers.stopping import Stop
from ddtl.sweeps.workers.trial import TrialJob
from ddtl.utils.errors import TrainingFailure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ddtl.sweeps.store.snapshot import Snapshot
    from ddtl.sweeps.store.store import Store

_CHECK_SECONDS = 1.0  # seconds between two checks of the clock and at the store

Show = Callable[["Snapshot"], None]


def work(store: Store, slots: Sequence[Slot], stop: Stop, show: Show) -> str | None:
    """Run trials until there is none left to begin, or until the sweep is to end.

    Args:
        store: of the sweep.
        slots: where trials run, one in each at a time.
        stop: ends the sweep; set by this function, too, where continuing is pointless.
        show: called about once a second with the state of the sweep.

    Returns:
        Why continuing is pointless; None where there is no reason.

    Raises:
        TrainingFailure: no trial can be started.
        Stopped: its user wants it to end now; the trials can be resumed.
    """
    loop = _Loop(store, slots, stop)
    with loop.ended_with():
        while True:
            loop.settle()
            now = store.snapshot()
            loop.check_time_and_store(now)
            if not stop.is_requested():
                loop.begin()
            if not loop.running:
                show(store.snapshot())
                return loop.problem
            show(now)
            processes.wait(list(loop.running), _CHECK_SECONDS)


class _Loop:
    """The state of :func:`work`."""

    def __init__(self, store: Store, slots: Sequence[Slot], stop: Stop) -> None:
        self.store = store
        self.slots = slots
        self.stop = stop
        self.settings = store.plan.settings.sweep
        self.devices = max(store.plan.settings.engine.gpus_per_trial, store.plan.base.trainer.devices)
        self.context = processes.prepare(fork=self.devices == 1)
        self.running: dict[TrialProcess, Task] = {}
        self.problem: str | None = None

    def begin(self) -> None:
        """Start a trial in every free slot, as long as there are trials."""
        taken = {process.slot for process in self.running}
        for slot in self.slots:
            if slot in taken:
                continue
            task = self.store.next(slot.name)
            if task is None:
                return
            job = TrialJob(self.store.folder, task.number, task.overrides, task.log, self.stop.path)
            process = TrialProcess(job, slot, self.devices, self.context)
            self.running[process] = task
            self.store.started(task, process.pid)

    def settle(self) -> None:
        """Tell the store of the trials that have ended."""
        for process in [process for process in self.running if process.ended()]:
            outcome = process.outcome()
            if outcome.end == "disk_full":
                self.give_up(f"the disk is full: {outcome.words}")
            self.store.end(self.running.pop(process), outcome)
            cleanup.tidy(self.store)

    def check_time_and_store(self, now: Snapshot) -> None:
        """End what takes too long, and everything where trial after trial fails."""
        minutes = self.settings.trial_minutes
        for process in self.running:
            if minutes is not None and process.age() > 60 * minutes:
                words = f"was not done after {minutes:g} minutes (sweep.trial_minutes)"
                process.ask_to_end(settle.failed("time_limit", words))
        if len(now.failures) >= self.settings.max_failures:
            lines = "\n".join(f"  {words}" for words in now.failures[-self.settings.max_failures :])
            self.give_up(f"failed trials in a row: {len(now.failures)} (sweep.max_failures):\n{lines}")

    def give_up(self, why: str) -> None:
        """End the sweep after the running trials' next checkpoint."""
        self.problem = self.problem or why
        self.stop.ask()

    @contextmanager
    def ended_with(self) -> Iterator[None]:
        """End the trials however this process leaves its work, and keep them to be resumed."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            where = error.filename or self.store.folder
            raise TrainingFailure(f"the disk is full: could not write {where}. Make room.") from error
        finally:
            for process in self.running:
                process.ask_to_end(settle.stopped())
            while any(not process.ended() for process in self.running):
                processes.wait(list(self.running), 0.1)
            for process, task in self.running.items():
                with suppress(OSError):  # what is not reported now is detected by the next command
                    self.store.end(task, process.outcome())


def run_remote(folder: str, stop: str, name: str, directory: str, environment: Mapping[str, str]) -> str | None:
    """Return a worker with one slot in a process of its own: what engines place on other machines.

    Args:
        folder: of the sweep.
        stop: the file of its :class:`Stop`.
        name: of the worker, for the record.
        directory: where the command was typed; paths are relative to it.
        environment: see :attr:`Store.environment`.
    """
    os.chdir(directory)
    os.environ.update(environment)
    store = open.reopen(Path(folder))
    try:
        return work(store, [Slot(f"{socket.gethostname()} {name}")], Stop(Path(stop)), _unseen)
    finally:
        store.close()


def _unseen(snapshot: Snapshot) -> None:
    """Show nothing: a remote worker has no terminal."""
