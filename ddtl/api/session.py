"""What lets a script or a notebook run the code of a command: its words, its messages, and Ctrl-C."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from ddtl.utils import console, signals
from ddtl.utils.errors import Stopped, UserError
from ddtl.utils.redaction import add_secrets_of_command


@contextmanager
def command(program: str, words: Sequence[str]) -> Iterator[None]:
    """Run a command's code within: its lines are shown, and Ctrl-C ends it in order, so that it can be resumed.

    Args:
        program: the script that does the same, for the records: ``train.py``.
        words: its words.

    Raises:
        KeyboardInterrupt: Ctrl-C, once everything that was open is closed and every lock is released.
    """
    add_secrets_of_command(words)
    show_lines()
    argv, sys.argv = sys.argv, [program, *words]  # a run's record says how it is repeated, and no kernel's command does
    environment = {name: os.environ.get(name) for name in _FOR_CHILDREN}
    try:
        with _interruptible():
            yield
    finally:
        sys.argv = argv
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_FOR_CHILDREN = ("OMP_NUM_THREADS", "PYTHONPATH", "PYTHONSAFEPATH")  # what commands set for the processes they start


def show_lines() -> None:
    """Show what commands report, unless the program that imported ddtl has decided about log messages itself."""
    console.quiet_libraries()
    if not logging.getLogger().handlers and not logging.getLogger("ddtl").handlers:
        console.set_up_logging()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn SIGINT into an exception that no clean-up code swallows, and that into ``KeyboardInterrupt`` at the end.

    Lightning ends the whole process at a ``KeyboardInterrupt``. Threads other than the main one get no signals.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    interrupted = False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.signal(signum, signal.SIG_IGN)  # a second one would interrupt what closes files and releases locks
        signals.unwind(signum, frame)

    hook: Callable[[Any], None] = sys.unraisablehook
    sys.unraisablehook = lambda what: None if signals.is_regained(what) else hook(what)
    signal.signal(signal.SIGINT, stop)
    try:
        yield
        signals.forget()
    except Stopped:  # of this signal, or of one that a sweep answers by itself
        interrupted = True
    finally:
        with suppress(ValueError):  # what it was may have been set by no Python code
            signal.signal(signal.SIGINT, before)
        sys.unraisablehook = hook
    if interrupted:
        raise KeyboardInterrupt("stopped; the same call resumes it")


def as_words(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as words of the command line: ``{"optimizer.lr": 0.001}`` as ``["optimizer.lr=0.001"]``."""
    return [f"{key}={as_text(value)}" for key, value in settings.items()]


def as_typed(words: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """Return words and settings together as words of the command line.

    Raises:
        UserError: a setting is among both.
    """
    from ddtl.config.overrides import key_of

    typed = {key_of(word): word for word in words if isinstance(word, str)}
    for key in _keys(settings):
        if key in typed:
            raise UserError(f"{typed[key]}: {key} is given twice, as a word and as a keyword. Leave one of them out.")
    return [*words, *as_words(settings)]


def _keys(settings: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Yield the keys of settings, and those within dicts."""
    for key, value in settings.items():
        yield f"{at}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{at}{key}.")


_PLAIN = re.compile(r"[A-Za-z_/~][\w./@%+-]*", re.ASCII)
_OTHER_TYPES = ("true", "false", "null", "inf", "nan")  # words that Hydra's grammar takes for no text


def as_text(value: Any) -> str:
    """Return a value as the command line's grammar takes it, quoted where that is needed."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(as_text, value)) + "]"
    if isinstance(value, int | float) or (_PLAIN.fullmatch(str(value)) and str(value).lower() not in _OTHER_TYPES):
        return str(value)
    # Hydra's grammar: backslashes count double in front of a quote, and at the end, alone.
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + (found[2] and "\\'"), str(value))
    return f"'{escaped}'"


def as_path(value: object) -> Path:
    """Return a path or a name that was given.

    Raises:
        UserError: it is neither.
    """
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"{value!r}: a path or a name is wanted.")
    return Path(value).expanduser()


def runs_folder(folder: str | Path | None) -> Path:
    """Return the runs folder: the one that is named, or else ``paths.runs_dir``."""
    if folder is not None:
        path = as_path(folder)
        if not path.is_dir():
            raise UserError(f"{folder}: there is no such folder of runs.")
        return path
    from ddtl.config.load import load

    return Path(load([], writes=False).paths.runs_dir)
