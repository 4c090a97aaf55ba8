"""What a sweep varies: a tree of parameters, or a list of jobs; from an Optuna trial to overrides of ``train.py``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from ddtl.config.load import ConfigError
from ddtl.config.overrides import format_value
from ddtl.sweeps.space import syntax
from ddtl.sweeps.space.syntax import Choice, Numbers, Option, Parameter

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import BaseTrial

_DIGITS = 4  # significant ones of a sampled number: enough for every setting, and a line that can be read


class Space(Protocol):
    """What trials are made from."""

    def suggest(self, trial: BaseTrial) -> list[str]:
        """Return the trial's own overrides, in a fixed order: of the parameters under a condition only those that
        hold.
        """

    def described(self) -> dict[str, Any]:
        """Return the space as plain JSON, by Optuna's name of each parameter."""

    def sampler(self) -> BaseSampler | None:
        """Return the sampler that this space needs; None: any will do."""


def read_space(tree: Mapping[str, Any]) -> Sampled:
    """Return the space of a YAML tree; see ``docs/sweeps.md``.

    Raises:
        ConfigError: with one line for every mistake in it.
    """
    parameters, problems = syntax.read(tree)
    if problems:
        raise ConfigError(problems)
    return Sampled(_named(parameters))


def list_jobs(jobs: Sequence[Sequence[str]]) -> Listed:
    """Return the space of which job ``i`` is trial number ``i``: a grid, or the runs of a comparison.

    Args:
        jobs: overrides of each.
    """
    return Listed(tuple(tuple(job) for job in jobs))


@dataclass(frozen=True)
class ParameterPlace:
    """A parameter where it is in a tree: below the options of ``above``, the outermost first."""

    parameter: Parameter
    above: tuple[tuple[Choice, Option], ...]

    def conditions(self) -> dict[str, Any]:
        """Return the values of other parameters, by Optuna's name, with which a trial gets here."""
        return {choice.name: option.stored for choice, option in self.above}

    def reached(self, params: Mapping[str, Any]) -> bool:
        """Return whether a trial with these parameters gets here."""
        return all(name in params and _same(params[name], value) for name, value in self.conditions().items())

    def format_condition(self) -> str:
        """Its conditions as a person reads them."""
        return " ".join(f"{choice.key}={format_value(option.value)}" for choice, option in self.above)


@dataclass(frozen=True)
class Sampled:
    """A tree of parameters."""

    parameters: tuple[Parameter, ...]

    def suggest(self, trial: BaseTrial) -> list[str]:
        return list(_draw(trial, self.parameters))

    def described(self) -> dict[str, Any]:
        found: dict[str, dict[str, Any]] = {}
        for place in self.places():
            entry = found.setdefault(place.parameter.name, _describe(place.parameter))
            if place.above:
                entry.setdefault("where", []).append(place.format_condition())
        return found

    def sampler(self) -> BaseSampler | None:
        return None

    def places(self) -> Iterator[ParameterPlace]:
        """Return each parameter, once for each place where it is."""
        return _places(self.parameters, ())


@dataclass(frozen=True)
class Listed:
    """A list of jobs. A trial's parameters are the words in which the jobs differ."""

    jobs: tuple[tuple[str, ...], ...]

    def suggest(self, trial: BaseTrial) -> list[str]:
        job = self.jobs[trial.number]
        values = self.values()
        for key in _by_key(job):
            if key in values:
                trial.suggest_categorical(key, values[key])
        return list(job)

    def described(self) -> dict[str, Any]:
        return {"jobs": [" ".join(job) for job in self.jobs]}

    def sampler(self) -> BaseSampler:
        from ddtl.sweeps.sampling.listed_sampler import ListedSampler

        return ListedSampler(tuple(_by_key(job) for job in self.jobs))

    def values(self) -> dict[str, tuple[str, ...]]:
        """Return the values of each key in which jobs differ, as they are typed, in their order."""
        each = [_by_key(job) for job in self.jobs]
        keys = dict.fromkeys(key for job in each for key in job)
        return {
            key: tuple(dict.fromkeys(job[key] for job in each if key in job))
            for key in keys
            if len({job.get(key) for job in each}) > 1
        }


def _by_key(job: Sequence[str]) -> dict[str, str]:
    """Return values as they are typed; of a key given twice the last one counts."""
    pairs = (word.partition("=") for word in job)
    return {key.lstrip("+").strip(): value.strip() for key, _, value in pairs}


def _places(parameters: Sequence[Parameter], above: tuple[tuple[Choice, Option], ...]) -> Iterator[ParameterPlace]:
    for parameter in parameters:
        yield ParameterPlace(parameter, above)
        if isinstance(parameter, Choice):
            for option in parameter.options:
                yield from _places(option.parameters, (*above, (parameter, option)))


def _draw(trial: BaseTrial, parameters: Sequence[Parameter]) -> Iterator[str]:
    for parameter in parameters:
        if isinstance(parameter, Choice):
            stored = trial.suggest_categorical(parameter.name, [option.stored for option in parameter.options])
            option = next(option for option in parameter.options if _same(option.stored, stored))
            yield f"{parameter.key}={format_value(option.value, quoted=True)}"
            yield from _draw(trial, option.parameters)
        else:
            yield f"{parameter.key}={format_value(_number(trial, parameter))}"


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _number(trial: BaseTrial, p: Numbers) -> float:
    if p.whole:
        return trial.suggest_int(p.name, int(p.low), int(p.high), step=int(p.step or 1), log=p.log)
    value = trial.suggest_float(p.name, p.low, p.high, step=p.step, log=p.log)
    digits = _DIGITS if p.step is None else 12  # a step's rounding error alone
    return min(max(float(f"{value:.{digits}g}"), p.low), p.high)


def _describe(parameter: Parameter) -> dict[str, Any]:
    if isinstance(parameter, Choice):
        return {"key": parameter.key, "choice": [option.stored for option in parameter.options]}
    more = {"log": True} if parameter.log else {"step": parameter.step} if parameter.step is not None else {}
    return {"key": parameter.key, "int" if parameter.whole else "float": [parameter.low, parameter.high], **more}


def _named(parameters: tuple[Parameter, ...]) -> tuple[Parameter, ...]:
    """Return the parameters with Optuna's names: the key, and below a choice ``<option>/<key>`` where the key has
    other ranges in other places.
    """
    ranges: dict[str, list[dict[str, Any]]] = {}
    for place in _places(parameters, ()):
        described, found = _describe(place.parameter), ranges.setdefault(place.parameter.key, [])
        if described not in found:
            found.append(described)
    ambiguous = {key for key, found in ranges.items() if len(found) > 1}
    return _rename(parameters, "", ambiguous)


def _rename(parameters: tuple[Parameter, ...], prefix: str, ambiguous: set[str]) -> tuple[Parameter, ...]:
    done: list[Parameter] = []
    for parameter in parameters:
        name = f"{prefix}{parameter.key}" if parameter.key in ambiguous else parameter.key
        if isinstance(parameter, Choice):
            options = tuple(
                replace(o, parameters=_rename(o.parameters, f"{prefix}{format_value(o.value)}/", ambiguous))
                for o in parameter.options
            )
            done.append(replace(parameter, name=name, options=options))
        else:
            done.append(replace(parameter, name=name))
    return tuple(done)
