"""The networks that ddtl trains, and where each is cut into stages. No torch.

A new one gets its entry in ``BACKBONES``: ``model=NAME`` then takes it, with the settings of
``conf/model/densenet121.yaml``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ddtl.utils import plugins
from ddtl.utils.errors import UserError

HEAD = "head"  # the stage after the backbone's


@dataclass(frozen=True)
class BackboneSpec:
    """How to cut a model of torchvision into stages.

    A stage is what a fine-tuning schedule freezes and unfreezes as one.

    Attributes:
        name: of the model in torchvision.
        about: a line for the help page.
        stages: for each stage, the children of the trunk that it contains, in order.
        features: channels of the last feature map.
        trunk: the child of the model that contains the layers; empty where the model itself does.
        excluded: children of the trunk behind the last feature map.
        final_relu: whether the model applies a ReLU behind the trunk (torchvision's DenseNet does, in place).
        has_batchnorm: whether each stage contains BatchNorm.
        weights: torchvision's name of the weights that ``model.weights=imagenet`` means: its first ones, with which
            papers compare.
        build: makes the model, with random weights where it is called with ``weights=None``; None for torchvision's
            own function of that name.
    """

    name: str
    about: str
    stages: dict[str, tuple[str, ...]]
    features: int
    trunk: str = "features"
    excluded: tuple[str, ...] = ()
    final_relu: bool = False
    has_batchnorm: bool = True
    weights: str = "IMAGENET1K_V1"
    build: Callable[..., Any] | None = None


def backbones() -> dict[str, BackboneSpec]:
    """All networks by name: ``BACKBONES``, and those of plugins."""
    return {**BACKBONES, **plugins.added("backbone", BACKBONES)}


def spec_of(name: str) -> BackboneSpec:
    """The network of a name.

    Raises:
        UserError: there is none here; the plugin that has it is not loaded.
    """
    found = backbones().get(name)
    if found is None:
        raise UserError(
            f"model.name={name}: no such model here. Where a plugin has it, name that: {plugins.VARIABLE}=MODULE."
        )
    return found


def stages_of(name: str) -> tuple[str, ...]:
    """The stages of a backbone from the input on, and the head as the last."""
    return (*spec_of(name).stages, HEAD)


def _densenet(name: str, features: int, about: str) -> BackboneSpec:
    stages = {
        "stem": ("conv0", "norm0", "relu0", "pool0"),
        "block1": ("denseblock1", "transition1"),
        "block2": ("denseblock2", "transition2"),
        "block3": ("denseblock3", "transition3"),
        "block4": ("denseblock4",),
        "norm": ("norm5",),
    }
    return BackboneSpec(name, about, stages, features, final_relu=True)


def _resnet(name: str, features: int, about: str) -> BackboneSpec:
    stages = {"stem": ("conv1", "bn1", "relu", "maxpool"), **{f"layer{i}": (f"layer{i}",) for i in range(1, 5)}}
    return BackboneSpec(name, about, stages, features, trunk="", excluded=("avgpool", "fc"))


BACKBONES: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        _densenet("densenet121", 1024, "DenseNet121 (Huang et al. 2017): stem, 4 dense blocks; 7.0 M parameters."),
        _densenet("densenet169", 1664, "DenseNet169 (Huang et al. 2017): stem, 4 dense blocks; 12.5 M parameters."),
        _densenet("densenet201", 1920, "DenseNet201 (Huang et al. 2017): stem, 4 dense blocks; 18.1 M parameters."),
        _resnet("resnet18", 512, "ResNet18 (He et al. 2016): stem, 4 layers of residual blocks; 11.2 M parameters."),
        _resnet("resnet50", 2048, "ResNet50 (He et al. 2016): stem, 4 layers of bottlenecks; 23.5 M parameters."),
        BackboneSpec(
            name="squeezenet1_1",
            about="SqueezeNet 1.1 (Iandola et al. 2016): stem, 3 groups of fire modules, no BatchNorm; 0.7 M.",
            stages={
                "stem": ("0", "1", "2"),
                "fire1": ("3", "4", "5"),
                "fire2": ("6", "7", "8"),
                "fire3": ("9", "10", "11", "12"),
            },
            features=512,
            has_batchnorm=False,
        ),
    )
}
