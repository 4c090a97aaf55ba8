"""What each worker of a sweep did when, and how long it was idle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ddtl.reports.html.figures import Spec, chart, label, scale, short
from ddtl.reports.html.page import Figure, Section, Text
from ddtl.reports.sweep.marks import COLORS
from ddtl.reports.sweep.record import Sweep
from ddtl.reports.sweep.trials import Trial, has_unknown_end, interrupted
from ddtl.utils import wording

_PAUSE = 60.0  # seconds in which no trial runs, from which on the sweep is taken for stopped


def section(sweep: Sweep) -> Section:
    """Return how long the workers were idle, and a chart of their trials."""
    parts = stretches(sweep.record)
    if not parts:
        return Section("Workers", [])
    names = workers(parts)
    idle = idle_share(parts)
    longest = max(part.end for part in parts)
    unit, seconds = ("hours", 3600.0) if longest > 10_800 else ("minutes", 60.0) if longest > 180 else ("seconds", 1.0)
    chart_ = Figure(
        "What the workers did when",
        _timeline(parts, names, unit, seconds),
        f"{len(parts)} bars of {wording.count(len(names), 'worker')} over {longest / seconds:.0f} {unit}.",
        "Numbers are those of the trials. Times in which the whole sweep was stopped are excluded.",
    )
    share = Text(f"Idle: {wording.percent(idle)} of the time between a worker's first and its last trial.")
    return Section("Workers", [share, chart_])


def _timeline(stretches: Sequence[Stretch], workers: Sequence[str], unit: str, seconds: float) -> Spec:
    """Draw what each worker did when.

    Args:
        stretches: each a time in which a worker had a trial.
        workers: names, the first on top.
        unit, seconds: of the axis, as ``minutes`` and 60.
    """
    traces = []
    for state, color in (COLORS | {"interrupted": "var(--series-4)"}).items():
        shown = [part for part in stretches if part.state == state]
        if not shown:
            continue
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "base": short([part.start / seconds for part in shown]),
                "x": short([part.length / seconds for part in shown]),
                "y": [label(part.worker) for part in shown],
                "name": state,
                "marker": {"color": color, "line": {"color": "var(--ground)", "width": 1}},
                "text": [str(part.trial) for part in shown],
                "textposition": "inside",
                "insidetextanchor": "middle",
                "textangle": 0,
                "textfont": {"color": "var(--ground)"},
                "hovertemplate": "trial %{text}: %{x:.2f} " + unit + "<extra></extra>",
            }
        )
    order = [label(name) for name in reversed(workers)]
    y = {**scale(""), "type": "category", "categoryorder": "array", "categoryarray": order, "ticklabelstandoff": 6}
    spec = chart(traces, {**scale(f"{unit} since the start"), "rangemode": "tozero"}, y, legend="outside")
    spec["layout"] |= {"barmode": "overlay", "bargap": 0.35, "uniformtext": {"minsize": 9, "mode": "hide"}}
    return spec


@dataclass(frozen=True)
class Stretch:
    """A time in which a worker had a trial, in seconds since the sweep began."""

    worker: str
    trial: int
    state: str
    start: float
    end: float

    @property
    def length(self) -> float:
        return self.end - self.start


def stretches(record: Mapping[str, Any]) -> list[Stretch]:
    """Return every attempt of every trial, without the times in which the sweep was stopped.

    Otherwise a sweep that is resumed the next morning would include the night.
    """
    found = [span for trial in record["trials"] for span in _spans(trial, record["ended"])]
    pauses = _pauses([(start, end) for *_, start, end in found])
    named = _short_names([worker for worker, *_ in sorted(found, key=lambda each: each[3])])

    def moved(moment: float) -> float:
        return moment - sum(length for at, length in pauses if at < moment)

    begin = min((moved(start) for *_, start, _ in found), default=0.0)
    parts = [
        Stretch(named[worker], number, state, moved(start) - begin, moved(end) - begin)
        for worker, number, state, start, end in found
    ]
    return sorted(parts, key=lambda part: (part.start, part.trial))


def idle_share(parts: Sequence[Stretch]) -> float:
    """Return the share of the time between a worker's first and last trial in which it had none."""
    span = busy = 0.0
    for worker in {part.worker for part in parts}:
        mine = [part for part in parts if part.worker == worker]
        span += max(part.end for part in mine) - min(part.start for part in mine)
        busy += sum(part.length for part in mine)
    return max(0.0, 1 - busy / span) if span else 0.0


def workers(parts: Sequence[Stretch]) -> list[str]:
    """Return the workers in the order in which they began."""
    return list(dict.fromkeys(part.worker for part in parts))


def _spans(trial: Trial, now: str) -> Iterator[tuple[str, int, str, float, float]]:
    """Return worker, trial, state, start and end in seconds of each attempt, of one that still runs until now."""
    n = len(interrupted(trial))
    for i, part in enumerate(trial["attempts"]):
        if has_unknown_end(part):
            continue
        state = "interrupted" if i < n else trial["state"]
        yield str(part["worker"]), trial["number"], state, _moment(part["started"]), _moment(part["ended"])
    if trial["state"] == "running":
        since = _moment(trial["attempts"][-1]["ended"] if trial["attempts"] else trial["started"])
        if trial.get("seconds") is not None:  # it may have waited since its last attempt
            before = sum(_moment(part["ended"]) - _moment(part["started"]) for part in trial["attempts"])
            since = max(since, _moment(now) - max(0.0, trial["seconds"] - before))
        yield str(trial["worker"]), trial["number"], "running", since, max(since, _moment(now))


def _short_names(names: Sequence[str]) -> dict[str, str]:
    """Return ``worker 1`` …: the names contain those of computers, which do not belong in a report."""
    return {name: f"worker {i}" for i, name in enumerate(dict.fromkeys(names), start=1)}


def _pauses(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return (start, length) of the times in which no trial ran, where they are long."""
    found, until = [], None
    for start, end in sorted(spans):
        if until is not None and start - until > _PAUSE:
            found.append((until, start - until))
        until = end if until is None else max(until, end)
    return found


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
