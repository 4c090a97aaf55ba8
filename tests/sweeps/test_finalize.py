"""After the search: the winner against the default settings, over seeds of their own, on the test set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddtl.reports.html.page import Table
from ddtl.reports.sweep import report
from ddtl.reports.sweep.record import Sweep
from ddtl.sweeps import finalize
from ddtl.sweeps.plan import settings
from ddtl.sweeps.store import open, outcome
from ddtl.sweeps.store.record import record
from ddtl.sweeps.store.store import Store
from ddtl.utils.errors import Stopped
from tests.support import records

SPACE = "search.space={optimizer.lr: {float: [1e-5, 1e-2], log: true}, augment: {choice: [none, strong]}}"


def searched(folder: Path, *words: str, scores: tuple[float, ...] = (0.7, 0.9, 0.8), space: str = SPACE) -> Store:
    """A search that has ended with these scores; nothing is trained."""
    told = [f"paths.runs_dir={folder / 'runs'}", "sweep.name=found", *words]
    if not any(word.startswith("sweep.seeds=") for word in words):
        told.append("sweep.seeds=2")
    if space:
        told += [space, f"n_trials={len(scores)}", "sampler.name=RandomSampler"]
    store = open.open_sweep(settings.read(told))
    for score in scores:
        task = store.next()
        assert task is not None
        store.end(task, outcome.completed([score] * len(store.study.directions)))
    assert store.next() is None
    return store


def trainer(folder: Path, signal: Callable[[str], float], **changes: Any) -> Callable[[Store], None]:
    """An engine whose runs are synthetic folders; ``signal`` says from a job's words how good its model is."""

    def run(store: Store) -> None:
        while (task := store.next()) is not None:
            words = " ".join(task.overrides)
            try:
                good = signal(words)
            except Stopped:
                store.end(task, outcome.stopped())
                raise
            if good < 0:
                store.end(task, outcome.failed("error", "broken"))
                continue
            seed = int(words.partition("seed=")[2].split()[0])
            shown = tuple(word for word in task.overrides if not word.startswith("paths."))
            predicted = records.table(seed=100 + seed, signal=good, patients={"val": 20, "test": 30})
            path = folder / f"run-{task.number}"
            records.write(path, predicted, overrides=shown, look=task.number + 1, **changes)
            store.note(task.number, {"run": str(path)})
            store.end(task, outcome.completed([0.5 + good / 10]))

    return run


def by_lr(words: str) -> float:
    """The winner is much better than the default."""
    return 2.5 if "optimizer.lr=" in words else 0.6


def test_the_plan_trains_both_over_seeds_that_the_search_did_not_use(tmp_path):
    store = searched(tmp_path, "seed=3", "sweep.seeds=5", "evaluation.threshold=youden")
    plan = finalize.final_plan(store)
    assert plan is not None
    winner = store.trials()[1].user_attrs["overrides"]
    own = [word for word in winner if word.startswith(("optimizer.lr", "augment"))]
    assert [list(job) for job in plan.space.jobs] == [
        job for seed in range(4, 9) for job in ([*own, f"seed={seed}"], [f"seed={seed}"])
    ]
    assert "evaluation.test=true" in plan.fixed
    assert "evaluation.threshold=youden" in plan.fixed
    assert not [word for word in plan.fixed if word in ("seed=3", "evaluation.test=false")]
    assert plan.folder == store.folder / "final-1-5-seeds"
    assert (plan.settings.n_trials, plan.settings.pruner.name, plan.base.seed) == (10, "NopPruner", 4)


def test_a_clear_difference_is_claimed_with_its_interval_and_stands_in_record_and_report(tmp_path, capsys):
    store = searched(tmp_path, "sweep.seeds=3")
    found = finalize.finalize(store, trainer(tmp_path, by_lr))
    assert found is not None
    assert found["claimed"]
    assert found["claim"].startswith(
        "Over the same 3 seeds each, on these 30 patients (60 images) the winner is better than the"
    )
    judged = found["comparison"]["pairs"][0]["differences"]["roc_auc"]
    assert 0 < judged["interval"]["low"] < judged["value"] < judged["interval"]["high"]
    assert found["comparison"]["split"] == "test"
    assert found["seeds"] == [1, 2, 3]
    assert any("test-set use number 6" in note for note in found["caveats"])
    finalize.print_result(found)
    assert found["claim"] in " ".join(capsys.readouterr().out.split())
    written = record(store)
    assert written["final"] == found
    page = report.page(Sweep(written))
    tables = [block for section in page.sections for block in section.blocks if isinstance(block, Table)]
    assert [row[:3] for row in tables[0].rows] == [["the winner", "3", "0.750"], ["the default", "3", "0.560"]]
    assert page.headlines[-1].label == "Test ROC AUC by patient, winner minus default"


def test_equal_methods_are_not_claimed_to_differ(tmp_path):
    found = finalize.finalize(searched(tmp_path), trainer(tmp_path, lambda words: 1.0))
    assert found is not None
    assert not found["claimed"]
    assert "no difference in ROC AUC between the winner and the default may be claimed" in found["claim"]


def test_it_resumes_where_it_was_stopped_and_repeats_nothing(tmp_path):
    store = searched(tmp_path)
    done: list[str] = []

    def stops_after_three(words: str) -> float:
        if len(done) == 3:
            raise Stopped(2)
        done.append(words)
        return by_lr(words)

    with pytest.raises(Stopped):
        finalize.finalize(store, trainer(tmp_path, stops_after_three))
    assert record(store)["final"] is None
    again = open.open_sweep(store.plan)
    assert finalize.finalize(again, trainer(tmp_path, lambda words: done.append(words) or by_lr(words))) is not None
    assert len(done) == len(set(done)) == 4


def test_a_better_winner_of_a_longer_search_has_a_comparison_of_its_own(tmp_path):
    first = finalize.final_plan(searched(tmp_path))
    words = [SPACE, f"paths.runs_dir={tmp_path / 'runs'}", "sweep.name=found", "sampler.name=RandomSampler"]
    longer = open.open_sweep(settings.read([*words, "n_trials=4", "sweep.seeds=2"]))
    task = longer.next()
    assert task is not None
    longer.end(task, outcome.completed([0.95]))
    second = finalize.final_plan(longer)
    assert first is not None
    assert second is not None
    assert (first.folder.name, second.folder.name) == ("final-1-2-seeds", "final-3-2-seeds")


def test_failed_runs_are_told_and_one_method_without_any_run_is_not_compared(tmp_path):
    store = searched(tmp_path)
    some = finalize.finalize(store, trainer(tmp_path, lambda words: -1 if "seed=2" in words else by_lr(words)))
    assert some is not None
    assert some["caveats"][0] == "1 of 2 runs of the winner failed."
    assert [run["score"] for run in some["runs"]["the default"]][1] is None
    other = searched(tmp_path / "other")
    none = finalize.finalize(other, trainer(tmp_path / "other", lambda words: 2 if "optimizer.lr" in words else -1))
    assert none is not None
    assert none["comparison"] is None
    assert none["claim"] == "There is no comparison: no run of the default was completed."
    report.render_sweep(Sweep(record(other)))


def test_runs_that_saw_other_images_are_not_compared(tmp_path):
    store = searched(tmp_path)
    run = trainer(tmp_path, by_lr)

    def shifted(final: Store) -> None:
        run(final)
        path = tmp_path / "run-1" / "predictions.csv"
        path.write_text(path.read_text().replace("test-patient-0", "test-patient-x"))

    found = finalize.finalize(store, shifted)
    assert found is not None
    assert found["claim"].startswith("There is no comparison: ")
    assert not found["claimed"]


def test_a_winner_with_the_default_settings_has_nothing_to_be_compared_with(tmp_path):
    store = searched(tmp_path, "augment=standard,none", space="", scores=(0.9, 0.8))
    found = finalize.finalize(store, trainer(tmp_path, lambda words: 2.0))
    assert found is not None
    assert found["claim"] == "The winner has the default settings: there is nothing to compare it with."
    assert list(found["runs"]) == ["the winner"]
    assert len(found["runs"]["the winner"]) == 2
    report.render_sweep(Sweep(record(store)))


def test_seeds_of_a_grid_are_not_used_again(tmp_path):
    store = searched(tmp_path, "seed=0,7", "optimizer.lr=1e-3", space="", scores=(0.9, 0.8))
    plan = finalize.final_plan(store)
    assert plan is not None
    assert [job[-1] for job in plan.space.jobs] == [f"seed={seed}" for seed in (8, 9)]


def test_with_two_objectives_the_score_decides_and_without_a_completed_trial_nothing_happens(tmp_path):
    store = searched(tmp_path / "two", "sweep.objective=[score,seconds]")
    winner = finalize.best_trial(store)
    assert winner is not None
    assert winner.number == 1
    empty = open.open_sweep(settings.read([SPACE, f"paths.runs_dir={tmp_path}", "n_trials=1"]))
    assert finalize.finalize(empty, lambda final: pytest.fail("there is nothing to run")) is None
