"""``sweep.py`` from the command line: what is answered at once, what a grid leaves, and how it is gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ddtl.commands import sweep
from ddtl.sweeps.plan import settings
from ddtl.sweeps.store import open, outcome
from ddtl.sweeps.store.outcome import Outcome
from ddtl.sweeps.store.snapshot import Snapshot
from ddtl.sweeps.workers.trial import TrialJob
from ddtl.utils.errors import TrainingFailure, UserError
from tests.support import fork_server
from tests.support.sweep_trials import attempts, instead, states

GRID = ("optimizer.lr=0.01,0.02,0.03", "trainer.monitor=val/loss", "sweep.name=grid", "finalize=false")


def by_lr(scores: dict[str, float | None]):
    """Trials that have the score of their learning rate, or fail."""

    def body(job: TrialJob) -> Outcome:
        lr = next(word.partition("=")[2] for word in job.overrides if word.startswith("optimizer.lr="))
        assert "evaluation.test=false" in job.overrides
        score = scores[lr]
        return outcome.failed("error", "broken") if score is None else outcome.completed([score])

    return body


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return [*GRID, f"paths.runs_dir={tmp_path}"]


def test_a_grid_is_ranked_by_the_monitor_and_a_failure_is_told(monkeypatch, tmp_path, capsys, words):
    instead(monkeypatch, by_lr({"0.01": 0.7, "0.02": 0.3, "0.03": None}))
    assert sweep.main(words) == 1
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if "optimizer.lr=" in line and "│" in line]
    assert ["0.02" in rows[0], "0.01" in rows[1], len(rows)] == [True, True, 2]
    assert "0.3000" in rows[0]
    assert lines[-1].endswith(f"python train.py optimizer.lr=0.02 trainer.monitor=val/loss paths.runs_dir={tmp_path}")
    record = json.loads((tmp_path / "sweeps" / "grid" / "sweep.json").read_text())
    assert [trial["state"] for trial in record["trials"]] == ["complete", "complete", "failed"]
    assert (tmp_path / "sweeps" / "grid" / "report.html").exists()


def test_the_same_command_runs_nothing_again(monkeypatch, capsys, words):
    instead(monkeypatch, by_lr(dict.fromkeys(("0.01", "0.02", "0.03"), 0.5)))
    assert sweep.main(words) == 0
    shown = capsys.readouterr()

    def nothing(job: TrialJob) -> Outcome:
        raise AssertionError("a finished trial was run again")

    instead(monkeypatch, nothing)
    assert sweep.main(words) == 0
    again = capsys.readouterr()
    assert again.out == shown.out
    assert "3 trials, 3 of them done" in again.err


def test_a_search_tells_at_its_start_what_it_will_train(tmp_path: Path) -> None:
    asked = (
        "search=lr_unfreeze",
        "n_trials=30",
        "trainer.max_epochs=10",
        f"paths.runs_dir={tmp_path}",
        "sweep.seeds=3",
    )
    plan = settings.read(asked)
    now = Snapshot(30, 8, 2, 0, (), 0, None, (), (), (60.0,) * 10)
    lines = sweep.work_left(plan, now)
    assert lines == [
        "to train: 20 trials of 10 epochs, 200 in all, fewer where trials are pruned",
        "then finalize: the best and the default settings with 3 seeds each, 60 epochs, and once their scores on the "
        "test set",
        "about 20 min, 26 min with finalize, at the pace of the trials that are done",
    ]
    at_first = sweep.work_left(plan, replace(now, complete=0, pruned=0, seconds=()))
    assert at_first[-1] == "how long that takes is shown when the first trial has ended"
    grid = settings.read(["optimizer.lr=1e-3,1e-4", f"paths.runs_dir={tmp_path}", "pruner.name=NopPruner"])
    assert sweep.work_left(grid, replace(now, total=10)) == []


def test_a_search_in_which_everything_fails_says_so(monkeypatch, tmp_path, words):
    instead(monkeypatch, by_lr(dict.fromkeys(("0.01", "0.02", "0.03"))))
    with pytest.raises(TrainingFailure, match=r"(?s)failed trials in a row: 2.*error: broken"):
        sweep.main([*words, "sweep.max_failures=2"])
    assert json.loads((tmp_path / "sweeps" / "grid" / "sweep.json").read_text())["counts"]["failed"] == 2


@pytest.mark.parametrize(
    "words",
    [["evaluation.test=true"], ["seed=0,x"], ["--fast"], ["seed=0,1", "optimzer.lr=1"], ["-m", "seed=0,1"], []],
)
def test_mistakes_are_answered_before_the_first_run(tmp_path, words):
    with pytest.raises(UserError):
        sweep.main([*words, f"paths.runs_dir={tmp_path}"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["search=lr", "preview=3"], ["search=lr", "--cfg", "job"]])
def test_questions_are_answered_without_torch(monkeypatch, capsys, words):
    code = f"import sys; from ddtl.commands import sweep; sweep.main({words!r}); assert 'torch' not in sys.modules"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout


def test_the_command_itself_never_imports_torch(tmp_path):
    code = f"""
import multiprocessing, sys
from ddtl.commands import sweep as command
from ddtl.sweeps.store import outcome as settle
from ddtl.sweeps.workers import processes, trial
trial._run = lambda job: settle.completed([0.5])
processes.prepare = lambda **_: multiprocessing.get_context("fork")
assert command.main(["seed=0,1", "finalize=false", "trainer=cpu", {f"paths.runs_dir={tmp_path}"!r}]) == 0
assert "torch" not in sys.modules, "it was imported"
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_a_sweep_with_every_kind_of_end_from_the_command_line(tmp_path):
    from tests.support.runs import ROOT, hold_at_checkpoints, run, small, wait_for_epochs
    from tests.sweeps.test_report_callback import SWEEP

    words = [word for word in SWEEP if word != "search=lr"]
    typed = [sys.executable, str(ROOT / "sweep.py"), *small(tmp_path / "runs", *words, "optimizer.lr=1e-3,1e30,1e-4")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    held, flag = hold_at_checkpoints(tmp_path / "hold")
    first = fork_server.Popen(
        typed, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**environment, **held}
    )
    wait_for_epochs(tmp_path / "runs", first, 1)
    first.send_signal(signal.SIGINT)
    flag.unlink()
    text = first.communicate(timeout=300)[0]
    assert first.returncode == 130, text
    assert "the same command resumes it" in text

    ended = fork_server.run(typed, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert ended.returncode == 1, ended.stderr
    store = open.reopen(tmp_path / "runs" / "sweeps" / "small")
    assert states(store) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert attempts(store, 1)[-1][0] == "nan"
    assert "optimizer.lr" in attempts(store, 1)[-1][1]
    log = (store.folder / "trials" / "0.log").read_text()
    assert log.count("epoch 1/3") == 1 or attempts(store)[0][0] == "completed"
    assert not list(tmp_path.glob("runs/phantom/test_looks*"))
    assert not list(tmp_path.glob("runs/phantom/*/report.html"))
    alone = run(tmp_path / "alone", *words[:5], "optimizer.lr=1e-3", "evaluation.test=false")
    weights = Path(store.trials()[0].user_attrs["run"]) / "model.safetensors"
    assert weights.read_bytes() == (alone.folder / "model.safetensors").read_bytes()


def test_the_record_is_written_while_the_sweep_runs(monkeypatch, tmp_path, words):
    """After each trial that ended, but not again where nothing has advanced, or too soon."""
    from types import SimpleNamespace

    from ddtl.sweeps.store import record

    written = []
    monkeypatch.setattr(record, "write", lambda store: written.append(clock[0]))
    clock = [0.0]
    live = sweep.LiveRecord(None, clock=lambda: clock[0])

    def at(seconds: float, complete: int, epoch: int | None = None) -> None:
        clock[0] = seconds
        running = [SimpleNamespace(number=9, epoch=epoch)]
        live.update(SimpleNamespace(complete=complete, pruned=0, failed=0, running=running))

    at(0, 0)
    at(1, 1)  # too soon
    at(3, 1)
    at(6, 1)  # nothing has advanced
    at(9, 1, epoch=0)
    assert written == [0, 3, 9]

    def full(store):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record, "write", full)
    at(12, 2)  # the record at the end says so
    monkeypatch.setattr(record, "write", lambda store: written.append(clock[0]))
    at(15, 2)
    assert written == [0, 3, 9, 15]


def test_the_dashboard_sees_a_sweep_that_runs(monkeypatch, tmp_path, words):
    from ddtl.dashboard.index import Index

    seen = []

    def body(job: TrialJob) -> Outcome:
        return outcome.completed([0.5])

    instead(monkeypatch, body)
    write = sweep.LiveRecord.update

    def update(self, snapshot):
        write(self, snapshot)
        seen.extend(row.note for row in Index(tmp_path).rows() if row.kind == "sweep")

    monkeypatch.setattr(sweep.LiveRecord, "update", update)
    assert sweep.main(words) == 0
    assert seen
    assert "no record yet" not in seen
