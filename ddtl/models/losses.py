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


def auc_margin(logits: Tensor, labels: Tensor, weights: Tensor | None, *, margin: float) -> Tensor:
    """The AUC margin loss (Yuan et al. 2021, ICCV, equation 5), its inner problem solved exactly for each batch.

    With h the sigmoid of the log odds, the variance of h among the images of the class, the variance among the others,
    and max(0, margin - difference of the means)^2. The paper's auxiliary variables a, b and alpha are at their optimum,
    the batch's means and the unmet margin, so nothing has to be kept between steps. Of a batch without one of the two
    kinds only the variance is left. With more classes: the mean over classes, each against all others.

    Args:
        logits: (N, classes).
        labels: (N,) int64.
        weights: must be None: the means of both kinds count alike, however many images they have.
        margin: by how much the means should differ, up to 1.

    Returns:
        A scalar.
    """
    assert weights is None
    classes = logits.shape[1]
    own = torch.eye(classes, dtype=torch.bool, device=logits.device)
    odds = logits - logits[:, None, :].masked_fill(own, -torch.inf).logsumexp(dim=2)
    h = odds.sigmoid()
    is_label = (labels[:, None] == torch.arange(classes, device=labels.device)).to(h.dtype)
    columns = slice(1, 2) if classes == 2 else slice(0, classes)
    h, is_label = h[:, columns], is_label[:, columns]
    means, spreads, there = [], [], []
    for weight in (is_label, 1 - is_label):
        count = weight.sum(dim=0)
        mean = (h * weight).sum(dim=0) / count.clamp_min(1)
        means.append(mean)
        spreads.append((weight * (h - mean) ** 2).sum(dim=0) / count.clamp_min(1))
        there.append(count > 0)
    unmet = (margin - (means[0] - means[1])).clamp_min(0) ** 2
    return (spreads[0] + spreads[1] + torch.where(there[0] & there[1], unmet, torch.zeros_like(unmet))).mean()


LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "auc_margin": auc_margin,
}


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
    if function is auc_margin and config.class_weights != "none":
        raise UserError(
            f"loss.class_weights={config.class_weights}: loss=auc_margin weighs the classes alike by itself. Set "
            "loss.class_weights=none."
        )
    try:
        signature.bind(None, None, None, **own)
    except TypeError as error:
        raise UserError(
            f"loss={config.name}: conf/loss/{config.name}.yaml does not fit its function ({error})."
        ) from None
    return partial(function, **own)
