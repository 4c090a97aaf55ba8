"""A whole run with W&B offline, read back: everything that is meant to be there, and nothing else."""

from __future__ import annotations

import socket

import pytest

from ddtl.records import predictions as prediction_table
from ddtl.schema.scores import EPOCH_SCORES, SCORES
from ddtl.utils.reading import read_lines
from tests.support import wandb_file
from tests.support.runs import run


def test_an_offline_run_holds_curves_settings_and_summary_but_no_sample(tmp_path):
    result = run(
        tmp_path / "a-folder-of-mine", "logger=wandb", "logger.wandb.mode=offline", "trainer.max_epochs=2",
        "trainer.limit_batches=2", "seed=7",
    )  # fmt: skip
    (path,) = wandb_file.find(result.folder)

    rows = read_lines(result.folder / "metrics.jsonl")
    points = wandb_file.history(path)
    for name in (*EPOCH_SCORES, "train/loss"):
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
    test = result.results["test"]
    assert summary["final/test/roc_auc_low"] == test["intervals"]["roc_auc"]["low"]
    assert summary["final/test/roc_auc_high"] == test["intervals"]["roc_auc"]["high"]
    assert summary["final/test/patients/roc_auc"] == test["patients"]["roc_auc"]
    assert summary["final/test/patients/roc_auc_low"] == test["patients"]["intervals"]["roc_auc"]["low"]
    assert wandb_file.artifacts(path) == {"model": ["model.safetensors"], "report": ["report.html"]}
    assert wandb_file.run(path).run_group
    assert not [name for point in points for name in point if name.startswith("samples")]
    assert wandb_file.exit_code(path) == 0

    content = path.read_bytes()
    table = prediction_table.read(result.folder / "predictions.csv")
    private = {
        *table.sample_id.tolist(),
        *table.patient_id.tolist(),
        str(tmp_path),
        "a-folder-of-mine",
        *[name for name in [socket.gethostname()] if len(name) > 5],  # a shorter one stands in some digest by chance
    }
    assert len(private) > 80
    assert [text for text in private if text.encode() in content] == []


@pytest.mark.slow
def test_images_go_there_when_asked_for_with_their_names(tmp_path):
    result = run(
        tmp_path, "logger=wandb", "logger.wandb.mode=offline", "logger.upload_samples=true", "trainer.max_epochs=1",
        "trainer.limit_batches=2", "logger.wandb.artifacts=false", "logger.wandb.group=mine", "logger.wandb.tags=[a]",
    )  # fmt: skip
    (path,) = wandb_file.find(result.folder)
    (samples,) = [point for point in wandb_file.history(path) if "samples.count" in point]
    table = prediction_table.read(result.folder / "predictions.csv").of("test")
    assert (samples["samples.count"], samples["samples.format"]) == (32, "png")
    assert samples["samples.captions"][0].startswith(f"{table.sample_id[0]}: is ")
    assert wandb_file.artifacts(path) == {}
    assert (wandb_file.run(path).run_group, list(wandb_file.run(path).tags)) == ("mine", ["a"])
