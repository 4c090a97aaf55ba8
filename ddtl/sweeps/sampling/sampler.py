"""Any Optuna sampler, its randomness a function of the sweep's seed and the trial's number."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from ddtl.utils import plugins

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

# Their seed shuffles one sequence that all trials share, so it must be the same for all.
_ONE_SEQUENCE = ("GridSampler", "QMCSampler")


class Seeded(BaseSampler):
    """Proposes each trial by a sampler of its own, seeded by (seed, number).

    So a proposal depends on the seed, the number and the history alone: not on which process makes it, nor on how often
    the sweep was stopped. What Optuna's samplers must know beyond that, they keep in the storage themselves.

    Args:
        name: a class of :mod:`optuna.samplers`.
        args: what it is made with.
        seed: the sweep's.
        settled: name of the user attribute of a trial that was proposed before and is resumed.
    """

    def __init__(self, name: str, args: Mapping[str, Any], seed: int, settled: str) -> None:
        self._name, self._args, self._seed, self._settled = name, dict(args), seed, settled
        self._at = lru_cache(maxsize=1)(self._make)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._at(trial.number).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._at(trial.number).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        # A seed of its own: a trial that was killed after some of its parameters gets the same others.
        seeded = self._make(trial.number, zlib.crc32(param_name.encode()))
        return seeded.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        if self._settled not in trial.user_attrs:
            self._at.cache_clear()
            self._at(trial.number).before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        try:
            self._at(trial.number).after_trial(study, trial, state, values)
        except RuntimeError as error:
            # Samplers of finite spaces stop Optuna's own loop at the end; here the number of trials ends the sweep.
            if "Study.stop" not in str(error):
                raise

    def _make(self, *what: int) -> BaseSampler:
        own = int(np.random.SeedSequence([self._seed, *what]).generate_state(1)[0])
        args = {"seed": self._seed if self._name in _ONE_SEQUENCE else own, **self._args}
        if self._name == "QMCSampler":
            args.setdefault("independent_sampler", optuna.samplers.RandomSampler(own))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            of_plugins = plugins.added("sampler", ())
            made: BaseSampler = (of_plugins.get(self._name) or getattr(optuna.samplers, self._name))(**args)
        return made
