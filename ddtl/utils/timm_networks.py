"""What timm's networks are made of: a chain of parts, grouped into stages (Wightman 2019, PyTorch Image Models).

Imported only where a network of timm is named: it brings torch. The stages are those of timm's own
``group_matcher(coarse=True)``. A network is used as a chain of its parts, so that a frozen beginning can be computed
once; :func:`check` compares the chain with timm's own forward pass, to the bit.
"""

from __future__ import annotations

import copy
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import timm
import torch
from timm.layers.norm_act import BatchNormAct2d
from timm.models import VisionTransformer
from torch import Tensor, nn

from ddtl.utils.attention import largest_rank
from ddtl.utils.errors import UserError
from ddtl.utils.reading import printable
from ddtl.utils.suggest import did_you_mean

_NAME = re.compile(r"[\w-]+(\.[\w-]+)?", re.ASCII)
# Children of timm's networks from which on the layers belong to pooling and classifier.
_AFTER = ("global_pool", "head", "head_drop", "fc_norm", "pre_logits")
_NO_CHAIN = "its layers are not a chain that can be cut into stages. Take another network"
_TAKEN = ("head", "backbone", "all")  # names with a meaning in schedules


@dataclass(frozen=True)
class Facts:
    """What timm states about a network and its published weights.

    Attributes:
        name: with the tag of the weights, as ``resnet18.a1_in1k``.
        mean, std: of each colour, with which images are normalised.
        size: side of the images that the weights were trained with, in pixels.
        is_fixed: whether the network is made for one size.
        repository: on the model hub; empty where no weights are published.
        license: of the weights, as timm states it; empty where it states none.
        classifiers: names of the layers that a new task replaces.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    is_fixed: bool
    repository: str
    license: str
    classifiers: tuple[str, ...]
    first: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Return a run's record of the network."""
        return {
            "library": f"timm {timm.__version__}",
            "name": self.name,
            "mean": list(self.mean),
            "std": list(self.std),
            "input_size": self.size,
            "license": self.license or None,
        }


@dataclass(frozen=True)
class Outline:
    """The stages of a network, by name, each with whether it contains BatchNorm; and the features behind them.

    ``rank`` is the largest that a low-rank update of its attention can have, 0 where it has none.
    """

    stages: dict[str, bool]
    features: int
    rank: int


def problem(name: str) -> str:
    """Why a name is none of timm's networks, as a sentence; empty where it is one."""
    if not name:
        return "timm has many networks, and none is named. Set model.name=resnet18, or write model=timm:resnet18."
    architecture, _, tag = name.partition(".")
    if not _NAME.fullmatch(name) or not timm.is_model(architecture):
        hint = did_you_mean(architecture, timm.list_models())
        return f"timm {timm.__version__} has no such network.{hint}"
    tags = [full.partition(".")[2] for full in timm.list_pretrained(architecture)]
    if tag and tag not in tags:
        there = f" There are {', '.join(tags)}." if tags else f" Leave it out: {architecture} has none."
        return f"timm {timm.__version__} has no weights with the tag {tag}.{did_you_mean(tag, tags)}{there}"
    return ""


@lru_cache(maxsize=64)
def facts(name: str) -> Facts:
    """Return what timm states about a network.

    Raises:
        UserError: there is none of this name.
    """
    _require(name)
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None:
        cfg = timm.models.PretrainedCfg()
    classifiers, first = cfg.classifier or (), cfg.first_conv or ()
    return Facts(
        name=f"{name.partition('.')[0]}.{cfg.tag}" if cfg.tag else name,
        mean=tuple(map(float, cfg.mean)),
        std=tuple(map(float, cfg.std)),
        size=int(cfg.input_size[-1]),
        is_fixed=bool(cfg.fixed_input_size),
        repository=cfg.hf_hub_id or "",
        license=cfg.license or "",
        classifiers=(classifiers,) if isinstance(classifiers, str) else tuple(classifiers),
        first=(first,) if isinstance(first, str) else tuple(first),
    )


def _require(name: str) -> None:
    if wrong := problem(name):
        raise UserError(f"model.name={printable(name)}: {wrong}")


@lru_cache(maxsize=64)
def outline(name: str) -> Outline:
    """Return the stages of a network; nothing is computed.

    Raises:
        UserError: there is none of this name, or its layers do not form a chain.
    """
    size = _trial_size(name)
    with torch.device("meta"):
        parts = Parts(name, size)
        features = parts.features(size)
    stages = {stage: any(map(_has_batchnorm, modules.values())) for stage, modules in parts.stages.items()}
    rank = min(filter(None, (largest_rank(part) for part in parts.modules())), default=0)
    return Outline(stages, features, rank)


def _trial_size(name: str) -> int:
    return facts(name).size if facts(name).is_fixed else max(64, min(facts(name).size, 224))


def _has_batchnorm(module: nn.Module) -> bool:
    return any(isinstance(inner, nn.BatchNorm2d) for inner in module.modules())


@lru_cache(maxsize=64)
def size_problem(name: str, size: int) -> str:
    """Why a network does not take images of a size, as a sentence; empty where it does. Nothing is computed."""
    try:
        with torch.device("meta"):
            Parts(name, size).features(size)
    except UserError as error:
        return str(error)
    return ""


class Parts:
    """A network of timm, taken apart.

    Attributes:
        model: as timm makes it, without a classifier.
        stages: for each stage its parts by name, in order. The last part hands the pooled features (N, C) on as a map
            (N, C, 1, 1), with the normalisation that timm has there.
        names: timm's name of each of the parts' parameters and buffers, by the tensor's id.
        prefix_tokens: of a network that works on tokens, how many of them stand for no place in the image.
        is_by_token: whether the features are those of such a token.
        is_channels_last: whether feature maps are (N, H, W, C).

    Raises:
        UserError: timm cannot make the network for images of this size, or its layers do not form a chain.
    """

    def __init__(self, name: str, size: int) -> None:
        _require(name)
        self.name, self.facts = name, facts(name)
        self.model = self._make_model(size)
        self.names = {id(value): key for key, value in self.model.state_dict(keep_vars=True).items()}
        self.prefix_tokens = int(getattr(self.model, "num_prefix_tokens", 0))
        self.is_by_token = getattr(self.model, "global_pool", "") == "token"
        self.is_channels_last = str(getattr(self.model, "output_fmt", "")) in ("NHWC", "Format.NHWC")
        model: Any = self.model
        self.undecayed = set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()
        self._check_patches(size)
        self.stages = self._stages()

    def _make_model(self, size: int) -> nn.Module:
        fixed: dict[str, Any] = {"img_size": size} if self.facts.is_fixed and size != self.facts.size else {}
        try:
            with _quiet():
                found = timm.create_model(self.name, pretrained=False, num_classes=0, **fixed)
        except Exception as error:  # of many networks' own code, which may raise anything
            at = f" for images of {size} × {size} pixels" if fixed else ""
            raise UserError(
                f"model.name={self.name}: timm cannot make it{at} ({_words(error)}). "
                + (f"Set dataset.image_size={self.facts.size}." if fixed else "Take another network.")
            ) from None
        if getattr(found, "drop_rate", 0):
            setattr(found, "drop_rate", 0.0)  # noqa: B010  dropout before timm's head; ours has model.head.dropout
        return found

    def _check_patches(self, size: int) -> None:
        """Refuse images of which the last rows and columns would fill no patch and be lost."""
        patch = getattr(getattr(self.model, "patch_embed", None), "patch_size", None)
        side = max(patch) if isinstance(patch, tuple) else patch
        if self.facts.is_fixed and isinstance(side, int) and size % side:
            raise UserError(
                f"model.name={self.name}: it cuts images into patches of {side} pixels, and {size} is not a multiple. "
                f"Set dataset.image_size={max(1, size // side) * side} or {(size // side + 1) * side}."
            )

    def _stages(self) -> dict[str, dict[str, nn.Module]]:
        groups = self._groups()
        stages: dict[str, dict[str, nn.Module]] = {}
        last: int | None = None
        waiting: dict[str, nn.Module] = {}  # before the first part that has parameters
        stage = ""
        for path, part, inner in self._chain(groups):
            found = [groups[name] for name in inner if name in groups]
            waiting[path.replace(".", "_")] = part
            if not found and not stage:
                continue
            if found and (not stage or found[0] != last):
                last, stage = found[0], self._stage_name(path, stages)
                stages[stage] = {}
            stages[stage] |= waiting
            waiting = {}
        pool = _Pool(self._rest(stages))
        if any(True for _ in pool.parameters()):
            stages[self._stage_name("pool", stages)] = {"pool": pool}
        else:
            stages[stage]["pool"] = pool
        return stages

    @staticmethod
    def _stage_name(path: str, stages: dict[str, Any]) -> str:
        """A name from a path: ``blocks.3`` becomes blocks3, ``features.denseblock1`` denseblock1."""
        if not stages:
            return "stem"
        *before, name = path.split(".")
        if name.isdecimal() and before:
            name = before[-1] + name
        while name in stages or name in _TAKEN:
            name += "_"
        return name

    def _groups(self) -> dict[str, int]:
        """The group of each parameter by its name, as timm orders them."""
        from timm.models._manipulate import group_with_matcher

        try:
            matcher = self.model.group_matcher(coarse=True)  # type: ignore[operator]
            found: dict[str, int] = group_with_matcher(self.model.named_parameters(), matcher, reverse=True)
        except (AttributeError, AssertionError, NotImplementedError, TypeError):
            raise UserError(f"model.name={self.name}: timm names no stages of it. Take another network.") from None
        return found

    def _chain(self, groups: dict[str, int]) -> Iterator[tuple[str, nn.Module, list[str]]]:
        """Each part with its path and the names of its parameters, from the image on."""
        children = dict(self.model.named_children())
        body = list(children)
        body = body[: min((body.index(name) for name in _AFTER if name in body), default=len(body))]
        if isinstance(self.model, VisionTransformer):
            tokens = [name for name in body if name not in ("blocks", "norm")]
            own = [name for name, _ in self.model.named_parameters(recurse=False)]
            inner = [name for name, _ in self.model.named_parameters() if name.split(".")[0] in (*tokens, *own)]
            yield "tokens", _Tokens(_stripped(self.model, tokens, own)), inner
            body = ["blocks", "norm"]
        for name in body:
            yield from self._flat(name, children[name], groups)

    def _flat(self, path: str, module: nn.Module, groups: dict[str, int]) -> Iterator[tuple[str, nn.Module, list[str]]]:
        """A part, or those of a row of parts that belong to several groups."""
        inner = [f"{path}.{name}" for name, _ in module.named_parameters()]
        if type(module) in (nn.Sequential, nn.ModuleList) and len({groups.get(name) for name in inner}) > 1:
            for name, child in module.named_children():
                yield from self._flat(f"{path}.{name}", child, groups)
        else:
            yield path, module, inner

    def _rest(self, stages: dict[str, dict[str, nn.Module]]) -> nn.Module:
        """The network without what the stages contain."""
        taken = {id(inner) for parts in stages.values() for part in parts.values() for inner in part.modules()}
        left = [
            name
            for name, child in self.model.named_children()
            if not ({id(inner) for inner in child.modules()} & taken)
        ]
        own = (
            [] if isinstance(self.model, VisionTransformer) else [n for n, _ in self.model.named_parameters("", False)]
        )
        return _stripped(self.model, left, own)

    def run(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) to features (N, C, 1, 1)."""
        for parts in self.stages.values():
            for part in parts.values():
                x = part(x)
        return x

    def features(self, size: int) -> int:
        """Return the number of features that an image of a size becomes.

        Raises:
            UserError: images of this size cannot pass, or what comes out is not a row of features for each image.
        """
        for part in self.modules():
            part.eval()
        device = next(part.device for module in self.modules() for part in module.parameters())
        try:
            with torch.no_grad():
                shape = self.run(torch.zeros(2, 3, size, size, device=device)).shape
        except Exception as error:  # of many networks' own code, which may raise anything
            if size == self.facts.size:
                raise UserError(f"model.name={self.name}: {_NO_CHAIN}.") from None
            raise UserError(
                f"model.name={self.name}: images of {size} × {size} pixels cannot pass through it "
                f"({_words(error)}). Set dataset.image_size={self.facts.size}, or take another network."
            ) from None
        if len(shape) != 4 or shape[0] != 2 or tuple(shape[2:]) != (1, 1):
            raise UserError(f"model.name={self.name}: it does not pool to a row of features. Take another network.")
        return int(shape[1])

    def modules(self) -> list[nn.Module]:
        """Return the parts of all stages, in order."""
        return [part for parts in self.stages.values() for part in parts.values()]

    def check(self, size: int) -> None:
        """Compare the chain with timm's own forward pass on an image; no random number is drawn.

        Raises:
            UserError: they differ.
        """
        self.features(size)
        self.model.eval()
        with torch.no_grad():
            x = torch.linspace(-2, 2, 3 * size * size).reshape(1, 3, size, size).sin()
            ours, theirs = self.run(x), self.model(x)
        self.model.train()
        for part in self.modules():
            part.train()
        if theirs.ndim != 2 or not torch.equal(ours[:, :, 0, 0], theirs):
            raise UserError(f"model.name={self.name}: {_NO_CHAIN}.")

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a file's tensors as this network has them: timm's own conversion of older names and other sizes.

        Raises:
            UserError: timm cannot convert it.
        """
        import sys

        convert: Callable[..., Any] | None = getattr(
            sys.modules[type(self.model).__module__], "checkpoint_filter_fn", None
        )
        if convert is None:
            return state
        try:
            with _quiet(), torch.no_grad():
                found: dict[str, Tensor] = convert(dict(state), self.model)
        except Exception as error:  # of many networks' own code, which may raise anything
            raise UserError(f"timm cannot read it for {self.name} ({_words(error)})") from None
        return found


def _stripped(model: nn.Module, children: Sequence[str], parameters: Sequence[str]) -> nn.Module:
    """A network with the same methods and tensors, and only some of its children and own parameters."""
    part = copy.copy(model)
    part._modules = {name: child for name, child in model._modules.items() if name in children}
    part._parameters = {name: value for name, value in model._parameters.items() if name in parameters}
    return part


class _Tokens(nn.Module):
    """Images (N, 3, H, W) to tokens (N, T, C): what timm's vision transformers do before their blocks."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        inner: Any = self.inner
        return inner.norm_pre(inner.patch_drop(inner._pos_embed(inner.patch_embed(x))))


class _Pool(nn.Module):
    """The last feature map, or tokens, to features (N, C, 1, 1): what timm does before the classifier."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        inner: Any = self.inner
        found: Tensor = inner.forward_head(x, pre_logits=True)
        return found[:, :, None, None]


def is_batchnorm_with_activation(module: nn.Module) -> bool:
    """Whether a layer is timm's BatchNorm that applies an activation as well."""
    return type(module) is BatchNormAct2d


def _words(error: Exception) -> str:
    return printable(" ".join(str(error).split()) or type(error).__name__)[:160]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without timm's remarks about names and sizes; the caller reports what they come to."""
    logger = logging.getLogger("timm")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
