"""What the benchmarks share: where they run, how rounds are put together, and their last line."""

from __future__ import annotations

import atexit
import json
import multiprocessing
import platform
import statistics
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any


def interleaved(contenders: Mapping[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """Return one figure of each contender in turn, ``repetitions`` times, so that a machine's moods meet all of them
    alike.
    """
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(repetitions):
        for name, measure in contenders.items():
            figures[name].append(measure())
        shown = "   ".join(f"{name} {values[-1]:.2f}" for name, values in figures.items())
        print(f"round {number + 1} of {repetitions}: {shown}", flush=True)
    return figures


def in_own_process(build: Callable[..., Callable[[], float]], *arguments: Any) -> Callable[[], float]:
    """Return what ``build(*arguments)`` measures, in a process of its own that lives as long as this one.

    Settings of the process, as of memory or determinism, then touch no other contender. While one measures the others
    wait.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=_serve, args=(theirs, build, arguments)).start()
    theirs.close()
    atexit.register(ours.close)  # which ends it
    ours.recv()  # it is ready

    def measure() -> float:
        ours.send("go")
        figure: float = ours.recv()
        return figure

    return measure


def _serve(pipe: Any, build: Callable[..., Callable[[], float]], arguments: tuple[Any, ...]) -> None:
    multiprocessing.set_start_method("fork", force=True)  # as in a program that is simply started
    measure = build(*arguments)
    pipe.send("ready")
    with suppress(EOFError):
        while pipe.recv() == "go":
            pipe.send(measure())


def summary(figures: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median, minimum and maximum of each contender."""
    return {
        name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
        for name, values in figures.items()
    }


def ratio(figures: Mapping[str, list[float]], ours: str, theirs: str) -> dict[str, float]:
    """Of two contenders: the median of the ratios within a round, and the smallest and largest of them."""
    ratios = [a / b for a, b in zip(figures[ours], figures[theirs], strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def finish(**result: Any) -> None:
    """Print the result, with the machine and the day, as the last line."""
    import torch

    machine = {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(rounded({**result, **machine})))


def rounded(value: Any) -> Any:
    """Floats to four digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {name: rounded(item) for name, item in value.items()}
    return value


def _cpu() -> str:
    from ddtl.training.hardware import cpu_name

    return cpu_name()
