"""The words of ``conf/sweep.yaml``: a sweep's own settings, apart from those of its trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ddtl.config import checks, command_line, compose, load, where
from ddtl.config.convert import convert
from ddtl.config.load import ConfigError
from ddtl.config.overrides import Setting, key_of, read as read_words
from ddtl.schema.sweep import SearchConfig, SweepConfig
from ddtl.sweeps.plan import check_classes
from ddtl.utils.suggest import did_you_mean

CONFIG_NAME = "sweep"
_NO_PRUNER = "NopPruner"
_TOPS = tuple(SweepConfig.model_fields)
# Below these keys anything is allowed; ddtl/sweeps/space/syntax.py and the classes that are named say what.
_OPEN = ("search.name", "search.space", "sampler.args", "pruner.args")


def is_own(word: str) -> bool:
    """Return whether a word of the command line is the sweep's and not for ``train.py``."""
    return key_of(word).partition(".")[0] in _TOPS


def keys() -> list[str]:
    """Return every key of the sweep's own."""
    return [*_TOPS, *compose.keys(compose.composed(CONFIG_NAME, {}))]


def read(words: Sequence[str], grid: bool = False) -> tuple[SweepConfig | None, list[str]]:
    """Return the settings that the sweep's own words ask for, and a line for every mistake in them.

    Args:
        words: those that :func:`is_own` tells.
        grid: whether combinations are listed by other words of the command line; then there is no search, all are run,
            and unless it was requested none is ended early and none is retrained.

    Returns:
        The settings as far as they can be read (None where they cannot), and the mistakes.
    """
    several = [word for word in words if command_line.has_several(word)]
    open_ = [word for word in words if _is_open(word) and word not in several]
    plain = [word for word in words if not _is_open(word) and word not in several]
    given = read_words(open_, {})
    problems = [f"{word}: takes one value. Only settings of train.py make a grid." for word in several]
    problems += given.problems
    typed = {key_of(word) for word in words}
    found: list[SweepConfig] = []

    def contradictions(config: SweepConfig) -> list[str]:
        merged, lines = _merge(config, given.settings, typed, grid)
        if merged is None:
            return lines
        found.append(merged)
        return _problems(merged, typed, grid)

    try:
        load.typed(plain, CONFIG_NAME, SweepConfig, contradictions)
    except ConfigError as error:
        problems += error.problems
    return (found[-1] if found else None), problems


def without(search: SearchConfig, keys: Iterable[str]) -> SearchConfig:
    """Return the search with parameters taken out of its space."""
    space = search.space
    for key in keys:
        space, _ = _replace(space, key, None)
    return search.model_copy(update={"space": space})


def _is_open(word: str) -> bool:
    return any(f"{key_of(word)}.".startswith(f"{key}.") for key in _OPEN)


def _merge(
    config: SweepConfig, settings: Iterable[Setting], typed: set[str], grid: bool
) -> tuple[SweepConfig | None, list[str]]:
    """Return the settings with those whose keys are in no file, and with what follows of others; or a line for each
    mistake.
    """
    tree = config.model_dump()
    default = load.typed((), CONFIG_NAME, SweepConfig, lambda found: [])[0]
    if config.sampler.name != default.sampler.name:
        tree["sampler"]["args"] = {}
    if config.pruner.name != default.pruner.name:
        tree["pruner"]["args"] = {}
    if "pruner.name" not in typed and (grid or len(config.sweep.objective) > 1):
        tree["pruner"] = {"name": _NO_PRUNER, "args": {}}
    if "finalize" not in typed and grid:
        tree["finalize"] = False
    for setting in settings:
        part, _, key = setting.key.partition(".")
        if part == "search":
            tree["search"] = _search(tree["search"] or {"name": "custom", "space": {}}, key, setting.value)
        else:
            _put(tree[part], key, setting.value)
    merged, lines = convert(tree, SweepConfig)
    return merged, list(lines.values())


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *above, last = key.split(".")
    for name in above:
        tree = tree.setdefault(name, {})
    tree[last] = value


def _search(search: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    if key in ("name", "space"):
        return {**search, key: value}
    parameter = key.removeprefix("space.")
    space, found = _replace(search["space"], parameter, value)
    return {**search, "space": space if found or value is None else {**space, parameter: value}}


def _replace(space: Mapping[str, Any], key: str, value: Any) -> tuple[dict[str, Any], bool]:
    """Return the space with ``value`` wherever ``key`` is, without it where that is None; and whether it was there."""
    done: dict[str, Any] = {}
    found = False
    for name, spec in space.items():
        if name == key:
            found = True
            if value is not None:
                done[name] = _narrow(spec, value)
            continue
        done[name] = spec
        if _has_branches(spec):
            options = {}
            for option, inner in spec["choice"].items():
                options[option], inside = _replace(inner or {}, key, value)
                found |= inside
            done[name] = {**spec, "choice": options}
    return done, found


def _narrow(before: Any, now: Any) -> Any:
    """Return a list of some of the options that were there before: they keep their parameters."""
    if _has_branches(before) and isinstance(now, Mapping) and isinstance(now.get("choice"), list):
        branches = before["choice"]
        return {**now, "choice": {option: branches.get(option) or {} for option in now["choice"]}}
    return now


def _has_branches(spec: Any) -> bool:
    return isinstance(spec, Mapping) and isinstance(spec.get("choice"), Mapping)


def _problems(config: SweepConfig, typed: set[str], grid: bool) -> list[str]:
    found = check_classes.problems(config)
    kind = config.engine.kind
    engines = where.options("engine")
    if kind not in engines:
        hint = did_you_mean(kind, engines)
        found.append(f"engine.kind={kind}: there is no such engine.{hint} There are {', '.join(engines)}.")
    name, objective = config.sweep.name, config.sweep.objective
    if name is not None and not checks.is_folder_name(name):
        found.append(f"sweep.name={name}: must be a plain folder name; paths.runs_dir says where that folder is.")
    if objective not in (("score",), ("score", "seconds")):
        found.append(f"sweep.objective=[{', '.join(objective)}]: takes [score] or [score, seconds].")
    elif len(objective) > 1 and config.pruner.name != _NO_PRUNER:
        found.append(
            f"pruner.name={config.pruner.name}: with two objectives no trial can be ended early. Leave it out, or set "
            "sweep.objective=[score]."
        )
    if grid and config.search is not None:
        found.append(
            f"search={config.search.name}: has a space, but other settings have several values too. Leave search "
            "out for a grid, or put those values into the space: search.space.KEY={choice: [a, b]}."
        )
    if grid and "n_trials" in typed:
        found.append(f"n_trials={config.n_trials}: a grid runs all its combinations. Leave n_trials out.")
    return found
