"""``sweep.py``: combinations of values, compared on validation alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ddtl import multirun
from ddtl.errors import UserError
from ddtl.sweeps import command
from tests.runs import ROOT, small

LIGHT = ("model=squeezenet1_1", "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_batches=2")


def fake_runs(monkeypatch: pytest.MonkeyPatch, folder: Path, scores: dict[str, float | None]) -> list[list[str]]:
    """Jobs that leave a folder with the score that stands for their ``optimizer.lr`` instead of training."""
    asked: list[list[str]] = []

    def run_one(program: list[str], job: list[str], number: str, environment: dict[str, str]) -> int:
        asked.append(job)
        lr = next(word.partition("=")[2] for word in job if word.startswith("optimizer.lr="))
        if scores[lr] is None:
            return 1
        made = folder / f"run-{lr}"
        made.mkdir()
        (made / "results.json").write_text(json.dumps({"best_epoch": 1, "monitor": "val/loss"}))
        rows = [{"epoch": 0, "val/loss": 9.0}, {"epoch": 1, "val/loss": scores[lr]}]
        (made / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        Path(environment[command.FOLDER_TO]).write_text(str(made))
        return 0

    monkeypatch.setattr(multirun, "run_one", run_one)
    return asked


def test_runs_are_ranked_by_the_monitor_and_a_failed_one_is_told(monkeypatch, tmp_path, capsys):
    asked = fake_runs(monkeypatch, tmp_path, {"0.01": 0.7, "0.02": 0.3, "0.03": None})
    code = command.main(["trainer.monitor=val/loss", "optimizer.lr=0.01,0.02,0.03"])
    assert code == 1
    assert all("evaluation.test=false" in job for job in asked)
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if "optimizer.lr=" in line and "│" in line]
    assert ["0.02" in rows[0], "0.01" in rows[1], "0.03" in rows[2]] == [True] * 3
    assert "0.3000" in rows[0]
    assert "failed" in rows[2]
    assert lines[-1].endswith("python train.py trainer.monitor=val/loss optimizer.lr=0.02")


@pytest.mark.parametrize("words", [["evaluation.test=true"], ["seed=0,x"], ["--fast"], ["seed=0,1", "optimzer.lr=1"]])
def test_mistakes_are_answered_before_the_first_run(monkeypatch, tmp_path, words):
    asked = fake_runs(monkeypatch, tmp_path, {})
    with pytest.raises(UserError):
        command.main(words)
    assert asked == []


@pytest.mark.slow
def test_a_sweep_from_the_command_line_goes_on_and_never_looks_at_the_test_set(tmp_path):
    words = [*small(tmp_path / "runs", *LIGHT), "optimizer.lr=1e-4,1e-3"]
    outputs = []
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, str(ROOT / "sweep.py"), *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        outputs.append(ended)
    assert outputs[0].stdout.splitlines()[-1] == outputs[1].stdout.splitlines()[-1]
    assert outputs[1].stderr.count("this run is finished") == 2
    assert len(list(tmp_path.glob("runs/phantom/squeezenet*/results.json"))) == 2
    assert not list(tmp_path.glob("runs/phantom/test_looks*"))
