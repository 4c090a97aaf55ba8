"""Heat maps and the ONNX file from Python: what the commands write, with the paths of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import ddtl
from ddtl.commands import export
from ddtl.schema.backbones import BACKBONES
from tests.support.runs import run as train
from tests.support.tiny import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ddtl.Run]:
    """A finished run of the tiny network, which stays in the place of the large one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "resnet18", TINY)
        folder = tmp_path_factory.mktemp("heat_maps")
        yield ddtl.Run(train(folder, "model=resnet18", "trainer.max_epochs=1").folder)


def test_the_heat_maps_are_those_of_the_record_and_their_files_are_there(run: ddtl.Run) -> None:
    found = run.explain(n=2, randomised=0, layer="layer2")
    assert found.path == run.path / "explain"
    assert found.record == json.loads((found.path / "explain.json").read_text())
    totals = {group["key"]: group["total"] for group in found.record["groups"]}
    assert sum(totals.values()) == run.results["test"]["images"]
    assert found.sheets.keys() == {key for key, total in totals.items() if total}
    assert all(Image.open(path).format == "PNG" for path in found.sheets.values())
    assert len(found.images) == sum(min(2, total) for total in totals.values())
    assert all(Image.open(path).format == "WEBP" for path in found.images)
    assert "data:image/webp" in (run.path / "report.html").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"n": 0}, "images"), ({"n": 201}, "images"), ({"layer": "nowhere"}, "nowhere"), ({"layr": "layer2"}, "layer")],
)
def test_mistakes_are_refused(run: ddtl.Run, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ddtl.UserError, match=message):
        run.explain(**settings)  # type: ignore[arg-type]


def test_the_export_answers_as_the_run_does(run: ddtl.Run, tmp_path: Path) -> None:
    assert run.export(images=8) == run.path / "export"
    folder = run.export(images=8, output=tmp_path / "to")
    assert sorted(path.name for path in folder.iterdir()) == ["card.md", "model.json", "model.onnx"]
    data = ddtl.dataset("phantom", *[f"dataset.phantom.{key}={value}" for key, value in SAME.items()], **SIZE)
    batch = data.batch("test", n=5)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"images": batch.before})[0]
    known = run.predictions.set_index("sample_id").loc[list(batch.sample_ids)]
    np.testing.assert_allclose(logits[:, 1], known["logit_COVID"], rtol=0, atol=0.02)  # the run was scored in bf16


SAME = {"n_patients": 60, "slices_per_patient": 4, "size": 64}
SIZE = {"dataset.image_size": 32, "dataset.batch_size": 8}


def test_a_file_that_differs_is_a_failure_and_a_mistake_is_refused(
    run: ddtl.Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(export, "LARGEST", -1.0)
    with pytest.raises(ddtl.TrainingFailure, match=r"was not kept.*format='safetensors'"):
        run.export(images=8, output=tmp_path / "differs")
    assert not (tmp_path / "differs" / "model.onnx").exists()
    with pytest.raises(ddtl.UserError, match="format"):
        run.export(format="onxx")
    assert (run.export(format="safetensors", output=tmp_path / "weights") / "model.safetensors").exists()
