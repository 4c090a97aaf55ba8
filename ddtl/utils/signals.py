"""Signals that end a command in order: it unwinds from wherever it is, but for places that would lose the signal."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ddtl.utils.errors import Stopped

_SOON = 0.02  # seconds until another try


def unwind(signum: int, frame: FrameType | None) -> None:
    """Raise :class:`Stopped`; a moment later where it would be lost here.

    Args:
        signum: the signal.
        frame: where the main thread is, as a signal's handler gets it.
    """
    if hasattr(signal, "setitimer") and _would_be_lost(frame):
        _again_soon(signum)
    else:
        raise Stopped(signum)


def is_regained(what: Any) -> bool:
    """Return whether what Python is about to pass over (``sys.unraisablehook``) is a :class:`Stopped`: it is raised
    again.
    """
    if isinstance(what.exc_value, Stopped) and hasattr(signal, "setitimer"):
        _again_soon(what.exc_value.exit_code - 128)
        return True
    return False


def forget() -> None:
    """Do without the next try of :func:`unwind`: what was to be ended has ended by itself."""
    if hasattr(signal, "setitimer") and isinstance(signal.getsignal(signal.SIGALRM), _Alarm):
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def held() -> Iterator[None]:
    """Keep Ctrl-C and a hang-up, which reach a whole group of processes, from those that are started within.

    They inherit that, and unblock the signals when they have decided about them (:func:`leave_to_parent`). This process
    loses none: what came meanwhile comes at the end, or at once where another of its threads takes it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_GROUP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_parent() -> None:
    """Have this process, a helper of another one, ignore what reaches the whole group: its parent answers for both."""
    for signum in _OF_THE_GROUP:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_THE_GROUP)


_OF_THE_GROUP = {signal.SIGINT, signal.SIGHUP}


def _again_soon(signum: int) -> None:
    signal.signal(signal.SIGALRM, _Alarm(signum))
    signal.setitimer(signal.ITIMER_REAL, _SOON)


class _Alarm:
    """The handler of the timer by which a signal is answered a moment later."""

    def __init__(self, signum: int) -> None:
        self.signum = signum

    def __call__(self, _: int, frame: FrameType | None) -> None:
        unwind(self.signum, frame)


def _would_be_lost(frame: FrameType | None) -> bool:
    """Return whether the main thread is in a finaliser or starts a process by fork, where Python passes over
    exceptions, or in the module of logging.

    A fork calls what libraries have registered for before and after it (``os.register_at_fork``): an exception in the
    first call leaves the later ones without what they expect, and one right after the fork leaves a process nobody
    knows. Logging takes its lock before the block that gives it back: an exception in between leaves it taken, and
    every other thread that logs would wait without end.
    """
    while frame is not None:
        module, function = frame.f_globals.get("__name__"), frame.f_code.co_name
        if (module, function) == ("multiprocessing.process", "_bootstrap"):
            return False  # a process that was forked: further out are the frames of its parent
        if function == "__del__" or module == "logging":
            return True
        if (module, function) == ("multiprocessing.popen_fork", "_launch"):
            return True
        frame = frame.f_back
    return False


def stop_signals() -> list[signal.Signals]:
    """Return the signals that end a command in order. A hang-up is none under nohup, which has processes ignore it."""
    hang_up = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []
    ignored = [signum for signum in hang_up if signal.getsignal(signum) == signal.SIG_IGN]
    return [signal.SIGINT, signal.SIGTERM, *(signum for signum in hang_up if signum not in ignored)]
