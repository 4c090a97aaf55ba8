"""A sweep as it goes, for the person who watches it: a live table at a terminal, otherwise lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ddtl.utils import console
from ddtl.utils.wording import duration

if TYPE_CHECKING:
    from ddtl.sweeps.store.snapshot import Running, Snapshot

_MOST_ROWS = 12  # running trials with a row each


class ProgressDisplay:
    """Shows each snapshot of a sweep.

    Use it as a context manager. At a terminal the last state stays; otherwise there is a line whenever a trial ends,
    so that a log of a thousand updates stays readable.
    """

    def __init__(self, monitor: str, of: str = "trial", clock: Callable[[], float] = time.monotonic) -> None:
        """``monitor`` is the score's name, ``of`` what each job is called; ``clock`` counts seconds."""
        self._monitor, self._of, self._clock = monitor, of, clock
        self._first_update: tuple[float, int] | None = (
            None  # when the first snapshot came, and how many had ended by then
        )
        self._reported: tuple[int, ...] | None = None
        self._live: Live | None = None

    def __enter__(self) -> ProgressDisplay:
        if console.is_terminal():
            self._live = Live(console=console.err, refresh_per_second=2, redirect_stdout=False, redirect_stderr=False)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, snapshot: Snapshot) -> None:
        """Show the current state of the sweep."""
        if self._first_update is None:
            self._first_update = self._clock(), _count_ended(snapshot)
        left = self._time_left(snapshot)
        if self._live is not None:
            self._live.update(live_table(snapshot, self._monitor, left, of=self._of))
            return
        ends = snapshot.complete, snapshot.pruned, snapshot.failed
        if ends != self._reported:
            self._reported = ends
            console.line(line(snapshot, self._monitor, left, self._of))

    def _time_left(self, snapshot: Snapshot) -> float | None:
        """Return seconds, at the pace of the trials that ended while this watched; None before one has."""
        assert self._first_update is not None
        since, before = self._first_update
        ended = _count_ended(snapshot) - before
        return (self._clock() - since) / ended * snapshot.left if ended else None


def line(snapshot: Snapshot, monitor: str, left: float | None, of: str = "trial") -> str:
    """Return the state of the sweep, on a line."""
    parts = [f"{_count_ended(snapshot)} of {snapshot.total} {of}s: {_counts(snapshot)}", _best(snapshot, monitor)]
    if snapshot.left and left is not None:
        parts.append(f"about {duration(left)} left")
    return "; ".join(filter(None, parts))


def live_table(
    snapshot: Snapshot, monitor: str, left: float | None, now: datetime | None = None, of: str = "trial"
) -> Group:
    """Return the state of the sweep, with what is running."""
    now = now or datetime.now(UTC)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("running", "epochs", monitor, "for"):
        table.add_column(escape(heading), justify="left" if heading == "running" else "right")
    for running in snapshot.running[:_MOST_ROWS]:
        table.add_row(*map(escape, _row(running, now, of)))
    more = len(snapshot.running) - _MOST_ROWS
    return Group(
        Text(line(snapshot, monitor, left, of), style="bold"),
        *([table] if snapshot.running else []),
        *([Text(f"and {more} more", style="dim")] if more > 0 else []),
        *(
            [Text(console.safe(f"last failure: {_last_line(snapshot.failures[-1])}"), style="yellow")]
            if snapshot.failures
            else []
        ),
    )


def _row(running: Running, now: datetime, of: str) -> tuple[str, ...]:
    again = f", attempt {running.attempt}" if running.attempt > 1 else ""
    for_ = max(0.0, (now - datetime.fromisoformat(running.since)).total_seconds())
    return (
        f"{of} {running.number}{again}",
        _epochs(running),
        "–" if running.score is None else f"{running.score:.4f}",
        duration(for_),
    )


def _epochs(running: Running) -> str:
    if running.epoch is None:
        return "–"
    return f"{running.epoch + 1}" + (f"/{running.epochs}" if running.epochs is not None else "")


def _counts(snapshot: Snapshot) -> str:
    counts = {
        "complete": snapshot.complete,
        "pruned": snapshot.pruned,
        "failed": snapshot.failed,
        "running": len(snapshot.running),
        "waiting to be resumed": snapshot.waiting,
    }
    return ", ".join(f"{n} {state}" for state, n in counts.items() if n or state == "complete")


def _best(snapshot: Snapshot, monitor: str) -> str:
    if snapshot.best is not None:
        number, values = snapshot.best
        if len(snapshot.best_trials) > 1:
            which = ", ".join(map(str, snapshot.best_trials))
            return f"best mean {monitor} {values[0]:.4f} (trials {which})"
        return f"best {monitor} {values[0]:.4f} (trial {number})"
    if len(snapshot.front) > 1:
        return f"{len(snapshot.front)} trials on the Pareto front"
    return ""


def _last_line(words: str) -> str:
    lines = words.strip().splitlines()
    return lines[-1][:160] if lines else "without a word"


def _count_ended(snapshot: Snapshot) -> int:
    return snapshot.total - snapshot.left
