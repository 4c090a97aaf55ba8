"""A run that was stopped, in whatever way, ends as if it had never been."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from ddtl.utils.errors import UserError
from tests.support.runs import PullThePlugError, assert_same_run, break_at, finish, run, small, start, start_held

HARD = ("augment=strong", "model.head.dropout=0.5", "trainer.patience=20", "trainer.max_epochs=6")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    """The folder of the run that all others must equal."""
    runs_dir = tmp_path_factory.mktemp("uninterrupted")
    return run(runs_dir, *HARD).folder


@pytest.mark.parametrize(
    ("signum", "workers"),
    [
        pytest.param(signal.SIGKILL, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 2, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_resumes_to_the_same_bit(uninterrupted, tmp_path, signum, workers):
    command = small(tmp_path, *HARD, f"dataset.num_workers={workers}")
    process = start_held(command, (2, 7), tmp_path / "reached")  # in the middle of an epoch
    (folder,) = tmp_path.glob("phantom/*-*")
    if signum in (signal.SIGINT, signal.SIGHUP):
        os.killpg(process.pid, signum)
    else:
        process.send_signal(signum)
    code, text = finish(process)
    if signum == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 128 + signum
        assert "the same command resumes it" in text
        assert "Traceback" not in text
    assert not (folder / "results.json").exists()

    code, text = finish(start(command))
    assert code == 0, text
    assert "resuming" in text
    assert folder.name == uninterrupted.name
    assert_same_run(folder, uninterrupted)


def test_the_best_epoch_before_a_stop_stays_the_best(tmp_path, monkeypatch):
    """The score is the same after each epoch: the first one after the stop is no improvement."""
    words = ("model=squeezenet1_1", "model.weights=none", "optimizer.lr=1e-9", "trainer.limit_batches=2")
    whole = run(tmp_path / "whole", *words)
    assert whole.results["best_epoch"] == 0
    with monkeypatch.context() as patch:
        break_at(patch, [(2, 0)])
        with pytest.raises(PullThePlugError):
            run(tmp_path / "stopped", *words)
    assert_same_run(run(tmp_path / "stopped", *words).folder, whole.folder)


@pytest.mark.slow
def test_a_checkpoint_that_is_cut_off_says_what_to_do(tmp_path):
    folder = run(tmp_path, "trainer.max_epochs=1").folder
    last, best = folder / "checkpoints" / "last.ckpt", folder / "checkpoints" / "best.ckpt"
    whole = last.read_bytes()
    for path in (last, best):
        path.unlink()  # they may be one file
        path.write_bytes(whole)
    for path, content, reason in (
        (last, whole[: len(whole) // 2], "is cut off or damaged"),
        (last, b"", "is cut off or damaged"),
    ):
        (folder / "results.json").unlink(missing_ok=True)
        path.write_bytes(content)
        with pytest.raises(UserError, match=reason) as raised:
            run(tmp_path, "trainer.max_epochs=1")
        assert str(raised.value).startswith(f"{path}: is ")
        assert "\n" not in str(raised.value)
        path.write_bytes(whole)
    last.write_bytes(b"")
    command = re.search(r"rm -r (\S+)$", str(raised.value))
    assert command is not None
    shutil.rmtree(command[1])
    assert run(tmp_path, "trainer.max_epochs=1").results["best_epoch"] == 0
