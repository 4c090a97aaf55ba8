"""A trial as somebody works at it, and what is written down about that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ddtl.utils import processes
from ddtl.utils.wording import train_command

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# Names of a trial's user attributes.
OWNER, PROCESS, OVERRIDES, ATTEMPTS = "owner", "process", "overrides", "attempts"
REASON, WORDS = "reason", "words"


@dataclass(frozen=True)
class Task:
    """A trial to work at.

    Attributes:
        number: the trial's number in its sweep.
        trial_id: Optuna's number of it.
        overrides: the command line of train.py: the sampled words and the fixed ones.
        attempt: 1 for a new trial, more for one that is resumed.
        claim: names this attempt among all.
        log: the file for everything that the trial prints.
    """

    number: int
    trial_id: int
    overrides: tuple[str, ...]
    attempt: int
    claim: str
    log: Path

    @property
    def line(self) -> str:
        """What a person types to repeat the trial or to resume it."""
        return train_command(self.overrides)


def is_alive(trial: FrozenTrial) -> bool | None:
    """Return whether somebody works at a running trial; None where that cannot be seen from here."""
    if OWNER not in trial.user_attrs:
        return False  # killed just after it was made: nobody else is between the two, under the lock
    worker = processes.alive(trial.user_attrs[OWNER])
    if worker is False and PROCESS in trial.user_attrs:
        return processes.alive(trial.user_attrs[PROCESS])
    return worker
