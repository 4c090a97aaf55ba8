"""Backbones are torchvision's to the bit; weights load safely or say what is wrong."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from ddtl.config.load import load
from ddtl.finetuning.optimizer import parameter_groups
from ddtl.models import tensor_files, weights as weights_module
from ddtl.models.backbones import Backbone
from ddtl.models.network import HEAD, Network
from ddtl.models.weights import Weights, load_into, locate
from ddtl.schema.backbones import BACKBONES, stages_of
from ddtl.utils.errors import UserError

MODELS = {name: getattr(torchvision.models, name) for name in BACKBONES}
# Known from torchvision's documentation, less the layer for ImageNet's 1000 classes.
PARAMETERS = {
    "densenet121": 7978856 - 1025 * 1000,
    "densenet169": 14149480 - 1665 * 1000,
    "densenet201": 20013928 - 1921 * 1000,
    "resnet18": 11689512 - 513 * 1000,
    "resnet50": 25557032 - 2049 * 1000,
    "squeezenet1_1": 1235496 - 513 * 1000,
}


def network(model: str, *overrides: str) -> Network:
    return Network(load([f"model={model}", "model.weights=none", *overrides]).model, n_classes=2)


def locate_and_load(net: Network, model: str, source: object, mirror: str | None = None) -> Weights:
    config = load([f"model={model}", f"model.weights={source}"]).model
    weights = locate(config, mirror)
    load_into(net, weights, model)
    return weights


@pytest.fixture
def state(request, tmp_path) -> tuple[str, dict[str, torch.Tensor], Path]:
    """(model, torchvision's state dict of a random start, a file with it)."""
    model = request.param
    torch.manual_seed(1)
    values = MODELS[model](weights=None).state_dict()
    path = tmp_path / "weights.pth"
    torch.save(values, path)
    return model, values, path


each = pytest.mark.parametrize("state", list(MODELS), indirect=True)


def before_the_classifier(theirs: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What torchvision's own forward hands to its classifier, as pooled features (N, C)."""
    classifier = getattr(theirs, "fc" if hasattr(theirs, "fc") else "classifier")
    seen = []
    handle = classifier.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    theirs(x)
    handle.remove()
    return seen[0].mean(dim=(2, 3)) if seen[0].ndim == 4 else seen[0]


@each
def test_features_equal_torchvisions(state):
    model, values, path = state
    theirs = MODELS[model](weights=None)
    theirs.load_state_dict(values)
    theirs.eval()
    net = network(model).eval()
    locate_and_load(net, model, path)
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        x = (images - net.mean) / net.std
        expected = before_the_classifier(theirs, x)
        found = net.backbone(x)
        assert found.shape[1] == BACKBONES[model].features
        torch.testing.assert_close(found.mean(dim=(2, 3)), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(net(images), net.head.layers(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model", list(MODELS))
def test_stages_are_whole_and_ordered(model):
    with torch.device("meta"):
        net = Backbone(BACKBONES[model])
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[model]
    assert list(net.stages) == list(BACKBONES[model].stages)
    assert (*net.stages, HEAD) == stages_of(model)
    assert next(iter(net.stages)) == "stem"
    normalised = {
        name
        for name, stage in net.stages.items()
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in stage.modules())
    }
    assert normalised == (set(net.stages) if BACKBONES[model].has_batchnorm else set())


@pytest.mark.parametrize("model", list(MODELS))
def test_no_later_layer_changes_a_stages_output(model):
    net = network(model).backbone.eval()
    seen = []
    for stage in net.stages.values():
        stage.register_forward_hook(lambda _, __, out: seen.append((out, out.clone())))
    with torch.no_grad():
        net(torch.randn(1, 3, 64, 64))
    assert len(seen) == len(net.stages)
    assert all(torch.equal(now, then) for now, then in seen)


@pytest.mark.parametrize("state", ["resnet18", "squeezenet1_1"], indirect=True)
def test_a_wrapped_or_prefixed_state_dict_fits_too(state, tmp_path):
    model, values, path = state
    plain, net = network(model), network(model)
    locate_and_load(plain, model, path)
    for number, wrapped in enumerate(
        (
            {"state_dict": {f"module.{k}": v for k, v in values.items()}, "epoch": 3},
            {"model": {f"_orig_mod.{k}": v for k, v in values.items()}},
            {"state_dict": {f"network.{k}": v for k, v in plain.state_dict().items()}},
            {k: v for k, v in values.items() if not k.endswith("num_batches_tracked")},
        )
    ):
        other = tmp_path / f"{number}.pt"
        torch.save(wrapped, other)
        for value in net.state_dict().values():
            value.zero_()
        locate_and_load(net, model, other)
        assert all(
            torch.equal(net.state_dict()[k], v) for k, v in plain.backbone.state_dict(prefix="backbone.").items()
        )


def test_the_names_of_old_densenet_files_fit(tmp_path):
    values = torchvision.models.densenet121(weights=None).state_dict()
    old = {k.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): v for k, v in values.items()}
    assert set(old) != set(values)
    torch.save(old, tmp_path / "old.pth")
    net = network("densenet121")
    locate_and_load(net, "densenet121", tmp_path / "old.pth")
    key = "block1.denseblock1.denselayer1.norm1.weight"
    assert torch.equal(net.backbone.stages.state_dict()[key], values["features.denseblock1.denselayer1.norm1.weight"])


# Each beside the one that it is most easily taken for.
MISTAKEN = {
    "densenet121": "densenet201",
    "densenet169": "densenet121",
    "densenet201": "densenet169",
    "resnet18": "resnet50",
    "resnet50": "resnet18",
    "squeezenet1_1": "densenet121",
}


@each
def test_a_misfit_names_keys_counts_and_the_right_model(state):
    model, _, path = state
    other = MISTAKEN[model]
    net = network(other)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    wanted = rf"(?s)does not fit {other}: \d+ of \d+ tensors match.*It would fit with model={model}\.$"
    with pytest.raises(UserError, match=wanted):
        locate_and_load(net, other, path)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_an_earlier_runs_file_names_its_model_and_its_channels(tmp_path):
    save_file(network("resnet18", "model.grayscale=sum").state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"It would fit with model=resnet18 model\.grayscale=sum\.$"):
        locate_and_load(network("densenet121"), "densenet121", tmp_path)


def test_a_tensor_of_another_shape_is_named(tmp_path):
    values = torchvision.models.squeezenet1_1(weights=None).state_dict()
    values["features.0.weight"] = torch.zeros(64, 4, 3, 3)
    save_file(values, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"1 of another shape: backbone\.stages\.stem\.0\.weight\n"):
        locate_and_load(network("squeezenet1_1"), "squeezenet1_1", tmp_path / "other.safetensors")


# --- gray as three colours, or once ----------------------------------------------------------------------------------


def gray_pair(model: str) -> tuple[Network, Network]:
    """The same random start with ``replicate`` and with ``sum``."""
    pair = []
    for grayscale in ("replicate", "sum"):
        torch.manual_seed(3)
        pair.append(network(model, f"model.grayscale={grayscale}").eval())
    return pair[0], pair[1]


def first_maps(net: Network, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return net.backbone.get_submodule(net.backbone.first)((images - net.mean) / net.std)


@pytest.mark.parametrize("model", list(MODELS))
def test_a_sum_starts_as_the_same_function(model):
    replicate, summed = gray_pair(model)
    first = summed.backbone.get_submodule(summed.backbone.first)
    assert first.weight.shape[1] == first.in_channels == 1
    assert torch.equal(replicate.head.layers[-1].weight, summed.head.layers[-1].weight)  # no random number more
    images = torch.rand(2, 1, 64, 64)
    a, b = first_maps(replicate, images), first_maps(summed, images)
    edge = 2  # outputs that see the padding: (7 // 2) / stride 2, rounded up
    torch.testing.assert_close(b[:, :, edge:-edge, edge:-edge], a[:, :, edge:-edge, edge:-edge], atol=1e-4, rtol=1e-4)
    if first.padding == (0, 0):
        torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-4)
    else:
        assert not torch.allclose(b, a, atol=1e-3)
        assert (b - a).norm() < 0.1 * a.norm()


def test_a_gray_net_s_new_bias_is_not_decayed_and_trains():
    net = network("resnet18", "model.grayscale=sum")
    bias = net.backbone.get_submodule(net.backbone.first).bias
    groups = {group["name"]: group for group in parameter_groups(net, 0.01)}
    assert any(p is bias for p in groups["stem/no_decay"]["params"])
    net.eval()(torch.rand(2, 1, 32, 32)).sum().backward()
    assert float(bias.grad.abs().sum()) > 0
    net.freeze(stages=["stem"], fixed_statistics=["stem"])
    assert not bias.requires_grad


@pytest.mark.parametrize("state", ["densenet121", "resnet18", "squeezenet1_1"], indirect=True)
def test_a_colour_file_folds_into_a_gray_net(state):
    model, _, path = state
    replicate, summed = gray_pair(model)
    locate_and_load(replicate, model, path)
    locate_and_load(summed, model, path)
    images = torch.rand(1, 1, 64, 64)
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    torch.testing.assert_close(
        first_maps(summed, images)[inner], first_maps(replicate, images)[inner], atol=1e-4, rtol=1e-4
    )
    ours, theirs = summed.state_dict(), replicate.state_dict()
    first = f"backbone.{summed.backbone.first}"
    same = [k for k in theirs if k.startswith("backbone.") and not k.startswith(first)]
    assert same
    assert all(torch.equal(ours[k], theirs[k]) for k in same)


@pytest.mark.parametrize("model", ["resnet18", "squeezenet1_1"])
def test_a_gray_run_s_file_fits_a_gray_net_alone(tmp_path, model):
    torch.manual_seed(4)
    earlier = network(model, "model.grayscale=sum")
    save_file(earlier.state_dict(), tmp_path / "model.safetensors")
    net = network(model, "model.grayscale=sum")
    locate_and_load(net, model, tmp_path)
    assert all(torch.equal(v, earlier.state_dict()[k]) for k, v in net.state_dict().items())
    with pytest.raises(UserError, match=r"It would fit with model\.grayscale=sum\.$"):
        locate_and_load(network(model), model, tmp_path)


# --- files that are no weights ---------------------------------------------------------------------------------------


def saved(values: object, path: Path, zipped: bool = True) -> bytes:
    torch.save(values, path, _use_new_zipfile_serialization=zipped)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("text.pth", b"these are my weights\n", "a text file"),
        ("page.safetensors", b"<!DOCTYPE html>\n<html>", "a text file"),
        ("noise.safetensors", b"\xff" * 64, "cannot be read as a state dict"),
        ("noise.pth", b"\xff" * 64, "cannot be read as a state dict"),
        ("empty.pt", b"", "the file is empty"),
        ("empty.safetensors", b"", "the file is empty"),
    ],
)
def test_a_file_that_is_no_weights_is_one_line(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"^model\.weights=.*{name}: .*{said}.*Fetch it again") as raised:
        locate_and_load(network("squeezenet1_1"), "squeezenet1_1", tmp_path / name)
    assert "\n" not in str(raised.value)
    assert "weights_only" not in str(raised.value)


@pytest.mark.parametrize("kind", ["new.pth", "old.pth", "file.safetensors"])
@pytest.mark.parametrize("share", [0.0001, 0.5, 0.9999])
def test_a_download_cut_short_says_so(tmp_path, kind, share):
    path = tmp_path / kind
    values = {f"features.{i}.weight": torch.randn(64, 64) for i in range(8)}
    if kind == "file.safetensors":
        save_file(values, path)
        whole = path.read_bytes()
    else:
        whole = saved(values, path, zipped=kind == "new.pth")
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"cut short.*Fetch it again") as raised:
        locate_and_load(network("squeezenet1_1"), "squeezenet1_1", path)
    assert "\n" not in str(raised.value)


class Trap:
    """An object whose unpickling would run code."""

    def __reduce__(self):
        return os.mkdir, (os.environ["DDTL_TRAP"],)


@pytest.mark.parametrize("how", ["new", "old", "plain pickle"])
def test_a_file_never_runs_code(tmp_path, monkeypatch, how):
    monkeypatch.setenv("DDTL_TRAP", str(tmp_path / "sprung"))
    path = tmp_path / "trap.pth"
    if how == "plain pickle":
        path.write_bytes(pickle.dumps({"features.0.weight": Trap()}))
    else:
        saved({"features.0.weight": Trap()}, path, zipped=how == "new")
    with pytest.raises(
        UserError, match=r"can run code.*was not loaded.*torch\.save\(model\.state_dict\(\), FILE\)"
    ) as e:
        locate_and_load(network("squeezenet1_1"), "squeezenet1_1", path)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "sprung").exists()


def test_a_whole_pickled_model_is_told_to_save_its_state_dict(tmp_path):
    saved(torchvision.models.squeezenet1_1(weights=None), tmp_path / "model.pth")
    with pytest.raises(
        UserError, match=r"it requests torchvision\.models\.squeezenet\.SqueezeNet\).*state_dict\(\), FILE"
    ):
        locate_and_load(network("squeezenet1_1"), "squeezenet1_1", tmp_path / "model.pth")


def test_a_bad_file_ends_the_command_with_exit_code_2(tmp_path, monkeypatch, capsys):
    from ddtl.commands.launch import guarded
    from ddtl.utils import console

    monkeypatch.setenv("DDTL_TRAP", str(tmp_path / "sprung"))
    saved(Trap(), tmp_path / "trap.pth")

    def main(_: list[str]) -> int:
        locate_and_load(network("squeezenet1_1"), "squeezenet1_1", tmp_path / "trap.pth")
        return 0

    with console.err.capture() as said:
        assert guarded(main, []) == 2
    assert said.get().startswith("error: model.weights=")
    assert not (tmp_path / "sprung").exists()


def test_what_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    config = load(["model=squeezenet1_1", "model.weights=none"]).model.model_copy(update={"weights": str(tmp_path)})
    with pytest.raises(UserError, match=r"model\.weights=.*model\.safetensors: is a folder"):
        locate(config, None)


def test_an_earlier_runs_weights_bring_their_head_where_it_is_the_same(tmp_path):
    torch.manual_seed(5)
    earlier = network("squeezenet1_1")
    save_file(earlier.state_dict(), tmp_path / "model.safetensors")
    net = network("squeezenet1_1")
    locate_and_load(net, "squeezenet1_1", tmp_path)
    assert all(torch.equal(v, earlier.state_dict()[k]) for k, v in net.state_dict().items())
    deeper = network("squeezenet1_1", "model.head.hidden=[16]")
    locate_and_load(deeper, "squeezenet1_1", tmp_path)
    assert torch.equal(
        deeper.state_dict()["backbone.stages.stem.0.weight"], net.state_dict()["backbone.stages.stem.0.weight"]
    )


def test_the_head_is_as_configured():
    net = network("squeezenet1_1", "model.head.hidden=[32, 8]", "model.head.dropout=0.5")
    shapes = [tuple(layer.weight.shape) for layer in net.head.layers if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(32, 512), (8, 32), (2, 8)]
    assert [layer.p for layer in net.head.layers if isinstance(layer, torch.nn.Dropout)] == [0.5, 0.5]


# --- ImageNet's weights, from a server on this machine ---------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty cache for downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def served(tmp_path) -> Iterator[tuple[Path, str]]:
    """A folder and the address that serves it."""
    folder = tmp_path / "served"
    folder.mkdir()
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def publish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put weights on the server under a name that holds their hash, as torchvision's do."""
    torch.manual_seed(2)
    plain = folder / "plain.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), plain)
    stamp = hashlib.sha256(plain.read_bytes()).hexdigest()[:8]
    name = f"squeezenet1_1-{stamp}.pth"
    plain.rename(folder / name)
    monkeypatch.setattr(weights_module, "imagenet_url", lambda spec: f"https://nowhere.invalid/{name}")
    return name


def test_imagenet_weights_come_from_a_mirror_once(hub, served, monkeypatch):
    folder, address = served
    name = publish(folder, monkeypatch)
    first = locate_and_load(network("squeezenet1_1"), "squeezenet1_1", "imagenet", address)
    (folder / name).unlink()
    again = locate_and_load(network("squeezenet1_1"), "squeezenet1_1", "imagenet", address)
    assert first == again
    assert first.path == hub / name
    assert first.digest == hashlib.sha256((hub / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("fault", ["404", "wrong bytes", "cut short"])
def test_a_bad_answer_leaves_nothing_and_names_the_ways_on(hub, served, monkeypatch, fault):
    folder, address = served
    name = publish(folder, monkeypatch)
    content = (folder / name).read_bytes()
    if fault == "404":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(b"x" * len(content) if fault == "wrong bytes" else content[:-1000])
    with pytest.raises(UserError, match=r"(?s)could not fetch.*What to do:.*weights_mirror.*model\.weights=none"):
        locate_and_load(network("squeezenet1_1"), "squeezenet1_1", "imagenet", address)
    assert [path for path in hub.glob("*") if path.is_file()] == []


@pytest.mark.parametrize("mirror", ["garbage", "http://[", "http://a:b"])
def test_a_mirror_that_is_no_address_names_the_ways_on(hub, mirror):
    with pytest.raises(UserError, match=r"(?s)could not fetch.*What to do:.*DDTL_WEIGHTS_MIRROR"):
        locate_and_load(network("squeezenet1_1"), "squeezenet1_1", "imagenet", mirror)


def test_an_unreachable_server_is_no_silent_random_start(hub):
    with pytest.raises(
        UserError, match=r"(?s)could not fetch http://127\.0\.0\.1:9/densenet121-a639ec97\.pth.*What to do"
    ):
        locate_and_load(network("densenet121"), "densenet121", "imagenet", "http://127.0.0.1:9")


def test_a_damaged_cached_file_is_named(hub, served, monkeypatch):
    folder, address = served
    name = publish(folder, monkeypatch)
    hub.mkdir(parents=True)
    (hub / name).write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"is damaged\. Delete it"):
        locate_and_load(network("squeezenet1_1"), "squeezenet1_1", "imagenet", address)


def test_a_server_that_hangs_is_given_up(hub, monkeypatch):
    import socket

    monkeypatch.setattr(weights_module, "DOWNLOAD_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match="could not fetch"):
            locate_and_load(network("squeezenet1_1"), "squeezenet1_1", "imagenet", address)


@pytest.mark.realdata
def test_the_real_imagenet_weights_of_squeezenet_fit(real_weights):
    net = network("squeezenet1_1")
    weights = locate_and_load(net, "squeezenet1_1", real_weights)
    assert weights.digest is not None
    # Trained filters of the first layer: far from a random start's, and not zero.
    assert 0.1 < float(net.state_dict()["backbone.stages.stem.0.weight"].std()) < 0.3


@pytest.mark.realdata
def test_real_weights_give_the_same_answer_on_real_images_either_way(real_weights, real_data):
    files = sorted((real_data / "covid19ct").glob("*/*"))[::90]
    images = torch.stack([torch.from_numpy(np.array(Image.open(f).convert("L").resize((96, 96)))) for f in files])
    images = images[:, None].float() / 255
    replicate, summed = gray_pair("squeezenet1_1")
    for net in (replicate, summed):
        locate_and_load(net, "squeezenet1_1", real_weights)
    with torch.no_grad():
        torch.testing.assert_close(summed(images), replicate(images), atol=1e-3, rtol=1e-4)


def test_an_archive_with_two_tables_of_contents_is_refused(tmp_path: Path) -> None:
    """Python reads the table before the end of a file, torch the one that the end points to."""
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(3)}, path)
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    begin = int.from_bytes(data[end + 16 : end + 20], "little")
    assert tensor_files.load(path, 1 << 30)["a"].tolist() == [0, 0, 0]
    twice = data[:begin] + data[begin:end] + data[begin:end] + data[end:]
    for changed in (twice, data + b"x", b"x" + data):
        path.write_bytes(changed)
        with pytest.raises(Exception, match=r"is damaged|[Uu]npickl|invalid|magic|cannot"):
            tensor_files.load(path, 1 << 30)
