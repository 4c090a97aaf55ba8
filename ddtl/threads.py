"""Threads × processes must not exceed the cores. No torch: the number must stand before it is imported."""

from __future__ import annotations

import os


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_out(processes: int) -> None:
    """Leave each of ``processes`` on this machine its share of the cores; they inherit it from this one."""
    if processes > 1:
        mine = max(1, cores() // processes)
        asked = os.environ.get("OMP_NUM_THREADS", "")
        os.environ["OMP_NUM_THREADS"] = str(min(mine, int(asked)) if asked.isdecimal() and int(asked) else mine)


def keep_freed_memory() -> None:
    """Have freed memory kept for the next step, where the C library is glibc; elsewhere nothing happens.

    glibc hands each large tensor back to the system and fetches it again at the next step, page by page: a tenth of
    the time of a step on a CPU. The most that is used at a time stays the same.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    no_mmap, trim_threshold, top_pad = -4, -1, -2  # of malloc.h
    mallopt(no_mmap, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 2**28)
