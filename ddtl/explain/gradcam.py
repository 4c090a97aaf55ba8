"""Grad-CAM (Selvaraju et al. 2017, ICCV), by captum: which cells of a feature map speak for a class.

A map is the sum over channels of the mean gradient of the score times the activation; what is below zero, and speaks
against the class, is cut off where it is shown. The score is the log odds of the class, what the network's decision
rests on: a logit alone means nothing, because softmax lets all logits move together. captum keeps the layer's output
apart from what runs behind it, so that a ReLU in place there, as torchvision's DenseNet has it, does not change the
map; ``tests/explain/test_gradcam.py`` checks that.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ddtl.models.network import Network
from ddtl.utils.errors import UserError

# A map coarser than the 7 × 7 cells that the last layer has at 224 pixels points at no place.
MIN_CELLS = 7


def require() -> None:
    """See that captum is there.

    Raises:
        UserError: it is not.
    """
    try:
        import captum.attr  # noqa: F401
    except ImportError as error:
        raise UserError(f"ddtl explain needs captum ({error}): pip install 'ddtl[explain]'") from None


def log_odds(logits: Tensor) -> Tensor:
    """log(p / (1 - p)) of each class; (N, K) to (N, K), at least two classes."""
    own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    others = logits[:, None, :].masked_fill(own, -torch.inf).logsumexp(dim=2)
    return logits - others


def heat_maps(
    network: nn.Module,
    layer: nn.Module,
    images: Tensor,
    classes: Tensor,
    as_map: Callable[[Tensor], Tensor | None] | None = None,
) -> np.ndarray:
    """Return a signed map for each image, float32 (N, h, w): above 0 where it speaks for the class.

    Args:
        network: images to logits (N, K), in evaluation mode.
        layer: of the network; its output is (N, C, h, w).
        images: what the network takes, (N, …).
        classes: (N,) whose log odds are explained.
        as_map: the layer's output as a map (N, C, h, w), where it is of another form, as tokens are.
    """
    from captum.attr import LayerGradCam

    if as_map is not None:
        return _maps_of_other_forms(network, layer, images, classes, as_map)
    assert not network.training, "dropout and BatchNorm of batches are not part of what is explained"
    found = LayerGradCam(lambda x: log_odds(network(x)), layer).attribute(images, classes)
    maps: np.ndarray = found.detach().float().cpu().numpy()[:, 0]
    return maps


def _maps_of_other_forms(
    network: nn.Module, layer: nn.Module, images: Tensor, classes: Tensor, as_map: Callable[[Tensor], Tensor | None]
) -> np.ndarray:
    """Grad-CAM of a layer whose output is not (N, C, h, w): the same sum, over the map that the output stands for."""
    assert not network.training
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Tensor) -> Tensor:
        seen.append(output if output.requires_grad else output.detach().requires_grad_())
        return seen[0].clone()  # layers behind may change it in place

    handle = layer.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            score = log_odds(network(images)).gather(1, classes[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, seen[0])
    finally:
        handle.remove()
    activations, gradients = as_map(seen[0].detach()), as_map(gradient)
    assert activations is not None
    assert gradients is not None
    maps: np.ndarray = (gradients.mean(dim=(2, 3), keepdim=True) * activations).sum(dim=1).float().cpu().numpy()
    return maps


def layers(network: Network, size: int) -> dict[str, tuple[int, int]]:
    """Return the cells (h, w) of every layer that may be explained, from the image to the head; ``size`` in pixels.

    These are the parts of the stages, by names such as ``block3.denseblock3``.

    Raises:
        UserError: none has places in the image.
    """
    found: dict[str, tuple[int, int]] = {}
    explained = set(network.backbone.explained())
    with torch.no_grad():
        x = network.embed(torch.zeros(1, 1, size, size, device=network.mean.device), 0)
        for stage, parts in network.backbone.stages.items():
            for name, part in parts.named_children():
                x = part(x)
                shown = network.backbone.as_map(x) if f"{stage}.{name}" in explained else None
                if shown is not None:
                    found[f"{stage}.{name}"] = (shown.shape[2], shown.shape[3])
    if not found:
        raise UserError("this network has no feature map whose places could be explained: there is no heat map of it.")
    return found


def chosen_layer(cells: dict[str, tuple[int, int]], requested: str) -> str:
    """Return the layer that is requested; for ``auto`` the last one, however few cells it has.

    Earlier layers have finer maps that point to other places: at 64 pixels DenseNet's hit lesions of the phantom less
    often than a random place does. A stage's name stands for its last part.

    Raises:
        UserError: there is no such layer.
    """
    if requested == "auto":
        return list(cells)[-1]
    last = {name.partition(".")[0]: name for name in cells}
    if requested in cells or requested in last:
        return last.get(requested, requested)
    shown = ", ".join(f"{name} ({h} × {w})" for name, (h, w) in cells.items())
    raise UserError(
        f"layer={requested}: the network has no such layer. There are, with the cells of their maps: {shown}."
    )


def module_of(network: Network, layer: str) -> nn.Module:
    """Return the module of a name in :func:`layers`."""
    return network.backbone.stages.get_submodule(layer)
