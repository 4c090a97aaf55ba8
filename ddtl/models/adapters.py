"""Few parameters of a backbone that train while the rest stays: ``parameters`` of a phase, in ``conf/finetune/``.

- ``biases``: Ben Zaken et al. 2022 (BitFit, ACL).
- ``norm_affine``: scale and shift of normalisation layers; Frankle et al. 2021 (ICLR), Lu et al. 2022 (AAAI).
- ``ssf``: a scale and a shift for each channel behind each convolution, linear layer and normalisation; Lian et al.
  2022 (Scaling and shifting your features, NeurIPS). They begin as 1 and 0, so that the network begins as the same
  function.
- ``lora``: a product of two thin matrices, added to each weight of the linear layers of attention; Hu et al. 2022
  (LoRA, ICLR). One of them begins as 0, so that here, too, the network begins as the same function.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddtl.config.phases import lora_problem
from ddtl.utils import attention
from ddtl.utils.errors import UserError

M = TypeVar("M", bound=nn.Module)

SCALE, SHIFT = "ssf_scale", "ssf_shift"
DOWN, UP, FACTOR = "lora_a", "lora_b", "lora_scale"
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


class _Scaled:
    """Put before a layer's class: its output, scaled and shifted by channel."""

    ssf_scale: Tensor
    ssf_shift: Tensor
    ssf_by_maps = False

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = super().forward(x)  # type: ignore[misc]
        shape = (-1, 1, 1) if self.ssf_by_maps else (-1,)
        return found * self.ssf_scale.view(shape) + self.ssf_shift.view(shape)


@cache
def _scaled(kind: type[nn.Module]) -> type[nn.Module]:
    return type(kind.__name__, (_Scaled, kind), {})


def add_ssf(backbone: nn.Module) -> None:
    """Give the layers of a backbone a scale and a shift, in place; no random number is drawn.

    Swin v2's attention takes the weight of its ``qkv`` and does not call the layer, which gets none: they would have no
    effect and no gradient.
    """
    skipped = {block.qkv for block in backbone.modules() if getattr(block, "q_bias", None) is not None}
    for module in list(backbone.modules()):
        if module in skipped:
            continue
        if isinstance(module, nn.Conv2d):
            channels, by_maps = module.out_channels, True
        elif isinstance(module, nn.Linear):
            channels, by_maps = module.out_features, False
        elif isinstance(module, _NORMS) and module.weight is not None:
            channels, by_maps = module.weight.numel(), not isinstance(module, nn.LayerNorm) or "2d" in _name(module)
        else:
            continue
        module.register_parameter(SCALE, nn.Parameter(torch.ones(channels)))
        module.register_parameter(SHIFT, nn.Parameter(torch.zeros(channels)))
        layer: Any = module
        kind: Any = type(module)
        layer.__class__ = _scaled(kind)
        layer.ssf_by_maps = by_maps


class _LowRank:
    """Put before the class of a linear layer: W x + b becomes W x + b + (alpha / rank) B A x.

    ``weight`` is the sum, for blocks that take the layer's weight instead of calling it (Swin v2, BEiT, EVA).
    """

    lora_a: Tensor  # A, (rank, inputs)
    lora_b: Tensor  # B, (outputs, rank)
    lora_scale: Tensor  # alpha / rank; a buffer, so that a file of weights alone is the whole function
    bias: Tensor | None
    _parameters: dict[str, Tensor]

    @property
    def weight(self) -> Tensor:
        return self._parameters["weight"] + self.lora_scale * (self.lora_b @ self.lora_a)

    def forward(self, x: Tensor) -> Tensor:
        update = F.linear(F.linear(x, self.lora_a), self.lora_b)
        return F.linear(x, self._parameters["weight"], self.bias) + self.lora_scale * update


@cache
def _low_rank(kind: type[nn.Module]) -> type[nn.Module]:
    return type(kind.__name__, (_LowRank, kind), {"lora_of": kind})


def add_lora(backbone: nn.Module, rank: int, alpha: float, name: str) -> None:
    """Give the linear layers of a backbone's attention a low-rank update each, in place; before :func:`add_ssf`.

    A is drawn as the weight of a linear layer is (Kaiming, uniform); B is 0.

    Args:
        backbone: whose layers these are.
        rank: of the updates.
        alpha: they are scaled by ``alpha / rank``.
        name: of the network, for the message.

    Raises:
        UserError: it has no such layers, or one of them has fewer inputs or outputs than ``rank``.
    """
    if problem := lora_problem(rank, attention.largest_rank(backbone), name):
        raise UserError(problem)
    for layer in attention.linear_layers(backbone).values():
        lora: Any = layer
        down = torch.empty(rank, layer.in_features)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        lora.register_parameter(DOWN, nn.Parameter(down))
        lora.register_parameter(UP, nn.Parameter(torch.zeros(layer.out_features, rank)))
        lora.register_buffer(FACTOR, torch.tensor(alpha / rank))
        kind: Any = type(layer)
        lora.__class__ = _low_rank(kind)


def merged(network: M) -> M:
    """Return a copy of a network with its low-rank updates as part of the weights; without any, the network itself."""
    if not any(isinstance(module, _LowRank) for module in network.modules()):
        return network
    found = copy.deepcopy(network)
    for module in found.modules():
        if isinstance(module, _LowRank):
            layer: Any = module
            plain, weight = layer.lora_of, layer._parameters["weight"]
            with torch.no_grad():
                weight.copy_(_sum(weight, layer.lora_a, layer.lora_b, layer.lora_scale))
            for name in (DOWN, UP, FACTOR):
                delattr(layer, name)
            layer.__class__ = _scaled(plain) if isinstance(module, _Scaled) else plain
    return found


def merged_state(state: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of a file with its low-rank updates as part of the weights, where a network has no such updates.

    Updates of the same rank and scale as the network's are the same function in it and stay.

    Args:
        state: of the file, by our names; what does not fit together is left as it is.
        network: the tensors that the network has.
    """
    layers = [key.removesuffix(DOWN) for key in state if key.endswith(f".{DOWN}")]
    if all(_is_same(state, network, layer) for layer in layers):
        return dict(state)
    found = dict(state)
    for layer in layers:
        parts = [part for name in ("weight", DOWN, UP, FACTOR) if (part := state.get(layer + name)) is not None]
        if [part.ndim for part in parts] != [2, 2, 2, 0] or not all(part.is_floating_point() for part in parts):
            continue
        weight, *update = parts
        (outputs, inputs), rank = weight.shape, len(update[0])
        if [part.shape for part in update[:2]] == [(rank, inputs), (outputs, rank)]:
            found[f"{layer}weight"] = _sum(weight, *update)
            for name in (DOWN, UP, FACTOR):
                del found[layer + name]
    return found


def _is_same(state: Mapping[str, Tensor], network: Mapping[str, Tensor], layer: str) -> bool:
    down, factor = layer + DOWN, layer + FACTOR
    return (
        down in network
        and network[down].shape == state[down].shape
        and factor in state
        and torch.equal(network[factor].cpu(), state[factor])
    )


def _sum(weight: Tensor, down: Tensor, up: Tensor, factor: Tensor) -> Tensor:
    return (weight.double() + factor.double() * (up.double() @ down.double())).to(weight.dtype)


def _name(module: nn.Module) -> str:
    return type(module).__name__


def chosen(stage: nn.Module, parameters: str) -> set[str]:
    """Return the names of a stage's parameters that train.

    Args:
        stage: of a network.
        parameters: ``all``, ``biases``, ``norm_affine``, ``ssf`` or ``lora``.
    """
    names = {name for name, _ in stage.named_parameters()}
    if parameters == "all":
        return names
    if parameters == "biases":
        return {name for name in names if name.rpartition(".")[2] == "bias"}
    if parameters == "ssf":
        return {name for name in names if name.rpartition(".")[2] in (SCALE, SHIFT)}
    if parameters == "lora":
        return {name for name in names if name.rpartition(".")[2] in (DOWN, UP)}
    norms = [f"{path}." if path else "" for path, module in stage.named_modules() if isinstance(module, _NORMS)]
    return {f"{path}{name}" for path in norms for name in ("weight", "bias")} & names


def require(stages: Iterable[nn.Module], parameters: str, name: str) -> None:
    """Refuse a phase in which nothing of the backbone would train.

    Args:
        stages: of the backbone that the phase trains; none is fine.
        parameters: as of :func:`chosen`.
        name: of the phase.

    Raises:
        UserError: none of the stages has such parameters.
    """
    trained = list(stages)
    if trained and not any(chosen(stage, parameters) for stage in trained):
        raise UserError(
            f"finetune.phases: phase {name}: the stages that it trains have no parameters of the kind {parameters}. "
            "Take another schedule, such as finetune=ssf, or another model."
        )
