"""One word for all processes of a sweep, on whichever machine: end after the running trials' next checkpoint."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from ddtl.utils import console
from ddtl.utils.errors import Stopped
from ddtl.utils.signals import stop_signals


class Stop:
    """A file in the sweep's folder, which every machine sees; it is there once the sweep is to end.

    Attributes:
        path: of the file.
        signum: the signal that requested the end; None where none has.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.signum: int | None = None
        self._is_requested = False

    def ask(self) -> None:
        """Ask all trials to end after their epoch, and that no other one begins."""
        self._is_requested = True
        with suppress(OSError):  # a full disk: the trials end by it, too
            self.path.touch()

    def is_requested(self) -> bool:
        """Return whether the end is requested."""
        return self._is_requested or self.path.exists()

    @contextmanager
    def by_signals(self) -> Iterator[None]:
        """Handle signals within: the first stop signal requests the end, and the second one raises ``Stopped``; a
        third one ends at once.
        """
        before = {signum: signal.getsignal(signum) for signum in stop_signals()}
        for signum in before:
            signal.signal(signum, self._first)
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _first(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        for each in stop_signals():
            signal.signal(each, self._second)
        console.line("Ending after the running trials' next checkpoint. A second signal ends them now.")
        self.ask()

    def _second(self, signum: int, frame: FrameType | None) -> None:
        for each in stop_signals():
            signal.signal(each, lambda n, _: os._exit(128 + n))
        raise Stopped(signum)


@contextmanager
def opened(folder: Path) -> Iterator[Stop]:
    """Yield the stop of this command; its file is gone afterwards, so that the next command begins afresh."""
    stop = Stop(folder / f".stop-{socket.gethostname()}-{os.getpid()}")
    stop.path.unlink(missing_ok=True)
    try:
        yield stop
    finally:
        with suppress(OSError):
            stop.path.unlink(missing_ok=True)
