"""A whole run with W&B offline, read back: everything that is meant to be there, and nothing else."""

from __future__ import annotations

import socket

import pytest

from ddtl.evaluation import predictions as prediction_table
from ddtl.evaluation.names import MONITORS, SCORES
from ddtl.files import read_lines
from tests import wandb_file
from tests.runs import run


def test_an_offline_run_holds_curves_settings_and_summary_but_no_sample(tmp_path):
    result = run(
        tmp_path / "a-folder-of-mine", "logger=wandb", "logger.wandb.mode=offline", "trainer.max_epochs=2",
        "trainer.limit_batches=2", "seed=7",
    )  # fmt: skip
    (path,) = wandb_file.find(result.folder)

    rows = read_lines(result.folder / "metrics.jsonl")
    points = wandb_file.history(path)
    for name in (*MONITORS, "train/loss"):
        curve = [point[name] for point in points if name in point]
        assert curve == pytest.approx([row[name] for row in rows]), name
    settings = wandb_file.config(path)
    assert settings["seed"] == 7
    assert settings["dataset"]["name"] == "phantom"
    assert settings["trainer"]["max_epochs"] == 2
    assert not {"paths", "run", "logger"} & set(settings)
    summary = wandb_file.summary(path)
    for name in SCORES:
        if result.results["test"][name] is not None:
            assert summary[f"final/test/{name}"] == pytest.approx(result.results["test"][name])
    assert wandb_file.exit_code(path) == 0

    content = path.read_bytes()
    table = prediction_table.read(result.folder / "predictions.csv")
    private = {
        *table.sample_id.tolist(),
        *table.patient_id.tolist(),
        str(tmp_path),
        "a-folder-of-mine",
        socket.gethostname(),
    }
    assert len(private) > 80
    assert [text for text in private if text.encode() in content] == []
