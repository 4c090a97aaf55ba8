"""Adapters: which parameters train, that the others stay to the bit, and that the rest of a run knows of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from ddtl.config.load import load
from ddtl.finetuning.callback import apply_epoch
from ddtl.finetuning.schedule import compile_schedule
from ddtl.inference import network as stored_network
from ddtl.models.adapters import chosen
from ddtl.models.network import Network
from ddtl.models.weights import Weights, load_into
from ddtl.records.run_folder import RunFolder
from ddtl.reports.run import schedule, schedule_svg
from ddtl.training.identity import counting
from ddtl.utils.errors import UserError
from tests.support.runs import PullThePlugError, assert_same_run, break_at, config, run, state
from tests.support.tiny import tiny

__all__ = ["tiny"]  # a fixture

ADAPTERS = {"bitfit": "biases", "norm_affine": "norm_affine", "ssf": "ssf"}
SHORT = ("trainer=cpu", "trainer.max_epochs=3", "trainer.limit_batches=3", "evaluation.replicates=100")


@pytest.mark.parametrize(
    ("model", "counts"),
    [
        # The channels of DenseNet121's 121 BatchNorm layers, and of its 120 convolutions.
        ("densenet121", {"biases": 41_824, "norm_affine": 2 * 41_824, "ssf": 2 * (41_824 + 10_240)}),
        # 64 of the first layer, and 2 (9 n) of each pair of fire modules with n = 16, 32, 48 and 64.
        ("squeezenet1_1", {"biases": 64 + 18 * 160, "norm_affine": 0}),
        # 192 of the first layer, 9 × 192 of each of 12 blocks, and two of 192 of each of 25 normalisation layers.
        ("timm:vit_tiny_patch16_224", {"biases": 25_728, "norm_affine": 9_600, "ssf": 2 * 25_728}),
    ],
)
def test_as_many_parameters_train_as_there_are(model: str, counts: dict[str, int]) -> None:
    with torch.device("meta"):
        net = Network(load([f"model={model}", "model.weights=none"]).model, 2, ssf="ssf" in counts)
    for parameters, expected in counts.items():
        found = chosen(net.backbone.stages, parameters)
        assert sum(p.numel() for name, p in net.backbone.stages.named_parameters() if name in found) == expected


def test_normalisation_of_every_kind_counts() -> None:
    stage = nn.Sequential(
        nn.Linear(2, 2), nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.BatchNorm2d(2), nn.LayerNorm(2, bias=False)
    )
    assert chosen(stage, "norm_affine") == {f"{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")} | {
        "4.weight"
    }
    assert chosen(stage, "biases") == {f"{i}.bias" for i in range(4)}
    assert chosen(stage, "all") == {name for name, _ in stage.named_parameters()}


@pytest.mark.parametrize("name", ["squeezenet1_1", "timm:test_vit", "timm:test_convnext", "timm:test_efficientnet"])
def test_scales_and_shifts_begin_as_the_same_function(name: str) -> None:
    model = load([f"model={name}", "model.weights=none", "dataset.image_size=64"]).model
    nets = []
    for ssf in (False, True):
        torch.manual_seed(0)
        nets.append(Network(model, 2, 64, ssf=ssf).eval())
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(nets[0](images), nets[1](images))
    added = chosen(nets[1].backbone, "ssf")
    assert added
    assert set(nets[1].state_dict()) - set(nets[0].state_dict()) == {f"backbone.{name}" for name in added}


def test_a_scale_and_a_shift_act_on_channels() -> None:
    net = Network(load(["model=squeezenet1_1", "model.weights=none"]).model, 2, ssf=True).eval()
    first = net.backbone.get_submodule(net.backbone.first)
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        before = first(x)
        first.ssf_scale.copy_(torch.arange(64.0))
        first.ssf_shift.fill_(0.5)
        torch.testing.assert_close(first(x), before * torch.arange(64.0)[:, None, None] + 0.5)


def test_weights_without_scales_fit(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = load(["model=squeezenet1_1", "model.weights=none"]).model
    plain, net = Network(model, 2), Network(model, 2, ssf=True)
    save_file(plain.state_dict(), tmp_path / "w.safetensors")
    load_into(net, Weights("w", tmp_path / "w.safetensors", None), "squeezenet1_1")
    assert all(torch.equal(net.state_dict()[key], value) for key, value in plain.state_dict().items())


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_run_trains_the_adapter_and_the_head_alone(tiny: str, tmp_path: Path, name: str) -> None:
    found = run(tmp_path, tiny, *SHORT, f"finetune={name}", "optimizer.weight_decay=0.1", "dataset.num_workers=0")
    first = Network(config(tmp_path, tiny).model, 2, ssf=name == "ssf")
    torch.manual_seed(0)
    first = Network(config(tmp_path, tiny).model, 2, ssf=name == "ssf")
    now = load_file(found.folder / "model.safetensors")
    trained = {f"backbone.stages.{one}" for one in chosen(first.backbone.stages, ADAPTERS[name])}
    trained |= {key for key in now if key.startswith("head.")}
    moved = {key for key, value in first.state_dict().items() if not torch.equal(value, now[key])}
    assert moved == trained
    adapter = load_file(found.folder / "adapter.safetensors")
    assert adapter.keys() == trained
    assert all(torch.equal(adapter[key], now[key]) for key in adapter)
    with safe_open(found.folder / "adapter.safetensors", "pt") as file:
        assert json.loads(file.metadata()["ddtl"]) == {"base": None}
    first.load_state_dict(adapter, strict=False)  # the initial weights and the adapter are the network
    assert all(torch.equal(value, now[key]) for key, value in first.state_dict().items())
    net, _ = stored_network.load(RunFolder(found.folder), config(tmp_path, tiny, f"finetune={name}"), 2)
    assert all(torch.equal(value, now[key]) for key, value in net.state_dict().items())


def test_densenets_adapters_take_less_than_a_megabyte() -> None:
    with torch.device("meta"):
        net = Network(load(["model.weights=none"]).model, 2, ssf=True)
    for parameters in ADAPTERS.values():
        names = chosen(net.backbone, parameters)
        size = sum(4 * p.numel() + 100 for name, p in net.backbone.named_parameters() if name in names)
        assert size < 1_000_000, parameters


def test_a_run_of_another_schedule_has_no_adapter(tiny: str, tmp_path: Path) -> None:
    assert not (run(tmp_path, tiny, *SHORT, "finetune=linear_probe").folder / "adapter.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ADAPTERS)
def test_it_resumes_to_the_bit(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    command = (tiny, *SHORT, f"finetune={name}", "trainer.ema=0.8", "augment.mixup=0.2", "augment.cutmix=1")
    whole = run(tmp_path / "whole", *command).folder
    ahead = [(0, 2), (1, 0), (2, 1)]
    break_at(monkeypatch, ahead)
    for _ in range(3):
        with pytest.raises(PullThePlugError):
            run(tmp_path / "broken", *command)
    broken = run(tmp_path / "broken", *command).folder
    assert_same_run(broken, whole)
    assert (broken / "adapter.safetensors").read_bytes() == (whole / "adapter.safetensors").read_bytes()
    assert state(whole / "checkpoints" / "last.ckpt")["epoch"] == 2


def test_a_phase_of_parts_is_a_phase_like_any_other() -> None:
    words = (
        "finetune.phases=[{name: probe, train: [head], epochs: 1}, {name: norms, train: [layer4, head], epochs: 1, "
        "parameters: norm_affine}, {name: all, train: [all], epochs: 1}]"
    )
    c = load(["model=resnet18", "model.weights=none", "finetune=full", words, "trainer.max_epochs=3"])
    with torch.device("meta"):
        net = Network(c.model, 2)
    table = compile_schedule(c.finetune, list(net.stages), 3)
    trains = []
    others = []
    for epoch in range(3):
        others.append(apply_epoch(net, table, epoch))
        trains.append({name for name, p in net.named_parameters() if p.requires_grad})
    head = {name for name in trains[2] if name.startswith("head.")}
    assert trains[0] == head
    norms = {f"backbone.stages.layer4.{n}" for n in chosen(net.backbone.stages["layer4"], "norm_affine")}
    assert trains[1] == head | norms
    assert trains[2] == {name for name, _ in net.named_parameters()}
    assert others == [True, True, True]
    assert schedule_svg.cell(table.at(1)["layer4"], False) == "×1 normalisation"
    assert schedule._trained(table.phases[1]) == (
        "the scales and shifts of the normalisation layers of the stage layer4 and the classification head"
    )


def test_a_network_without_such_parameters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"have no parameters of the kind norm_affine\. Take another schedule"):
        run(tmp_path, "model=squeezenet1_1", *SHORT, "finetune=norm_affine")
    assert not list(tmp_path.glob("phantom/*norm_affine*"))


def test_parameters_of_the_head_alone_are_refused() -> None:
    words = "finetune.phases=[{name: p, train: [head], fraction: 1.0, parameters: biases}]"
    with pytest.raises(UserError, match=r"phase p: parameters=biases has no effect on the head, which trains whole"):
        load(["finetune=linear_probe", words])


def test_runs_that_train_whole_stages_keep_their_names() -> None:
    assert counting(load(["finetune=full"]))["finetune.phases"] == [
        {"name": "all", "train": ["all"], "epochs": None, "fraction": 1.0, "rates": {}}
    ]
    assert counting(load(["finetune=bitfit"]))["finetune.phases"][0]["parameters"] == "biases"


@pytest.mark.slow
def test_every_scale_and_shift_of_a_network_that_reads_weights_itself_has_a_gradient() -> None:
    """Two processes would wait for those that have none."""
    net = Network(
        load(["model=timm:swinv2_tiny_window8_256", "dataset.image_size=64", "finetune=ssf"]).model, 2, 64, ssf=True
    )
    net(torch.rand(2, 1, 64, 64)).sum().backward()
    missing = [name for name, value in net.named_parameters() if "ssf_" in name and value.grad is None]
    assert not missing
    assert sum("ssf_scale" in name for name, _ in net.named_parameters()) > 50
