"""Workers whose trials do not train: each test says what a trial's process does instead. No torch."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from ddtl.sweeps.store import open
from ddtl.sweeps.store.outcome import Outcome
from ddtl.sweeps.store.snapshot import Snapshot
from ddtl.sweeps.store.store import Store
from ddtl.sweeps.workers import processes, trial, worker
from ddtl.sweeps.workers.processes import Slot
from ddtl.sweeps.workers.stopping import Stop
from ddtl.sweeps.workers.trial import TrialJob
from tests.support.sweep_plans import plan

Body = Callable[[TrialJob], Outcome]


def instead(monkeypatch: pytest.MonkeyPatch, body: Body) -> None:
    """Have trials do ``body``, in processes forked from this one: there is no training stack to load."""
    monkeypatch.setattr(trial, "_run", body)
    monkeypatch.setattr(processes, "prepare", lambda **_: multiprocessing.get_context("fork"))
    monkeypatch.setattr(processes, "GRACE", 0.5)
    monkeypatch.setattr(processes, "oom_kills", lambda: 0)  # Linux counts those of the whole machine


def worked(tmp_path: Path, *words: str, slots: int = 1, stop: Stop | None = None) -> tuple[Store, str | None]:
    """A worker's work at a sweep: the store, and why it made no sense to go on."""
    store = open.open_sweep(plan(tmp_path / "runs", *words))
    stop = stop or Stop(tmp_path / "stop")
    return store, worker.work(store, [Slot(f"slot {i}") for i in range(slots)], stop, unseen)


def unseen(snapshot: Snapshot) -> None:
    """Nobody watches."""


def attempts(store: Store, number: int = 0) -> list[tuple[str, str]]:
    """How each attempt at a trial ended: reason and words."""
    return [(each["reason"], each["words"]) for each in store.trials()[number].user_attrs["attempts"]]


def states(store: Store) -> list[str]:
    """The state of each trial."""
    return [trial.state.name for trial in store.trials()]
