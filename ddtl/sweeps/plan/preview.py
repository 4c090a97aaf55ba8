"""``preview=10``: trials that a search would make, as the lines of ``train.py`` that would run them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddtl.sweeps.plan.settings import Plan


def lines(plan: Plan, count: int) -> list[str]:
    """Return the trials of a plan from the first on, as far as they can be known: no score of an earlier one is at
    hand.

    An adaptive sampler proposes its first trials at random, so those are the very ones that the sweep will try.
    """
    import optuna

    from ddtl.sweeps.sampling import sampler
    from ddtl.sweeps.store import task
    from ddtl.utils import wording

    settings = plan.settings
    seeded = sampler.Seeded(settings.sampler.name, settings.sampler.args, settings.sweep.seed, task.OVERRIDES)
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = [optuna.study.StudyDirection.MINIMIZE] * len(settings.sweep.objective)
    study = optuna.create_study(sampler=plan.space.sampler() or seeded, directions=directions)
    optuna.logging.set_verbosity(level)
    trials = min(count, settings.n_trials)
    return [wording.train_command((*plan.space.suggest(study.ask()), *plan.fixed)) for _ in range(trials)]
