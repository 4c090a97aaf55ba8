"""The sampler of a list of jobs: the trial's number says which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial


class ListedSampler(BaseSampler):
    """Gives trial number ``i`` the values of ``jobs[i]``, whatever the history."""

    def __init__(self, jobs: Sequence[Mapping[str, str]]) -> None:
        self.jobs = jobs

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> str:
        return self.jobs[trial.number][param_name]
