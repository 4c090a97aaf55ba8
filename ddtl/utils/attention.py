"""The linear layers of attention, by the names that timm gives them; imported only where torch is there already."""

from __future__ import annotations

from torch import nn

_ASKING = frozenset(("qkv", "qk", "q", "k", "v", "kv", "q_proj", "k_proj", "v_proj"))  # what makes a block attention
_NAMES = _ASKING | {"proj"}


def linear_layers(module: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers of each attention block by name: queries, keys and values, and the one behind them.

    Args:
        module: a network, or a part of one. A block whose queries, keys and values are convolutions is none of these.
    """
    found: dict[str, nn.Linear] = {}
    for path, block in module.named_modules():
        linear = {name: child for name, child in block.named_children() if isinstance(child, nn.Linear)}
        if _ASKING & set(linear):
            found |= {f"{path}.{name}".lstrip("."): linear[name] for name in linear if name in _NAMES}
    return found


def largest_rank(module: nn.Module) -> int:
    """Return the largest rank that a low-rank update of each of these layers can have; 0 where there are none."""
    return min((min(layer.weight.shape) for layer in linear_layers(module).values()), default=0)
