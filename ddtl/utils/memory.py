"""How a process that trains goes about its memory. No torch: it may be called before torch is imported."""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import shutil
from contextlib import suppress
from pathlib import Path

from ddtl.utils.errors import TrainingFailure

_HUGE = 2**21  # bytes of a huge page
_MADV_HUGEPAGE = 14  # of mman.h

_THRESHOLD = gc.get_threshold()

SHARED = "/dev/shm"  # where loader processes hand over their batches


@functools.cache
def tune_allocator() -> None:
    """Have freed memory kept for the next step, and in huge pages, where the C library is glibc; otherwise nothing
    happens.

    glibc hands each large tensor back to the system and fetches it again at the next step, page by page: a tenth of
    the time of a step on a CPU. Pages of 2 MB, where the system gives them to those who ask, save more of it:
    far fewer addresses to look up. The most that is used at a time stays the same.
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt = libc.mallopt
    except (AttributeError, OSError, TypeError):
        return
    no_mmap, trim_threshold, top_pad = -4, -1, -2  # of malloc.h
    mallopt(no_mmap, 0)
    mallopt(trim_threshold, 2**31 - 1)
    with suppress(OSError, ValueError):  # no such file, or a line of another form
        mallopt(top_pad, 2**31 - 2**12)
        _ask_for_huge_pages(libc)
    mallopt(top_pad, 2**28)


def _ask_for_huge_pages(libc: ctypes.CDLL) -> None:
    """Let the heap grow once, by addresses alone, and ask for huge pages in all of it."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes, libc.madvise.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.free(libc.malloc(2**25))
    heap = next((line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[heap]")), "")
    first, end = (int(address, 16) for address in heap.partition(" ")[0].split("-"))
    first += -first % _HUGE
    if end > first:
        libc.madvise(first, end - first, _MADV_HUGEPAGE)


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


def collect_seldom() -> None:
    """Have the garbage collector wait for more objects than usual, until :func:`pass_over_imports`.

    torch and Lightning leave 570,000 objects, none of them garbage, which it would examine again and again while they
    are imported: a sixth of that time.
    """
    gc.set_threshold(20_000, *_THRESHOLD[1:])


def pass_over_imports() -> None:
    """Have the garbage collector pass over what this process has imported, from the first call on.

    Each full collection would examine all of it: half a second in the midst of training.
    """
    gc.set_threshold(*_THRESHOLD)
    if not gc.get_freeze_count():
        gc.freeze()
        atexit.register(gc.unfreeze)  # triton complains of objects that are left at the end
