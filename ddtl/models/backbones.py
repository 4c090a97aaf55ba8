"""torchvision's backbones as ordered, named stages.

A stage is what a fine-tuning schedule freezes and thaws as one. The stages hold torchvision's own modules, in its
order, so that its published weights fit by a change of names alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torchvision
from torch import Tensor, nn
from torchvision.models import DenseNet121_Weights, SqueezeNet1_1_Weights
from torchvision.models._api import WeightsEnum


@dataclass(frozen=True)
class BackboneSpec:
    """How to cut one torchvision model into stages.

    Attributes:
        build: makes the torchvision model with random weights.
        weights: the entry of torchvision's weights table that ``model.weights=imagenet`` means.
        stages: for each stage, the children of the model's ``features`` that it holds, in order.
        features: channels of the last feature map.
        final_relu: whether the model applies a ReLU behind ``features`` (torchvision's DenseNet does, in place).
    """

    build: Callable[[], nn.Module]
    weights: WeightsEnum
    stages: dict[str, tuple[str, ...]]
    features: int
    final_relu: bool


BACKBONES: dict[str, BackboneSpec] = {
    "densenet121": BackboneSpec(
        build=lambda: torchvision.models.densenet121(weights=None),
        weights=DenseNet121_Weights.IMAGENET1K_V1,
        stages={
            "stem": ("conv0", "norm0", "relu0", "pool0"),
            "block1": ("denseblock1", "transition1"),
            "block2": ("denseblock2", "transition2"),
            "block3": ("denseblock3", "transition3"),
            "block4": ("denseblock4",),
            "norm": ("norm5",),
        },
        features=1024,
        final_relu=True,
    ),
    "squeezenet1_1": BackboneSpec(
        build=lambda: torchvision.models.squeezenet1_1(weights=None),
        weights=SqueezeNet1_1_Weights.IMAGENET1K_V1,
        stages={
            "stem": ("0", "1", "2"),
            "fire1": ("3", "4", "5"),
            "fire2": ("6", "7", "8"),
            "fire3": ("9", "10", "11", "12"),
        },
        features=512,
        final_relu=False,
    ),
}


class Backbone(nn.Module):
    """Images to a feature map, stage by stage.

    Args:
        spec: which model, and where to cut it.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        children = dict(spec.build().get_submodule("features").named_children())
        taken = [name for names in spec.stages.values() for name in names]
        assert taken == list(children), f"the stages must hold every child of features in order, not {taken}"
        self.features = spec.features
        self.stages = nn.ModuleDict()
        for stage, names in spec.stages.items():
            block = nn.Sequential()
            for name in names:
                block.add_module(name, children[name])
            self.stages[stage] = block
        if spec.final_relu:
            # Not in place: heat maps read the feature map through hooks.
            self.stages[list(spec.stages)[-1]].add_module("relu", nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, features, H', W')."""
        for stage in self.stages.values():
            x = stage(x)
        return x
