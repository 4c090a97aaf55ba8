"""Whole runs on the real images: short ones, through the same commands that a user types."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddtl.config.load import load
from ddtl.records import predictions as prediction_table
from ddtl.reports import terminal
from ddtl.reports.run.publish import publish
from ddtl.training.results import RunResult
from ddtl.training.train import train
from ddtl.utils.reading import read_lines

pytestmark = pytest.mark.realdata

SHORT = ("dataset.image_size=64", "trainer.max_epochs=2", "trainer.limit_batches=3", "logger=none")


def short(tmp_path: Path, data: Path, *overrides: str) -> RunResult:
    return train(load([*SHORT, f"paths.data_dir={data}", f"paths.runs_dir={tmp_path}", *overrides]), publish=publish)


@pytest.mark.slow
def test_covid19ct_by_its_official_lists(real_data, tmp_path):
    result = short(tmp_path, real_data, "dataset=covid19ct", "model=squeezenet1_1", "model.weights=none")
    r = result.results
    assert {split: counts["images"] for split, counts in r["splits"].items()} == {"train": 425, "val": 118, "test": 203}
    assert (r["protocol"], r["grouping"], r["leaked_share"]) == ("official", "patient", 0)
    assert r["test"]["groups"] == 95
    assert r["test"]["classes"] == {"non-COVID": 105, "COVID": 98}
    assert any("kjr-21-e24-p5-29.png" in warning for warning in r["warnings"])
    assert len(prediction_table.read(result.folder / "predictions.csv")) == 118 + 203


@pytest.mark.slow
def test_sarscov2ct_by_near_duplicates_and_by_slice(real_data, tmp_path):
    common = ("dataset=sarscov2ct", "model=squeezenet1_1", "model.weights=none")
    grouped = short(tmp_path, real_data, *common).results
    assert (grouped["protocol"], grouped["grouping"], grouped["leaked_share"]) == ("grouped", "near_duplicate", 0)
    leaky = short(tmp_path, real_data, *common, "dataset.protocol=random").results
    assert leaky["leaked_share"] > 0
    assert any("optimistic" in warning for warning in leaky["warnings"])
    assert len({grouped["digest"], leaky["digest"]}) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "published"),
    [("covid19ct", "0.8900"), pytest.param("sarscov2ct", "0.9960", marks=pytest.mark.slow)],
)
def test_the_papers_experiments_print_published_beside_obtained(real_data, tmp_path, capsys, dataset, published):
    result = short(tmp_path, real_data, f"experiment=ddtl_cov_{dataset}", "model.weights=none")
    config = load([*SHORT, f"experiment=ddtl_cov_{dataset}", f"paths.data_dir={real_data}"])
    terminal.run_result(config, result)
    text = capsys.readouterr().out
    assert "10.25271/sjuoz.2023.11.4.1166" in text
    line = next(line for line in text.splitlines() if published in line)
    assert f"{result.results['test']['accuracy']:.4f}" in line
    assert json.loads((result.folder / "results.json").read_text())["dataset"] == dataset


@pytest.mark.slow
def test_real_imagenet_weights_train_a_probe(real_data, real_weights, tmp_path):
    result = short(
        tmp_path, real_data, "dataset=covid19ct", "model=squeezenet1_1", f"model.weights={real_weights}",
        "finetune=linear_probe", "trainer.limit_batches=null", "trainer.max_epochs=3",
    )  # fmt: skip
    losses = [row["train/loss"] for row in read_lines(result.folder / "metrics.jsonl")]
    assert losses[-1] < losses[0]
    assert result.results["weights"]["source"] == real_weights.name
