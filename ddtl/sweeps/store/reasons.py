"""Why a trial broke, from the error that broke it."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from ddtl.sweeps.store.outcome import Reason
from ddtl.utils.errors import NotFinite, TrainingFailure, UserError


def explain_failure(error: BaseException) -> tuple[Reason, str]:
    """Return the reason for which a trial broke, and words for its user; from the error or what led to it."""
    words = str(error).strip() or type(error).__name__
    if not isinstance(error, UserError | TrainingFailure):
        words = f"{type(error).__name__}: {words}" if str(error).strip() else words
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return "disk_full", words
        if isinstance(cause, NotFinite):
            return "nan", words
        if isinstance(cause, MemoryError) or _is_torchs(cause):
            return "out_of_memory", words
    return "error", words.splitlines()[-1] if words else words


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _is_torchs(error: BaseException) -> bool:
    """Return whether torch could not get memory: on a GPU an error of its own class, on the CPU one with words
    alone.
    """
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
