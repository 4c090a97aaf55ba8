"""The end of a command's process, at once: Python would take apart what torch and Lightning have imported.

That takes seconds on a slow processor, and nothing waits for it: files are closed, threads are waited for and
handlers of ``atexit`` have run by then.

Only what Python has loaded before any program is imported here: :func:`prepare` must come first.
"""

import _signal  # type: ignore[import-not-found]  # Python's own, which no file of the current folder can shadow
import atexit
import os
import sys
from typing import NoReturn

_codes: list[int] = []  # the exit code, once the command has come to its end


def prepare() -> None:
    """Have this process end without that, where :func:`leave` ends it; and by Ctrl-C at once, until a command answers.

    To be called before anything else is imported: handlers of ``atexit`` run last in, first out, and none may be left
    when this one runs.
    """
    atexit.register(_end)
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # nohup and & have it ignored
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def leave(code: int) -> NoReturn:
    """End the process with an exit code."""
    _codes.append(code)
    sys.exit(code)


def _end() -> None:
    if not _codes:  # an error that nobody expected, which Python has an exit code for
        return
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    os._exit(_codes[-1])
