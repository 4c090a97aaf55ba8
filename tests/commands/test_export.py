"""``ddtl export``: the ONNX file gives what the network gives, the weights come whole, the card says what it must."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from safetensors.torch import load_file

from ddtl.commands import cli
from ddtl.config.load import load
from ddtl.data.loading.datamodule import CTDataModule
from ddtl.export import onnx as exporting
from ddtl.models.network import Network
from ddtl.records import predictions as prediction_table
from ddtl.reports.run import model_card as card, stored
from ddtl.schema.backbones import BACKBONES
from ddtl.utils.errors import UserError
from tests.support import records
from tests.support.runs import run, small
from tests.support.tiny import TINY

WORDS = ("model=resnet18", "trainer.max_epochs=1", "trainer.precision=32")  # bf16 rounds more than a file may differ


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run of the tiny network, which stays in the place of the large one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "resnet18", TINY)
        yield run(tmp_path_factory.mktemp("exporting"), *WORDS).folder


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    assert cli.main(["export", str(trained), "images=40"]) == 0
    return trained / "export"


@pytest.mark.slow
def test_the_onnx_file_predicts_what_the_run_predicted(trained: Path, exported: Path) -> None:
    datamodule = CTDataModule(load(small(trained.parents[1], *WORDS)))
    datamodule.load()
    table = prediction_table.read(trained / "predictions.csv").of("test")
    rows = datamodule.manifest.rows("test")
    assert [datamodule.manifest.samples[row].sample_id for row in rows] == table.sample_id.tolist()
    images = datamodule.cache.take(rows)[:, np.newaxis].astype(np.float32) / 255
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    for n in (1, 5, len(images)):  # any number at a time
        logits, probabilities = session.run(None, {"images": images[:n]})
        np.testing.assert_allclose(logits, table.logits[:n], atol=1e-4)
        np.testing.assert_allclose(probabilities, table.probabilities[:n], atol=1e-4)


def test_the_onnx_file_stands_alone_and_describes_itself(trained: Path, exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == ["card.md", "model.json", "model.onnx"]
    model = onnx.load(exported / "model.onnx")
    about = json.loads({entry.key: entry.value for entry in model.metadata_props}["ddtl"])
    said = json.loads((exported / "model.json").read_text())
    record = json.loads((trained / "results.json").read_text())
    assert said.pop("largest_difference") <= 1e-4
    assert about == said
    assert about["classes"] == record["classes"]
    assert about["threshold"] == record["threshold"]
    assert about["image_size"] == 32
    assert str(trained.parents[1]) not in json.dumps(about)


def test_the_largest_difference_is_printed(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(trained), "images=7", f"output={tmp_path}"]) == 0
    assert "largest difference from the network on 7 images of phantom: " in capsys.readouterr().out


def test_the_check_sees_a_changed_weight_and_what_is_no_number(trained: Path, exported: Path, tmp_path: Path) -> None:
    network = Network(load(small(tmp_path, *WORDS)).model, 2)
    network.load_state_dict(load_file(trained / "model.safetensors"))
    images = np.random.default_rng(0).random((5, 1, 32, 32), dtype=np.float32)

    def difference() -> float:
        return exporting.largest_difference(
            network.eval(), exported / "model.onnx", images, 2, lambda done, total: None
        )

    assert difference() <= 1e-4
    bias = network.head.layers[-1].bias
    with torch.no_grad():
        bias[1] += 0.25
    assert difference() == pytest.approx(0.25, abs=1e-3)
    with torch.no_grad():
        bias[1] = torch.nan
    assert np.isnan(difference())


@pytest.mark.parametrize("found", [2e-4, float("nan")])
def test_a_file_that_differs_is_not_kept(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: float
) -> None:
    monkeypatch.setattr(exporting, "largest_difference", lambda *_: found)
    assert cli.main(["export", str(trained), f"output={tmp_path / 'out'}", "images=3"]) == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_safetensors_are_the_runs_weights(trained: Path, tmp_path: Path) -> None:
    assert cli.main(["export", str(trained), "format=safetensors", f"output={tmp_path}"]) == 0
    ours, theirs = load_file(tmp_path / "model.safetensors"), load_file(trained / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    about = json.loads((tmp_path / "model.json").read_text())
    assert about["architecture"]["name"] == "resnet18"


def test_the_card_holds_what_a_user_must_know(trained: Path, exported: Path) -> None:
    text = (exported / "card.md").read_text()
    record = json.loads((trained / "results.json").read_text())
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "ddtl"
    for part in ("Intended use", "Input and output", "Data", "Evaluation", "Scores", "Limits", "Versions"):
        assert f"## {part}\n" in body
    assert "Not for diagnosis" in body
    assert f"{record['test']['roc_auc']:.3f}" in body
    interval = record["test"]["intervals"]["roc_auc"]
    assert f"{interval['low']:.3f}" in body
    assert f"torch {record['versions']['torch']}" in body
    assert str(trained.parents[1]) not in text


def test_the_card_shows_hostile_names_letter_by_letter(tmp_path: Path) -> None:
    records.write(tmp_path / "run", records.table(("<script>alert(1)</script>", "a|b `c`")))
    text = card.render(stored.read(tmp_path / "run"), [], ["`model.onnx`"])
    assert "<script>" not in text
    assert r"a\|b \`c\`" in text


def test_scores_on_other_data_stand_in_the_card(tmp_path: Path) -> None:
    records.write(tmp_path / "run")
    found = stored.read(tmp_path / "run")
    there = tmp_path / "run" / "evaluations" / "sarscov2ct-grouped"
    records.write(there)
    record = json.loads((there / "results.json").read_text())
    record |= {"dataset": "sarscov2ct", "trained_on": {"dataset": "covid19ct", "protocol": "official", "run": "run"}}
    (there / "results.json").write_text(json.dumps(record))
    shutil.copytree(there, there.with_name("broken"))
    (there.with_name("broken") / "results.json").write_text("{")
    others = card.evaluations(found)
    assert [other.record["dataset"] for other in others] == ["sarscov2ct"]
    assert "### On other data: sarscov2ct" in card.render(found, others, [])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["format=torchscript"], "format=torchscript: must be one of onnx, safetensors"),
        (["image=3"], "Did you mean images"),
        (["images=0"], "images=0: must be at least 1"),
    ],
)
def test_a_mistake_is_named(trained: Path, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cli.main(["export", str(trained), *words])


def test_without_the_packages_the_message_names_them(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime: pip install 'ddtl\[export\]'"):
        cli.main(["export", str(trained)])
