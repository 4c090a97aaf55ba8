"""Standard output and error that no terminal, closed pipe or full disk can make fail."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

_GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET)  # who read is no longer there


class _Steady(io.FileIO):
    """A file that takes what it is given, whether or not that can be written.

    Attributes:
        failure: why something could not be written, though its reader is there; None where nothing was lost.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
        except OSError as error:
            if error.errno not in _GONE:
                self.failure = error
            return len(memoryview(data).cast("B"))
        return len(memoryview(data).cast("B")) if written is None else written


def steady() -> None:
    """Replace ``sys.stdout`` and ``sys.stderr``, where they are those of the process.

    Signs that the stream's encoding lacks (ASCII, latin-1; file names that are no UTF-8 anywhere) become ``?``. A pipe
    that nobody reads any more (``| head -1``) takes the rest in silence.
    """
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # closed before the start: no file that is opened later may get its number
            null = os.open(os.devnull, os.O_WRONLY)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, _text(number, "utf-8", line_buffering=True))
        elif isinstance(stream, io.TextIOWrapper) and _number(stream) == number:
            raw = getattr(stream.buffer, "raw", stream.buffer)
            if isinstance(raw, io.FileIO) and not isinstance(raw, _Steady):
                stream.flush()
                setattr(sys, name, _text(number, stream.encoding, stream.line_buffering or number == 2))


def lost() -> OSError | None:
    """Flush both streams; why standard output could not take everything, None where it did or nobody reads it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Steady) else None


def _text(number: int, encoding: str, line_buffering: bool) -> io.TextIOWrapper:
    raw = _Steady(number, "wb", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors="replace", line_buffering=line_buffering)


def _number(stream: io.TextIOWrapper) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None
