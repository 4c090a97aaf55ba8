"""How a process that trains goes about its memory. No torch: it may be called before torch is imported."""

from __future__ import annotations

import atexit
import gc
import shutil

from ddtl.utils.errors import TrainingFailure

SHARED = "/dev/shm"  # where loader processes hand over their batches


def keep_freed_memory() -> None:
    """Have freed memory kept for the next step, where the C library is glibc; otherwise nothing happens.

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


def shared_memory_failure(detail: str) -> TrainingFailure:
    """Return the failure of loader processes that cannot hand over their batches."""
    return TrainingFailure(
        f"{SHARED} is too small for the loader processes ({detail}). Set dataset.num_workers=0, or make it larger: "
        "docker run --shm-size=2g …"
    )


def free_shared_memory() -> int | None:
    """Bytes that loader processes can still fill; None where there is no such place."""
    try:
        return shutil.disk_usage(SHARED).free
    except OSError:
        return None


def require_shared_memory(workers: int, batch: int) -> None:
    """Refuse to start loader processes that could not hand over one batch each: they would be waited for.

    Args:
        workers: loader processes.
        batch: bytes of one batch.

    Raises:
        TrainingFailure: there is too little shared memory.
    """
    free = free_shared_memory()
    needed = workers * batch + 2**16  # and their queues
    if workers and free is not None and free < needed:
        raise shared_memory_failure(f"{free / 1e6:.2f} MB free, at least {needed / 1e6:.2f} MB needed")


def pass_over_imports() -> None:
    """Have the garbage collector pass over what this process has imported, from the first call on.

    torch and Lightning leave 570,000 objects, none of them garbage, and each full collection examines all: half a
    second in the midst of training.
    """
    if not gc.get_freeze_count():
        gc.freeze()
        atexit.register(gc.unfreeze)  # triton complains of objects that are left at the end
