"""``engine=ray``: a worker in each task of a Ray cluster, a running one or one that is started on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import chdir, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddtl.sweeps.engines import remote
from ddtl.sweeps.workers import worker
from ddtl.sweeps.workers.stopping import Stop
from ddtl.sweeps.workers.worker import Show
from ddtl.utils import threads
from ddtl.utils.errors import UserError
from ddtl.utils.isolation import NEUTRAL_FOLDER, isolate_children

if TYPE_CHECKING:
    from ddtl.schema.sweep import EngineConfig
    from ddtl.sweeps.store.store import Store

try:
    import ray
except ImportError as error:
    raise UserError("engine=ray needs a package that is not here: pip install 'ddtl[ray]'.") from error


# To workers on other machines, too; a mirror's address may contain a password, and then it is in no word of a trial.
_PASSED_ON = ("PYTHONPATH", "PYTHONSAFEPATH", "DDTL_CONF", "DDTL_DATA_MIRROR", "DDTL_WEIGHTS_MIRROR")


def run(store: Store, stop: Stop, show: Show) -> str | None:
    """See :class:`ddtl.sweeps.engines.Engine`."""
    engine = store.plan.settings.engine
    isolate_children()
    _connect(engine)
    try:
        # Ray puts an answer of its own to SIGTERM in place of ours.
        with stop.by_signals():
            on_gpus = store.plan.base.trainer.accelerator != "cpu"
            count, resources = _shares(engine, ray.cluster_resources() if on_gpus else {})
            return remote.run(store, stop, show, count, _Tasks(store, stop, resources).place)
    finally:
        ray.shutdown()


def _connect(engine: EngineConfig) -> None:
    """Connect to a running cluster, or to one of this machine alone, without its dashboard."""
    variables = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    own: dict[str, Any] = {} if engine.address else {"include_dashboard": False, "object_store_memory": 80_000_000}
    try:
        with chdir(NEUTRAL_FOLDER):  # Ray would put the current folder on its workers' path of modules
            ray.init(
                address=engine.address or "local",
                runtime_env={"env_vars": variables},
                log_to_driver=False,
                logging_level=logging.ERROR,
                **own,
            )
    except (ConnectionError, ValueError, RuntimeError) as problem:
        raise UserError(f"engine.address={engine.address}: no Ray cluster there ({problem}).") from problem


def _shares(engine: EngineConfig, cluster: dict[str, float]) -> tuple[int, dict[str, Any]]:
    """Return how many workers there are, and what each of them takes of the cluster."""
    each = engine.gpus_per_trial
    gpus = int(cluster.get("GPU", 0))
    count = max(1, gpus // each) if engine.workers == "auto" else engine.workers
    # A cluster's nodes differ, so there a worker requests what any of them can give.
    cpus = each if engine.address else max(each, threads.cores() // remote.fitting(count, each))
    return count, {"num_cpus": cpus, **({"num_gpus": each} if gpus else {})}


@dataclass(frozen=True)
class _Tasks:
    """Starts workers as tasks of Ray."""

    store: Store
    stop: Stop
    resources: dict[str, Any]

    def place(self, names: Sequence[str]) -> list[_Task]:
        task = ray.remote(max_retries=0, **self.resources)(worker.run_remote)
        folder, stop = str(self.store.folder.absolute()), str(self.stop.path.absolute())
        return [_Task(task.remote(folder, stop, name, os.getcwd(), self.store.environment)) for name in names]


@dataclass(frozen=True)
class _Task:
    reference: Any

    def ended(self) -> bool:
        done, _ = ray.wait([self.reference], timeout=0)
        return bool(done)

    def result(self) -> str | None:
        found: str | None = ray.get(self.reference)
        return found

    def end(self) -> None:
        with suppress(Exception):  # the cluster may be gone, and the worker with it
            ray.cancel(self.reference, force=True)
