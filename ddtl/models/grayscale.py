"""Grayscale images before filters that were trained on colours: ``model.grayscale``.

``replicate`` shows the gray image as all three colours, each normalised as ImageNet's. ``sum`` shows it once, and adds
the first layer's three weights up, a third of that layer's arithmetic. Both start as the same function: with one gray
normalisation x' = (x - m) / s, colour c of ``replicate`` is (s x' + m - m_c) / s_c, so the sum takes the weights
s / s_c W_c, and its bias contains what is left, sum over c of (m - m_c) / s_c W_c.

Only where a filter reaches over the edge of the image do the two differ, because the bias counts the padding too (a
first layer without padding, as SqueezeNet's, has no such place). And they train differently: where three weights had
moved together, one moves alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

GRAY_MEAN = sum(IMAGENET_MEAN) / 3  # near each colour's own, so that what padding counts for is small
GRAY_STD = sum(IMAGENET_STD) / 3


def normalisation(
    grayscale: str, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, (1, C, 1, 1) each; a gray image normalised with them has C channels.

    Args:
        grayscale: ``replicate`` or ``sum``.
        mean, std: of each colour, that the weights were trained with.
    """
    if grayscale == "sum":
        mean, std = (sum(mean) / 3,), (sum(std) / 3,)
    return torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)


def folded(
    weight: Tensor,
    bias: Tensor | None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> tuple[Tensor, Tensor]:
    """The weights of a first layer for ``sum``: (O, 3, k, k) to (O, 1, k, k), and its bias (O,)."""
    colours = weight.double()
    gray_mean, gray_std = sum(mean) / 3, sum(std) / 3
    means, stds = (torch.tensor(x, dtype=colours.dtype, device=weight.device).view(1, 3, 1, 1) for x in (mean, std))
    summed = (colours * (gray_std / stds)).sum(dim=1, keepdim=True)
    offset = (colours * ((gray_mean - means) / stds)).sum(dim=(1, 2, 3))
    if bias is not None:
        offset = offset + bias.double()
    return summed.to(weight.dtype), offset.to(weight.dtype)


def take_one_channel(
    layer: nn.Conv2d, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> None:
    """Change a first layer in place from ``replicate`` to ``sum``; draws no random numbers."""
    weight, bias = folded(layer.weight.detach(), None if layer.bias is None else layer.bias.detach(), mean, std)
    layer.in_channels = 1
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
