"""Networks of timm are timm's to the bit, cut into stages; their weights load safely or say what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ddtl.config.load import ConfigError, load
from ddtl.explain import gradcam
from ddtl.finetuning.optimizer import parameter_groups
from ddtl.models import weights as weights_module
from ddtl.models.network import BatchNorm, Network
from ddtl.models.timm_backbone import TimmBackbone
from ddtl.models.weights import Weights, load_into, locate
from ddtl.records import run as results_of
from ddtl.reports.run import model_card, stored
from ddtl.schema.backbones import spec_of, stages_of
from ddtl.schema.run import Config
from ddtl.utils.errors import UserError
from ddtl.utils.timm_networks import facts, outline
from tests.support.runs import run

# A small network of each form: maps, maps that are pooled before a layer, a token for all, tokens that are pooled.
FORMS = {
    "test_resnet": ("stem", "layer1", "layer2", "layer3", "layer4", "head"),
    "test_efficientnet": ("stem", *(f"blocks{i}" for i in range(5)), "head"),
    "test_convnext": ("stem", *(f"stages{i}" for i in range(4)), "pool", "head"),
    "test_vit": ("stem", *(f"blocks{i}" for i in range(6)), "head"),
    "test_vit2": ("stem", *(f"blocks{i}" for i in range(8)), "pool", "head"),
}
SIZE = 64


def configured(name: str, *words: str) -> Config:
    return load([f"model=timm:{name}", "model.weights=none", f"dataset.image_size={SIZE}", *words])


def network(name: str, *words: str) -> Network:
    return Network(configured(name, *words).model, 2, SIZE)


def theirs(name: str, state: dict[str, Tensor] | None = None) -> nn.Module:
    """timm's own network of these weights, without a classifier."""
    fixed = {"img_size": SIZE} if facts(name).is_fixed else {}
    made = timm.create_model(name, num_classes=0, **fixed)
    if state is not None:
        made.load_state_dict(state)
    return made.eval()


@pytest.mark.parametrize("name", FORMS)
def test_the_features_are_timms_to_the_bit(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = theirs(name)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    net = network(name).eval()
    weights = locate(configured(name, f"model.weights={tmp_path / 'w.safetensors'}").model, None)
    load_into(net, weights, f"timm:{name}")
    images = torch.rand(2, 1, SIZE, SIZE)
    with torch.no_grad():
        expected = model((images - net.mean) / net.std)
        assert torch.equal(net.backbone((images - net.mean) / net.std)[:, :, 0, 0], expected)
        assert torch.equal(net(images), net.head.layers(expected))
    assert (*net.backbone.stages, "head") == stages_of(f"timm:{name}") == FORMS[name]
    assert spec_of(f"timm:{name}").features == expected.shape[1]
    counted = sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in net.backbone.parameters()) == counted


@pytest.mark.parametrize("name", FORMS)
def test_no_later_layer_changes_a_stages_output(name: str) -> None:
    net = network(name).eval()
    seen: list[tuple[Tensor, Tensor]] = []
    for stage in net.backbone.stages.values():
        stage.register_forward_hook(lambda _, __, out: seen.append((out, out.clone())))
    with torch.no_grad():
        net(torch.rand(1, 1, SIZE, SIZE))
    assert len(seen) == len(net.backbone.stages)
    assert all(torch.equal(now, then) for now, then in seen)


def test_a_frozen_beginning_gives_what_the_whole_gives() -> None:
    net = network("test_efficientnet").eval()
    images = torch.rand(2, 1, SIZE, SIZE)
    with torch.no_grad():
        whole = net(images)
        assert all(torch.equal(net.classify(net.embed(images, d), d), whole) for d in range(len(net.stages)))


def test_a_frozen_stage_drops_no_path_and_one_that_trains_does() -> None:
    torch.manual_seed(0)
    words = ["model=timm:swin_tiny_patch4_window7_224", "model.weights=none", "model.head.dropout=0"]
    network = Network(load(words, writes=False).model, 2, SIZE).train()
    x = torch.rand(8, 1, SIZE, SIZE)
    assert not network(x).equal(network(x))
    network.freeze(list(network.backbone.stages), [])
    assert network(x).equal(network(x))
    network.eval()
    network.train()  # as Lightning does after validation
    assert network(x).equal(network(x))
    network.freeze([], [])
    assert not network(x).equal(network(x))


def test_the_head_alone_has_dropout() -> None:
    network = Network(
        load(["model=timm:ghostnet_100", "model.weights=none", "model.head.dropout=0"], writes=False).model, 2
    )
    network.train()
    network.freeze([], list(network.backbone.stages))
    x = torch.rand(4, 1, SIZE, SIZE)
    assert network(x).equal(network(x))


def test_batchnorm_with_an_activation_keeps_its_statistics_where_they_are_fixed() -> None:
    net = network("test_efficientnet").train()
    layers = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert layers
    assert all(isinstance(layer, BatchNorm) for layer in layers)
    net.freeze(["stem"], ["stem"])
    before = {name: value.clone() for name, value in net.state_dict().items() if "running" in name}
    net(torch.rand(4, 1, SIZE, SIZE))
    after = net.state_dict()
    moved = {name.split(".")[2] for name, value in before.items() if not torch.equal(after[name], value)}
    assert moved == {f"blocks{i}" for i in range(5)}


def test_weight_decay_leaves_positions_and_tokens_alone() -> None:
    groups = {group["name"]: group["params"] for group in parameter_groups(network("test_vit"), 0.1)}
    shapes = {tuple(p.shape) for p in groups["stem/no_decay"]}
    assert shapes == {(1, 1, 64), (1, 17, 64), (64,)}
    assert {tuple(p.shape) for p in groups["stem/decay"]} == {(64, 3, 16, 16)}


def test_mean_and_std_are_those_of_the_weights() -> None:
    net = network("test_vit")
    assert facts("test_vit").mean == (0.5, 0.5, 0.5)
    assert net.mean.flatten().tolist() == [0.5] * 3
    assert net.std.flatten().tolist() == [0.5] * 3
    assert net.backbone.about is not None
    assert net.backbone.about["mean"] == [0.5] * 3


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet"])
def test_one_channel_starts_as_the_same_function(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    save_file(theirs(name).state_dict(), tmp_path / "w.safetensors")
    answers = []
    images = torch.full((1, 1, SIZE, SIZE), 0.3)
    for grayscale in ("replicate", "sum"):
        net = network(name, f"model.grayscale={grayscale}").eval()
        load_into(net, Weights("w", tmp_path / "w.safetensors", None), f"timm:{name}")
        first = net.backbone.get_submodule(net.backbone.first)
        seen: list[Tensor] = []
        first.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out))
        with torch.no_grad():
            net(images)
        answers.append(seen[0][:, :, 1:-1, 1:-1])  # at the edges the padding counts
    torch.testing.assert_close(*answers, atol=1e-5, rtol=1e-5)


def test_one_channel_is_refused_where_several_layers_receive_the_image() -> None:
    with pytest.raises(UserError, match=r"model.grayscale=sum: several layers .* Set model.grayscale=replicate"):
        network("mobileone_s0", "model.grayscale=sum")


def test_positions_of_another_image_size_are_resampled_as_timm_does(tmp_path: Path) -> None:
    name = "test_vit"
    torch.manual_seed(1)
    whole = timm.create_model(name, num_classes=1000)
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    net = network(name)
    load_into(net, Weights("w", tmp_path / "w.safetensors", None), f"timm:{name}")
    assert isinstance(net.backbone, TimmBackbone)
    found = net.state_dict()[f"backbone.{net.backbone.timm_names['pos_embed']}"]
    expected = timm.layers.resample_abs_pos_embed(whole.pos_embed, [4, 4])
    assert found.shape == (1, 17, 64)
    torch.testing.assert_close(found, expected)


def test_its_own_weights_come_back_to_the_bit(tmp_path: Path) -> None:
    net, other = network("test_efficientnet"), network("test_efficientnet")
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    load_into(other, Weights("a run", tmp_path / "model.safetensors", None), "timm:test_efficientnet")
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in net.state_dict().items())


def test_a_file_of_another_network_is_refused_with_what_differs(tmp_path: Path) -> None:
    save_file(theirs("test_resnet").state_dict(), tmp_path / "w.safetensors")
    net = network("test_efficientnet")
    with pytest.raises(UserError) as refused:
        load_into(net, Weights("w", tmp_path / "w.safetensors", None), "timm:test_efficientnet")
    first, *rest = str(refused.value).splitlines()
    assert first.endswith("w.safetensors does not fit test_efficientnet: 1 of 74 tensors match.")
    assert rest[-1] == "  Give a file of test_efficientnet's weights, or model.weights=imagenet or none."


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    state = theirs("test_resnet").state_dict()
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = torch.nan
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="infinite or no number"):
        load_into(network("test_resnet"), Weights("w", tmp_path / "w.safetensors", None), "timm:test_resnet")


@pytest.mark.realdata
def test_the_real_imagenet_weights_fit_and_answer_as_in_timm(real_weights: Path) -> None:
    path = real_weights.with_name("tf_efficientnet_lite0-imagenet.safetensors")
    name = "tf_efficientnet_lite0"
    net = Network(configured(name).model, 2, 224).eval()
    load_into(net, Weights("w", path, None), f"timm:{name}")
    model = timm.create_model(name, num_classes=1000)
    model.load_state_dict(load_file(path))
    images = torch.rand(1, 1, 224, 224)
    with torch.no_grad():
        x = (images - net.mean) / net.std
        expected = model.eval().forward_head(model.forward_features(x), pre_logits=True)
        assert torch.equal(net.backbone(x)[:, :, 0, 0], expected)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model=timm"], "none is named. Set model.name=resnet18, or write model=timm:resnet18."),
        (["model=timm:resnt18"], "has no such network. Did you mean resnet18?"),
        (["model=timm", "model.name=../x"], "has no such network."),
        (["model=timm:hf-hub:timm/resnet18"], "has no such network."),
        (["model=timm:resnet18.nothing"], "has no weights with the tag nothing. There are a1_in1k, "),
        (["model=timm:hrnet_w18_small"], "its layers are not a chain that can be cut into stages."),
        (["model=timm:poolformer_s12"], "timm names no stages of it. Take another network."),
        (["model=timm:test_vit", "dataset.image_size=100"], "Set dataset.image_size=96 or 112."),
        (["model=timm:test_resnet", "finetune=surgical", "finetune.stages=[block1]"], "there is no such stage."),
        (["model=timm:test_convnext", "evaluation.batchnorm=adapt"], "test_convnext has no BatchNorm."),
    ],
)
def test_what_timm_has_not_is_refused_in_one_line(words: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(words)
    assert len(refused.value.problems) == 1, refused.value.problems
    assert line in refused.value.problems[0]


@pytest.mark.slow
def test_a_network_whose_chain_is_not_timms_forward_pass_is_refused() -> None:
    with pytest.raises(UserError, match="selecsls42: its layers are not a chain"):
        network("selecsls42")


def test_weights_that_nobody_publishes_are_refused() -> None:
    unpublished = next(name for name in timm.list_models("resnet*") if not facts(name).repository)
    with pytest.raises(ConfigError, match=f"timm publishes no weights of {unpublished}. Set model.weights=none"):
        load([f"model=timm:{unpublished}", "model.weights=imagenet"])


# --- the model hub ----------------------------------------------------------------------------------------------------


def test_without_a_network_one_message_names_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    config = load(["model=timm:test_resnet", "model.weights=imagenet"]).model
    with pytest.raises(UserError) as refused:
        locate(config, None)
    lines = str(refused.value).splitlines()
    assert lines[0].startswith(
        "model.weights=imagenet: could not fetch model.safetensors of timm/test_resnet.r160_in1k ("
    )
    assert lines[2] == "  have the file already?     model.weights=/path/to/model.safetensors"
    assert len(lines) == 5


def test_the_hub_is_asked_for_safetensors_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    asked: list[tuple[object, ...]] = []

    def download(repository: str, name: str, **words: object) -> str:
        asked.append((repository, name, words))
        save_file(theirs("test_resnet").state_dict(), tmp_path / name)
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    config = load(["model=timm:test_resnet.r160_in1k", "model.weights=imagenet"]).model
    found = locate(config, "https://mirror.example")
    words = {"endpoint": "https://mirror.example", "token": False}
    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors", words)]
    assert found.source == "test_resnet.r160_in1k (timm/test_resnet.r160_in1k)"
    load_into(network("test_resnet"), found, "timm:test_resnet.r160_in1k")


def test_a_mirror_may_be_a_folder(tmp_path: Path) -> None:
    config = load(["model=timm:test_resnet", "model.weights=imagenet"]).model
    with pytest.raises(UserError, match=r"there is no .*timm/test_resnet.r160_in1k/model.safetensors"):
        locate(config, tmp_path.as_uri())
    path = tmp_path / "timm" / "test_resnet.r160_in1k" / "model.safetensors"
    path.parent.mkdir(parents=True)
    save_file(theirs("test_resnet").state_dict(), path)
    assert locate(config, tmp_path.as_uri()).path == path


def test_the_time_limit_of_a_download_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    import huggingface_hub

    seen: list[float | None] = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: seen.append(socket.getdefaulttimeout()))
    before = socket.getdefaulttimeout()
    with pytest.raises(UserError):
        locate(load(["model=timm:test_resnet", "model.weights=imagenet"]).model, None)
    assert seen == [weights_module.DOWNLOAD_TIMEOUT]
    assert socket.getdefaulttimeout() == before


# --- heat maps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "last", "cells"),
    [
        ("test_resnet", "layer4.layer4", (2, 2)),
        ("test_vit", "blocks4.blocks_4", (4, 4)),
        ("test_vit2", "blocks7.blocks_7", (4, 4)),
        pytest.param("swin_tiny_patch4_window7_224", "norm.norm", (2, 2), marks=pytest.mark.slow),
    ],
)
def test_the_layer_that_is_explained_is_the_last_whose_places_count(
    name: str, last: str, cells: tuple[int, int]
) -> None:
    net = network(name).eval()
    found = gradcam.layers(net, SIZE)
    assert list(found)[-1] == last
    assert found[last] == cells
    module = gradcam.module_of(net, last)
    maps = gradcam.heat_maps(net, module, torch.rand(2, 1, SIZE, SIZE), torch.tensor([0, 1]), net.backbone.as_map)
    assert maps.shape == (2, *cells)
    assert abs(maps).max() > 0


def test_a_map_of_another_form_is_grad_cams_of_the_same_layer() -> None:
    """Of a layer with a plain map, both ways to it must agree."""
    net = network("test_resnet").eval()
    module = gradcam.module_of(net, "layer3.layer3")
    images, classes = torch.rand(2, 1, SIZE, SIZE), torch.tensor([0, 1])
    ours = gradcam.heat_maps(net, module, images, classes, net.backbone.as_map)
    captums = gradcam.heat_maps(net, module, images, classes)
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(captums), atol=1e-6, rtol=1e-4)


def test_tokens_are_the_places_of_the_image_row_by_row() -> None:
    backbone = network("test_vit").backbone
    tokens = torch.arange(17.0)[None, :, None].expand(1, 17, 64)
    shown = backbone.as_map(tokens)
    assert shown is not None
    assert shown[0, 0].flatten().tolist() == list(range(1, 17))


# --- where it counts --------------------------------------------------------------------------------------------------


def test_the_library_is_part_of_a_run_and_torchvisions_runs_keep_their_names() -> None:
    from ddtl.training.identity import counting

    assert counting(configured("test_resnet"))["model.library"] == "timm"
    ours = counting(load(["model=resnet18"]))
    assert "model.library" not in ours


def test_the_outline_is_that_of_the_network() -> None:
    assert outline("test_resnet").stages == dict.fromkeys(FORMS["test_resnet"][:-1], True)
    assert not any(outline("test_vit").stages.values())


@pytest.mark.slow
def test_nothing_imports_timm_where_none_of_its_networks_is_named() -> None:
    code = (
        "import sys, ddtl; from ddtl.config.load import load; import ddtl.models.network, ddtl.models.weights;"
        "load(['model=resnet18']); from ddtl.commands import cli; cli.main(['train', '--help']);"
        "assert not {'timm', 'huggingface_hub'} & set(sys.modules), 'imported'"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


@pytest.mark.slow
def test_a_run_records_what_timm_states_and_the_card_names_the_licence(tmp_path: Path) -> None:
    save_file(theirs("test_vit").state_dict(), tmp_path / "w.safetensors")
    words = ("trainer=cpu", "trainer.max_epochs=1", "trainer.limit_batches=1", "evaluation.replicates=100")
    size = ("dataset.image_size=64", f"model.weights={tmp_path / 'w.safetensors'}")
    found = run(tmp_path, "model=timm:test_vit", *words, *size)
    assert found.folder.name.startswith("test_vit-")
    about = results_of.read(found.folder)["network"]
    assert about == {
        "library": f"timm {timm.__version__}",
        "name": "test_vit.r160_in1k",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "input_size": 160,
        "license": "apache-2.0",
    }
    card = model_card.render(stored.read(found.folder), [], [])
    assert "are published under apache-2.0, as timm" in card
    assert f"The network was test\\_vit of timm {timm.__version__}, with its own pooling" in card
    assert "normalised with mean (0.5, 0.5, 0.5) and standard deviation (0.5, 0.5, 0.5)" in card
    assert "blocks5" in (found.folder / "report.html").read_text(encoding="utf-8")
