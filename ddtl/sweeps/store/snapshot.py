"""The state of a sweep at a moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ddtl.reports.sweep import replicates
from ddtl.reports.sweep.replicates import Setting
from ddtl.sweeps.store.task import ATTEMPTS, OVERRIDES, OWNER, REASON, WORDS

SESSIONS = "sessions"  # the study's user attribute: when a command began to work at it


@dataclass(frozen=True)
class Running:
    """A trial that is being worked at: its last finished epoch (from 0) and score, None before there is one."""

    number: int
    attempt: int
    epoch: int | None
    epochs: int | None  # how many are planned; None before the trial has reported it
    score: float | None
    since: str  # ISO 8601, UTC
    worker: str


@dataclass(frozen=True)
class Snapshot:
    """The state of the sweep.

    Attributes:
        total: trials there will be.
        complete, pruned, failed: that have ended.
        running: being worked at now.
        waiting: how many wait to be resumed.
        best: number and values; None without a completed one, or with two objectives. Of a setting with replicates, its
            first trial and its mean.
        front: numbers of the trials that no other one exceeds in all objectives.
        failures: words of each failure since the last trial that did not fail, in this session, the latest last.
        seconds: how long each trial that ended took, all its attempts together.
        best_trials: the numbers of the trials that ``best`` is the mean of.
    """

    total: int
    complete: int
    pruned: int
    failed: int
    running: tuple[Running, ...]
    waiting: int
    best: tuple[int, tuple[float, ...]] | None
    front: tuple[int, ...]
    failures: tuple[str, ...]
    seconds: tuple[float, ...]
    best_trials: tuple[int, ...] = ()

    @property
    def left(self) -> int:
        """Trials that have not ended, those not yet begun included."""
        return self.total - self.complete - self.pruned - self.failed


def snapshot(study: optuna.Study, total: int) -> Snapshot:
    """Return the state of a study that will have ``total`` trials, or has more already."""
    trials = study.get_trials(deepcopy=False)
    by_state = {state: [trial for trial in trials if trial.state == state] for state in TrialState}
    complete = by_state[TrialState.COMPLETE]
    single = len(study.directions) == 1
    best = settings(study)[0] if single and complete else None
    front = study.best_trials if not single and complete else []
    return Snapshot(
        total=max(total, len(trials)),
        complete=len(complete),
        pruned=len(by_state[TrialState.PRUNED]),
        failed=len(by_state[TrialState.FAIL]),
        running=tuple(_running(trial) for trial in by_state[TrialState.RUNNING] if OWNER in trial.user_attrs),
        waiting=len(by_state[TrialState.WAITING]),
        best=None if best is None else (best.trials[0], tuple(best.means)),
        front=best.trials[:1] if best is not None else tuple(trial.number for trial in front),
        failures=_failures(trials, study.user_attrs.get(SESSIONS, [])),
        seconds=tuple(seconds(trial) for trial in trials if trial.state.is_finished()),
        best_trials=() if best is None else best.trials,
    )


def settings(study: optuna.Study) -> list[Setting]:
    """Return what the sweep compares, the best first: each setting over its replicates; see :mod:`sweep_replicates`."""
    sign = 1 if study.directions[0] == StudyDirection.MAXIMIZE else -1
    trials = [
        (
            trial.number,
            trial.user_attrs.get(OVERRIDES, ()),
            trial.values if trial.state == TrialState.COMPLETE else None,
        )
        for trial in study.get_trials(deepcopy=False)
    ]
    return replicates.ranked(trials, sign)


def seconds(trial: FrozenTrial) -> float:
    """Return how long a trial was worked at, all its ended attempts together."""
    return sum(_seconds(attempt["started"], attempt["ended"]) for attempt in trial.user_attrs.get(ATTEMPTS, []))


def ended_at(trial: FrozenTrial) -> str:
    """Return when a trial's last attempt ended; empty where none has."""
    attempts = trial.user_attrs.get(ATTEMPTS)
    return str(attempts[-1]["ended"]) if attempts else ""


def since(moment: str) -> float:
    """Return seconds that have passed since a moment that was written down."""
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())


def _seconds(started: str, ended: str) -> float:
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()


def _running(trial: FrozenTrial) -> Running:
    attrs = trial.user_attrs
    epoch = max(trial.intermediate_values, default=None)
    return Running(
        number=trial.number,
        attempt=len(attrs.get(ATTEMPTS, [])) + 1,
        epoch=epoch,
        epochs=attrs.get("epochs"),
        score=None if epoch is None else trial.intermediate_values[epoch],
        since=attrs[OWNER]["since"],
        worker=attrs[OWNER]["worker"],
    )


def _failures(trials: Sequence[FrozenTrial], sessions: Sequence[str]) -> tuple[str, ...]:
    since = sessions[-1] if sessions else ""
    ended = [trial for trial in trials if trial.state.is_finished() and ended_at(trial) >= since]
    ended.sort(key=ended_at)
    words: list[str] = []
    for trial in ended:
        attrs = trial.user_attrs
        words = [*words, f"trial {trial.number}: {_reason(attrs)}"] if trial.state == TrialState.FAIL else []
    return tuple(words)


def _reason(attrs: dict[str, str]) -> str:
    reason = attrs[REASON].replace("_", " ")
    return f"{reason}: {attrs[WORDS]}" if attrs[WORDS] else reason
