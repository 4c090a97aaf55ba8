"""The sweep's record: complete, plain JSON, and what the report can be made of."""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path

import pytest

from ddtl.sweeps.store import open, record
from ddtl.sweeps.store.outcome import completed, failed, pruned, stopped
from ddtl.sweeps.store.store import Store
from tests.support.sweep_plans import gone, orphaned, plan
from tests.support.sweep_records import record as invented


def worked(store: Store) -> None:
    """Trials with every kind of end: complete, pruned, failed, complete after a kill, running, waiting."""
    for number in range(6):
        task = store.next(f"slot {number % 2}")
        assert task is not None
        store.note(task.number, {"phases": [0, 1], "epochs": 3, "run": f"/somewhere/phantom/run-{number}"})
        store.report(task.number, 0, 0.5)
        if number == 0:
            store.report(task.number, 1, 0.7)
            store.note(task.number, {"fit_seconds": 1.5})
            store.end(task, completed([0.7]))
        elif number == 1:
            store.end(task, pruned())
        elif number == 2:
            store.end(task, failed("out_of_memory", "no room"))
        elif number == 3:
            orphaned(store, 3, gone())
            again = store.next("slot 1")
            assert again is not None
            assert again.number == 3
            store.report(3, 1, 0.6)
            store.end(again, completed([0.6]))
        elif number == 5:
            store.end(task, stopped())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = open.open_sweep(plan(tmp_path))
    worked(made)
    return made


def test_it_is_plain_json_and_says_all(store: Store) -> None:
    found = record.write(store)
    assert json.loads((store.folder / "sweep.json").read_text()) == found
    assert (found["name"], found["dataset"], found["search"], found["monitor"]) == (
        "small",
        "phantom",
        "lr",
        store.plan.base.trainer.monitor,
    )
    assert (found["objective"], found["directions"], found["best"], found["final"]) == (
        ["score"],
        ["maximize"],
        0,
        None,
    )
    assert found["counts"] == {"complete": 2, "pruned": 1, "failed": 1, "running": 1, "waiting": 1}
    assert found["identity"] == store.plan.identity()
    assert found["started"] < found["ended"]


def test_each_trial_says_how_it_went(store: Store) -> None:
    done, pruned_, failed_, again, running, waiting = record.record(store)["trials"]
    assert (done["values"], done["curve"], done["epochs"], done["phases"]) == ([0.7], [[0, 0.5], [1, 0.7]], 2, [0, 1])
    assert (done["run"], done["worker"], done["fit_seconds"]) == ("run-0", "slot 0", 1.5)
    assert done["line"].startswith("python train.py optimizer.lr=")
    assert set(done["params"]) == {"optimizer.lr", "dataset.batch_size"}
    assert (pruned_["state"], pruned_["values"]) == ("pruned", None)
    assert (failed_["state"], failed_["reason"], failed_["words"]) == ("failed", "out_of_memory", "no room")
    assert [attempt["reason"] for attempt in again["attempts"]] == ["killed", "completed"]
    assert again["started"] <= again["attempts"][0]["ended"] <= again["attempts"][1]["started"] <= again["ended"]
    assert (running["state"], running["ended"], running["attempts"]) == ("running", None, [])
    assert (waiting["state"], waiting["ended"], waiting["values"]) == ("waiting", None, None)
    assert waiting["attempts"][0]["reason"] == "stopped"


def test_the_seconds_are_those_of_all_attempts_and_not_of_the_time_between(store: Store) -> None:
    trial = record.record(store)["trials"][3]
    spans = [
        (datetime.fromisoformat(attempt["ended"]) - datetime.fromisoformat(attempt["started"])).total_seconds()
        for attempt in trial["attempts"]
    ]
    assert len(spans) == 2
    assert trial["seconds"] == pytest.approx(sum(spans))


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    store = open.open_sweep(plan(tmp_path, "pruner.name=NopPruner", "pruner.args={}"))
    task = store.next()
    assert task is not None
    store.report(task.number, 0, math.nan)
    store.end(task, completed([math.inf]))
    trial = record.write(store)["trials"][0]
    assert (trial["curve"], trial["values"]) == ([[0, None]], [None])


def test_a_trial_killed_before_it_was_drawn_is_there_too(tmp_path: Path) -> None:
    store = open.open_sweep(plan(tmp_path))
    store.study.ask()
    trial = record.write(store)["trials"][0]
    assert (trial["state"], trial["overrides"], trial["curve"], trial["seconds"]) == ("running", [], [], 0)


def test_what_the_comparison_found_stands_in_it(store: Store) -> None:
    store.study.set_user_attr("final", {"claim": "better"})
    assert record.record(store)["final"] == {"claim": "better"}


def test_the_reports_invented_records_have_no_field_that_a_real_one_lacks(store: Store) -> None:
    real, other = record.record(store), invented(12)
    assert set(other) <= set(real)
    assert {key for trial in other["trials"] for key in trial} <= set(real["trials"][0])
    attempts = [attempt for trial in other["trials"] for attempt in trial["attempts"]]
    assert {key for attempt in attempts for key in attempt} <= set(real["trials"][3]["attempts"][0])


def test_a_report_is_made_of_it(store: Store) -> None:
    from ddtl.commands import report

    record.write(store)
    assert report.write(store.folder).stat().st_size > 10_000
