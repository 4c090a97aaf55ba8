"""Backbone and head: from grayscale slices to class logits."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ddtl.config.schema import HeadConfig, ModelConfig
from ddtl.models.backbones import BACKBONES, Backbone
from ddtl.models.grayscale import normalisation

HEAD = "head"  # the stage after the backbone's


class Head(nn.Module):
    """Global average pooling, hidden layers with dropout, and a linear layer."""

    def __init__(self, features: int, config: HeadConfig, n_classes: int) -> None:
        super().__init__()
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
        return self.layers(feature_map.mean(dim=(2, 3)))


class Network(nn.Module):
    """The whole model. Stages can be frozen, and frozen statistics stay frozen whoever calls ``train()``."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.backbone = Backbone(BACKBONES[config.name], config.grayscale)
        self.head = Head(self.backbone.features, config.head, n_classes)
        mean, std = normalisation(config.grayscale)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self._fixed_statistics: frozenset[str] = frozenset()

    @property
    def stages(self) -> dict[str, nn.Module]:
        """Every stage by name, from the input to the head."""
        return {**dict(self.backbone.stages.items()), HEAD: self.head}

    def forward(self, images: Tensor) -> Tensor:
        """Grayscale images (N, 1, H, W) in [0, 1] to logits (N, n_classes)."""
        return self.head(self.backbone((images - self.mean) / self.std))

    def freeze(self, stages: Sequence[str], fixed_statistics: Sequence[str]) -> None:
        """Let ``stages`` stand still and all others train.

        Args:
            stages: these get no gradient and therefore no update and no weight decay.
            fixed_statistics: in these BatchNorm uses, and keeps, the statistics that it has.
        """
        for name, stage in self.stages.items():
            stage.requires_grad_(name not in stages)
        self._fixed_statistics = frozenset(fixed_statistics)
        self.train(self.training)

    def train(self, mode: bool = True) -> Network:
        """Training or evaluation mode; BatchNorm in stages with fixed statistics stays in evaluation mode."""
        super().train(mode)
        for name in self._fixed_statistics:
            for module in self.stages[name].modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self
