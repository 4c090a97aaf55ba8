"""How an attempt at a trial ended, and what that means for the trial: reported, failed, or kept to be resumed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Reason = Literal["killed", "out_of_memory", "nan", "time_limit", "error", "disk_full", "stopped"]
Verdict = Literal["complete", "pruned", "fail", "wait"]

REASONS: tuple[str, ...] = get_args(Reason)
# The fault is outside the trial, so it is resumed from its last checkpoint.
_GOES_ON = ("killed", "disk_full", "stopped")


@dataclass(frozen=True)
class Outcome:
    """The end of one attempt; made by the four functions below.

    Attributes:
        end: completed, pruned, or the reason why it is neither.
        values: the objectives' values, of a completed one.
        words: what a person should read about it.
    """

    end: Literal["completed", "pruned"] | Reason
    values: tuple[float, ...] = ()
    words: str = ""


def completed(values: Sequence[float]) -> Outcome:
    """Return the outcome of a trial that ran to its end with these values of the objectives; NaN, which no sampler can
    use, is a failure.
    """
    if any(math.isnan(value) for value in values):
        return Outcome("nan", words="the score is not a number")
    return Outcome("completed", tuple(float(value) for value in values))


def pruned() -> Outcome:
    """Return the outcome of a trial that the pruner ended."""
    return Outcome("pruned")


def failed(reason: Reason, words: str = "") -> Outcome:
    """Return the outcome of an attempt that broke."""
    return Outcome(reason, words=words)


def stopped(words: str = "") -> Outcome:
    """Return the outcome of a trial whose user stopped the sweep; the same command resumes it."""
    return Outcome("stopped", words=words)


def verdict(outcome: Outcome, attempts: Sequence[Mapping[str, Any]], retries: int) -> tuple[Verdict, str]:
    """Return what becomes of the trial, and the words for it.

    Args:
        outcome: how the attempt ended.
        attempts: the trial's earlier attempts, each with its ``reason``.
        retries: how many times a killed trial is resumed.
    """
    if outcome.end == "completed":
        return "complete", outcome.words
    if outcome.end == "pruned":
        return "pruned", outcome.words
    killed = sum(attempt["reason"] == "killed" for attempt in attempts) + 1
    if outcome.end == "killed" and killed > retries:
        times = "once" if killed == 1 else f"{killed} times"
        return "fail", f"killed {times}" + (f"; at last: {outcome.words}" if outcome.words else "")
    return ("wait" if outcome.end in _GOES_ON else "fail"), outcome.words
