"""Few parameters of a backbone that train while the rest stays: ``parameters`` of a phase, in ``conf/finetune/``.

- ``biases``: Ben Zaken et al. 2022 (BitFit, ACL).
- ``norm_affine``: scale and shift of normalisation layers; Frankle et al. 2021 (ICLR), Lu et al. 2022 (AAAI).
- ``ssf``: a scale and a shift for each channel behind each convolution, linear layer and normalisation; Lian et al.
  2022 (Scaling and shifting your features, NeurIPS). They begin as 1 and 0, so that the network begins as the same
  function.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ddtl.utils.errors import UserError

SCALE, SHIFT = "ssf_scale", "ssf_shift"
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
    """Give the layers of a backbone a scale and a shift, in place; no random number is drawn."""
    for module in list(backbone.modules()):
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


def _name(module: nn.Module) -> str:
    return type(module).__name__


def chosen(stage: nn.Module, parameters: str) -> set[str]:
    """Return the names of a stage's parameters that train.

    Args:
        stage: of a network.
        parameters: ``all``, ``biases``, ``norm_affine`` or ``ssf``.
    """
    names = {name for name, _ in stage.named_parameters()}
    if parameters == "all":
        return names
    if parameters == "biases":
        return {name for name in names if name.rpartition(".")[2] == "bias"}
    if parameters == "ssf":
        return {name for name in names if name.rpartition(".")[2] in (SCALE, SHIFT)}
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
