"""A backbone of torchvision as ordered, named stages.

The stages contain torchvision's own modules, in its order, so that its published weights fit by a change of names
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision import models

from ddtl.models.grayscale import IMAGENET_MEAN, IMAGENET_STD, take_one_channel
from ddtl.schema.backbones import BackboneSpec


def imagenet_url(spec: BackboneSpec) -> str:
    """Where torchvision publishes the weights that ``model.weights=imagenet`` means."""
    return str(models.get_model_weights(spec.name)[spec.weights].url)


class Backbone(nn.Module):
    """Images to a feature map, stage by stage.

    Args:
        spec: which model, and where to cut it.
        grayscale: ``replicate`` takes three channels, ``sum`` one; see :mod:`ddtl.models.grayscale`.
    """

    mean: Sequence[float] = IMAGENET_MEAN  # of the images that the weights were trained with, as std
    std: Sequence[float] = IMAGENET_STD
    about: dict[str, Any] | None = None  # a run's record of a network that torchvision does not have
    has_plain_maps = True  # whether each part hands on a map (N, C, H, W)
    undecayed: frozenset[str] = frozenset()  # names of parameters that weight decay leaves alone

    def __init__(self, spec: BackboneSpec, grayscale: str = "replicate") -> None:
        super().__init__()
        model = models.get_model(spec.name, weights=None) if spec.build is None else spec.build(weights=None)
        trunk = model.get_submodule(spec.trunk)
        children = {name: child for name, child in trunk.named_children() if name not in spec.excluded}
        taken = [name for names in spec.stages.values() for name in names]
        assert taken == list(children), f"the stages must contain every child of the trunk in order, not {taken}"
        self.features = spec.features
        self.grayscale = grayscale
        self.stages = nn.ModuleDict()
        for stage, names in spec.stages.items():
            block = nn.Sequential()
            for name in names:
                block.add_module(name, children[name])
            self.stages[stage] = block
        if spec.final_relu:
            # Not in place: heat maps read the feature map through hooks.
            self.stages[list(spec.stages)[-1]].add_module("relu", nn.ReLU())
        # The name of the layer that receives the image.
        self.first = next(name for name, module in self.named_modules() if isinstance(module, nn.Conv2d))
        if grayscale == "sum":
            first = self.get_submodule(self.first)
            assert isinstance(first, nn.Conv2d)
            take_one_channel(first)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W), with ``grayscale=sum`` (N, 1, H, W), to (N, features, H', W')."""
        for stage in self.stages.values():
            x = stage(x)
        return x

    def as_map(self, x: Tensor) -> Tensor | None:
        """What a part of a stage hands on as a feature map (N, C, H, W)."""
        return x

    def explained(self) -> list[str]:
        """The parts whose maps can be explained, from the image on, by names such as ``block3.denseblock3``."""
        return [f"{stage}.{name}" for stage, parts in self.stages.items() for name, _ in parts.named_children()]
