"""Sweeps and studies from Python: the commands' records as tables, opened by a part of their name."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ddtl
from ddtl.reports.study import cells
from ddtl.reports.sweep.replicates import setting
from ddtl.sweeps.store import outcome
from ddtl.sweeps.store.outcome import Outcome
from ddtl.sweeps.workers.trial import TrialJob
from tests.support import fork_server, study_records, sweep_records
from tests.support.runs import SMALL
from tests.support.sweep_trials import instead


def by_lr(scores: dict[str, float | None]) -> Any:
    """Trials that have the score of their learning rate and seed, or fail."""

    def body(job: TrialJob) -> Outcome:
        given = dict(word.partition("=")[::2] for word in job.overrides)
        score = scores[given["optimizer.lr"]]
        if score is None:
            return outcome.failed("error", "broken")
        return outcome.completed([score + 0.01 * int(given.get("seed", 0))])

    return body


GRID = {
    "optimizer.lr": "0.01,0.02,0.03", "trainer.monitor": "val/roc_auc", "sweep.name": "grid", "finalize": False,
}  # fmt: skip


def words(folder: Path, **more: Any) -> list[str]:
    return [f"{key}={value}" for key, value in {**GRID, "paths.runs_dir": folder, **more}.items()]


def test_a_sweep_is_the_command_s_and_its_trials_are_those_of_the_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    instead(monkeypatch, by_lr({"0.01": 0.7, "0.02": 0.9, "0.03": 0.8}))
    found = ddtl.sweep(*words(tmp_path, seed="0,1"))
    assert found.path == tmp_path / "sweeps" / "grid"
    assert found.record == json.loads((found.path / "sweep.json").read_text())
    assert (found.path / "report.html").exists()
    trials = found.trials
    assert list(trials["state"]) == ["complete"] * 6
    for row, trial in zip(trials.to_dict("records"), found.record["trials"], strict=True):
        assert (row["trial"], row["val/roc_auc"]) == (trial["number"], trial["values"][0])
        given = dict(word.split("=") for word in row["settings"].split())
        assert given.keys() == {"optimizer.lr", "seed"}
        assert f"optimizer.lr={given['optimizer.lr']}" in trial["overrides"]
    results = found.results
    assert list(results["settings"]) == ["optimizer.lr=0.02", "optimizer.lr=0.03", "optimizer.lr=0.01"]
    np.testing.assert_allclose(results["val/roc_auc"], [0.905, 0.805, 0.705])
    np.testing.assert_allclose(results["sd"], np.std([0.0, 0.01], ddof=1))
    assert list(results["of"]) == [2, 2, 2]
    assert "optimizer.lr=0.02" in found._repr_html_()
    assert repr(found) == f"Sweep({str(found.path)!r})"
    tuples = {**GRID, "optimizer.lr": (0.01, 0.02, 0.03), "seed": (0, 1), "paths.runs_dir": tmp_path}
    pd.testing.assert_frame_equal(ddtl.sweep(**tuples).trials, trials)
    again = ddtl.load("grid", tmp_path)
    assert isinstance(again, ddtl.Sweep)
    pd.testing.assert_frame_equal(again.results, results)


def test_the_same_call_runs_nothing_again_and_a_failed_grid_is_an_error_that_names_its_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    instead(monkeypatch, by_lr({"0.01": 0.7, "0.02": None, "0.03": 0.8}))
    with pytest.raises(ddtl.TrainingFailure, match=r"ddtl\.load"):
        ddtl.sweep(*words(tmp_path))
    found = ddtl.load(tmp_path / "sweeps" / "grid")
    failed = found.trials.set_index("trial").loc[1]
    assert (failed["state"], failed["reason"]) == ("failed", "error broken")
    assert pd.isna(failed["val/roc_auc"])
    assert list(found.results["settings"]) == ["optimizer.lr=0.03", "optimizer.lr=0.01"]


def test_ctrl_c_ends_a_sweep_after_its_running_trials_and_the_same_call_resumes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def pressing(job: TrialJob) -> Outcome:
        if job.number == 0:
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(3)  # the parent may be slow to notice
        return outcome.completed([0.5])

    instead(monkeypatch, pressing)
    before, environment = signal.getsignal(signal.SIGINT), dict(os.environ)
    typed = words(tmp_path, **{"engine.workers": 1})
    with pytest.raises(KeyboardInterrupt, match="the same call resumes it"):
        ddtl.sweep(*typed)
    assert signal.getsignal(signal.SIGINT) is before
    assert dict(os.environ) == environment
    assert ddtl.load("grid", tmp_path).trials["state"].value_counts().to_dict()["complete"] < 3
    instead(monkeypatch, by_lr(dict.fromkeys(("0.01", "0.02", "0.03"), 0.5)))
    assert list(ddtl.sweep(*typed).trials["state"]) == ["complete"] * 3


@pytest.mark.parametrize("two", [False, True])
def test_a_search_s_record_gives_numbers_of_every_trial(tmp_path: Path, two: bool) -> None:
    folder = tmp_path / "sweeps" / "covid19ct-lr_unfreeze"
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps(sweep_records.record(two=two)))
    found = ddtl.load("lr_unfreeze", tmp_path)
    names = ["val/roc_auc", *(["seconds"] if two else [])]
    trials = found.trials
    assert len(trials) == len(found.record["trials"])
    done = trials[trials["state"] == "complete"]
    for name in names:
        assert done[name].dtype == float
        assert done[name].notna().all()
    best = found.results.iloc[0]
    assert best["val/roc_auc"] == done["val/roc_auc"].max()
    assert best["of"] == 1
    assert pd.isna(best["sd"])
    (number,) = best["trials"]
    own = set(setting(found.record["trials"][number]["overrides"]))
    assert set(best["settings"].split()) <= own


def test_a_study_s_table_has_the_means_of_its_cells_with_limits(tmp_path: Path) -> None:
    folder = study_records.cross_dataset(tmp_path)
    found = ddtl.load("cross_dataset", tmp_path)
    assert isinstance(found, ddtl.Study)
    assert found.record == json.loads((folder / "study.json").read_text())
    table = found.results
    known = cells.read(folder)
    for cell in known.cells:
        rows = table.query("threshold == 'source' and score == 'roc_auc' and target == @cell.target")
        rows = rows[(rows["source"] == cell.row.source) & (rows["method"] == cell.row.method)]
        (row,) = rows.to_dict("records")
        mean = cell.measured.scores["roc_auc"] if cell.measured else None
        assert row["seeds"] == len(cell.seeds)
        assert row["in_domain"] is cell.is_in_domain or row["in_domain"] == cell.is_in_domain
        if mean is None or mean.interval is None:
            assert pd.isna(row["low"])
            continue
        assert (row["mean"], row["low"], row["high"]) == (mean.value, mean.interval.low, mean.interval.high)
    lost = table[(table["source"] == "beta") & (table["method"] == "plain") & (table["target"] == "alpha")]
    assert lost["reason"].str.contains("CUDA out of memory").all()
    html = found._repr_html_()
    assert "strong" in html
    assert repr(found) == f"Study({str(folder)!r})"


@pytest.mark.parametrize(
    ("call", "typed", "message"),
    [
        (ddtl.sweep, ["study=cross_dataset"], r"ddtl\.study"),
        (ddtl.study, ["seed=0,1"], r"ddtl\.study\(study='cross_dataset'"),
        (ddtl.sweep, ["seed=0,1", "preview=3"], "runs none"),
        (ddtl.sweep, ["seed=0,1", "optimzer.lr=1"], "optimizer.lr"),
        (ddtl.study, ["study=cros_dataset"], "cross_dataset"),
        (ddtl.study, ["study=cross_dataset", "n_trials=3"], "is for a search"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(tmp_path: Path, call: Any, typed: list[str], message: str) -> None:
    with pytest.raises(ddtl.UserError, match=message):
        call(*typed, f"paths.runs_dir={tmp_path}")
    assert not list(tmp_path.iterdir())


def test_another_thread_than_the_main_one_is_refused(tmp_path: Path) -> None:
    found: list[BaseException] = []

    def call() -> None:
        try:
            ddtl.sweep(*words(tmp_path))
        except ddtl.UserError as error:
            found.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert "main thread" in str(found[0])


def test_several_of_a_name_are_refused_and_an_exact_name_is_found(tmp_path: Path) -> None:
    for name in ("lr", "lr-long"):
        folder = tmp_path / "sweeps" / name
        folder.mkdir(parents=True)
        (folder / "sweep.json").write_text(json.dumps(sweep_records.record(4)))
    assert ddtl.load("lr", tmp_path).path.name == "lr"
    with pytest.raises(ddtl.UserError, match="2 runs are called so"):
        ddtl.load("sweeps/", tmp_path)


def test_an_unfinished_sweep_and_a_folder_of_no_study_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(ddtl.UserError, match="The call that made the sweep resumes it"):
        ddtl.load(tmp_path)
    with pytest.raises(ddtl.UserError, match="a study's folder"):
        ddtl.Study(tmp_path)


NOTEBOOK = """
import sys
sys.argv = ["ipykernel_launcher.py", "-f", "kernel.json"]
assert not hasattr(sys.modules["__main__"], "__file__")
import ddtl
found = ddtl.sweep(*{words!r})
assert list(found.trials["state"]) == ["complete"] * 2, found.trials.to_string()
study = ddtl.study(*{study!r})
assert study.results["mean"].notna().any()
"""


@pytest.mark.slow
def test_workers_need_no_main_module_that_can_be_imported(tmp_path: Path) -> None:
    common = [*SMALL, "trainer.max_epochs=1", "model=squeezenet1_1", "model.weights=none", f"paths.runs_dir={tmp_path}"]
    sweep = [*common, "optimizer.lr=0.001,0.002", "sweep.name=two", "finalize=false", "engine.workers=1"]
    study = [*common, "study=grid", "study.seeds=1", "optimizer.lr=0.001,0.002", "engine.workers=1"]
    done = fork_server.run(
        [sys.executable, "-c", NOTEBOOK.format(words=sweep, study=study)], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("phantom/*/results.json"))) == 2  # the study scores the sweep's runs on the test set
