"""What breaks training from outside, in words."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ddtl.utils import console, memory, plugins, ranks
from ddtl.utils.errors import PluginFailure, TrainingFailure, UserError


@contextmanager
def reported_failures(folder: Path) -> Iterator[None]:
    """Report what breaks a run from outside in words: a full disk, a full GPU, a loader process that was killed."""
    try:
        with _of_plugins():
            yield
    except OSError as error:
        free = memory.free_shared_memory()
        if error.errno == errno.ENOSPC and error.filename is None and free is not None and free < 2**16:
            raise memory.shared_memory_failure(f"{free / 1e6:.2f} MB free") from error
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise _too_many_files() from error
        if error.errno in (errno.EAGAIN, errno.ENOMEM) and error.filename is None:
            raise TrainingFailure(
                f"no further process could be started ({error.strerror}). Set dataset.num_workers=0, or raise the "
                "limit: ulimit -u unlimited"
            ) from error
        what = f"could not read or write {error.filename or folder}: {error.strerror or error}"
        raise TrainingFailure(f"{what}. Make room or repair the folder.") from error
    except torch.OutOfMemoryError as error:
        raise TrainingFailure(
            f"the GPU's memory is full ({str(error).partition('.')[0]}). If another program does not use it, start a "
            "run with trainer.accumulate=2 (the same batch in two halves), or a smaller dataset.batch_size."
        ) from error
    except RuntimeError as error:
        if "unable to allocate shared memory" in str(error) or "unable to open shared memory" in str(error):
            raise memory.shared_memory_failure(str(error).strip().rpartition(": ")[2]) from error
        if "Too many open files" in str(error) or "items of ancdata" in str(error):
            raise _too_many_files() from error
        if not str(error).startswith("DataLoader worker"):
            raise
        reason = str(error).split(". ")[0]
        raise TrainingFailure(
            f"a loader process died ({reason}): out of memory, of shared memory (docker run --shm-size=…) or of open "
            "files (ulimit -n), or the decoded images were changed. dataset.num_workers=0 goes without such processes."
        ) from error


@contextmanager
def _of_plugins() -> Iterator[None]:
    """Report what code of a plugin raises in a line; the traceback is in the run's log."""
    try:
        yield
    except (UserError, TrainingFailure, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        if (failure := plugins.failure(error)) is None:
            raise
        if ranks.is_first():
            console.copy("".join(traceback.format_exception(error)).rstrip())
        raise PluginFailure(f"{failure} The traceback is in the run's log.txt.") from error


def _too_many_files() -> TrainingFailure:
    return TrainingFailure("too many files are open. Set dataset.num_workers=0, or raise the limit: ulimit -n 4096")
