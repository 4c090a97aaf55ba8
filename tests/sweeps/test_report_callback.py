"""The callback between a trial and its sweep: what is reported, who is asked, and how a fit ends early."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import torch

from ddtl.dashboard.index import Index
from ddtl.records.run_folder import RunFolder
from ddtl.sweeps.store import open
from ddtl.sweeps.workers.report_callback import AskSweep, objectives
from ddtl.sweeps.workers.trial import _group_runs, _phases, explain_failure
from ddtl.training import loggers
from ddtl.training.train import EndedEarly, train
from ddtl.utils.reading import read_lines
from tests.support import fork_server, runs
from tests.support.tiny import tiny  # noqa: F401

MONITOR = "val/roc_auc"
QUICK = ("trainer=cpu", "trainer.max_epochs=4", "trainer.limit_batches=2", "evaluation.test=false", "finetune=full")


class Answers:
    """A store that says after which epochs a trial is to be pruned, and remembers what it was told."""

    def __init__(self, *pruned_after: int) -> None:
        self.pruned_after = pruned_after
        self.told: list[tuple[int, float]] = []
        self.notes: dict[str, object] = {}

    def report(self, number: int, epoch: int, score: float) -> bool:
        self.told.append((epoch, score))
        return epoch in self.pruned_after

    def note(self, number: int, facts: dict[str, object]) -> None:
        self.notes |= facts


def asked(store: Answers, stop: Path) -> AskSweep:
    return AskSweep(store, 0, MONITOR, stop)  # type: ignore[arg-type]


def test_a_pruned_run_ends_after_its_checkpoint_with_its_loggers_finished(tiny, tmp_path, monkeypatch):  # noqa: F811
    ends: list[str] = []
    monkeypatch.setattr(loggers.CSVFile, "finalize", lambda self, status: ends.append(status))
    config = runs.config(tmp_path / "pruned", tiny, *QUICK, "logger=csv", "logger.wandb.mode=disabled")
    store = Answers(1)
    with pytest.raises(EndedEarly) as ended:
        train(config, [asked(store, tmp_path / "stop")])
    folder = RunFolder(ended.value.folder)
    assert ended.value.why == "pruned"
    assert store.notes["run"] == str(folder.path)
    assert runs.state(folder.last)["epoch"] == 1
    assert [epoch for epoch, _ in store.told] == [0, 1]
    assert [score for _, score in store.told] == [row[MONITOR] for row in read_lines(folder.metrics)]
    assert not folder.results.exists()
    assert ends[-1] == "success"
    assert "failed" not in ends


def test_a_run_that_was_pruned_becomes_the_run_that_nobody_pruned(tiny, tmp_path):  # noqa: F811
    pruned, alone = (runs.config(tmp_path / name, tiny, *QUICK) for name in ("pruned", "alone"))
    with pytest.raises(EndedEarly) as ended:
        train(pruned, [asked(Answers(1), tmp_path / "stop")])
    assert Index(tmp_path / "pruned").rows()[0].state == "pruned"
    assert (ended.value.folder / "ended_early.json").exists()
    finished = train(pruned)
    assert not (finished.folder / "ended_early.json").exists()
    assert not (finished.folder / "report.html").exists()
    runs.assert_same_run(finished.folder, train(alone).folder)


def test_a_run_that_is_resumed_with_reports_its_earlier_epochs_and_hears_the_last_answer_again(tiny, tmp_path):  # noqa: F811
    config = runs.config(tmp_path, tiny, *QUICK)
    with pytest.raises(EndedEarly):
        train(config, [asked(Answers(1), tmp_path / "stop")])
    again = Answers(0, 1)  # the answer after epoch 0 was given long ago
    with pytest.raises(EndedEarly) as ended:
        train(config, [asked(again, tmp_path / "stop")])
    assert [epoch for epoch, _ in again.told] == [0, 1]
    assert len(read_lines(ended.value.folder / "metrics.jsonl")) == 2
    other = Answers(0)
    train(config, [asked(other, tmp_path / "stop")])
    assert [epoch for epoch, _ in other.told] == [0, 1, 2]  # nobody is asked after the last epoch


def test_the_stop_file_ends_a_fit_after_its_epoch_or_before_its_first(tiny, tmp_path):  # noqa: F811
    config = runs.config(tmp_path, tiny, *QUICK)
    stop = tmp_path / "stop"
    store = Answers()
    store.report = lambda number, epoch, score: bool(epoch == 1 and stop.touch())  # type: ignore[method-assign]
    with pytest.raises(EndedEarly, match="stopped") as ended:
        train(config, [asked(store, stop)])
    assert len(read_lines(ended.value.folder / "metrics.jsonl")) == 2
    with pytest.raises(EndedEarly, match="stopped"):
        train(config, [asked(Answers(), stop)])
    assert len(read_lines(ended.value.folder / "metrics.jsonl")) == 2


def test_time_in_fit_and_predict_is_measured_and_values_are_those_of_the_kept_epoch(tiny, tmp_path):  # noqa: F811
    ask = asked(Answers(), tmp_path / "stop")
    folder = RunFolder(train(runs.config(tmp_path, tiny, *QUICK), [ask]).folder)
    rows = read_lines(folder.metrics)
    score, seconds = objectives(folder, ("score", "seconds"))
    assert score == max(row[MONITOR] for row in rows)
    assert math.isclose(seconds, sum(row["seconds"] for row in rows))
    assert ask.seconds["fit"] > seconds
    assert ask.seconds["predict"] > 0


def test_phases_and_group_of_a_trial(tmp_path):
    config = runs.config(tmp_path, "trainer.max_epochs=10", "finetune=lp_ft")
    assert _phases(config)[0] == 0
    assert len(_phases(config)) == 2
    assert _group_runs(config, "my-sweep").logger.wandb.group == "my-sweep"
    named = runs.config(tmp_path, "logger.wandb.group=mine")
    assert _group_runs(named, "my-sweep").logger.wandb.group == "mine"
    assert not _group_runs(named, "my-sweep").logger.wandb.artifacts, "hundreds of trials would send gigabytes"


def test_a_full_gpu_is_known_by_torchs_own_error():
    assert explain_failure(torch.OutOfMemoryError("CUDA out of memory"))[0] == "out_of_memory"


SWEEP = (
    "model=squeezenet1_1", "model.weights=none", "trainer=cpu", "trainer.limit_batches=2", "finetune=full",
    "search=lr", "finalize=false", "sweep.name=small",
)  # fmt: skip


def sweep(runs_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Type the command; it may take two processes of one thread."""
    return fork_server.run(
        [sys.executable, str(runs.ROOT / "sweep.py"), *runs.small(runs_dir, *SWEEP, *words)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_of_a_trial_are_pruned_together(tmp_path):
    prunes_all = ("pruner.name=ThresholdPruner", "pruner.args={lower: 2.0, n_warmup_steps: 1}")
    ended = sweep(tmp_path, "engine.gpus_per_trial=2", "n_trials=1", *prunes_all)
    assert ended.returncode == 0, ended.stderr
    store = open.reopen(tmp_path / "sweeps" / "small")
    [trial] = store.trials()
    log = (store.folder / "trials" / "0.log").read_text()
    assert trial.state == optuna.trial.TrialState.PRUNED, log
    assert "2 device(s)" in log
    assert sorted(trial.intermediate_values) == [0, 1]
    folder = RunFolder(Path(trial.user_attrs["run"]))
    assert len(read_lines(folder.metrics)) == 2
    assert not folder.results.exists()
    assert log.count("epoch 2/3") == 1
    assert "Error" not in log
