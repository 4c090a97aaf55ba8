"""Low-rank updates of attention: what they add and train, what is refused, what the rest of a run makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ddtl.commands import cli
from ddtl.config.load import ConfigError, load
from ddtl.finetuning.callback import apply_epoch
from ddtl.finetuning.optimizer import parameter_groups
from ddtl.finetuning.schedule import compile_schedule
from ddtl.inference import network as stored_network
from ddtl.models.adapters import add_lora, add_ssf, chosen, merged, merged_state
from ddtl.models.network import Network
from ddtl.models.weights import Weights, load_into
from ddtl.records import predictions as prediction_table
from ddtl.records.run_folder import RunFolder
from ddtl.reports.run import methods, schedule, schedule_svg, stored
from ddtl.training.identity import counting
from ddtl.utils.attention import largest_rank, linear_layers
from ddtl.utils.errors import UserError
from tests.support import records
from tests.support.runs import (
    PullThePlugError,
    assert_same_run,
    break_at,
    config,
    finish,
    run,
    small,
    start,
    start_held,
)
from tests.support.tiny import tiny

__all__ = ["tiny"]  # a fixture

VIT = ("model=timm:test_vit", "dataset.num_workers=0")
SHORT = (*VIT, "trainer=cpu", "trainer.precision=32", "trainer.max_epochs=3", "trainer.limit_batches=2")
LORA = (*SHORT, "finetune=lora", "finetune.rank=4")
DECAYED = (*LORA, "optimizer.weight_decay=0.1")


def network(name: str, size: int = 64, lora: tuple[int, float] | None = None, ssf: bool = False) -> Network:
    torch.manual_seed(0)
    model = load([f"model={name}", "model.weights=none", f"dataset.image_size={size}"]).model
    return Network(model, 2, size, lora=lora, ssf=ssf).eval()


def trained(net: Network) -> Network:
    """The network with updates that are not 0."""
    torch.manual_seed(1)
    for name, value in net.named_parameters():
        if name.endswith("lora_b"):
            nn.init.normal_(value, std=0.05)
    return net


class Attention(nn.Module):
    """A block that takes the weight of one layer, as Swin v2 does, and calls the other."""

    def __init__(self, inputs: int, keys: int) -> None:
        super().__init__()
        self.qkv, self.proj, self.mlp = nn.Linear(inputs, keys), nn.Linear(keys, inputs), nn.Linear(inputs, inputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, weight=self.qkv.weight, bias=self.qkv.bias)
        return self.mlp(self.proj(x))


# --- which layers, and what is added ----------------------------------------------------------------------------------


def test_the_linear_layers_of_attention_are_found_and_no_others() -> None:
    class Queries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.kv, self.proj = nn.Linear(5, 6), nn.Linear(5, 7), nn.Linear(6, 5)

    class Convolutions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.proj = nn.Conv2d(4, 12, 1), nn.Linear(4, 4)

    net = nn.ModuleDict({"a": Attention(8, 9), "b": Queries(), "c": Convolutions()})
    assert list(linear_layers(net)) == ["a.qkv", "a.proj", "b.q", "b.kv", "b.proj"]
    assert largest_rank(net) == 5
    assert list(linear_layers(net["a"])) == ["qkv", "proj"]
    assert (linear_layers(net["c"]), largest_rank(net["c"])) == ({}, 0)


@pytest.mark.parametrize(
    ("name", "size", "rank", "expected"),
    [
        # Of each block rank × (d + 3d + d + d) numbers.
        ("timm:vit_tiny_patch16_224", 224, 8, 12 * 8 * 6 * 192),
        ("timm:swin_tiny_patch4_window7_224", 224, 4, 4 * 6 * (2 * 96 + 2 * 192 + 6 * 384 + 2 * 768)),
    ],
)
def test_as_many_parameters_are_added_as_the_paper_says(name: str, size: int, rank: int, expected: int) -> None:
    with torch.device("meta"):
        net = network(name, size, (rank, 16))
    names = chosen(net.backbone.stages, "lora")
    numbers = [p.numel() for name, p in net.backbone.stages.named_parameters() if name in names]
    assert sum(numbers) == expected
    head = sum(p.numel() for p in net.head.parameters())
    assert 4 * (sum(numbers) + head) + 100 * (len(numbers) + 4) < 1_000_000  # bytes of the adapter's file


def test_an_update_is_alpha_over_rank_times_the_product() -> None:
    net, x = Attention(8, 9), torch.rand(3, 8)
    weight, bias = net.qkv.weight.detach().clone(), net.qkv.bias.detach().clone()
    add_lora(net, 2, 6.0, "it")
    assert net.qkv.lora_a.shape == (2, 8)
    assert not net.qkv.lora_b.any()
    assert net.qkv.lora_a.abs().max() <= 8**-0.5  # Kaiming's bound for a linear layer
    nn.init.normal_(net.qkv.lora_b)
    change = 3 * net.qkv.lora_b @ net.qkv.lora_a
    torch.testing.assert_close(net.qkv(x), x @ (weight + change).T + bias)
    torch.testing.assert_close(net.qkv.weight, weight + change)
    assert torch.equal(net.qkv._parameters["weight"], weight)
    assert type(net.mlp) is nn.Linear


def test_a_block_that_takes_the_weight_has_the_update_and_its_gradient() -> None:
    net, x = Attention(8, 9), torch.rand(3, 8)
    add_lora(net, 2, 4.0, "it")
    before = net(x)
    net(x).sum().backward()
    assert net.qkv.lora_b.grad.any()
    nn.init.normal_(net.qkv.lora_b)
    assert not torch.allclose(net(x), before)
    torch.testing.assert_close(net(x), merged(net)(x))


@pytest.mark.parametrize(
    "name",
    [
        "timm:test_vit",
        *(pytest.param(f"timm:{n}", marks=pytest.mark.slow) for n in ("mobilevit_xxs", "swin_tiny_patch4_window7_224")),
    ],
)
def test_the_network_begins_as_the_same_function(name: str) -> None:
    plain, net, images = network(name), network(name, lora=(4, 8.0)), torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain(images), net(images))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(plain(images), net(images))
    before, now = plain.state_dict(), net.state_dict()
    assert all(torch.equal(now[key], value) for key, value in before.items())
    added = {f"backbone.{key}" for key in chosen(net.backbone, "lora")}
    scales = {key.replace("lora_a", "lora_scale") for key in added if key.endswith("lora_a")}
    assert set(now) - set(before) == added | scales


def test_the_matrices_are_decayed_as_weights_are() -> None:
    net = network("timm:test_vit", lora=(4, 8.0))
    decayed = {id(p) for group in parameter_groups(net, 0.1) if group["weight_decay"] for p in group["params"]}
    assert all(id(p) in decayed for name, p in net.named_parameters() if name.endswith(("lora_a", "lora_b")))


# --- merged -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ssf", [False, True])
def test_merged_weights_are_the_same_function(ssf: bool) -> None:
    net, plain = trained(network("timm:test_vit", lora=(4, 8.0), ssf=ssf)), network("timm:test_vit", ssf=ssf)
    before, images = {key: value.clone() for key, value in net.state_dict().items()}, torch.rand(4, 1, 64, 64)
    found = merged(net)
    with torch.no_grad():
        assert (net(images) - plain(images)).abs().max() > 0.01
        assert (found(images) - net(images)).abs().max() <= 1e-6
    assert found.state_dict().keys() == plain.state_dict().keys()
    assert [type(module) for module in found.modules()] == [type(module) for module in plain.modules()]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_network_without_updates_is_merged_already() -> None:
    net = network("squeezenet1_1")
    assert merged(net) is net


@pytest.mark.slow
def test_torchs_own_export_gives_what_the_network_gives() -> None:
    net, images = trained(network("timm:test_vit", lora=(4, 8.0))), torch.rand(3, 1, 64, 64)
    program = torch.export.export(merged(net), (images,)).module()
    with torch.no_grad():
        assert (program(images) - net(images)).abs().max() <= 1e-6


# --- weights ----------------------------------------------------------------------------------------------------------


def started(net: Network, file: dict[str, Tensor], folder: Path) -> Network:
    save_file({key: value.contiguous() for key, value in file.items()}, folder / "w.safetensors")
    load_into(net, Weights("w", folder / "w.safetensors", None), "timm:test_vit")
    return net.eval()


def test_weights_without_updates_fit(tmp_path: Path) -> None:
    plain, net = network("timm:test_vit"), network("timm:test_vit", lora=(4, 8.0))
    nn.init.normal_(plain.head.layers[-1].weight)
    started(net, plain.state_dict(), tmp_path)
    assert all(torch.equal(net.state_dict()[key], value) for key, value in plain.state_dict().items())


@pytest.mark.parametrize("lora", [None, (4, 16.0), (2, 4.0)])
def test_another_network_starts_from_the_merged_weights(tmp_path: Path, lora: tuple[int, float] | None) -> None:
    before, images = trained(network("timm:test_vit", lora=(4, 8.0))), torch.rand(2, 1, 64, 64)
    net = started(network("timm:test_vit", lora=lora), before.state_dict(), tmp_path)
    with torch.no_grad():
        assert (net(images) - before(images)).abs().max() <= 1e-6
    assert not any(value.any() for key, value in net.state_dict().items() if key.endswith("lora_b"))


def test_updates_of_the_same_rank_and_scale_stay_to_the_bit(tmp_path: Path) -> None:
    before = trained(network("timm:test_vit", lora=(4, 8.0)))
    net = started(network("timm:test_vit", lora=(4, 8.0)), before.state_dict(), tmp_path)
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.state_dict().items())


@pytest.mark.parametrize("broken", ["lora_scale", "lora_b", "weight", "shape", "dimensions", "whole numbers"])
def test_updates_that_do_not_fit_together_stay_as_they_are(broken: str) -> None:
    file = trained(network("timm:test_vit", lora=(4, 8.0))).state_dict()
    layer, others = (
        "backbone.stages.blocks3.blocks_3.attn.qkv.",
        len([key for key in file if key.endswith("lora_a")]) - 1,
    )
    if broken in ("shape", "dimensions", "whole numbers"):
        kinds = {"shape": (7, 4), "dimensions": (192, 4, 1), "whole numbers": (192, 4)}
        kind = torch.int64 if broken == "whole numbers" else torch.float32
        file[f"{layer}lora_b"] = torch.zeros(kinds[broken], dtype=kind)
    else:
        del file[layer + broken]
    found = merged_state(file, network("timm:test_vit").state_dict())
    assert {key for key in found if "lora" in key} == {key for key in file if key.startswith(f"{layer}lora")}
    assert len([key for key in found if not torch.equal(found[key], file[key])]) == others


def test_half_an_update_is_refused(tmp_path: Path) -> None:
    file = trained(network("timm:test_vit", lora=(4, 8.0))).state_dict()
    del file["backbone.stages.blocks3.blocks_3.attn.qkv.lora_scale"]
    with pytest.raises(UserError, match=r"(?s)does not fit test_vit: .* 2 unexpected: .*blocks_3\.attn\.qkv\.lora_a"):
        started(network("timm:test_vit"), file, tmp_path)


def test_an_update_that_is_no_number_is_refused(tmp_path: Path) -> None:
    file = trained(network("timm:test_vit", lora=(4, 8.0))).state_dict()
    file["backbone.stages.blocks3.blocks_3.attn.qkv.lora_scale"] = torch.tensor(torch.nan)
    with pytest.raises(UserError, match=r"qkv\.weight contains values that are infinite or no number"):
        started(network("timm:test_vit"), file, tmp_path)


def test_a_file_without_updates_is_as_it_was() -> None:
    file = network("timm:test_vit").state_dict()
    assert merged_state(file, {}).keys() == file.keys()


# --- a run ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    return run(tmp_path_factory.mktemp("lora"), *DECAYED).folder


def test_a_run_trains_the_updates_and_the_head_alone(made: Path) -> None:
    settings = config(made.parents[1], *LORA)
    torch.manual_seed(0)
    first = Network.of(settings, 2)
    now = load_file(made / "model.safetensors")
    updates = {f"backbone.stages.{name}" for name in chosen(first.backbone.stages, "lora")}
    assert len(updates) == 6 * 2 * 2  # blocks × layers × matrices
    expected = updates | {key for key in now if key.startswith("head.")}
    assert {key for key, value in first.state_dict().items() if not torch.equal(value, now[key])} == expected
    adapter = load_file(made / "adapter.safetensors")
    assert adapter.keys() == expected
    with safe_open(made / "adapter.safetensors", "pt") as file:
        assert json.loads(file.metadata()["ddtl"]) == {"base": None, "rank": 4, "alpha": 16.0}
    first.load_state_dict(adapter, strict=False)  # the initial weights and the adapter are the network
    assert all(torch.equal(value, now[key]) for key, value in first.state_dict().items())


def test_the_stored_network_gives_the_runs_predictions_to_the_bit(made: Path) -> None:
    settings = config(made.parents[1], *LORA)
    net, _ = stored_network.load(RunFolder(made), settings, 2)
    now = load_file(made / "model.safetensors")
    assert all(torch.equal(value, now[key]) for key, value in net.state_dict().items())
    from ddtl.data.loading.datamodule import CTDataModule

    datamodule = CTDataModule(settings)
    datamodule.load()
    rows = datamodule.manifest.rows("test")[:8]
    logits, _ = stored_network.Predictor(net, settings)([datamodule.cache[row] for row in rows])
    table = prediction_table.read(made / "predictions.csv").of("test")
    assert [datamodule.manifest.samples[row].sample_id for row in rows] == table.sample_id.tolist()[:8]
    np.testing.assert_array_equal(logits.astype(np.float32), table.logits[:8].astype(np.float32))


def test_what_is_written_about_the_run_says_it(made: Path) -> None:
    found = stored.read(made)
    says = "Only the low-rank updates of the linear layers of attention of the backbone and the classification head "
    assert schedule.strategy(found) == f"{says}(LoRA, rank 4, alpha 16) were trained; all else stayed as loaded"
    assert "low-rank updates" in methods.render(found)
    shown = schedule.of(found)
    assert shown is not None
    assert schedule_svg.cell(shown.at(0)["blocks1"], False) == "×1 LoRA"


@pytest.mark.slow
def test_the_run_is_exported(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(made), "images=8", f"output={tmp_path}"]) == 0
    assert json.loads((tmp_path / "model.json").read_text())["largest_difference"] <= 1e-5
    file = onnx.load(tmp_path / "model.onnx")
    assert not [one.name for one in file.graph.initializer if "lora" in one.name]
    assert "(LoRA, rank 4, alpha 16)" in (tmp_path / "card.md").read_text()
    assert cli.main(["export", str(made), "format=safetensors", f"output={tmp_path}"]) == 0
    full = Network.of(config(tmp_path, *SHORT, "finetune=full"), 2)
    load_into(full, Weights("w", tmp_path / "model.safetensors", None), "timm:test_vit")
    net, _ = stored_network.load(RunFolder(made), config(tmp_path, *LORA), 2)
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert (full.eval()(images) - net(images)).abs().max() <= 1e-6


def test_it_resumes_to_the_bit(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_at(monkeypatch, [(1, 1)])
    with pytest.raises(PullThePlugError):
        run(tmp_path, *DECAYED)
    folder = run(tmp_path, *DECAYED).folder
    assert_same_run(folder, made)
    assert (folder / "adapter.safetensors").read_bytes() == (made / "adapter.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("mean", ["trainer.ema=0.8", "trainer.average_last=2"])
def test_means_resume_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mean: str) -> None:
    command = (*LORA, mean, "augment.mixup=0.2")
    whole = run(tmp_path / "whole", *command).folder
    break_at(monkeypatch, [(0, 1), (1, 0), (2, 1)])
    for _ in range(3):
        with pytest.raises(PullThePlugError):
            run(tmp_path / "broken", *command)
    assert_same_run(run(tmp_path / "broken", *command).folder, whole)
    scales = {float(v) for key, v in load_file(whole / "model.safetensors").items() if key.endswith("lora_scale")}
    assert scales == {4.0}  # the mean of what never moves


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_bit(made: Path, tmp_path: Path) -> None:
    words = small(tmp_path, *DECAYED)
    process = start_held(words, (1, 1), tmp_path / "reached")
    (folder,) = tmp_path.glob("phantom/*-*")
    process.kill()
    finish(process)
    assert finish(start(words))[0] == 0
    assert_same_run(folder, made)
    assert (folder / "adapter.safetensors").read_bytes() == (made / "adapter.safetensors").read_bytes()


def test_phases_of_updates_and_of_whole_stages_follow_each_other(tmp_path: Path) -> None:
    words = (
        "finetune.phases=[{name: probe, train: [head], epochs: 1}, {name: top, train: [blocks5, head], epochs: 1, "
        "parameters: lora}, {name: all, train: [blocks4, blocks5, head], epochs: 1}]"
    )
    settings = load([*LORA, words])
    net = Network.of(settings, 2)
    table = compile_schedule(settings.finetune, list(net.stages), 3)
    trains = []
    for epoch in range(3):
        assert apply_epoch(net, table, epoch)
        trains.append({name for name, p in net.named_parameters() if p.requires_grad})
    head = {name for name, _ in net.named_parameters() if name.startswith("head.")}
    updates = {f"backbone.stages.blocks5.{name}" for name in chosen(net.backbone.stages["blocks5"], "lora")}
    assert (trains[0], trains[1]) == (head, head | updates)
    assert {name.split(".")[2] for name in trains[2] - head} == {"blocks4", "blocks5"}
    says = schedule.strategy(stored.read(records.write(tmp_path / "run", overrides=(*LORA, words))))
    assert "of attention of the stage blocks5 and the classification head (LoRA, rank 4, alpha 16) in epoch 2" in says


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_a_step_moves_the_updates(tmp_path: Path, precision: str) -> None:
    folder = run(tmp_path, *LORA, f"trainer.precision={precision}", "trainer.max_epochs=1").folder
    updates = {key: value for key, value in load_file(folder / "adapter.safetensors").items() if "lora_b" in key}
    assert updates
    assert all(value.any() and value.isfinite().all() for value in updates.values())


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["densenet121", "squeezenet1_1", "timm:convnext_atto", "timm:coatnet_nano_rw_224"])
def test_a_network_without_attention_is_refused_before_anything_is_read(model: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load([f"model={model}", "model.weights=none", "finetune=lora", "dataset.image_size=64"])
    assert str(caught.value).count("\n") == 0
    assert (
        f"{model.removeprefix('timm:')} has no linear layers of attention. Take finetune=ssf, norm_affine or bitfit"
        in (str(caught.value))
    )


def test_a_network_of_ones_own_without_attention_is_refused(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"resnet18 has no linear layers of attention\. Take finetune=ssf"):
        run(tmp_path, tiny, "finetune=lora")
    assert not list(tmp_path.glob("phantom/*lora*"))


@pytest.mark.parametrize(
    "word", [*(f"rank={value}" for value in ("0", "-1", "1e9", "1000000000", "a", "2.5", "true", "[4]")),
             *(f"alpha={value}" for value in ("nan", "inf", "0", "-1", "1e-300", "1e30", "a", "true"))]
)  # fmt: skip
def test_a_rank_and_an_alpha_that_are_none_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=rf"finetune\.{word.partition('=')[0]}"):
        load([*LORA, f"finetune.{word}"])


@pytest.mark.parametrize("key", ["rank", "alpha"])
def test_both_are_needed(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"parameters=lora needs finetune\.{key}\. Begin with finetune=lora"):
        load([*LORA, f"finetune.{key}=null"])


def test_phases_of_updates_need_the_schedules_keys() -> None:
    words = "finetune.phases=[{name: p, train: [all], fraction: 1.0, parameters: lora}]"
    with pytest.raises(ConfigError, match=r"needs finetune\.rank and finetune\.alpha\. Begin with finetune=lora"):
        load([*SHORT, "finetune=full", words])


def test_the_largest_rank_is_that_of_the_smallest_layer() -> None:
    assert load([*LORA, "finetune.rank=64"]).finetune.rank == 64
    with pytest.raises(ConfigError, match=r"finetune\.rank=65: .* no more than 64 .* Set finetune\.rank=64 or less"):
        load([*LORA, "finetune.rank=65"])
    with pytest.raises(UserError, match=r"finetune\.rank=9: a layer of it's attention has no more than 8"):
        add_lora(Attention(8, 9), 9, 1.0, "it")


def test_stages_without_attention_are_refused(tmp_path: Path) -> None:
    words = "finetune.phases=[{name: first, train: [stem, head], fraction: 1.0, parameters: lora}]"
    with pytest.raises(
        UserError, match=r"phase first: the stages that it trains have no parameters of the kind lora\."
    ):
        run(tmp_path, *LORA, words)


def test_the_settings_count_where_they_are() -> None:
    found = counting(load([*LORA]))
    assert (found["finetune.rank"], found["finetune.alpha"]) == (4, 16.0)
    other = counting(load([*SHORT, "finetune=ssf"]))
    assert not {"finetune.rank", "finetune.alpha"} & other.keys()


def test_scales_and_shifts_and_updates_go_together() -> None:
    net, x = Attention(8, 9), torch.rand(3, 8)
    before = net.proj(x @ net.qkv.weight.T + net.qkv.bias)
    add_lora(net, 2, 4.0, "it")
    add_ssf(net)
    assert torch.equal(net.proj(net.qkv(x)), before)
    with torch.no_grad():
        net.proj.ssf_scale.fill_(2)
        net.proj.ssf_shift.fill_(1)
    torch.testing.assert_close(net.proj(net.qkv(x)), 2 * before + 1)
