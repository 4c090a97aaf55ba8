"""A backbone with BatchNorm and ResNet's stages that trains in no time, in the place of a large one."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
from torch import nn
from torchvision import models

from ddtl.config import checks
from ddtl.models.backbones import BACKBONES, BackboneSpec

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "head")


def _block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def _build(weights: Any = None) -> nn.Module:
    return nn.Sequential(
        OrderedDict((stage, _block(8 if number else 3, 8)) for number, stage in enumerate(STAGES[:-1]))
    )


TINY = BackboneSpec(
    build=_build,
    weights=models.ResNet18_Weights.IMAGENET1K_V1,
    stages={stage: (stage,) for stage in STAGES[:-1]},
    features=8,
    trunk="",
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """The setting that takes the tiny network."""
    monkeypatch.setitem(BACKBONES, "resnet18", TINY)
    monkeypatch.setitem(checks.STAGES, "resnet18", STAGES)
    return "model=resnet18"
