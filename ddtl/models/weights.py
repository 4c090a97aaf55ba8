"""Initial weights: those that torchvision or timm publishes, a file, or an earlier run.

Those of torchvision are fetched from its own address and compared with its hash; those of timm through
``huggingface_hub``, as safetensors alone.
"""

from __future__ import annotations

import http.client
import logging
import pickle
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import torch
from torch import Tensor

from ddtl.data.download.download import credentials_sent
from ddtl.models import adapters, file_encoder, tensor_files
from ddtl.models.backbones import Backbone, imagenet_url
from ddtl.models.grayscale import folded
from ddtl.models.network import Network
from ddtl.records import small
from ddtl.schema.backbones import TIMM, BackboneSpec, backbones, spec_of
from ddtl.schema.run import ModelConfig
from ddtl.utils import reading
from ddtl.utils.errors import UserError
from ddtl.utils.reading import printable

if TYPE_CHECKING:
    from ddtl.utils.timm_networks import Facts

log = logging.getLogger(__name__)

T = TypeVar("T")

DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer
_LARGEST = 2 * reading.GIB  # bytes of a file of weights; the largest of these models with its optimiser has a fifth
_MOST_TENSORS = 20_000  # in a file; a DenseNet201 has 1,206
_LONGEST_NAME = 1024  # of a tensor
_HUB_FILE = "model.safetensors"  # in the repository of a network of timm


@dataclass(frozen=True)
class Weights:
    """Where a model's initial weights are and what they are; ``path`` and ``digest`` are None for a random start."""

    source: str
    path: Path | None
    digest: str | None


def locate(config: ModelConfig, mirror: str | None) -> Weights:
    """Find the weights on this machine, fetching ImageNet's where they are not here yet.

    Raises:
        UserError: they cannot be had; the message names what to do.
    """
    if config.library == "file" and config.weights in ("none", "imagenet"):  # which datasets set
        assert config.file is not None, "checked with the configuration"
        path = Path(config.file).expanduser()
        try:
            return Weights(path.name, None, reading.sha256(path, file_encoder.LARGEST))
        except (OSError, reading.Unreadable) as error:
            raise UserError(f"model.file={path}: cannot be read ({getattr(error, 'reason', error)}).") from error
    if config.weights == "none":
        return Weights("none", None, None)
    if config.weights == "imagenet":
        spec = spec_of(config.key)
        return _imagenet(spec, mirror) if spec.timm is None else _of_timm(spec.timm, mirror)
    path = Path(config.weights).expanduser()
    if path.is_dir():
        path = path / "model.safetensors"
    return Weights(path.name, path, _sha256(path))


def load_into(network: Network, weights: Weights, model: str) -> None:
    """Copy the weights into the network: the backbone always, the head where it is the same.

    Raises:
        UserError: the file cannot be read or does not fit, and what to do; the network is unchanged.
    """
    if weights.path is None:
        return
    spec, file = spec_of(model), _read(weights.path)
    ours = network.state_dict()
    shapes = {key: value.shape for key, value in ours.items()}
    # Nothing is computed with the file's tensors before it is known that they are the network's.
    file = adapters.merged_state(_by_our_names(network.backbone, spec, file, weights.path), ours)
    found = _shapes_for(network.backbone, file)
    head_keys = {key for key in ours if key.startswith("head.")}
    head_fits = all(found.get(key) == shapes[key] for key in head_keys)
    if not head_fits:
        found = _without_head(found)
    wanted = _wanted(shapes if head_fits else _without_head(shapes), found)
    faults = _faults(wanted, found)
    if any(faults.values()):
        hint = _what_would_fit(_read(weights.path), model, network.backbone.grayscale)
        raise UserError(_misfit(weights.path, model.removeprefix(TIMM), len(wanted), faults, hint))
    _check_values(weights.path, ours, file)
    theirs = _for(network.backbone, file)
    network.load_state_dict({**ours, **(theirs if head_fits else _without_head(theirs))})
    log.info("weights: %s, %d tensors%s", weights.source, len(wanted), "" if head_fits else ", a new head")


def require_encoder(network: Network, folder: Path) -> None:
    """Refuse a run whose encoder is another file than the one that it was trained with.

    Raises:
        UserError: it is.
    """
    encoder = network.backbone
    if not isinstance(encoder, file_encoder.FileEncoder):
        return
    trained = str((small.identity(folder) or {}).get("model.file", "")).removeprefix("sha256:")
    if trained and trained != encoder.digest:
        raise UserError(
            f"model.file={encoder.path}: its SHA-256 is {encoder.digest[:12]}…, and that of the file that the run was "
            f"trained with {printable(trained)[:12]}…. Put that one there."
        )


def _check_values(path: Path, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    for key in sorted(set(ours) & set(theirs)):
        if tensor_files.differing_kind(ours[key], theirs[key]):
            kind = str(theirs[key].dtype).removeprefix("torch.")
            raise UserError(f"model.weights={path}: {key} has values of the type {kind}. Give a file of the weights.")
        if not tensor_files.is_finite(theirs[key].to(ours[key].dtype)):
            raise UserError(
                f"model.weights={path}: {key} contains values that are infinite or no number, of which a network has "
                "no use. Give another file; the training that wrote this one had diverged."
            )


def _of_timm(network: Facts, mirror: str | None) -> Weights:
    """The weights of a network of timm, from the model hub or a mirror of it."""
    repository = network.repository
    try:
        if mirror and mirror.startswith("file://"):
            path = Path(url2pathname(urlsplit(mirror).path)) / repository / _HUB_FILE
            if not path.is_file():
                raise FileNotFoundError(f"there is no {path}")
        else:
            path = _from_hub(repository, mirror)
    except Exception as error:  # huggingface_hub raises those of the libraries that it uses
        reason = printable(" ".join(str(error).split()) or type(error).__name__)[:300]
        raise UserError(
            f"model.weights=imagenet: could not fetch {_HUB_FILE} of {repository} ({reason}).\n"
            "What to do:\n"
            "  have the file already?     model.weights=/path/to/model.safetensors\n"
            "  a mirror inside your net?  paths.weights_mirror=https://… or the variable DDTL_WEIGHTS_MIRROR\n"
            "  start from random weights? model.weights=none"
        ) from error
    return Weights(f"{network.name} ({repository})", path, _sha256(path))


def _from_hub(repository: str, mirror: str | None) -> Path:
    import huggingface_hub

    log.info("fetching %s of %s", _HUB_FILE, repository)
    with _timeout(DOWNLOAD_TIMEOUT):
        return Path(huggingface_hub.hf_hub_download(repository, _HUB_FILE, endpoint=mirror, token=False))


def _imagenet(spec: BackboneSpec, mirror: str | None) -> Weights:
    url = imagenet_url(spec)
    name = url.rpartition("/")[2]
    if mirror:
        url = f"{mirror.rstrip('/')}/{name}"
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    stamp = re.search(r"-([0-9a-f]{8,})\.", name)
    assert stamp is not None, f"torchvision names its files by their hash, but not {name}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        log.info("fetching %s", url)
        try:
            with _timeout(DOWNLOAD_TIMEOUT), credentials_sent():
                torch.hub.download_url_to_file(url, str(path), hash_prefix=stamp[1])
        except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
            raise UserError(
                f"model.weights=imagenet: could not fetch {url} ({error}).\n"
                "What to do:\n"
                f"  have the file already?     model.weights=/path/to/{name}, or copy it to {path}\n"
                "  a mirror inside your net?  paths.weights_mirror=https://… or the variable DDTL_WEIGHTS_MIRROR\n"
                "  start from random weights? model.weights=none"
            ) from error
    digest = _sha256(path)
    if not digest.startswith(stamp[1]):
        raise UserError(f"model.weights=imagenet: {path} is damaged. Delete it, and it is fetched again.")
    return Weights(f"imagenet ({name})", path, digest)


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _sha256(path: Path) -> str:
    try:
        return reading.sha256(path, _LARGEST)
    except reading.Unreadable as error:
        raise UserError(f"model.weights={path}: {error.reason}. Give a file of weights, or a run's folder.") from None
    except OSError as error:
        raise UserError(f"model.weights={path}: cannot be read ({error.strerror or error}).") from error


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, each plain numbers; never runs code from it."""
    try:
        state: Any = tensor_files.load(path, _LARGEST)
    except tensor_files.Compressed:
        raise UserError(
            f"model.weights={path}: its parts are compressed, which torch.save never does, so it was not loaded. "
            "If it is an archive with the weights in it, unpack it and give the file inside; else fetch it again."
        ) from None
    except reading.Unreadable as error:
        raise UserError(f"model.weights={path}: {error.reason}. Fetch it again.") from None
    except Exception as error:
        raise UserError(f"model.weights={path}: {_why_unreadable(path, error)}") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    items = state.items() if isinstance(state, Mapping) else ()
    tensors = {key: value for key, value in items if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"model.weights={path}: contains no tensors by name. Give the file of a model's state dict.")
    if len(tensors) > _MOST_TENSORS or max(map(len, tensors)) > _LONGEST_NAME:
        raise UserError(
            f"model.weights={path}: contains more tensors, or longer names, than any model. Give the file of a model's "
            "state dict."
        )
    for key, tensor in tensors.items():
        if reason := tensor_files.odd(tensor):
            raise UserError(
                f"model.weights={path}: {reading.printable(key)} {reason}. Give a file of plain weights, as "
                "torch.save(model.state_dict(), FILE) writes them."
            )
    return tensors


# How torch says that a pickle requests a class or function that is not on its short list.
_ASKS_FOR = re.compile(r"unsupported global:? (?:GLOBAL )?([\w.]+)", re.IGNORECASE)


def _why_unreadable(path: Path, error: Exception) -> str:
    """What is wrong with a file that could not be loaded, and what to do."""
    reason = " ".join(str(error).split())
    start = _start(path)
    if not start:
        return "the file is empty. Fetch it again."
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        return "a text file (a web page or a Git LFS pointer, saved in place of the weights?). Fetch it again."
    requested = _ASKS_FOR.search(reason)
    another_pickle = isinstance(error, pickle.UnpicklingError) and start.startswith(b"\x80")
    if requested or another_pickle or "TorchScript" in reason:
        what = f" (it requests {requested[1]})" if requested else ""
        return (
            f"no plain state dict{what}. Loading such a file can run code that it brings, so it was not loaded. "
            "Where its source can be trusted, load it there and write its weights alone: "
            "torch.save(model.state_dict(), FILE)."
        )
    return "cannot be read as a state dict: damaged, cut short or no weights at all. Fetch it again."


def _start(path: Path) -> bytes:
    with reading.opened(path, _LARGEST) as file:
        return file.read(512)


# DenseNet files from before 2018 name these layers norm.1, conv.2, …
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")
# What wrappers put before the names of a network's layers.
_PREFIXES = re.compile(r"^(?:module\.|_orig_mod\.|network\.)+")
# What torchvision's models call the layers that a new task replaces.
_CLASSIFIERS = ("classifier.", "fc.")


def _by_our_names(backbone: Backbone, spec: BackboneSpec, state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """A file's tensors by our names, whichever library wrote it."""
    if spec.timm is None:
        return _our_names(state, spec)
    from ddtl.models.timm_backbone import TimmBackbone

    assert isinstance(backbone, TimmBackbone)
    bare = {_PREFIXES.sub("", key): value for key, value in state.items()}
    if any(key.startswith("backbone.stages.") for key in bare):  # of ddtl
        return bare
    try:
        found = backbone.converted(bare)
    except UserError as error:
        raise UserError(f"model.weights={path}: {error}. Give a file of {spec.name}'s weights.") from None
    return {f"backbone.{key}": value for key, value in found.items()}


def _for(backbone: Backbone, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by our names, the first layer's colours added up where the backbone takes gray."""
    theirs = dict(state)
    key = f"backbone.{backbone.first}"
    weight = theirs.get(f"{key}.weight")
    if weight is not None and _is_to_fold(backbone, weight.shape):
        theirs[f"{key}.weight"], theirs[f"{key}.bias"] = folded(
            weight, theirs.get(f"{key}.bias"), backbone.mean, backbone.std
        )
    return theirs


def _shapes_for(backbone: Backbone, state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """The shapes of what :func:`_for` makes."""
    shapes = {key: value.shape for key, value in state.items()}
    key = f"backbone.{backbone.first}"
    weight = shapes.get(f"{key}.weight")
    if weight is not None and _is_to_fold(backbone, weight):
        bias = shapes.get(f"{key}.bias", weight[:1])
        shapes[f"{key}.weight"], shapes[f"{key}.bias"] = torch.Size((weight[0], 1, *weight[2:])), bias
    return shapes


def _is_to_fold(backbone: Backbone, weight: torch.Size) -> bool:
    return backbone.grayscale == "sum" and len(weight) == 4 and weight[1] == 3


def _our_names(state: Mapping[str, Tensor], spec: BackboneSpec) -> dict[str, Tensor]:
    """torchvision's, DataParallel's, torch.compile's and Lightning's names to ours; other classifiers are excluded."""
    stage_of = {child: stage for stage, children in spec.stages.items() for child in children}
    trunk = f"{spec.trunk}." if spec.trunk else ""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        name = _PREFIXES.sub("", key)
        if old := _OLD_DENSENET.match(name):
            name = old[1] + old[2]
        if name.startswith(_CLASSIFIERS):
            continue
        inner = name.removeprefix(trunk)
        stage = stage_of.get(inner.split(".")[0])
        renamed[f"backbone.stages.{stage}.{inner}" if stage and name.startswith(trunk) else name] = value
    return renamed


def _without_head(state: Mapping[str, T]) -> dict[str, T]:
    return {key: value for key, value in state.items() if not key.startswith("head.")}


def _wanted(ours: Mapping[str, torch.Size], theirs: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    """What a file must hold.

    Old ones lack counters, which play no part with the fixed momentum of these models; and adapters begin as the same
    function where the file has none.
    """
    optional = ("num_batches_tracked", adapters.SCALE, adapters.SHIFT, adapters.DOWN, adapters.UP, adapters.FACTOR)
    return {key: value for key, value in ours.items() if key in theirs or not key.endswith(optional)}


def _faults(wanted: Mapping[str, torch.Size], theirs: Mapping[str, torch.Size]) -> dict[str, list[str]]:
    return {
        "missing": sorted(set(wanted) - set(theirs)),
        "unexpected": sorted(set(theirs) - set(wanted)),
        "of another shape": sorted(k for k in set(wanted) & set(theirs) if theirs[k] != wanted[k]),
    }


def _what_would_fit(state: Mapping[str, Tensor], model: str, grayscale: str) -> str | None:
    """The settings with which the file fits, as they are typed; None if there are none."""
    for other, spec in backbones().items():
        for gray in (grayscale, "sum"):
            with torch.device("meta"):
                backbone = Backbone(spec, gray)
            theirs = _without_head(_shapes_for(backbone, _our_names(state, spec)))
            ours = {key: value.shape for key, value in backbone.state_dict(prefix="backbone.").items()}
            wanted = _wanted(ours, theirs)
            if not any(_faults(wanted, theirs).values()):
                change = {"model": (model, other), "model.grayscale": (grayscale, gray)}
                return " ".join(f"{key}={new}" for key, (old, new) in change.items() if new != old)
    return None


def _misfit(path: Path, model: str, wanted: int, faults: Mapping[str, list[str]], hint: str | None) -> str:
    matched = wanted - len(faults["missing"]) - len(faults["of another shape"])
    lines = [f"model.weights={path} does not fit {model}: {matched} of {wanted} tensors match."]
    for what, keys in faults.items():
        if keys:
            lines.append(
                f"  {len(keys)} {what}: {', '.join(map(reading.printable, keys[:3]))}{', …' if len(keys) > 3 else ''}"
            )
    fix = (
        f"It would fit with {hint}" if hint else f"Give a file of {model}'s weights, or model.weights=imagenet or none"
    )
    lines.append(f"  {fix}.")
    return "\n".join(lines)
