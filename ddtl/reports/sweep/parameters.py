"""What a sweep varied, as axes of a chart, and how much each parameter mattered."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddtl.reports.sweep.trials import Trial, score

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST = 15  # completed trials that importances need: the best five of them are then a third
_BEST = 5
MANY = 50  # completed trials from which on importances are more than a hint


@dataclass(frozen=True)
class Parameter:
    """A parameter as an axis.

    Attributes:
        name: as Optuna calls it.
        choices: its values, where it is a choice; else none.
        low, high: its range, where it is a number.
        log: whether the axis is logarithmic.
    """

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    @property
    def is_choice(self) -> bool:
        return bool(self.choices)

    @staticmethod
    def of(name: str, values: Sequence[Any], spec: Mapping[str, Any] | None = None) -> Parameter:
        """The axis of values.

        Args:
            name: of the parameter.
            values: of the trials that used it; None where a trial has no score, or is a choice.
            spec: how the space describes it, where it does: ``choice``, or ``int`` or ``float`` with its range.
        """
        if spec is not None and "choice" in spec:
            return Parameter(name, tuple(dict.fromkeys([*spec["choice"], *values])))
        known = [value for value in values if value is not None]
        if spec is not None:
            low, high = spec["int"] if "int" in spec else spec["float"]
            return Parameter(name, (), low, high, bool(spec.get("log")))
        if any(isinstance(value, str | bool) for value in known):
            return Parameter(name, tuple(sorted(set(known), key=_numbers_first)))
        return Parameter(name, (), min(known, default=0.0), max(known, default=1.0))

    def place(self, value: Any) -> float | None:
        """Height of a value, 0 to 1; None where there is no value."""
        if self.choices:
            last = len(self.choices) - 1
            return self.choices.index(value) / last if last else 0.5
        if value is None:
            return None
        if self.low == self.high:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return float((value - self.low) / (self.high - self.low))

    def distribution(self) -> BaseDistribution:
        """The axis as Optuna's distribution."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        return FloatDistribution(self.low, self.high, log=self.log)


def parameters(trials: Sequence[Trial], space: Mapping[str, Mapping[str, Any]]) -> list[Parameter]:
    """What the trials varied: first what all of them used, in the order in which they name it.

    Args:
        trials: of the record.
        space: how the parameters are described; empty for a grid, whose values are words.
    """
    names = dict.fromkeys(name for trial in trials for name in trial["params"])
    values = {name: [t["params"][name] for t in trials if name in t["params"]] for name in names}
    ordered = sorted(names, key=lambda name: len(values[name]) < len(trials))
    return [Parameter.of(name, values[name], space.get(name)) for name in ordered]


def _numbers_first(value: Any) -> tuple[bool, float, str]:
    """Sorts a grid's words: numbers by their size, then the others."""
    try:
        return False, float(value), ""
    except ValueError:
        return True, 0.0, str(value)


@dataclass(frozen=True)
class Importances:
    """How much each parameter decides about being among the best.

    Attributes:
        shares: by parameter, the greatest first; they add up to 1. Empty where ``why_not`` says why.
        best, of: how many of how many completed trials count as good.
    """

    shares: Mapping[str, float]
    best: int = 0
    of: int = 0
    why_not: str = ""


def importances(trials: Sequence[Trial], space: Mapping[str, Mapping[str, Any]], sign: int) -> Importances:
    """PED-ANOVA of the completed trials, a parameter that only some use included.

    Watanabe, Bansal and Hutter 2023 (IJCAI); for conditional parameters Kato, Watanabe and others 2026 (KDD), as Optuna
    computes them.

    Args:
        trials: of the record.
        space: as for :func:`parameters`.
        sign: 1 where a greater score is better, else -1.
    """
    done = [trial for trial in trials if trial["state"] == "complete"]
    if len(done) < FEWEST:
        return Importances({}, why_not=f"{len(done)} trials were completed, and importances need {FEWEST}")
    axes = [axis for axis in parameters(done, space) if axis.low != axis.high and len(axis.choices) != 1]
    if not axes:
        return Importances({}, why_not="nothing was varied among the completed trials")
    if len({score(trial) for trial in done}) == 1:
        return Importances({}, why_not="all completed trials have the same score")
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    quantile = max(0.1, _BEST / len(done))
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # about choices that very few trials made: the text tells how many there are
            found = get_param_importances(
                _rebuilt(done, axes, sign),
                evaluator=PedAnovaImportanceEvaluator(target_quantile=quantile),
                params=[axis.name for axis in axes],
            )
    finally:
        optuna.logging.set_verbosity(verbosity)
    shares = dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
    return Importances(shares, math.ceil(quantile * len(done)), len(done))


def _rebuilt(trials: Sequence[Trial], axes: Sequence[Parameter], sign: int) -> Any:
    """A study in memory of completed trials and their first objective."""
    import optuna

    study = optuna.create_study(direction="maximize" if sign > 0 else "minimize")
    distributions = {axis.name: axis.distribution() for axis in axes}
    for trial in trials:
        used = {name: value for name, value in trial["params"].items() if name in distributions}
        study.add_trial(
            optuna.trial.create_trial(
                params=used, distributions={name: distributions[name] for name in used}, value=score(trial)
            )
        )
    return study
