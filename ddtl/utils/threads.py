"""Threads × processes must not exceed the cores. No torch: the number must be before it is imported."""

from __future__ import annotations

import os


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
