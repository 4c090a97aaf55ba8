"""A run that was stopped, in whatever way, ends as if it had never been."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from ddtl.files import read_lines
from tests.runs import finish, same_tensors, small, start, state, wait_for_epochs

HARD = ("augment=strong", "model.head.dropout=0.5", "trainer.patience=20")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    """The folder of the run that all others must equal."""
    runs_dir = tmp_path_factory.mktemp("uninterrupted")
    code, text = finish(start(small(runs_dir, *HARD)))
    assert code == 0, text
    return next(runs_dir.glob("phantom/densenet121-*"))


@pytest.mark.parametrize(
    ("signum", "workers"),
    [
        (signal.SIGKILL, 0),
        pytest.param(signal.SIGKILL, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 0, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_bit(uninterrupted, tmp_path, signum, workers):
    command = small(tmp_path, *HARD, f"dataset.num_workers={workers}")
    process = start(command)
    folder = wait_for_epochs(tmp_path, process, epochs=1)
    time.sleep(0.4)  # into the middle of an epoch
    if signum == signal.SIGINT:
        os.killpg(process.pid, signum)
    else:
        process.send_signal(signum)
    code, text = finish(process)
    if signum == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 128 + signum
        assert "the same command goes on" in text
        assert "Traceback" not in text
    assert not (folder / "results.json").exists()

    code, text = finish(start(command))
    assert code == 0, text
    assert "going on with" in text
    assert folder.name == uninterrupted.name

    ours, theirs = (state(path / "checkpoints" / "last.ckpt") for path in (folder, uninterrupted))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "epoch", "global_step"):
        assert same_tensors(ours[part], theirs[part]), part
    timeless = [
        [{key: value for key, value in row.items() if key != "seconds"} for row in read_lines(path / "metrics.jsonl")]
        for path in (folder, uninterrupted)
    ]
    assert timeless[0] == timeless[1]  # with the order of the images of each epoch
    assert (folder / "predictions.csv").read_bytes() == (uninterrupted / "predictions.csv").read_bytes()
    assert json.loads((folder / "results.json").read_text()) == json.loads((uninterrupted / "results.json").read_text())
