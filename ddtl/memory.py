"""How a process that trains goes about its memory. No torch: it may be asked before torch is there."""

from __future__ import annotations

import atexit
import gc


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


def pass_over_imports() -> None:
    """Have the garbage collector pass over what this process has imported, from the first call on.

    torch and Lightning leave 570,000 objects, none of them garbage, and each full collection looks at all: half a
    second in the midst of training.
    """
    if not gc.get_freeze_count():
        gc.freeze()
        atexit.register(gc.unfreeze)  # triton complains of objects that are left at the end
