"""A network of timm as ordered stages, with timm's own layers."""

from __future__ import annotations

from torch import Tensor, nn

from ddtl.models.backbones import Backbone
from ddtl.models.grayscale import take_one_channel
from ddtl.schema.backbones import BackboneSpec
from ddtl.utils import timm_networks
from ddtl.utils.errors import UserError


class TimmBackbone(Backbone):
    """Images to pooled features, stage by stage; timm's layers between the last map and the classifier included.

    Args:
        spec: which network.
        grayscale: as of :class:`~ddtl.models.backbones.Backbone`.
        size: side of the images, in pixels; None for that of timm's weights.

    Raises:
        UserError: timm cannot make the network for this size, or it is not what :mod:`ddtl.utils.timm_networks` can
            take apart.
    """

    has_plain_maps = False

    def __init__(self, spec: BackboneSpec, grayscale: str = "replicate", size: int | None = None) -> None:
        nn.Module.__init__(self)
        assert spec.timm is not None
        parts = timm_networks.Parts(spec.name, size or spec.timm.size)
        if next(parts.model.parameters()).device.type != "meta":
            parts.check(size or spec.timm.size)
        self.features, self.grayscale = spec.features, grayscale
        self.mean, self.std = spec.timm.mean, spec.timm.std
        self.about = spec.timm.record()
        self.parts = parts
        self.stages = nn.ModuleDict()
        for stage, modules in parts.stages.items():
            block = nn.Sequential()
            for name, module in modules.items():
                block.add_module(name, module)
            self.stages[stage] = block
        self.first = next((name for name, module in self.named_modules() if isinstance(module, nn.Conv2d)), "")
        state = self.state_dict(keep_vars=True)
        # timm's name of each tensor to ours. timm's own forward pass keeps some in two parts at once.
        self.timm_names = {parts.names[id(value)]: key for key, value in state.items()}
        self.undecayed = frozenset(self.timm_names[name] for name in parts.undecayed if name in self.timm_names)
        if grayscale == "sum":
            self._take_one_channel(spec)

    def _take_one_channel(self, spec: BackboneSpec) -> None:
        assert spec.timm is not None
        first = self.get_submodule(self.first) if self.first else None
        if not isinstance(first, nn.Conv2d) or first.in_channels != 3 or first.groups != 1 or len(spec.timm.first) != 1:
            raise UserError(
                f"model.grayscale=sum: several layers of {spec.name} receive the image. Set model.grayscale=replicate."
            )
        take_one_channel(first, spec.timm.mean, spec.timm.std)

    def as_map(self, x: Tensor) -> Tensor | None:
        """What a part hands on as a feature map (N, C, H, W); None where it has no places in the image."""
        prefix = self.parts.prefix_tokens
        if x.ndim == 4:
            return x.permute(0, 3, 1, 2) if self.parts.is_channels_last else x
        if x.ndim != 3:
            return None
        tokens = x[:, prefix:]
        side = round(tokens.shape[1] ** 0.5)
        if side * side != tokens.shape[1]:
            return None
        return tokens.transpose(1, 2).reshape(len(x), -1, side, side)

    def explained(self) -> list[str]:
        """The parts whose maps say where the network looks, from the image on, by names such as ``layer4.layer4``.

        Where the features are those of a token of their own, the places behind the last block count for nothing: that
        token takes no more from them.
        """
        names = [
            f"{stage}.{name}"
            for stage, parts in self.stages.items()
            for name, part in parts.named_children()
            if name != "pool" and not isinstance(part, nn.Identity)
        ]
        if self.parts.is_by_token:
            blocks = [index for index, name in enumerate(names) if ".blocks_" in name]
            names = names[: blocks[-1]] if blocks else []
        return names

    def converted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by timm's names as ours; those of the classifier are excluded."""
        spec = self.parts.facts
        classifiers = tuple(f"{name}." for name in spec.classifiers)
        found = {name: value for name, value in self.parts.renamed(state).items() if isinstance(value, Tensor)}
        return {
            self.timm_names.get(name, name): value
            for name, value in found.items()
            if name in self.timm_names or not name.startswith(classifiers)
        }
