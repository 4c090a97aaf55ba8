"""The networks that ddtl trains, and where each is cut into stages. No torch.

A new one gets its entry in ``BACKBONES``: ``model=NAME`` then takes it, with the settings of
``conf/model/densenet121.yaml``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddtl.utils import plugins
from ddtl.utils.errors import UserError
from ddtl.utils.reading import printable
from ddtl.utils.suggest import did_you_mean

if TYPE_CHECKING:
    from ddtl.utils.timm_networks import Facts

HEAD = "head"  # the stage after the backbone's
TIMM = "timm:"  # what the key of a network of timm begins with
FILE = "file:"  # and that of an encoder from a file
ENCODERS = (".onnx", ".pt2")  # how such a file's name ends


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
        timm: what timm states about a network of its own; None for others. The stages then name no children.
        is_file: whether it is an encoder from a file, which tells its features when it is read.
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
    timm: Facts | None = None
    is_file: bool = False


def key_of(model: Mapping[str, Any]) -> str:
    """The name under which :func:`spec_of` finds a network, from the settings of ``model``."""
    if model.get("library") == "file":
        return f"{FILE}{model.get('file') or ''}"
    return f"{TIMM}{model['name']}" if model.get("library") == "timm" else str(model["name"])


def problem(key: str) -> str:
    """Why there is no network of a key, as a line; empty where there is one."""
    if key.startswith(FILE):
        return _file_problem(key.removeprefix(FILE))
    name = key.removeprefix(TIMM)
    if name == key:
        if name in backbones():
            return ""
        hint = did_you_mean(name, backbones())
        there = ", ".join(backbones())
        return f"model.name={name}: no such model.{hint} There are {there}, and those of timm, by model=timm:NAME."
    from ddtl.utils import timm_networks

    if wrong := timm_networks.problem(name):
        return f"model.name={printable(name)}: {wrong}"
    try:
        timm_networks.outline(name)
    except UserError as error:
        return str(error)
    return ""


def _file_problem(name: str) -> str:
    if not name:
        return f"model=features needs its encoder: model.file=FILE, which ends in {' or '.join(ENCODERS)}."
    if Path(name).suffix.lower() not in ENCODERS:
        return f"model.file={printable(name)}: an encoder's file ends in {' or '.join(ENCODERS)}."
    return ""


def size_problem(key: str, size: int) -> str:
    """Why a network does not take images of a size in pixels, as a line; empty where it does."""
    if not key.startswith(TIMM):
        return ""
    from ddtl.utils import timm_networks

    return timm_networks.size_problem(key.removeprefix(TIMM), size)


def backbones() -> dict[str, BackboneSpec]:
    """All networks by name: ``BACKBONES``, and those of plugins."""
    return {**BACKBONES, **plugins.added("backbone", BACKBONES)}


def spec_of(name: str) -> BackboneSpec:
    """The network of a name.

    Raises:
        UserError: there is none here; the plugin that has it is not loaded.
    """
    if name.startswith(TIMM):
        return _of_timm(name.removeprefix(TIMM))
    if name.startswith(FILE):
        file = Path(name.removeprefix(FILE)).name
        return BackboneSpec(file, f"{file}, frozen.", {"encoder": ()}, 0, has_batchnorm=False, is_file=True)
    found = backbones().get(name)
    if found is None:
        raise UserError(
            f"model.name={name}: no such model here. Where a plugin has it, name that: {plugins.VARIABLE}=MODULE."
        )
    return found


def _of_timm(name: str) -> BackboneSpec:
    from ddtl.utils import timm_networks  # brings timm and torch

    outline = timm_networks.outline(name)
    return BackboneSpec(
        name=name,
        about=f"{name}, of timm.",
        stages=dict.fromkeys(outline.stages, ()),
        features=outline.features,
        has_batchnorm=any(outline.stages.values()),
        timm=timm_networks.facts(name),
    )


def attention_rank(name: str) -> int | None:
    """The largest rank that a low-rank update of a network's attention can have.

    Returns:
        0 where it has no linear layers of attention, as torchvision's networks here; None where only the network itself
        can tell, as one of a plugin.
    """
    if name.startswith(TIMM):
        from ddtl.utils import timm_networks

        return timm_networks.outline(name.removeprefix(TIMM)).rank
    return 0 if spec_of(name).build is None else None


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
