"""What training minimises: ``loss=NAME``.

A new loss gets its function in ``LOSSES`` and its file in ``conf/loss/``, whose keys the function takes by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ddtl.schema.run import LossConfig
from ddtl.utils import plugins
from ddtl.utils.errors import UserError

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None, *, label_smoothing: float = 0.0) -> Tensor:
    """The mean of -log p(label), weighted by class.

    Args:
        logits: (N, classes).
        labels: (N,) int64.
        weights: (classes,); None weighs all alike.
        label_smoothing: share of the target given to all classes alike (Szegedy et al. 2016, CVPR).

    Returns:
        A scalar.
    """
    return F.cross_entropy(logits, labels, weight=weights, label_smoothing=label_smoothing)


def focal(logits: Tensor, labels: Tensor, weights: Tensor | None, *, label_smoothing: float, gamma: float) -> Tensor:
    """The mean of -(1 - p)^gamma log p of the label, weighted by class (Lin et al. 2017, ICCV, equations 4 and 5).

    The class weights are the paper's alpha. With ``gamma=0`` this is :func:`cross_entropy`.

    Args:
        logits: (N, classes).
        labels: (N,) int64.
        weights: (classes,); None weighs all alike.
        label_smoothing: share of the target given to all classes alike.
        gamma: how much less images count that are classified well already.

    Returns:
        A scalar.
    """
    log_p = logits.log_softmax(dim=1)
    # Above 0, so that the gradient of the power is finite where p rounds to 1.
    rest = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
    each = -(rest**gamma) * log_p
    if weights is not None:
        each = each * weights
    classes = logits.shape[1]
    # A comparison, since the gradient of an index is not deterministic on GPUs.
    is_label = (labels[:, None] == torch.arange(classes, device=labels.device)).to(each.dtype)
    target = (1 - label_smoothing) * is_label + label_smoothing / classes
    return (each * target).sum() / (len(labels) if weights is None else (is_label * weights).sum())


LOSSES: dict[str, Callable[..., Tensor]] = {"cross_entropy": cross_entropy, "focal": focal}


def build_loss(config: LossConfig) -> Loss:
    """Return the loss as a function of logits (N, classes), labels (N,) and class weights (classes,) or None.

    Raises:
        UserError: a file of ``conf/loss/`` names no function of ``LOSSES``, or has keys that it does not take; or
            labels are smoothed for one that does not.
    """
    losses = {**LOSSES, **plugins.added("loss", LOSSES)}
    function = losses.get(config.name)
    if function is None:
        raise UserError(f"loss={config.name}: there is no such function. There are {', '.join(losses)}.")
    own: dict[str, float] = dict(config.model_extra or {})
    signature = inspect.signature(function)
    if "label_smoothing" in signature.parameters:
        own["label_smoothing"] = config.label_smoothing
    elif config.label_smoothing:
        raise UserError(f"loss.label_smoothing={config.label_smoothing:g}: loss={config.name} has none. Set it to 0.")
    try:
        signature.bind(None, None, None, **own)
    except TypeError as error:
        raise UserError(
            f"loss={config.name}: conf/loss/{config.name}.yaml does not fit its function ({error})."
        ) from None
    return partial(function, **own)
