"""Encoders from files: the same features as the network that wrote them, refused in a line where they do not fit."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ddtl.commands import cli
from ddtl.config.load import check
from ddtl.models.file_encoder import FileEncoder
from ddtl.records import predictions, small
from ddtl.schema.run import ModelConfig
from ddtl.utils.errors import UserError
from ddtl.utils.reading import read_object
from tests.support.runs import PullThePlugError, assert_same_run, break_at, run

ENDINGS = (".onnx", ".pt2")
PROBE = ("finetune=logistic_probe", "augment=none", "trainer=cpu", "trainer.precision=32", "model=features")


class Encoder(nn.Module):
    """A small one; what of its maps is left is chosen by ``gives``."""

    def __init__(self, channels: int = 3, gives: str = "features") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(channels, 8, 5, stride=4), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU())
        self.gives = gives

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layers(x)
        return {"features": maps.mean(dim=(2, 3)), "maps": maps, "tokens": maps.flatten(2), "nan": maps / 0}[self.gives]


def write(path: Path, encoder: nn.Module, size: int = 32, channels: int = 3, *, one: bool = False) -> Path:
    """Export an encoder, for any number of images at a time or for one."""
    example = torch.zeros(1 if one else 2, channels, size, size)
    shapes = None if one else {"x": {0: torch.export.Dim("N")}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.suffix == ".pt2":
            torch.export.save(torch.export.export(encoder.eval(), (example,), dynamic_shapes=shapes), path)
        else:
            program = torch.onnx.export(
                encoder.eval(), (example,), dynamo=True, opset_version=18, verbose=False, dynamic_shapes=shapes
            )
            assert program is not None
            program.save(path)
    return path


def loaded(path: Path, size: int = 32, **changes: object) -> FileEncoder:
    usual = check(["logger=none"])[0].model
    config = ModelConfig.model_validate({**usual.model_dump(), "library": "file", "file": str(path), **changes})
    return FileEncoder(config, size)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    for ending in ENDINGS:
        write(folder / f"plain{ending}", Encoder())
    return folder


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("gives", ["features", "maps"])
@pytest.mark.parametrize("one", [False, True])
def test_a_file_gives_the_features_of_what_wrote_it(tmp_path: Path, ending: str, gives: str, one: bool) -> None:
    encoder = Encoder(gives=gives)
    found = loaded(write(tmp_path / f"encoder{ending}", encoder, one=one))
    x = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        wanted = encoder(x) if gives == "features" else encoder(x).mean(dim=(2, 3))
    assert found.features == 12
    assert torch.allclose(found(x)[:, :, 0, 0], wanted, atol=1e-6)
    assert not list(found.parameters())
    assert not found.state_dict()


def test_one_channel_is_normalised_as_it_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "gray.onnx", Encoder(1), channels=1)
    with pytest.raises(UserError, match=r"does not take images of 3 channels.*model\.mean and model\.std"):
        loaded(path)
    assert loaded(path, mean=(0.4,), std=(0.2,)).mean == (0.4,)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("gives", "says"), [("tokens", r"makes \(2, 12, 25\) of 2 images"), ("nan", "infinite or no number")]
)
def test_what_is_no_vector_of_numbers_is_refused(tmp_path: Path, ending: str, gives: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        loaded(write(tmp_path / f"encoder{ending}", Encoder(gives=gives)))


class Careless(nn.Module):
    """An encoder that is exported as it trains."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), layer, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x).mean(dim=(2, 3))
        return found

    def eval(self) -> Careless:
        return self


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm2d(8)])
def test_an_encoder_in_training_mode_is_refused(tmp_path: Path, layer: nn.Module) -> None:
    with pytest.raises(UserError, match=r"Export encoder\.eval\(\)"):
        loaded(write(tmp_path / "encoder.pt2", Careless(layer)))


def test_its_features_are_not_random(files: Path) -> None:
    words = ["logger=none", "finetune=logistic_probe", "augment=none", "model=features"]
    assert check([*words, f"model.file={files / 'plain.onnx'}"])[1] == []


def test_another_size_is_refused_with_the_key(files: Path) -> None:
    with pytest.raises(UserError, match=r"64 × 64 pixels.*Set dataset\.image_size"):
        loaded(files / "plain.onnx", 64)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x08\x07" + bytes(2000)])
def test_what_is_no_such_file_is_refused_in_a_line(
    tmp_path: Path, ending: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"encoder{ending}"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        loaded(path)
    assert str(caught.value).startswith(f"model.file={path}: ")
    assert "\n" not in str(caught.value)
    assert not caplog.records


def test_weights_in_other_files_are_refused(files: Path, tmp_path: Path) -> None:
    path = tmp_path / "encoder.onnx"
    model = onnx.load(files / "plain.onnx")
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(UserError, match="its weights are in other files"):
        loaded(path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("model=features", "model.file=FILE"),
        ("model=features model.file=/nowhere/e.onnx", "there is no such file"),
        ("model=features model.file=setup.py", "ends in .onnx or .pt2"),
        ("model=features model.file={}.pt2", "model.trusted=true"),
        ("model=features model.file={}.onnx finetune=lp_ft", "finetune=logistic_probe"),
        ("model=features model.file={}.onnx model.mean=[0.5]", "model.std"),
        ("model=features model.file={}.onnx model.mean=[0.5,0.5] model.std=[1,1]", "one number or three"),
        ("model=features model.file={}.onnx model.mean=[0.5] model.std=[0]", "more than 0"),
        ("model=features model.file={}.onnx model.grayscale=sum", "model.grayscale=replicate"),
        ("model=features model.file={}.onnx trainer.compile=true", "trainer.compile=false"),
        ("model=features model.library=torchvision model.name=resnet18 model.file={}.onnx", "model=features"),
    ],
)
def test_mistakes_are_refused(files: Path, words: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        check(["logger=none", "finetune=logistic_probe", "augment=none", *words.format(files / "plain").split()])
    assert says in str(caught.value)


# ---- whole runs


@pytest.fixture(scope="module")
def own(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run; its encoder's file is its own, so that a test may take it away."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copy(files / "plain.onnx", folder / "encoder.onnx")
    return run(folder, *PROBE, f"model.file={folder / 'encoder.onnx'}").folder


@pytest.mark.slow
def test_a_run_says_what_it_was_made_with(own: Path, files: Path) -> None:
    results, identity = read_object(own / "results.json"), small.identity(own)
    assert identity is not None
    assert identity["model.file"].startswith("sha256:")
    assert results["weights"]["source"] == "encoder.onnx"
    assert f"sha256:{results['weights']['digest']}" == identity["model.file"]
    assert results["network"]["library"] == "ONNX Runtime"
    methods = (own / "methods.md").read_text()
    assert "encoder.onnx" in methods
    assert str(files) not in methods


@pytest.mark.slow
def test_both_kinds_of_file_come_to_the_same_scores(own: Path, files: Path, tmp_path: Path) -> None:
    other = run(tmp_path, *PROBE, f"model.file={files / 'plain.pt2'}", "model.trusted=true").folder
    ours, theirs = (predictions.read(folder / "predictions.csv").logits for folder in (own, other))
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(ours).max()


@pytest.mark.slow
def test_a_stopped_run_comes_to_the_same_bit(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*PROBE, f"model.file={own.parents[1] / 'encoder.onnx'}")
    break_at(monkeypatch, [(1, 2)])
    with pytest.raises(PullThePlugError):
        run(tmp_path, *words)
    assert_same_run(own, run(tmp_path, *words).folder)


@pytest.mark.slow
def test_what_uses_the_run_needs_the_same_file(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, encoder = tmp_path / "image.png", own.parents[1] / "encoder.onnx"
    Image.fromarray(np.arange(1600, dtype=np.uint8).reshape(40, 40)).save(image)
    predict = ["predict", str(own), str(image), f"output={tmp_path / 'predicted'}"]
    assert cli.main(predict) == 0
    for command, says in (("export", "format=safetensors"), ("explain", "no feature map")):
        with pytest.raises(UserError, match=says):
            cli.main([command, str(own)])
    assert cli.main(["export", str(own), "format=safetensors", f"output={tmp_path / 'exported'}"]) == 0
    about = read_object(next((tmp_path / "exported").rglob("model.json")))
    assert about["architecture"]["encoder"]["sha256"] == read_object(own / "results.json")["weights"]["digest"]
    content = encoder.read_bytes()
    predict[-1] += "_again"
    try:
        encoder.write_bytes(write(tmp_path / "other.onnx", Encoder(gives="maps")).read_bytes())
        with pytest.raises(UserError, match="Put that one there"):
            cli.main(predict)
        encoder.unlink()
        with pytest.raises(UserError, match=r"model\.file=.*cannot be read|there is no such file"):
            cli.main(predict)
    finally:
        encoder.write_bytes(content)
