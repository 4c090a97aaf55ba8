"""Backbones are torchvision's to the bit; weights load safely or say what is wrong."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from ddtl.config.load import load
from ddtl.errors import UserError
from ddtl.models import weights as weights_module
from ddtl.models.backbones import BACKBONES
from ddtl.models.network import Network
from ddtl.models.weights import Weights, load_into, locate

MODELS = {"densenet121": torchvision.models.densenet121, "squeezenet1_1": torchvision.models.squeezenet1_1}


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


both = pytest.mark.parametrize("state", list(MODELS), indirect=True)


@both
def test_features_equal_torchvisions_to_the_bit(state):
    model, values, path = state
    theirs = MODELS[model](weights=None)
    theirs.load_state_dict(values)
    theirs.eval()
    net = network(model).eval()
    locate_and_load(net, model, path)
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        x = (images - net.mean) / net.std
        expected = theirs.features(x)
        if model == "densenet121":
            expected = expected.relu()
        assert torch.equal(net.backbone(x), expected)
        assert torch.equal(net(images), net.head(expected))


@both
def test_a_wrapped_or_prefixed_state_dict_fits_too(state, tmp_path):
    model, values, path = state
    plain = network(model)
    locate_and_load(plain, model, path)
    for number, wrapped in enumerate(
        (
            {"state_dict": {f"module.{k}": v for k, v in values.items()}, "epoch": 3},
            {"model": {f"_orig_mod.{k}": v for k, v in values.items()}},
            {k: v for k, v in values.items() if not k.endswith("num_batches_tracked")},
        )
    ):
        other = tmp_path / f"{number}.pt"
        torch.save(wrapped, other)
        net = network(model)
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


@both
def test_a_misfit_names_keys_counts_and_the_right_model(state):
    model, _, path = state
    other = next(name for name in MODELS if name != model)
    net = network(other)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(UserError, match=rf"(?s)does not fit {other}: 0 of \d+ tensors match.*add model={model}"):
        locate_and_load(net, other, path)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_tensor_of_another_shape_is_named(tmp_path):
    values = torchvision.models.squeezenet1_1(weights=None).state_dict()
    values["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    save_file(values, tmp_path / "gray.safetensors")
    with pytest.raises(UserError, match=r"1 of another shape: backbone\.stages\.stem\.0\.weight"):
        locate_and_load(network("squeezenet1_1"), "squeezenet1_1", tmp_path / "gray.safetensors")


@pytest.mark.parametrize(
    ("name", "content"), [("a.pth", b"not a pickle"), ("a.safetensors", b"\xff" * 64), ("empty.pt", b"")]
)
def test_a_broken_file_is_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as a state dict"):
        locate_and_load(network("squeezenet1_1"), "squeezenet1_1", tmp_path / name)


class Trap:
    """An object whose unpickling would run code."""

    def __reduce__(self):
        return os.mkdir, (os.environ["DDTL_TRAP"],)


def test_a_file_never_runs_code(tmp_path, monkeypatch):
    monkeypatch.setenv("DDTL_TRAP", str(tmp_path / "sprung"))
    torch.save({"features.0.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(UserError, match="cannot be read"):
        locate_and_load(network("squeezenet1_1"), "squeezenet1_1", tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


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

    class Entry:
        value = type("Value", (), {"url": f"https://nowhere.invalid/{name}"})

    monkeypatch.setitem(BACKBONES, "squeezenet1_1", _with_weights(Entry))
    return name


def _with_weights(entry):
    from dataclasses import replace

    return replace(BACKBONES["squeezenet1_1"], weights=entry)


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
    with pytest.raises(UserError, match=r"(?s)could not fetch.*Ways on:.*weights_mirror.*model\.weights=none"):
        locate_and_load(network("squeezenet1_1"), "squeezenet1_1", "imagenet", address)
    assert [path for path in hub.glob("*") if path.is_file()] == []


def test_an_unreachable_server_is_no_silent_random_start(hub):
    with pytest.raises(
        UserError, match=r"(?s)could not fetch http://127\.0\.0\.1:9/densenet121-a639ec97\.pth.*Ways on"
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
