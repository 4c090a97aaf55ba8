"""A fine-tuning schedule as a table: epoch and stage to what trains, and at which rate. Pure; no torch.

Everything that depends on the schedule reads this table, so a resumed run and every process of a distributed one
are in the same phase by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddtl.config.schema import FinetuneConfig


@dataclass(frozen=True)
class StageState:
    """What one stage does in one epoch.

    Attributes:
        rate: its learning rate as a multiple of ``optimizer.lr``; 0 means frozen.
        fixed_statistics: BatchNorm uses and keeps the statistics that it has.
    """

    rate: float
    fixed_statistics: bool

    @property
    def frozen(self) -> bool:
        return self.rate == 0


@dataclass(frozen=True)
class Schedule:
    """``epochs[e][stage]`` is what ``stage`` does in epoch ``e``."""

    epochs: tuple[dict[str, StageState], ...]

    def at(self, epoch: int) -> dict[str, StageState]:
        """The states in an epoch; the last ones hold on after the end."""
        return self.epochs[min(epoch, len(self.epochs) - 1)]


def compile_schedule(config: FinetuneConfig, stages: Sequence[str], max_epochs: int) -> Schedule:
    """The table of a schedule.

    Args:
        config: the schedule's settings.
        stages: stage names from the input to the head, the head last.
        max_epochs: length of the run.
    """
    backbone_rate = 0.0 if config.name == "linear_probe" else config.backbone_lr_ratio
    backbone = StageState(backbone_rate, fixed_statistics=backbone_rate == 0 or config.batchnorm == "frozen_stats")
    head = StageState(config.head_lr_ratio, fixed_statistics=False)
    row = dict.fromkeys(stages[:-1], backbone) | {stages[-1]: head}
    return Schedule((row,) * max_epochs)
