"""A fine-tuning schedule as a table: epoch and stage to what trains, and at which rate. Pure; no torch.

Everything that depends on the schedule reads this table, so a resumed run and every process of a distributed one
are in the same phase by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddtl.config import phases
from ddtl.schema.run import FinetuneConfig
from ddtl.utils.errors import UserError


@dataclass(frozen=True)
class StageState:
    """What one stage does in one epoch.

    Attributes:
        rate: its learning rate as a multiple of ``optimizer.lr``; 0 means frozen.
        fixed_statistics: BatchNorm uses and keeps the statistics that it has; always so in a frozen stage.
        parameters: which of its parameters train; see :mod:`ddtl.models.adapters`.
        fitted: whether it is fitted and takes no steps; see :mod:`ddtl.finetuning.fitted_head`.
    """

    rate: float
    fixed_statistics: bool
    parameters: str = "all"
    fitted: bool = False

    @property
    def frozen(self) -> bool:
        return self.rate == 0


@dataclass(frozen=True)
class Phase:
    """Epochs ``first`` to ``end - 1``, in which every stage stays in its state."""

    name: str
    first: int
    end: int
    states: dict[str, StageState]


@dataclass(frozen=True)
class Schedule:
    """The table.

    Attributes:
        epochs: ``epochs[e][stage]`` is what ``stage`` does in epoch ``e``; stages in order, the head last.
        phases: the same, epochs of one kind taken together; they follow each other without gap or overlap.
        rewarm: epochs over which a stage's rate rises linearly after it begins to train again; 0 for none.
        penalties: of the first epoch's head and of the last one's, where it is fitted; None where it trains.
    """

    epochs: tuple[dict[str, StageState], ...]
    phases: tuple[Phase, ...]
    rewarm: float = 0.0
    penalties: tuple[float, float] | None = None

    def at(self, epoch: int) -> dict[str, StageState]:
        """The states in an epoch; the last ones stay after the end."""
        return self.epochs[min(epoch, len(self.epochs) - 1)]

    def phase(self, epoch: int) -> Phase:
        """The phase of an epoch; the last one stays after the end."""
        return next((phase for phase in self.phases if epoch < phase.end), self.phases[-1])

    def thaws(self, stage: str) -> tuple[int, ...]:
        """The epochs in which ``stage`` trains after it was frozen in the epoch before."""
        frozen = [row[stage].frozen for row in self.epochs]
        return tuple(e for e in range(1, len(frozen)) if frozen[e - 1] and not frozen[e])

    def prefix(self, epoch: int) -> int:
        """How many leading stages are frozen: their output is then a constant function of the image."""
        states = list(self.at(epoch).values())
        return next((i for i, state in enumerate(states) if not state.frozen), len(states))


def compile_schedule(config: FinetuneConfig, stages: Sequence[str], max_epochs: int) -> Schedule:
    """The table of a schedule.

    Args:
        config: the schedule's settings.
        stages: stage names from the input to the head, the head last.
        max_epochs: length of the run.

    Raises:
        UserError: a line for each mistake, naming the key and the fix; see :func:`ddtl.config.phases.problems`.
    """
    found = phases.problems(config, stages, max_epochs)
    if found:
        raise UserError("\n  ".join(found))
    planned = phases.planned(config, stages)
    compiled, first = [], 0
    for phase, length in zip(planned, phases.lengths(planned, max_epochs), strict=True):
        rates = phases.rates(config, phase, stages)
        states = {
            stage: StageState(
                rate,
                fixed_statistics=rate == 0 or config.batchnorm == "frozen_stats",
                parameters=phase.parameters if rate and stage != stages[-1] else "all",
                fitted=config.penalties is not None and rate > 0,
            )
            for stage, rate in rates.items()
        }
        compiled.append(Phase(phase.name, first, first + length, states))
        first += length
    rows = tuple(phase.states for phase in compiled for _ in range(phase.first, phase.end))
    return Schedule(rows, tuple(compiled), config.rewarm, config.penalties)
