"""The YAML of a search space, read and checked by itself, whatever its keys mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ddtl.config.overrides import format_value
from ddtl.utils.suggest import did_you_mean

_KINDS = {"float": ("log", "step"), "int": ("log", "step"), "choice": ()}
_HOW = "Write {float: [low, high]}, {int: [low, high]} or {choice: [a, b]}."
_AT = "search.space"


@dataclass(frozen=True)
class Numbers:
    """Numbers from ``low`` to ``high``, both included.

    Attributes:
        name: Optuna's name of the parameter.
        key: the setting of ``train.py`` that it sets.
        whole: whether only whole numbers count.
        step: distance of neighbours; None: any number (of whole ones each).
    """

    name: str
    key: str
    whole: bool
    low: float
    high: float
    log: bool
    step: float | None


@dataclass(frozen=True)
class Option:
    """A value to choose, and the parameters that exist where it is chosen.

    Attributes:
        value: what the setting becomes.
        stored: what Optuna holds for it: the value itself, a list or dict as it is typed.
        parameters: those under the condition that this is chosen.
    """

    value: Any
    stored: bool | int | float | str | None
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class Choice:
    """One of some values, or of the options of a group of ``conf/``."""

    name: str
    key: str
    options: tuple[Option, ...]


Parameter = Numbers | Choice


class _Faulty(ValueError):
    pass


def read(tree: Mapping[str, Any]) -> tuple[tuple[Parameter, ...], list[str]]:
    """Return the parameters of a tree, each named by its key, and a line for every mistake; faulty parameters stay
    out.
    """
    problems: list[str] = []
    parameters = _read(tree, problems)
    if not tree:
        problems.append(f"{_AT} is empty: there is nothing to vary. {_HOW}")
    for key in sorted(_twice(parameters)):
        problems.append(f"{_AT}.{key}: is in two places that one trial reaches. Leave one of them out.")
    return parameters, problems


def _read(tree: Mapping[str, Any], problems: list[str]) -> tuple[Parameter, ...]:
    found: list[Parameter] = []
    for key, spec in tree.items():
        try:
            found.append(_parameter(str(key), spec, problems))
        except _Faulty as problem:
            problems.append(f"{_AT}.{key}={format_value(spec)}: {problem}")
    return tuple(found)


def _parameter(key: str, spec: Any, problems: list[str]) -> Parameter:
    if not isinstance(spec, Mapping):
        raise _Faulty(f"a range or a choice is wanted. {_HOW}")
    kinds = [kind for kind in _KINDS if kind in spec]
    if len(kinds) != 1:
        unknown = next((str(word) for word in spec if word not in _KINDS), "")
        raise _Faulty(
            f"says {' and '.join(kinds) or 'neither float, int nor choice'}.{did_you_mean(unknown, _KINDS)} {_HOW}"
        )
    kind = kinds[0]
    for word in spec:
        if word != kind and word not in _KINDS[kind]:
            hint = did_you_mean(str(word), _KINDS[kind])
            raise _Faulty(f"{word} means nothing together with {kind}.{hint}")
    if kind == "choice":
        return Choice(key, key, _options(spec["choice"], problems))
    return _numbers(key, spec, whole=kind == "int")


def _options(given: Any, problems: list[str]) -> tuple[Option, ...]:
    if not isinstance(given, (list, tuple, Mapping)):
        raise _Faulty("choice takes a list of values, or a dict of values with their own parameters.")
    if not given:
        raise _Faulty("choice is empty. Name the values to choose from, or leave the parameter out.")
    below = given if isinstance(given, Mapping) else {}
    options: list[Option] = []
    for value in given:
        inner = below.get(value) if below else None
        if inner is not None and not isinstance(inner, Mapping):
            raise _Faulty(
                f"below {format_value(value)} are the parameters that it brings, as KEY: {{float: [low, high]}}."
            )
        stored = value if value is None or isinstance(value, (bool, int, float, str)) else format_value(value)
        if any(stored == option.stored for option in options):
            raise _Faulty(f"choice names {format_value(value)} twice.")
        if isinstance(stored, float) and not math.isfinite(stored):
            raise _Faulty(f"{format_value(value)} is not a number to train with.")
        options.append(Option(value, stored, _read(inner or {}, problems)))
    return tuple(options)


def _numbers(key: str, spec: Mapping[str, Any], whole: bool) -> Numbers:
    bounds, log, step = spec["int" if whole else "float"], spec.get("log", False), spec.get("step")
    kind = "whole numbers" if whole else "numbers"
    if not (isinstance(bounds, (list, tuple)) and len(bounds) == 2 and all(_is_number(b, whole) for b in bounds)):
        raise _Faulty(f"takes two {kind}, the lower and the upper bound.")
    if not isinstance(log, bool):
        raise _Faulty("log must be true or false.")
    low, high = bounds
    if low > high:
        raise _Faulty(f"the lower bound comes first: [{format_value(high)}, {format_value(low)}].")
    if low == high:
        raise _Faulty(f"leaves one value. Set {key}={format_value(low)} on the command line instead.")
    if log and low <= 0:
        raise _Faulty("log: true needs bounds above 0.")
    if step is not None:
        _check_step(low, high, log, step, whole)
    low, high = (low, high) if whole else (float(low), float(high))
    return Numbers(key, key, whole, low, high, log, step)


def _check_step(low: float, high: float, log: bool, step: Any, whole: bool) -> None:
    if log:
        raise _Faulty("log and step do not go together. Leave one out.")
    if not _is_number(step, whole) or step <= 0:
        raise _Faulty(f"step must be a {'whole ' if whole else ''}number above 0.")
    steps = (high - low) / step
    if steps < 1 or abs(steps - round(steps)) > 1e-6:
        raise _Faulty(f"steps of {format_value(step)} do not lead from {format_value(low)} to {format_value(high)}.")


def _is_number(value: Any, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        return False
    return math.isfinite(value)


def _twice(parameters: tuple[Parameter, ...], above: frozenset[str] = frozenset()) -> set[str]:
    """Return the keys that one trial could get from two places: next to or below each other, not below different
    options.
    """
    seen, doubled = set(above), set[str]()
    for parameter in parameters:
        mine = _keys((parameter,))
        doubled |= mine & seen
        seen |= mine
        if isinstance(parameter, Choice):
            for option in parameter.options:
                doubled |= _twice(option.parameters, frozenset({parameter.key}))
    return doubled


def _keys(parameters: tuple[Parameter, ...]) -> set[str]:
    """Return all keys that the parameters and those below them may set."""
    below = (_keys(option.parameters) for p in parameters if isinstance(p, Choice) for option in p.options)
    return {parameter.key for parameter in parameters}.union(*below)
