"""Backbone and head: from grayscale slices to class logits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ddtl.config import phases
from ddtl.models import adapters
from ddtl.models.backbones import Backbone
from ddtl.models.grayscale import normalisation
from ddtl.schema.backbones import HEAD, BackboneSpec, spec_of
from ddtl.schema.run import Config, HeadConfig, ModelConfig
from ddtl.utils.errors import UserError


class Head(nn.Module):
    """Global average pooling, hidden layers with dropout, and a linear layer.

    Args:
        features: channels of the feature map.
        config: hidden layers and dropout.
        n_classes: how many logits.
        fitted: without dropout, and in single precision whatever the rest is in: fitted weights cancel out.
    """

    def __init__(self, features: int, config: HeadConfig, n_classes: int, *, fitted: bool = False) -> None:
        super().__init__()
        self.fitted = fitted
        if fitted:
            config = config.model_copy(update={"dropout": 0.0})
        layers: list[nn.Module] = []
        width = features
        for hidden in config.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(config.dropout)]
            width = hidden
        if not config.hidden:
            layers.append(nn.Dropout(config.dropout))
        self.layers = nn.Sequential(*layers, nn.Linear(width, n_classes))

    def forward(self, feature_map: Tensor) -> Tensor:
        """(N, C, H, W) to logits (N, n_classes)."""
        # A mean over the axes, because the gradient of adaptive pooling is not deterministic on GPUs.
        if self.fitted:
            with torch.autocast(feature_map.device.type, enabled=False):
                return self.layers(feature_map.float().mean(dim=(2, 3)))
        return self.layers(feature_map.mean(dim=(2, 3)))


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm whose statistics can be fixed: it then uses and keeps those that it has, whoever calls ``train()``."""

    fixed = False

    def train(self, mode: bool = True) -> BatchNorm:
        """Training or evaluation mode; with fixed statistics always the latter."""
        return super().train(mode and not self.fixed)


@cache
def _fixable(kind: type[nn.BatchNorm2d]) -> type[BatchNorm]:
    """The class of a BatchNorm layer with statistics that can be fixed."""
    return BatchNorm if kind is nn.BatchNorm2d else type(kind.__name__, (BatchNorm, kind), {})


def _backbone(spec: BackboneSpec, grayscale: str, size: int | None) -> Backbone:
    """Return a backbone; one of a plugin or of timm is tried with an image.

    Raises:
        UserError: a plugin's network does not fit its specification, or one of timm's cannot be cut into stages.
    """
    if spec.timm is not None:
        from ddtl.models.timm_backbone import TimmBackbone  # brings timm

        return TimmBackbone(spec, grayscale, size)
    if spec.build is None:
        return Backbone(spec, grayscale)
    try:
        found = Backbone(spec, grayscale).eval()
        with torch.no_grad():
            shape = found(torch.zeros(1, 1 if grayscale == "sum" else 3, 64, 64)).shape
    except Exception as error:  # of a user's own code, which may raise anything
        raise UserError(f"model.name={spec.name}: its network cannot be made or used ({error}).") from error
    if len(shape) != 4 or shape[1] != spec.features:
        raise UserError(
            f"model.name={spec.name}: an image becomes {tuple(shape)[1:]}, and not {spec.features} channels."
        )
    return found.train()


def _encoder(config: ModelConfig, size: int | None) -> Backbone:
    from ddtl.models.file_encoder import FileEncoder

    assert size is not None, "a run has one"
    return FileEncoder(config, size)


class Network(nn.Module):
    """The whole model, as stages in a row, each of which can be frozen.

    Args:
        config: which backbone and head.
        n_classes: at least two.
        image_size: in pixels, for networks that are made for one size; None for that of their weights.
        ssf: whether the backbone's layers get a scale and a shift; see :mod:`ddtl.models.adapters`.
        lora: rank and alpha of low-rank updates of its attention; None for none.
        fitted: whether the head is; see :mod:`ddtl.finetuning.fitted_head`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        config: ModelConfig,
        n_classes: int,
        image_size: int | None = None,
        *,
        ssf: bool = False,
        lora: tuple[int, float] | None = None,
        fitted: bool = False,
    ) -> None:
        super().__init__()
        self.n_classes = n_classes
        spec = spec_of(config.key)
        self.backbone = _encoder(config, image_size) if spec.is_file else _backbone(spec, config.grayscale, image_size)
        self.head = Head(self.backbone.features, config.head, n_classes, fitted=fitted)
        mean, std = normalisation(config.grayscale, self.backbone.mean, self.backbone.std)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                kind: Any = type(module)
                module.__class__ = _fixable(kind)  # torchvision's DenseNet does not let one choose the layer
        if lora is not None:
            adapters.add_lora(self.backbone, *lora, config.name)
        if ssf:
            adapters.add_ssf(self.backbone)
        self.frozen: frozenset[str] = frozenset()
        self.subsets: dict[str, str] = {}
        self._prefix = 0

    @classmethod
    def of(cls, config: Config, n_classes: int) -> Network:
        """Return the network of a run, with what its schedule adds to the backbone."""
        schedule = config.finetune
        return cls(
            config.model,
            n_classes,
            config.dataset.image_size,
            ssf=phases.has_ssf(schedule),
            lora=phases.lora(schedule),
            fitted=schedule.penalties is not None,
        )

    @property
    def stages(self) -> dict[str, nn.Module]:
        """Every stage by name, from the input to the head."""
        return {**dict(self.backbone.stages.items()), HEAD: self.head}

    def forward(self, images: Tensor) -> Tensor:
        """Grayscale images (N, 1, H, W) in [0, 1] to logits (N, n_classes)."""
        depth = self._prefix if self.training else 0  # who needs gradients of an evaluation gets all of them
        with torch.set_grad_enabled(torch.is_grad_enabled() and not depth):
            x = self.embed(images, depth)
        return self.classify(x, depth)

    def embed(self, images: Tensor, depth: int) -> Tensor:
        """Grayscale images (N, 1, H, W) in [0, 1] to what the first ``depth`` stages make of them, (N, C, H', W')."""
        x = (images - self.mean) / self.std
        for stage in list(self.stages.values())[:depth]:
            x = stage(x)
        return x

    def classify(self, x: Tensor, depth: int) -> Tensor:
        """What the first ``depth`` stages made of images to logits (N, n_classes), through the other stages."""
        for stage in list(self.stages.values())[depth:]:
            x = stage(x)
        return x

    def freeze(
        self, stages: Collection[str], fixed_statistics: Collection[str], subsets: Mapping[str, str] | None = None
    ) -> None:
        """Let ``stages`` stay frozen and all others train.

        The frozen stages before the first one that trains are run without autograd.

        Args:
            stages: these get no gradient and therefore no update, no moments and no weight decay.
            fixed_statistics: in these BatchNorm uses, and keeps, the statistics that it has.
            subsets: of stages that train in part, which of their parameters do; see :mod:`ddtl.models.adapters`.
        """
        self.frozen = frozenset(stages)
        self.subsets = dict(subsets or {})
        names = list(self.stages)
        self._prefix = next((i for i, name in enumerate(names) if name not in self.frozen), len(names))
        for name, stage in self.stages.items():
            stage.requires_grad_(name not in self.frozen)
            if name in self.frozen:
                stage.zero_grad(set_to_none=True)  # else the optimiser would take what the last step left for one more
            elif name in self.subsets:
                trains = adapters.chosen(stage, self.subsets[name])
                for inner, parameter in stage.named_parameters():
                    if inner not in trains:
                        parameter.requires_grad_(False).grad = None
            for module in stage.modules():
                if isinstance(module, BatchNorm):
                    module.fixed = name in fixed_statistics
        self.train(self.training)

    def train(self, mode: bool = True) -> Network:
        """Training or evaluation mode; of a frozen stage of the backbone only BatchNorm trains, if it does.

        What is random in training, such as dropped paths, would give a frozen stage another output at each visit.
        """
        super().train(mode)
        for name in self.frozen - {HEAD}:
            for module in self.stages[name].modules():
                if not isinstance(module, BatchNorm):
                    module.training = False
        return self
