"""USR1 and USR2: a scheduler's notice that time is nearly over. No process of ddtl ends by one.

Nothing must be done: the last whole epoch is always on disk, and the same command resumes from it.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType

from ddtl.utils import console

_SIGNALS = [getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)]


def outlast() -> None:
    """Have this process say that a notice came, and work on."""
    for signum in _SIGNALS:
        signal.signal(signum, _say)


def ignore() -> None:
    """Have this process, a helper of another one, take no notice."""
    for signum in _SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def _say(signum: int, frame: FrameType | None) -> None:
    if console.out.quiet:
        return
    text = f"signal {signal.Signals(signum).name}: the work continues; if it is ended later, the same command resumes\n"
    with suppress(OSError):
        os.write(2, text.encode())  # past the stream, which may be in the midst of another line
