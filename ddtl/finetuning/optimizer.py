"""The optimiser and its rates: one parameter group for each stage, with and without weight decay, from the start."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from ddtl.finetuning.schedule import Schedule
from ddtl.models.network import Network
from ddtl.schema.run import OptimizerConfig


def parameter_groups(network: Network, weight_decay: float) -> list[dict[str, Any]]:
    """Stages × (decay, no decay), in the order of the stages. Biases and normalisation layers are not decayed,
    nor are the position embeddings and tokens of timm's networks.

    Groups never change during a run, so schedules, resuming and distributed training see the same optimiser.
    """
    undecayed = network.backbone.undecayed
    groups: list[dict[str, Any]] = []
    for stage, module in network.stages.items():
        named = [(f"stages.{stage}.{name}", p) for name, p in module.named_parameters()]
        for name, chosen, decay in (
            ("decay", [p for name, p in named if p.ndim > 1 and name not in undecayed], weight_decay),
            ("no_decay", [p for name, p in named if p.ndim <= 1 or name in undecayed], 0.0),
        ):
            if chosen:
                groups.append({"name": f"{stage}/{name}", "stage": stage, "params": chosen, "weight_decay": decay})
    return groups


def build_optimizer(network: Network, config: OptimizerConfig, fused: bool) -> torch.optim.Optimizer:
    """AdamW or SGD on the stage groups."""
    groups = parameter_groups(network, config.weight_decay)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=fused)
    nesterov = config.momentum > 0
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused)


def rate_shape(config: OptimizerConfig, total_steps: int) -> Callable[[int], float]:
    """Optimiser step to the share of the peak rate: a linear warm-up, then constant or a half cosine."""
    warmup = round(config.warmup * total_steps)

    def shape(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if config.schedule == "constant":
            return 1.0
        progress = (step - warmup) / max(1, total_steps - warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return config.final_lr_ratio + (1 - config.final_lr_ratio) * cosine

    return shape


def rate_of_stage(schedule: Schedule, stage: str, steps_per_epoch: int) -> Callable[[int], float]:
    """Optimiser step to the stage's rate in the table; over ``schedule.rewarm`` epochs after a thaw it rises linearly.

    The rise has the form of the run's own warm-up: over n steps, 1/(n + 1) … n/(n + 1) of the rate.
    """
    warmup = round(schedule.rewarm * steps_per_epoch)
    starts = [epoch * steps_per_epoch for epoch in schedule.thaws(stage)]

    def rate(step: int) -> float:
        since = step - max((start for start in starts if start <= step), default=-warmup)
        return schedule.at(step // steps_per_epoch)[stage].rate * min(1.0, (since + 1) / (warmup + 1))

    return rate


def build_scheduler(
    optimizer: torch.optim.Optimizer, config: OptimizerConfig, schedule: Schedule, steps_per_epoch: int
) -> LambdaLR:
    """Stepped after every optimiser step: the shape over the run × the stage's rate in that step; 0 where the head is
    fitted.
    """
    if schedule.penalties is not None:
        return LambdaLR(optimizer, lambda step: 0.0)
    shape = rate_shape(config, steps_per_epoch * len(schedule.epochs))

    def lr_of(stage: str) -> Callable[[int], float]:
        rate = rate_of_stage(schedule, stage, steps_per_epoch)
        return lambda step: shape(step) * rate(step)

    return LambdaLR(optimizer, [lr_of(group["stage"]) for group in optimizer.param_groups])


def configure(
    network: Network, config: OptimizerConfig, schedule: Schedule, *, steps_per_epoch: int, fused: bool
) -> dict[str, Any]:
    """Optimiser and scheduler in the form in which Lightning takes them."""
    optimizer = build_optimizer(network, config, fused)
    scheduler = build_scheduler(optimizer, config, schedule, steps_per_epoch)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
