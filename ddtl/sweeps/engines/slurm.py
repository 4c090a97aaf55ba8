"""``engine=slurm``: a worker in each task of an array job, by submitit; on this machine where there is no SLURM."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddtl.sweeps.engines import remote
from ddtl.sweeps.workers import worker
from ddtl.sweeps.workers.stopping import Stop
from ddtl.sweeps.workers.worker import Show
from ddtl.utils import console, threads
from ddtl.utils.errors import UserError
from ddtl.utils.isolation import isolate_children

if TYPE_CHECKING:
    from ddtl.sweeps.store.store import Store

try:
    import submitit
except ImportError as error:
    raise UserError("engine=slurm needs a package that is not here: pip install 'ddtl[slurm]'.") from error

_WARNED = 120  # seconds before its end at which SLURM tells a task


def run(store: Store, stop: Stop, show: Show) -> str | None:
    """See :class:`ddtl.sweeps.engines.Engine`."""
    count = store.plan.settings.engine.workers
    assert count != "auto", "checked with the settings"
    isolate_children()
    os.environ.update(store.environment)  # a password travels with the environment: arguments are written to disk
    executor = _executor(store, count)
    return remote.run(store, stop, show, count, _Jobs(store, stop, executor).place)


def _executor(store: Store, count: int) -> submitit.AutoExecutor:
    """Return what submits the tasks, with what each of them is given."""
    engine = store.plan.settings.engine
    gpus = max(engine.gpus or 0, engine.gpus_per_trial if engine.gpus else 0)
    executor = submitit.AutoExecutor(folder=str(store.folder.absolute() / "slurm"))
    requested: dict[str, Any] = {
        "name": f"ddtl-{store.plan.name}",
        "timeout_min": engine.minutes,
        "cpus_per_task": engine.cpus,
        "mem_gb": engine.memory_gb,
        "slurm_partition": engine.partition,
        "slurm_setup": list(engine.setup),
        "slurm_array_parallelism": count,
        "slurm_signal_delay_s": _WARNED,
    }
    if executor.cluster == "slurm":
        requested["gpus_per_node"] = gpus
    else:
        console.line("there is no SLURM here (no sbatch): submitit runs the workers on this machine")
        threads.share_out(remote.fitting(count, engine.gpus_per_trial) * engine.gpus_per_trial)
    executor.update_parameters(**{key: value for key, value in requested.items() if value is not None})
    return executor


class _Work:
    """What submitit calls; when its time is over, it is submitted again and resumes the trials."""

    def __call__(self, *arguments: Any) -> str | None:
        return worker.run_remote(*arguments)

    def checkpoint(self, *arguments: Any) -> submitit.helpers.DelayedSubmission:
        """See submitit's Checkpointable."""
        return submitit.helpers.DelayedSubmission(self, *arguments)


@dataclass(frozen=True)
class _Jobs:
    """Starts workers as the tasks of one array job."""

    store: Store
    stop: Stop
    executor: submitit.AutoExecutor

    def place(self, names: Sequence[str]) -> list[_SlurmJob]:
        same = (str(self.store.folder.absolute()), str(self.stop.path.absolute()))
        with self.executor.batch():
            jobs = [self.executor.submit(_Work(), *same, name, os.getcwd(), {}) for name in names]
        return [_SlurmJob(job) for job in jobs]


@dataclass(frozen=True)
class _SlurmJob:
    job: submitit.Job[str | None]

    def ended(self) -> bool:
        return self.job.done()

    def result(self) -> str | None:
        return self.job.result()

    def end(self) -> None:
        with suppress(Exception):  # it may have ended by itself
            self.job.cancel()
