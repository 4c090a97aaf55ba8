"""What surrounds every command: signals, exit codes, and errors without traceback where a person can repair them."""

from __future__ import annotations

import os
import resource
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from ddtl.config.where import OWN
from ddtl.utils import console, memory, notices, plugins, ranks, signals, streams
from ddtl.utils.errors import (
    EXIT_FAILURE,
    EXIT_MISTAKE,
    InconsistentRecord,
    NotFinite,
    PluginFailure,
    Stopped,
    TrainingFailure,
    UserError,
)
from ddtl.utils.isolation import has_folder
from ddtl.utils.redaction import MASK, add_secrets_of_command, redact
from ddtl.utils.signals import stop_signals

# How the system's loader says that a library does not fit into the memory that a process may have.
_NOT_MAPPED = ("failed to map segment", "cannot allocate memory", "cannot apply additional memory protection")

_stops: list[int] = []  # signals that requested the command to stop


def guarded(main: Callable[[Sequence[str]], int], argv: list[str]) -> int:
    """Run a command and return its exit code: 0, 2 for a mistake, 1 for a failure, 128 + n when stopped by signal n."""
    _stops.clear()
    memory.collect_seldom()
    streams.steady()
    add_secrets_of_command(argv)
    console.set_up_logging()
    for signum in stop_signals():
        signal.signal(signum, _stop)
    notices.outlast()
    sys.unraisablehook = _unraisable
    threading.excepthook = _in_a_thread
    code = _code_of(main, argv)
    failure = streams.lost()
    if failure is not None:
        console.error(f"standard output could not take everything: {failure.strerror}.")
        return code or EXIT_FAILURE
    return code


def _code_of(main: Callable[[Sequence[str]], int], argv: list[str]) -> int:
    was_gone = not has_folder()
    try:
        argv = _take_own_conf(argv)
        ranks.check()
        if not ranks.is_first():
            console.be_quiet()
        try:
            return _main(main, argv)
        except Exception as error:
            if _stops:  # a library made its own error of the one that a signal raised within it
                raise Stopped(_stops[0]) from error
            raise
    except UserError as error:
        console.error(str(error))
        return EXIT_MISTAKE
    except (TrainingFailure, OSError, MemoryError, ImportError) as error:
        if isinstance(error, ImportError) and not _is_out_of_memory(error):
            raise
        console.error(_message(error))
        is_mistake = isinstance(error, PermissionError) or (was_gone and isinstance(error, OSError))
        return EXIT_MISTAKE if is_mistake else EXIT_FAILURE
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        console.error(
            "no further thread can be started here. Raise the limit (ulimit -u unlimited), or end other programs."
        )
        return EXIT_FAILURE
    except Stopped as stop:
        console.line(f"{stop}; the same command resumes it:\n  {_command()}")
        return stop.exit_code


def _main(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Run a command; what code of a plugin raises becomes a failure of it.

    Raises:
        PluginFailure: with the plugin's name and the line of its file.
    """
    try:
        return main(argv)
    except (UserError, TrainingFailure, MemoryError):
        raise
    except Exception as error:
        if (failure := plugins.failure(error)) is None:
            raise
        raise failure from error


def _take_own_conf(argv: list[str]) -> list[str]:
    """Return the words without ``--config-dir FOLDER``, which becomes the variable that this and its processes read."""
    for at, word in enumerate(argv):
        flag, equals, folder = word.partition("=")
        if flag != "--config-dir":
            continue
        end = at + (1 if equals else 2)
        if not equals and end <= len(argv):
            folder = argv[at + 1]
        if not folder:
            raise UserError("--config-dir takes a folder of options, such as FOLDER/finetune/mine.yaml.")
        if not Path(folder).expanduser().is_dir():
            raise UserError(
                f"--config-dir={folder}: there is no such folder. Name one with options, as FOLDER/finetune/mine.yaml."
            )
        os.environ[OWN] = str(Path(folder).expanduser().absolute())
        # A command that starts others repeats what is in front of its own words.
        begin = len(sys.orig_argv) - len(argv)
        words = [*argv[:at], *argv[end:]]
        if sys.orig_argv[begin:] == argv:
            sys.orig_argv = [*sys.orig_argv[:begin], f"--config-dir={folder}", *words]
        return words
    return argv


def _message(error: Exception) -> str:
    """Return what broke, and what to do."""
    if isinstance(error, TrainingFailure):
        again = f"\nThe same command resumes it:\n  {_command()}"
        return str(error) if isinstance(error, InconsistentRecord | NotFinite | PluginFailure) else f"{error}{again}"
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        # Which of the two is raised at such a limit, and for what, differs from machine to machine.
        what = "there is not enough memory for this command"
        if not isinstance(error, MemoryError):
            what = f"a library cannot be loaded into memory ({' '.join(str(error).split())})"
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            return f"{what}: its limit is {limit / 1e9:.1f} GB of address space. Raise the limit: ulimit -v unlimited"
        return f"{what}. A smaller dataset.batch_size takes less."
    if not has_folder():
        return "the current folder has been deleted or moved. Change to one that is there: cd ~"
    # What the machine denied at a place where nobody expected it.
    what = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    where = getattr(error, "filename", None)
    if isinstance(error, PermissionError) and where is not None:
        return f"{where}: this user may not use it ({what}). Give this user the right to, or name another place."
    return what if where is None else f"{where}: {what}"


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether the system's loader found no room for a library."""
    return any(words in str(error) for words in _NOT_MAPPED)


def _unraisable(what: Any) -> None:
    """Pass over the end of a data loader whose processes could not be started: the reason is reported by itself."""
    if not signals.is_regained(what) and "_MultiProcessingDataLoaderIter" not in repr(what.object):
        sys.__unraisablehook__(what)


def _in_a_thread(what: threading.ExceptHookArgs) -> None:
    """Name what the machine denied to a thread in a line: whoever waits for the thread reports what comes of it."""
    if isinstance(what.exc_value, OSError | EOFError | MemoryError):
        name = "a thread" if what.thread is None else f"the thread {what.thread.name}"
        console.line(f"warning: {name} has ended: {_message(what.exc_value)}")
    else:
        threading.__excepthook__(what)


def _command() -> str:
    """Return the command as it was typed, to be pasted; without the word that would delete what has been done."""
    typed = shlex.join(word for word in sys.orig_argv if word.lstrip("+").lower() != "run.overwrite=true")
    shown = redact(typed)
    return typed if shown == typed else f"{shown}\n  ({MASK} is what was typed there)"


def _stop(signum: int, frame: FrameType | None) -> None:
    """Unwind from wherever we are: every file is written whole, so no moment is a bad one. A second signal is final."""
    _stops.append(signum)
    for each in stop_signals():
        signal.signal(each, lambda n, _: os._exit(128 + n))
    signals.unwind(signum, frame)
