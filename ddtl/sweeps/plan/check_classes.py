"""Whether the sampler and the pruner that a sweep names exist and can be made with the arguments given."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ddtl.config.overrides import format_value
from ddtl.schema.sweep import ClassConfig, SweepConfig
from ddtl.utils import plugins
from ddtl.utils.suggest import did_you_mean

# Not for the command line: an abstract class, or one that is made with another sampler or pruner.
_NOT_BY_NAME = ("BaseSampler", "BaseGASampler", "BasePruner", "PartialFixedSampler", "PatientPruner")
_PACKAGES = {"CmaEsSampler": "cmaes"}


def problems(config: SweepConfig) -> list[str]:
    """Return a line for each class that there is not, and for each argument that it does not take."""
    import optuna

    from ddtl.sweeps.sampling import pruner

    # Optuna's advice on arguments is for programmers; mistakes come as errors.
    known = _named(optuna.samplers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            *_sampler(config.sampler, {**known, **plugins.added("sampler", known)}),
            *_pruner(
                config.pruner, {"AfterUnfreeze": pruner.AfterUnfreeze, **_named(optuna.pruners)}, pruner.make_pruner
            ),
        ]


def _named(module: Any) -> dict[str, type]:
    names = (name for name in module.__all__ if name not in _NOT_BY_NAME)
    return {name: found for name in names if inspect.isclass(found := getattr(module, name))}


def _sampler(chosen: ClassConfig, known: Mapping[str, type]) -> Iterator[str]:
    from optuna.samplers import BaseSampler

    if chosen.name not in known:
        yield _unknown("sampler", chosen.name, known)
        return
    if not issubclass(known[chosen.name], BaseSampler):
        yield f"sampler.name={chosen.name}: is not a sampler, which is a class of optuna.samplers.BaseSampler."
        return
    package = _PACKAGES.get(chosen.name)
    if package is not None and importlib.util.find_spec(package) is None:
        yield f"sampler.name={chosen.name}: needs a package that is not here: pip install {package}."
        return
    takes = inspect.signature(known[chosen.name]).parameters
    if "seed" in chosen.args:
        yield f"sampler.args.seed={format_value(chosen.args['seed'])}: the sampler is seeded by sweep.seed. Set that."
        return
    unknown = list(_arguments("sampler", chosen, takes))
    yield from unknown or _try_making("sampler", chosen, lambda name, args: known[name](**args))


def _pruner(
    chosen: ClassConfig, known: Mapping[str, type], make: Callable[[str, Mapping[str, Any]], Any]
) -> Iterator[str]:
    if chosen.name not in known:
        yield _unknown("pruner", chosen.name, known)
        return
    takes = dict(inspect.signature(known[chosen.name]).parameters)
    inner = chosen.args.get("inner", takes["inner"].default if "inner" in takes else None)
    if inner is not None:  # the arguments that are not its own are for the pruner that it wraps
        if inner not in known or inner == chosen.name:
            yield f"pruner.args.inner={format_value(inner)}: {_unknown('pruner', str(inner), known).partition(': ')[2]}"
            return
        takes = {name: p for name, p in takes.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
        takes |= inspect.signature(known[inner]).parameters
    unknown = list(_arguments("pruner", chosen, takes))
    yield from unknown or _try_making("pruner", chosen, make)


def _unknown(kind: str, name: str, known: Mapping[str, type]) -> str:
    return f"{kind}.name={name}: no such {kind}.{did_you_mean(name, known)} There are {', '.join(known)}."


def _arguments(kind: str, chosen: ClassConfig, takes: Mapping[str, inspect.Parameter]) -> Iterator[str]:
    for name, value in chosen.args.items():
        if name not in takes:
            hint = did_you_mean(name, takes)
            yield f"{kind}.args.{name}={format_value(value)}: {chosen.name} takes no such argument.{hint}"
    for name, parameter in takes.items():
        needed = parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_KEYWORD
        if needed and name not in chosen.args:
            yield f"{kind}.name={chosen.name}: needs {kind}.args.{name}=…."


def _try_making(kind: str, chosen: ClassConfig, make: Callable[[str, Mapping[str, Any]], Any]) -> Iterator[str]:
    try:
        make(chosen.name, chosen.args)
    except (TypeError, ValueError, AttributeError) as error:
        problem = " ".join(str(error).split()).rstrip(".")
        yield f"{kind}.args={format_value(chosen.args)}: {chosen.name} does not take them: {problem}."
