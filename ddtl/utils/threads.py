"""Threads × processes must not exceed the cores. No torch: the number must be before it is imported."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any


def cores() -> int:
    """Return cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_out(processes: int) -> None:
    """Leave each of ``processes`` on this machine its share of the cores; they inherit it from this one."""
    if processes > 1:
        mine = max(1, cores() // processes)
        requested = os.environ.get("OMP_NUM_THREADS", "")
        os.environ["OMP_NUM_THREADS"] = str(
            min(mine, int(requested)) if requested.isdecimal() and int(requested) else mine
        )


def single_blas_thread() -> AbstractContextManager[Any]:
    """Return a context in which numpy's products use one thread.

    OpenBLAS's other threads spin for a while after each product, on cores that a network on the CPU needs.
    """
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1, user_api="blas")
    return limits
