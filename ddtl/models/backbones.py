"""torchvision's backbones as ordered, named stages.

A stage is what a fine-tuning schedule freezes and thaws as one. The stages hold torchvision's own modules, in its
order, so that its published weights fit by a change of names alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from ddtl.models.grayscale import take_one_channel


@dataclass(frozen=True)
class BackboneSpec:
    """How to cut one torchvision model into stages.

    Attributes:
        build: makes the torchvision model; called with ``weights=None``, its weights are random.
        weights: the entry of torchvision's weights table that ``model.weights=imagenet`` means.
        stages: for each stage, the children of the trunk that it holds, in order.
        features: channels of the last feature map.
        trunk: the child of the model that holds the layers; empty where the model itself does.
        left_out: children of the trunk behind the last feature map.
        final_relu: whether the model applies a ReLU behind the trunk (torchvision's DenseNet does, in place).
    """

    build: Callable[..., nn.Module]
    weights: WeightsEnum
    stages: dict[str, tuple[str, ...]]
    features: int
    trunk: str = "features"
    left_out: tuple[str, ...] = ()
    final_relu: bool = False


def _densenet(build: Callable[..., nn.Module], weights: WeightsEnum, features: int) -> BackboneSpec:
    stages = {
        "stem": ("conv0", "norm0", "relu0", "pool0"),
        "block1": ("denseblock1", "transition1"),
        "block2": ("denseblock2", "transition2"),
        "block3": ("denseblock3", "transition3"),
        "block4": ("denseblock4",),
        "norm": ("norm5",),
    }
    return BackboneSpec(build, weights, stages, features, final_relu=True)


def _resnet(build: Callable[..., nn.Module], weights: WeightsEnum, features: int) -> BackboneSpec:
    stages = {"stem": ("conv1", "bn1", "relu", "maxpool"), **{f"layer{i}": (f"layer{i}",) for i in range(1, 5)}}
    return BackboneSpec(build, weights, stages, features, trunk="", left_out=("avgpool", "fc"))


# Each with torchvision's first ImageNet weights, those that papers compare with.
BACKBONES: dict[str, BackboneSpec] = {
    "densenet121": _densenet(models.densenet121, models.DenseNet121_Weights.IMAGENET1K_V1, 1024),
    "densenet169": _densenet(models.densenet169, models.DenseNet169_Weights.IMAGENET1K_V1, 1664),
    "densenet201": _densenet(models.densenet201, models.DenseNet201_Weights.IMAGENET1K_V1, 1920),
    "resnet18": _resnet(models.resnet18, models.ResNet18_Weights.IMAGENET1K_V1, 512),
    "resnet50": _resnet(models.resnet50, models.ResNet50_Weights.IMAGENET1K_V1, 2048),
    "squeezenet1_1": BackboneSpec(
        build=models.squeezenet1_1,
        weights=models.SqueezeNet1_1_Weights.IMAGENET1K_V1,
        stages={
            "stem": ("0", "1", "2"),
            "fire1": ("3", "4", "5"),
            "fire2": ("6", "7", "8"),
            "fire3": ("9", "10", "11", "12"),
        },
        features=512,
    ),
}


class Backbone(nn.Module):
    """Images to a feature map, stage by stage.

    Args:
        spec: which model, and where to cut it.
        grayscale: ``replicate`` takes three channels, ``sum`` one; see :mod:`ddtl.models.grayscale`.
    """

    def __init__(self, spec: BackboneSpec, grayscale: str = "replicate") -> None:
        super().__init__()
        trunk = spec.build(weights=None).get_submodule(spec.trunk)
        children = {name: child for name, child in trunk.named_children() if name not in spec.left_out}
        taken = [name for names in spec.stages.values() for name in names]
        assert taken == list(children), f"the stages must hold every child of the trunk in order, not {taken}"
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
        # The name of the layer that meets the image.
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
