"""The processes of trials as their worker sees them: how they are started, ended, and what their end means."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddtl.sweeps.store import outcome as settle
from ddtl.sweeps.store.outcome import Outcome
from ddtl.sweeps.workers import trial
from ddtl.sweeps.workers.trial import TrialJob
from ddtl.utils.errors import TrainingFailure
from ddtl.utils.files import append_to, folder_in
from ddtl.utils.isolation import isolate_children
from ddtl.utils.reading import Unreadable, read_object
from ddtl.utils.spawn import without_main

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

    Context = ForkServerContext | SpawnContext

_MEMORY_ENDS = 3.0  # seconds that a process killed for memory may take to be gone
GRACE = 10.0  # seconds that a process has for its end before it is killed
# Signals that a program sends itself by a fault of its own; every other one comes from outside.
_FAULTS = tuple(getattr(signal, name) for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSYS"))


@dataclass(frozen=True)
class Slot:
    """A place for one trial at a time.

    Attributes:
        name: for the record.
        gpus: value of CUDA_VISIBLE_DEVICES; None leaves it as it is.
    """

    name: str
    gpus: tuple[str, ...] | None = None

    def environment(self) -> dict[str, str]:
        """Return the environment of its trials."""
        # SLURM's variables are about the worker: Lightning would take the trial for a task of theirs.
        found = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        if self.gpus is not None:
            found["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        return found


def prepare(*, fork: bool = True) -> Context:
    """Have processes forked from a server that has imported the training stack; spawned where there is no fork.

    Call it before the first trial, with the environment that trials are to have: the number of threads counts.

    Args:
        fork: whether trials are forked at all; those on several devices are not.
    """
    isolate_children()
    if not fork or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ddtl.sweeps.workers.preload"])
    _start(context.Process(target=os.getpid)).join()  # now, so that no trial's time has the server's start in it
    return context


def end_server() -> None:
    """End the server that trials were forked from, in a process that outlives its sweep: the next sweep's server begins
    with the environment of then, and until then none keeps the training stack in memory.
    """
    # Python offers no public way; without this one the server ends with this process.
    stop = getattr(getattr(forkserver, "_forkserver", None), "_stop", None)
    if stop is not None:
        stop()


class TrialProcess:
    """The process of one attempt at a trial."""

    def __init__(self, job: TrialJob, slot: Slot, devices: int, context: Context) -> None:
        """Start it.

        Args:
            job: what it runs.
            slot: where.
            devices: how many it trains on; more than one have a process each, started by Lightning.
            context: from :func:`prepare`.
        """
        self.job = job
        self.slot = slot
        self._started = time.monotonic()
        self._end_outcome: Outcome | None = None
        self._kill_at = float("inf")
        self._oom_kills = [(time.monotonic(), oom_kills())]
        self._reader, writer = multiprocessing.Pipe(duplex=False)
        folder_in(job.log.parents[1], job.log.parent.name)
        job.failure.unlink(missing_ok=True)
        with writer:
            self._process = _launch(job, slot, writer) if devices > 1 else _fork(job, slot, writer, context)

    @property
    def pid(self) -> int:
        """Number of the process, and of the group that it leads."""
        pid = self._process.pid
        assert pid is not None, "it was started"
        return pid

    @property
    def sentinels(self) -> list[Any]:
        """What :func:`multiprocessing.connection.wait` may wait for; more than its end can make them ready."""
        return [self._process.sentinel] if not isinstance(self._process, subprocess.Popen) else []

    def age(self) -> float:
        """Return seconds since its start."""
        return time.monotonic() - self._started

    def ended(self) -> bool:
        """Return whether the process is gone; kills it where its end was requested and has had time to."""
        if self._code() is None:
            self._note_oom_kills()
            if time.monotonic() > self._kill_at:
                self.kill()
        return self._code() is not None

    def _note_oom_kills(self) -> None:
        """Keep how many there were a few seconds ago: those of long before have ended other processes."""
        now = time.monotonic()
        self._oom_kills.append((now, oom_kills()))
        while len(self._oom_kills) > 1 and self._oom_kills[1][0] < now - _MEMORY_ENDS:
            del self._oom_kills[0]

    def ask_to_end(self, outcome: Outcome) -> None:
        """Have it unwind where it is, and be killed if it does not; ``outcome`` is then reported for it."""
        if self._end_outcome is None:
            self._end_outcome = outcome
            self._kill_at = time.monotonic() + GRACE
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it, and all that it has started, now."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # it does not lead a group yet
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def outcome(self) -> Outcome:
        """Return how the attempt ended."""
        code = self._code()
        assert code is not None, "only an ended process has an outcome"
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # what it has left behind: loader workers, other ranks
        reported = self._reported_outcome()
        if reported is not None and (reported.end != "killed" or self._end_outcome is None):
            return reported
        return (
            self._end_outcome
            or self._from_others()
            or _by_code(code, self.job.log, oom_kills() > self._oom_kills[0][1])
        )

    def _code(self) -> int | None:
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll()
        return self._process.exitcode

    def _reported_outcome(self) -> Outcome | None:
        """Return what the process itself reported at its end."""
        try:
            return _outcome(self._reader.recv()) if self._reader.poll() else None
        except (EOFError, OSError):
            return None
        finally:
            self._reader.close()

    def _from_others(self) -> Outcome | None:
        """Return what another process of a distributed trial reported: its end takes the first one with it."""
        try:
            return _outcome(read_object(self.job.failure))
        except (OSError, Unreadable, KeyError, TypeError):
            return None
        finally:
            self.job.failure.unlink(missing_ok=True)


def _outcome(fields: Mapping[str, Any]) -> Outcome:
    return Outcome(fields["end"], tuple(fields["values"]), fields["words"])


def _fork(job: TrialJob, slot: Slot, writer: connection.Connection, context: Context) -> Any:
    return _start(context.Process(target=trial.run_forked, args=(job, slot.environment(), writer)))


def _start(process: Any) -> Any:
    """Return the process, started.

    Raises:
        TrainingFailure: there is no server to fork it from.
    """
    try:
        with without_main():
            process.start()
    except (EOFError, ConnectionError) as error:
        raise TrainingFailure(
            "the server that trials are forked from has ended: the training stack cannot be imported. "
            "Its error is above; `python -c 'import ddtl.sweeps.workers.preload'` repeats it."
        ) from error
    return process


def _launch(job: TrialJob, slot: Slot, writer: connection.Connection) -> subprocess.Popen[bytes]:
    words = [str(writer.fileno()), *map(str, (job.sweep, job.number, job.log, job.stop)), *job.overrides]
    with append_to(job.log) as log:
        return subprocess.Popen(
            [sys.executable, "-m", "ddtl.sweeps.workers.trial", *words],
            stdin=subprocess.PIPE,  # never written to: it ends with this process
            stdout=log,
            stderr=log,
            env=slot.environment(),
            pass_fds=[writer.fileno()],
            start_new_session=True,
        )


def oom_kills() -> int:
    """Return how many processes Linux has killed since its start because memory ran out; 0 where it does not say."""
    try:
        with open("/proc/vmstat", encoding="ascii") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    except (OSError, ValueError):
        return 0


def _by_code(code: int, log: Path, memory_ran_out: bool) -> Outcome:
    """Return the outcome of a process that reported none; ``memory_ran_out``: whether the system has killed one
    meanwhile.
    """
    if -code == signal.SIGKILL and memory_ran_out:
        return settle.failed(
            "out_of_memory",
            "the system killed it as memory ran out: fewer engine.workers or a smaller dataset.batch_size takes less",
        )
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        if -code in _FAULTS:
            return settle.failed("error", f"crashed by {name}; see {log}")
        memory = ": by hand, or by the scheduler" if -code == signal.SIGKILL else ""
        return settle.failed("killed", f"ended by {name}{memory}")
    return settle.failed("error", f"ended with exit code {code}; see {log}")


def wait(processes: Sequence[TrialProcess], seconds: float) -> None:
    """Wait until a process has ended, or for so long."""
    sentinels = [sentinel for process in processes for sentinel in process.sentinels]
    if sentinels:
        connection.wait(sentinels, timeout=seconds)
    else:
        time.sleep(min(seconds, 0.2) if processes else seconds)
