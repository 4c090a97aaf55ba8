"""What the trials of a sweep's record say: scores, the best so far, the Pareto front, and what workers did when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Trial = Mapping[str, Any]

_PAUSE = 60.0  # seconds in which no trial runs, from which on the sweep is taken for stopped


def score(trial: Trial) -> float | None:
    """The first objective of a completed trial."""
    values = trial["values"]
    return values[0] if trial["state"] == "complete" and values else None


def last_score(trial: Trial) -> float | None:
    """The score of a completed trial, else the last one that it reported."""
    if trial["state"] == "complete":
        return score(trial)
    return trial["curve"][-1][1] if trial["curve"] else None


def ranked(trials: Sequence[Trial], sign: int) -> list[Trial]:
    """The completed trials, the best first; of equals the earlier one. ``sign``: 1 where more is better, else -1."""
    done = [trial for trial in trials if score(trial) is not None]
    return sorted(done, key=lambda trial: (-sign * trial["values"][0], trial["number"]))


def best_so_far(trials: Sequence[Trial], sign: int) -> list[tuple[int, float]]:
    """(number, score) of each completed trial that was better than all before it, and of the last trial.

    Trials that were pruned raise nothing: their scores are those of unfinished training.
    """
    steps: list[tuple[int, float]] = []
    for trial in sorted(trials, key=lambda trial: int(trial["number"])):
        value = score(trial)
        if value is not None and (not steps or sign * value > sign * steps[-1][1]):
            steps.append((trial["number"], value))
    if steps and trials:
        steps.append((max(trial["number"] for trial in trials), steps[-1][1]))
    return steps


def front(trials: Sequence[Trial], signs: Sequence[int]) -> list[Trial]:
    """Completed trials that no other one beats in one objective without losing in the other, by the second one."""
    done = sorted(
        (trial for trial in trials if trial["state"] == "complete"),
        key=lambda trial: (-signs[1] * trial["values"][1], -signs[0] * trial["values"][0], trial["number"]),
    )
    found: list[Trial] = []
    for trial in done:
        if not found or signs[0] * trial["values"][0] > signs[0] * found[-1]["values"][0]:
            found.append(trial)
    return found


def broken_off(trial: Trial) -> list[Mapping[str, Any]]:
    """The attempts that ended before the trial did, and were gone on with."""
    attempts = list(trial["attempts"])
    return attempts if trial["state"] in ("running", "waiting") else attempts[:-1]


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
    """Every attempt of every trial, without the times in which the sweep was stopped.

    A sweep that is gone on with the next morning would be all night otherwise.
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
    """Of the time between a worker's first and last moment with a trial, the share in which it had none."""
    span = busy = 0.0
    for worker in {part.worker for part in parts}:
        mine = [part for part in parts if part.worker == worker]
        span += max(part.end for part in mine) - min(part.start for part in mine)
        busy += sum(part.length for part in mine)
    return max(0.0, 1 - busy / span) if span else 0.0


def workers(parts: Sequence[Stretch]) -> list[str]:
    """Their names in the order in which they began."""
    return list(dict.fromkeys(part.worker for part in parts))


def _spans(trial: Trial, now: str) -> Iterator[tuple[str, int, str, float, float]]:
    """Worker, trial, state, start and end in seconds of each attempt, of one under way as far as it has come."""
    broken = len(broken_off(trial))
    for i, part in enumerate(trial["attempts"]):
        state = "broken off" if i < broken else trial["state"]
        yield str(part["worker"]), trial["number"], state, _moment(part["started"]), _moment(part["ended"])
    if trial["state"] == "running":
        since = trial["attempts"][-1]["ended"] if trial["attempts"] else trial["started"]
        yield str(trial["worker"]), trial["number"], "running", _moment(since), max(_moment(since), _moment(now))


def _short_names(names: Sequence[str]) -> dict[str, str]:
    """``worker 1`` …: names hold those of computers, which are nobody's business in a report."""
    return {name: f"worker {i}" for i, name in enumerate(dict.fromkeys(names), start=1)}


def _pauses(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """(start, length) of the times in which no trial ran, where they are long."""
    found, until = [], None
    for start, end in sorted(spans):
        if until is not None and start - until > _PAUSE:
            found.append((until, start - until))
        until = end if until is None else max(until, end)
    return found


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
