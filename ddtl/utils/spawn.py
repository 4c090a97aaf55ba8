"""Processes that are spawned, and not forked: the caller may have threads, a progress bar's among them."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

from ddtl.utils import signals

Result = TypeVar("Result")


@contextmanager
def without_main() -> Iterator[None]:
    """Hide the main module: a new process would import it again, and run a person's script."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def mapped(
    function: Callable[..., Result], *arguments: Iterable[Any], processes: int, chunksize: int = 1
) -> Iterator[Result]:
    """Yield what a function of a module returns for each of the arguments, in order, computed by several processes.

    Raises:
        BrokenProcessPool: one of them was ended, or could not be started.
    """
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        with signals.held(), without_main():
            found = pool.map(function, *arguments, chunksize=chunksize)
        yield from found
