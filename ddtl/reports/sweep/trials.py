"""What the trials of a sweep's record contain: scores, their order, and attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

Trial = Mapping[str, Any]


def score(trial: Trial) -> float | None:
    """Return the first objective of a completed trial."""
    values = trial["values"]
    return values[0] if trial["state"] == "complete" and values else None


def last_score(trial: Trial) -> float | None:
    """Return the score of a completed trial, else the last one that it reported."""
    if trial["state"] == "complete":
        return score(trial)
    return trial["curve"][-1][1] if trial["curve"] else None


def ranked(trials: Sequence[Trial], sign: int) -> list[Trial]:
    """Return the completed trials, the best first; ``sign`` is 1 where more is better, else -1."""
    done = [trial for trial in trials if score(trial) is not None]
    return sorted(done, key=lambda trial: (-sign * trial["values"][0], trial["number"]))


def has_unknown_end(attempt: Mapping[str, Any]) -> bool:
    """Return whether an attempt was killed at an unknown time: earlier versions wrote down when that was found."""
    is_gone = attempt.get("reason") == "killed" and (attempt.get("words") or "").startswith("its process is gone")
    return is_gone and attempt.get("found") is None


def spent(trial: Trial) -> float | None:
    """Return the seconds in which a trial ran, without the attempts whose end is unknown."""
    if trial["seconds"] is None:
        return None
    unknown = [attempt for attempt in trial["attempts"] if has_unknown_end(attempt)]
    lengths = (datetime.fromisoformat(each["ended"]) - datetime.fromisoformat(each["started"]) for each in unknown)
    return max(0.0, float(trial["seconds"]) - sum(length.total_seconds() for length in lengths))


def interrupted(trial: Trial) -> list[Mapping[str, Any]]:
    """Return the attempts that ended before the trial did, and were resumed."""
    attempts = list(trial["attempts"])
    return attempts if trial["state"] in ("running", "waiting") else attempts[:-1]
