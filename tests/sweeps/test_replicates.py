"""Seeds and folds are replicates: settings are ranked by their mean, and a seed is never recommended."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from rich import table as tables

from ddtl.commands import sweep as command
from ddtl.reports.html.page import Code, Fold, Section, Table
from ddtl.reports.sweep import replicates, report
from ddtl.reports.sweep.record import Sweep, line
from ddtl.sweeps import finalize
from ddtl.sweeps.plan import settings
from ddtl.sweeps.store import open, outcome
from ddtl.sweeps.store.record import record
from ddtl.sweeps.store.snapshot import settings as ranked
from ddtl.sweeps.store.store import Store
from ddtl.sweeps.workers import cleanup
from ddtl.sweeps.workers.progress import line as watched
from ddtl.utils import console

# The luckiest seed is one of the worse learning rate.
SCORES = {"0.0001": (0.90, 0.60, 0.66), "0.001": (0.80, 0.82, 0.78)}
GRID = ("optimizer.lr=1e-4,1e-3", "seed=0,1,2")


def swept(folder: Path, *words: str, failing: tuple[int, ...] = (), upto: int = 6) -> Store:
    """A grid that has ended with these scores; nothing is trained."""
    told = [*GRID, f"paths.runs_dir={folder}", "sweep.name=grid", *words]
    store = open.open_sweep(settings.read(told, tried=False))
    while (task := store.next()) is not None and task.number < upto:
        of = dict(word.partition("=")[::2] for word in task.overrides)
        score = SCORES[of["optimizer.lr"]][int(of["seed"])]
        store.note(task.number, {"run": str(folder / f"run-{task.number}")})
        failed = task.number in failing
        store.end(task, outcome.failed("error", "broken") if failed else outcome.completed([score]))
    return store


def test_settings_are_ranked_by_their_mean_and_no_seed_is_recommended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = swept(tmp_path)
    best, other = ranked(store.study)
    assert (best.trials, best.means) == ((3, 4, 5), [pytest.approx(0.80)])
    assert (other.trials, other.means) == ((0, 1, 2), [pytest.approx(0.72)])
    assert best.deviation == pytest.approx(statistics.stdev(SCORES["0.001"]))
    assert not [word for word in best.words if word.startswith("seed=")]

    now = store.snapshot()
    assert (now.best, now.best_trials) == ((3, (pytest.approx(0.80),)), (3, 4, 5))
    assert "best mean val/roc_auc by image 0.8000 (trials 3, 4, 5)" in watched(now, "val/roc_auc by image", None)

    command._show(store)
    shown = " ".join(capsys.readouterr().out.split())
    assert "mean over seed, best first" in shown
    assert shown.index("0.8000") < shown.index("0.7200")
    assert "0.7800 to 0.8200" in shown
    recommended = shown.partition("The best setting's test score:")[2]
    assert "optimizer.lr=0.001" in recommended
    assert "seed=" not in recommended

    store.close()
    again = open.open_sweep(settings.read([*GRID, f"paths.runs_dir={tmp_path}", "sweep.name=grid"], tried=False))
    assert [setting.trials for setting in ranked(again.study)] == [(3, 4, 5), (0, 1, 2)]


def test_the_table_is_whole_where_no_terminal_limits_it(capsys: pytest.CaptureFixture[str]) -> None:
    table = tables.Table("settings", "score")
    table.add_row("x" * 300, "0.5")
    console.out.print(table)
    assert "x" * 300 in capsys.readouterr().out
    assert console.out.width < 300


def test_the_record_and_the_page_say_so_with_the_spread(tmp_path: Path) -> None:
    found = record(swept(tmp_path))
    assert (found["best"], found["replicates"]) == (3, ["seed"])
    assert [setting["mean"] for setting in found["settings"]] == [[pytest.approx(0.80)], [pytest.approx(0.72)]]
    assert (found["settings"][0]["lowest"], found["settings"][0]["highest"]) == (0.78, 0.82)
    sweep = Sweep(found)
    page = report.page(sweep)
    best = page.headlines[0]
    assert (best.label, best.value) == ("Best mean validation ROC AUC by image", "0.800")
    assert best.note == "mean of 3 replicates (trials 3, 4 and 5), 0.780 to 0.820; best of 2 settings: optimistic"
    sections: dict[str, Section] = {section.title: section for section in page.sections}
    codes = [block for block in sections["Result"].blocks if isinstance(block, Code)]
    assert "seed=" not in codes[0].text
    assert "optimizer.lr=0.001" in codes[0].text
    table, every = sections["Trials"].blocks
    assert isinstance(table, Table)
    assert [row[:3] for row in table.rows] == [["3, 4 and 5", "3 of 3", "0.800"], ["0, 1 and 2", "3 of 3", "0.720"]]
    assert isinstance(every, Fold)
    assert "0.900" not in report.render_sweep(sweep).partition("<h2")[0], "the luckiest seed is no headline"
    assert sweep.winner is not None
    assert "seed=" not in line(sweep.winner)


def test_the_comparison_at_the_end_takes_the_best_setting(tmp_path: Path) -> None:
    store = swept(tmp_path, "sweep.seeds=2")
    winner = finalize.best_trial(store)
    assert winner is not None
    assert winner.number == 3
    plan = finalize.final_plan(store)
    assert plan is not None
    assert [list(job) for job in plan.space.jobs] == [
        ["optimizer.lr=0.001", "seed=3"], ["seed=3"], ["optimizer.lr=0.001", "seed=4"], ["seed=4"],
    ]  # fmt: skip
    assert len(set(plan.planned)) == 1, "its runs are one planned use of the test set"


def test_a_setting_whose_replicates_failed_is_not_the_best_by_those_that_are_left(tmp_path: Path) -> None:
    store = swept(tmp_path, failing=(1, 2))
    assert [(setting.trials, setting.of) for setting in ranked(store.study)] == [((3, 4, 5), 3), ((0,), 3)]


def test_checkpoints_are_kept_of_the_best_setting(tmp_path: Path) -> None:
    store = swept(tmp_path, "sweep.keep=1")
    assert sorted(path.name for path in cleanup.losers(store)) == ["run-0", "run-1", "run-2"]


def test_folds_and_splits_are_replicates_too_and_the_same_run_counts_once() -> None:
    trials = [
        (0, ["a=1", "dataset.fold=0"], [0.9]),
        (1, ["a=1", "dataset.fold=1"], [0.5]),
        (2, ["a=2", "dataset.fold=0"], [0.8]),
        (3, ["a=2", "dataset.fold=1"], [0.8]),
        (4, ["a=1", "dataset.fold=0"], [0.9]),
    ]
    assert replicates.varied(words for _, words, _ in trials) == ["dataset.fold"]
    assert [setting.trials for setting in replicates.ranked(trials, 1)] == [(2, 3), (0, 1)]
    assert [setting.trials for setting in replicates.ranked(trials, -1)] == [(0, 1), (2, 3)]


def test_without_replicates_each_trial_is_a_setting() -> None:
    trials = [(0, ["a=1", "seed=4"], [0.5]), (1, ["a=2", "seed=4"], [0.7]), (2, ["a=1", "seed=4"], None)]
    assert replicates.varied(words for _, words, _ in trials) == []
    assert [setting.trials for setting in replicates.ranked(trials, 1)] == [(1,), (0,)]
    assert replicates.ranked(trials, 1)[0].words == ("a=2", "seed=4")


def test_a_setting_over_folds_is_scored_on_all_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("optimizer.lr=1e-4,1e-3", "dataset.protocol=kfold", "dataset.fold=0,1,2")
    told = [*words, f"paths.runs_dir={tmp_path}", "sweep.name=folds", "sweep.seeds=2"]
    store = open.open_sweep(settings.read(told, tried=False))
    while (task := store.next()) is not None:
        of = dict(word.partition("=")[::2] for word in task.overrides)
        score = SCORES[of["optimizer.lr"]][int(of["dataset.fold"])]
        store.end(task, outcome.completed([score]))
    assert replicates.parts([["seed=1"], ["seed=2"]]) == []
    command._show(store)
    shown = " ".join(capsys.readouterr().out.split()).partition("The best setting's test score:")[2]
    assert "dataset.fold=0,1,2 --multirun" in shown
    found = record(store)
    assert found["settings"][0]["line"].endswith("dataset.fold=0,1,2 --multirun")
    sweep = Sweep(found)
    assert sweep.winner is not None
    assert line(sweep.winner, test=True).endswith("dataset.fold=0,1,2 --multirun")
    assert finalize._on_one_part(store) == [
        "The search was over several values of dataset.fold; this comparison is on the usual one alone."
    ]


def test_a_setting_that_never_completed_is_counted(tmp_path: Path) -> None:
    sweep = Sweep(record(swept(tmp_path, failing=(3, 4, 5))))
    assert [setting.trials for setting in sweep.settings] == [(0, 1, 2)]
    assert sweep.never_completed == 1
    assert "1 setting has no completed trial, and no mean." in report.render_sweep(sweep)
    assert Sweep(record(swept(tmp_path / "other"))).never_completed == 0
