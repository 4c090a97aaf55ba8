"""``engine=local``: one worker in this process, with a slot for each trial that runs at a time."""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ddtl.sweeps.engines import remote
from ddtl.sweeps.workers import worker
from ddtl.sweeps.workers.processes import Slot
from ddtl.sweeps.workers.stopping import Stop
from ddtl.sweeps.workers.worker import Show
from ddtl.utils import threads
from ddtl.utils.errors import UserError

if TYPE_CHECKING:
    from ddtl.sweeps.plan.settings import Plan
    from ddtl.sweeps.store.store import Store

_CHECK_SECONDS = 1.0  # seconds between two checks of trials that are not this worker's


def run(store: Store, stop: Stop, show: Show) -> str | None:
    """See :class:`ddtl.sweeps.engines.Engine`."""
    places = slots(store.plan)
    threads.share_out(len(places) * store.plan.settings.engine.gpus_per_trial)
    while True:
        problem = worker.work(store, places, stop, show)
        if problem is not None or stop.is_requested() or not store.snapshot().left:
            return problem
        time.sleep(
            _CHECK_SECONDS
        )  # the rest is worked at by others, or by processes of a killed sweep that have not ended yet


def slots(plan: Plan) -> list[Slot]:
    """Return the slots of this machine.

    Raises:
        UserError: it has too few GPUs, or too few cores.
    """
    engine = plan.settings.engine
    each = engine.gpus_per_trial
    gpus = visible_gpus() if plan.base.trainer.accelerator != "cpu" else []
    count = max(1, len(gpus) // each) if engine.workers == "auto" else engine.workers
    if not gpus:
        return [Slot(f"local {i}") for i in range(remote.fitting(count, each))]
    if each > len(gpus) or (each > 1 and count * each > len(gpus)):
        raise UserError(
            f"engine.workers={count} with engine.gpus_per_trial={each} need {count * each} GPUs, and this machine has "
            f"{len(gpus)} to use. Set fewer, or trainer=cpu."
        )
    shares = [gpus[i : i + each] for i in range(0, len(gpus) - each + 1, each)]
    return [Slot(f"local {i}", tuple(shares[i % len(shares)])) for i in range(remote.fitting(count, each))]


def visible_gpus() -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES may be set to, one each. Queries the driver, as importing torch would take
    seconds.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = ctypes.c_int(0)
    with suppress(OSError, AttributeError):
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return []
    # The driver sees only what the variable names, up to its first mistake.
    return [name.strip() for name in named.split(",")][: count.value] if named else [str(i) for i in range(count.value)]
