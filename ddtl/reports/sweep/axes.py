"""A parameter of a sweep as an axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


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
        """Return the axis of values.

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
        """Return height of a value, 0 to 1; None where there is no value."""
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
        """Return the axis as Optuna's distribution."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        return FloatDistribution(self.low, self.high, log=self.log)


def _numbers_first(value: Any) -> tuple[bool, float, str]:
    """Return the sorting key of a grid's words: numbers by their size, then the others."""
    try:
        return False, float(value), ""
    except ValueError:
        return True, 0.0, str(value)
