"""Standard output and error that no terminal, closed pipe or full disk can make fail."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

_GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET)  # who read is no longer there


class _Steady(io.BufferedWriter):
    """A stream that takes what it is given, whether or not that can be written.

    Once it can't, the rest goes to the null device. Not the raw file is the place for that: a signal's exception behind
    its write would have the buffer write the same bytes again.

    Attributes:
        failure: why something could not be written, though its reader is there; None where nothing was lost.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BlockingIOError:  # the reader does not keep up, and nobody waits for it
            pass
        except OSError as error:
            self._lose(error)
        return len(memoryview(data).cast("B"))

    def flush(self) -> None:
        try:
            super().flush()
        except BlockingIOError:
            pass
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        if error.errno not in _GONE:
            self.failure = error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)


def steady() -> None:
    """Replace ``sys.stdout`` and ``sys.stderr``, where they are those of the process.

    Signs that the stream's encoding lacks (ASCII, latin-1; file names that are not UTF-8 anywhere) become ``?``. A pipe
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
            if isinstance(raw, io.FileIO) and not isinstance(stream.buffer, _Steady):
                stream.flush()
                setattr(sys, name, _text(number, stream.encoding, stream.line_buffering or number == 2))


def lost() -> OSError | None:
    """Flush both streams; why standard output could not take everything, None where it did or nobody reads it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    buffer = getattr(sys.stdout, "buffer", None)
    return buffer.failure if isinstance(buffer, _Steady) else None


def _text(number: int, encoding: str, line_buffering: bool) -> io.TextIOWrapper:
    buffer = _Steady(io.FileIO(number, "wb", closefd=False))
    return io.TextIOWrapper(buffer, encoding, errors="replace", line_buffering=line_buffering)


def _number(stream: io.TextIOWrapper) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None
