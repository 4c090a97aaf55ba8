"""Initial weights: ImageNet's by torchvision's own address and hash, a file, or an earlier run."""

from __future__ import annotations

import hashlib
import logging
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddtl.config.schema import ModelConfig
from ddtl.errors import UserError
from ddtl.models.backbones import BACKBONES, BackboneSpec
from ddtl.models.network import Network

log = logging.getLogger(__name__)

DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer


@dataclass(frozen=True)
class Weights:
    """Where a model's initial weights are and what they are; ``path`` and ``digest`` are None for a random start."""

    source: str
    path: Path | None
    digest: str | None


def locate(config: ModelConfig, mirror: str | None) -> Weights:
    """Find the weights on this machine, fetching ImageNet's where they are not here yet.

    Raises:
        UserError: they cannot be had; the message names the ways on.
    """
    if config.weights == "none":
        return Weights("none", None, None)
    if config.weights == "imagenet":
        return _imagenet(config.name, mirror)
    path = Path(config.weights).expanduser()
    if path.is_dir():
        path = path / "model.safetensors"
    return Weights(path.name, path, _sha256(path))


def load_into(network: Network, weights: Weights, model: str) -> None:
    """Copy the weights into the network: the backbone always, the head where it is the same.

    Raises:
        UserError: the file cannot be read or does not fit; the network is unchanged.
    """
    if weights.path is None:
        return
    spec = BACKBONES[model]
    theirs = _our_names(_read(weights.path), spec)
    ours = network.state_dict()
    head_keys = {key for key in ours if key.startswith("head.")}
    head_fits = all(key in theirs and theirs[key].shape == ours[key].shape for key in head_keys)
    if not head_fits:
        theirs = {key: value for key, value in theirs.items() if not key.startswith("head.")}
    # Old files lack these counters, which play no part with the fixed momentum of these models.
    optional = {key for key in ours if key.endswith("num_batches_tracked") and key not in theirs}
    wanted = {key: value for key, value in ours.items() if key not in optional and (head_fits or key not in head_keys)}
    faults = {
        "missing": sorted(set(wanted) - set(theirs)),
        "unexpected": sorted(set(theirs) - set(wanted)),
        "of another shape": sorted(k for k in set(wanted) & set(theirs) if theirs[k].shape != wanted[k].shape),
    }
    if any(faults.values()):
        raise UserError(_misfit(weights.path, model, len(wanted), faults))
    network.load_state_dict({**ours, **theirs})
    log.info("weights: %s, %d tensors%s", weights.source, len(wanted), "" if head_fits else ", a new head")


def _imagenet(model: str, mirror: str | None) -> Weights:
    url = str(BACKBONES[model].weights.value.url)
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
            with _timeout(DOWNLOAD_TIMEOUT):
                torch.hub.download_url_to_file(url, str(path), hash_prefix=stamp[1])
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"model.weights=imagenet: could not fetch {url} ({error}).\n"
                "Ways on:\n"
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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; never runs code from it."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"model.weights={path}: cannot be read as a state dict ({reason}).") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, Mapping) else {}
    if not tensors:
        raise UserError(f"model.weights={path}: holds no tensors by name.")
    return tensors


# DenseNet files from before 2018 name these layers norm.1, conv.2, …
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")


def _our_names(state: Mapping[str, Tensor], spec: BackboneSpec) -> dict[str, Tensor]:
    """torchvision's, DataParallel's, torch.compile's and Lightning's names to ours; other classifiers are left out."""
    stage_of = {child: stage for stage, children in spec.stages.items() for child in children}
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        name = re.sub(r"^(?:module\.|_orig_mod\.|network\.)+", "", key)
        if old := _OLD_DENSENET.match(name):
            name = old[1] + old[2]
        if name.startswith("classifier."):
            continue
        if name.startswith("features."):
            child = name.split(".")[1]
            if child in stage_of:
                name = f"backbone.stages.{stage_of[child]}.{name.removeprefix('features.')}"
        renamed[name] = value
    return renamed


def _misfit(path: Path, model: str, wanted: int, faults: Mapping[str, list[str]]) -> str:
    matched = wanted - len(faults["missing"]) - len(faults["of another shape"])
    lines = [f"model.weights={path} does not fit {model}: {matched} of {wanted} tensors match."]
    for what, keys in faults.items():
        if keys:
            lines.append(f"  {len(keys)} {what}: {', '.join(keys[:3])}{', …' if len(keys) > 3 else ''}")
    unexpected = faults["unexpected"]
    for other, spec in BACKBONES.items():
        children = {f"features.{child}" for names in spec.stages.values() for child in names}
        if unexpected and all(".".join(key.split(".")[:2]) in children for key in unexpected):
            lines.append(f"  It looks like {other}'s: add model={other}.")
    return "\n".join(lines)
