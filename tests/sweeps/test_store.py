"""The sweep's memory: who gets which trial, and what survives a kill."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from ddtl.reports.sweep.trials import has_unknown_end, spent
from ddtl.sweeps.store import open, record, storages
from ddtl.sweeps.store.outcome import completed, failed, pruned, stopped
from tests.support.sweep_plans import ELSEWHERE, ended, gone, orphaned, plan, reasons, states, workers


def test_a_sweep_has_as_many_trials_as_it_was_told(tmp_path: Path) -> None:
    store = open.open_sweep(plan(tmp_path))
    told = ended(store)
    assert list(told) == list(range(6))
    assert len(set(told.values())) == 6
    assert all(words[-1] == "evaluation.test=false" for words in told.values())
    now = store.snapshot()
    assert (now.total, now.complete, now.left, now.best) == (6, 6, 0, (5, (0.05,)))


def test_the_total_counts_all_calls_of_the_command(tmp_path: Path) -> None:
    ended(open.open_sweep(plan(tmp_path, "n_trials=2")))
    assert ended(open.open_sweep(plan(tmp_path, "n_trials=2"))) == {}
    assert list(ended(open.open_sweep(plan(tmp_path, "n_trials=5")))) == [2, 3, 4]
    less = open.open_sweep(plan(tmp_path, "n_trials=3"))
    assert ended(less) == {}
    assert (less.snapshot().total, less.snapshot().left) == (5, 0)


def test_a_task_says_what_a_person_types(tmp_path: Path) -> None:
    task = open.open_sweep(plan(tmp_path / "my runs", f"paths.data_dir='{tmp_path}/my data'")).next()
    assert task is not None
    assert shlex.split(task.line) == ["python", "train.py", *task.overrides]


def test_a_failed_pruned_or_slow_trial_counts_once(tmp_path: Path) -> None:
    store = open.open_sweep(plan(tmp_path))
    ends = [completed([0.5]), pruned(), failed("out_of_memory", "no room"), completed([float("nan")]), failed("error")]
    for outcome in ends:
        task = store.next()
        assert task is not None
        store.report(task.number, 0, 0.4)
        store.end(task, outcome)
    assert states(store) == {"COMPLETE": 1, "PRUNED": 1, "FAIL": 3}
    assert store.snapshot().left == 1
    assert store.snapshot().failures == (
        "trial 2: out of memory: no room",
        "trial 3: nan: the score is not a number",
        "trial 4: error",
    )


def test_a_success_ends_a_row_of_failures_and_so_does_a_new_command(tmp_path: Path) -> None:
    store = open.open_sweep(plan(tmp_path))
    for outcome in (failed("error", "a"), completed([0.5]), failed("nan", "b")):
        task = store.next()
        assert task is not None
        store.end(task, outcome)
    assert store.snapshot().failures == ("trial 2: nan: b",)
    assert open.open_sweep(plan(tmp_path)).snapshot().failures == ()


@pytest.mark.parametrize("outcome", [stopped(), failed("disk_full"), failed("killed", "SIGKILL")])
def test_a_trial_that_is_kept_is_the_next_one_under_its_number(tmp_path: Path, outcome: Any) -> None:
    store = open.open_sweep(plan(tmp_path))
    first, second = store.next(), store.next()
    assert first is not None
    assert second is not None
    store.report(first.number, 0, 0.5)
    store.end(first, outcome)
    assert states(store) == {"WAITING": 1, "RUNNING": 1}
    assert store.snapshot().waiting == 1
    again = open.reopen(store.folder).next()
    assert again is not None
    assert (again.number, again.overrides, again.attempt) == (0, first.overrides, 2)
    assert store.trials()[0].intermediate_values == {0: 0.5}
    assert reasons(store, 0) == [outcome.end]
    assert states(store) == {"RUNNING": 2}


def test_a_trial_whose_worker_is_gone_resumes_as_often_as_retries_say(tmp_path: Path) -> None:
    asked = plan(tmp_path, "sweep.retries=2", "n_trials=1")
    for attempt in (1, 2, 3):
        store = open.open_sweep(asked)
        task = store.next()
        assert task is not None
        assert (task.number, task.attempt) == (0, attempt)
        orphaned(store, 0, gone())
    store = open.open_sweep(asked)
    assert states(store) == {"FAIL": 1}
    assert store.next() is None
    attrs = store.trials()[0].user_attrs
    assert attrs["words"].startswith("killed 3 times; at last: its process is gone")
    assert reasons(store, 0) == ["killed"] * 3


@pytest.mark.parametrize("storage", [None, "sqlite"])
def test_a_killed_trials_time_ends_with_its_last_sign_of_life(
    storage: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = [f"sweep.storage=sqlite:///{tmp_path}/sweep.db"] if storage else []
    asked = plan(tmp_path, "n_trials=1", *url)
    store = open.open_sweep(asked)
    task = store.next()
    assert task is not None
    owner = {**store.trials()[0].user_attrs["owner"], **gone(), "since": earlier(days=1, seconds=60)}
    store.storage.set_trial_user_attr(task.trial_id, "owner", owner)
    store.close()
    monkeypatch.setattr(storages.JournalPlace, "silence", lambda *_: 24 * 3600.0)
    monkeypatch.setattr(storages.DatabasePlace, "silence", lambda *_: 24 * 3600.0)
    found = record.record(open.open_sweep(asked))["trials"][0]
    assert found["state"] == "waiting"
    assert 60 <= found["seconds"] < 3600, "the day of silence is not counted"
    assert not has_unknown_end(found["attempts"][0])
    assert spent(found) == found["seconds"]
    del found["attempts"][0]["found"]  # as an earlier version wrote it
    found["attempts"][0]["ended"] = earlier(seconds=0)
    found["seconds"] = 24 * 3600 + 61.0
    assert has_unknown_end(found["attempts"][0])
    assert abs(spent(found)) < 3600


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
@pytest.mark.parametrize("storage", [None, "sqlite"])
def test_a_storage_knows_the_last_heartbeat(storage: str | None, tmp_path: Path) -> None:
    place = storages.place(f"sqlite:///{tmp_path}/sweep.db" if storage else None, tmp_path, create=True)
    assert place.silence(1) is None
    study = optuna.create_study(storage=place.storage)
    study.ask()
    trial = study.ask()._trial_id
    place.heartbeat(trial)
    silence = place.silence(trial)
    assert silence is not None
    assert 0 <= silence < 600
    if storage is None:
        beat = tmp_path / "beats" / str(trial)
        os.utime(beat, (beat.stat().st_mtime - 3600,) * 2)
        assert place.silence(trial) == pytest.approx(3600, abs=600)
    place.close()


def earlier(**by: float) -> str:
    """Return a moment in the past, as an owner's ``since`` states it."""
    return (datetime.now(UTC) - timedelta(**by)).isoformat(timespec="milliseconds")


def test_a_new_command_leaves_nothing_running_that_is_dead(tmp_path: Path) -> None:
    store = open.open_sweep(plan(tmp_path))
    assert all(store.next() is not None for _ in range(3))
    for number in range(3):
        orphaned(store, number, gone())
    assert states(open.open_sweep(plan(tmp_path))) == {"WAITING": 3}


def test_nobody_resumes_while_the_trials_own_process_still_ends(tmp_path: Path) -> None:
    store = open.open_sweep(plan(tmp_path, "n_trials=1"))
    task = store.next()
    assert task is not None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    store.started(task, child.pid)
    orphaned(store, 0, gone())
    assert store.next() is None
    assert store.snapshot().left == 1
    child.communicate()
    again = store.next()
    assert again is not None
    assert again.attempt == 2


def test_a_worker_on_another_host_is_dead_when_it_has_been_silent_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open.open_sweep(plan(tmp_path, "n_trials=1"))
    assert store.next() is not None
    orphaned(store, 0, ELSEWHERE)
    assert store.next() is None
    monkeypatch.setattr(storages, "STALE_SECONDS", -1)
    again = store.next()
    assert again is not None
    assert again.attempt == 2


def test_a_living_worker_on_another_host_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storages, "HEARTBEAT_SECONDS", 0.05)
    store = open.open_sweep(plan(tmp_path))
    task = store.next()
    assert task is not None
    beat = store.folder / "beats" / str(task.trial_id)
    first = beat.stat().st_mtime_ns
    until = time.monotonic() + 120
    while beat.stat().st_mtime_ns == first:
        assert time.monotonic() < until, "no sign of life"
        time.sleep(0.02)
    store.end(task, completed([0.5]))
    assert not beat.exists()
    store.close()


def test_a_heartbeat_under_way_leaves_nothing_of_an_ended_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storages, "HEARTBEAT_SECONDS", 0.05)
    store = open.open_sweep(plan(tmp_path))
    place, begun, resumes = store._place, threading.Event(), threading.Event()
    beat, forget = place.heartbeat, place.forget

    def heartbeat(trial: int) -> None:
        if threading.current_thread() is store._heart:
            begun.set()
            assert resumes.wait(120)
        beat(trial)

    def forgotten(trial: int) -> None:
        assert place._lock.is_locked, "who takes the trial over sends heartbeats of its own"  # type: ignore[attr-defined]
        forget(trial)

    monkeypatch.setattr(place, "heartbeat", heartbeat)
    monkeypatch.setattr(place, "forget", forgotten)
    task = store.next()
    assert task is not None
    assert begun.wait(120)
    timer = threading.Timer(0.3, resumes.set)  # while the trial ends, or would have ended
    timer.start()
    store.end(task, completed([0.5]))
    timer.join()
    store.close()
    assert not (store.folder / "beats" / str(task.trial_id)).exists()


def test_whoever_lost_a_trial_no_longer_decides_about_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = open.open_sweep(plan(tmp_path, "n_trials=1"))
    lost = store.next()
    assert lost is not None
    orphaned(store, 0, gone())
    again = store.next()
    assert again is not None
    store.end(lost, completed([0.9]))
    assert "another worker has resumed" in capsys.readouterr().err
    assert states(store) == {"RUNNING": 1}
    store.end(again, completed([0.1]))
    assert store.trials()[0].value == 0.1
    store.end(lost, completed([0.9]))
    assert store.trials()[0].value == 0.1


def test_killed_between_writing_down_an_end_and_telling_it_the_end_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open.open_sweep(plan(tmp_path, "n_trials=1"))
    task = store.next()
    assert task is not None

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store.study, "tell", killed)
    with pytest.raises(KeyboardInterrupt):
        store.end(task, completed([0.7]))
    assert states(store) == {"RUNNING": 1}
    orphaned(store, 0, gone())
    after = open.open_sweep(plan(tmp_path, "n_trials=1"))
    assert after.trials()[0].value == 0.7
    assert reasons(after, 0) == ["completed"]


@pytest.mark.slow
def test_several_processes_share_the_trials_out(tmp_path: Path) -> None:
    store = open.open_sweep(plan(tmp_path, "n_trials=40"))
    done = workers(store.folder, 3)
    assert sorted(number for numbers in done for number in numbers) == list(range(40))
    assert states(store) == {"COMPLETE": 40}


@pytest.mark.slow
def test_processes_that_die_leave_their_trials_to_the_others(tmp_path: Path) -> None:
    store = open.open_sweep(plan(tmp_path, "n_trials=8", "sweep.retries=100"))
    for _ in range(40):
        if not store.snapshot().left:
            break
        workers(store.folder, 2, "dies")
    assert states(store) == {"COMPLETE": 8}
    assert all(reasons(store, number)[-1] == "completed" for number in range(8))


def test_two_objectives_make_a_front_and_prune_nothing(tmp_path: Path) -> None:
    two = ["sweep.objective=[score,seconds]", "pruner.name=NopPruner", "n_trials=3"]
    store = open.open_sweep(plan(tmp_path, *two))
    for values in ([0.9, 100.0], [0.8, 50.0], [0.7, 60.0]):
        task = store.next()
        assert task is not None
        assert store.report(task.number, 0, 0.1) is False
        store.end(task, completed(values))
    now = store.snapshot()
    assert now.best is None
    assert sorted(now.front) == [0, 1]
    assert store.trials()[0].intermediate_values == {0: 0.1}


def test_the_pruner_is_asked_at_each_epoch(tmp_path: Path) -> None:
    store = open.open_sweep(plan(tmp_path, "pruner.name=MedianPruner", "pruner.args={n_startup_trials: 1}"))
    good, bad = store.next(), store.next()
    assert good is not None
    assert bad is not None
    assert store.report(good.number, 0, 0.9) is False
    store.end(good, completed([0.9]))
    assert open.reopen(store.folder).report(bad.number, 0, 0.5) is True
    assert store.report(bad.number, 0, 0.5) is True  # an epoch may be reported again
    store.end(bad, pruned())
    assert store.trials()[1].state == TrialState.PRUNED


def test_a_running_trial_is_shown_with_its_last_epoch(tmp_path: Path) -> None:
    store = open.open_sweep(plan(tmp_path))
    task = store.next("slot 1")
    assert task is not None
    assert store.snapshot().running[0].epoch is None
    store.note(task.number, {"epochs": 9, "phases": [0, 3]})
    store.report(task.number, 0, 0.5)
    store.report(task.number, 1, 0.6)
    (running,) = store.snapshot().running
    assert (running.number, running.epoch, running.epochs, running.score, running.worker) == (0, 1, 9, 0.6, "slot 1")
