"""From the words after ``sweep.py`` to a checked plan: the sweep's settings, what all trials share, and what varies."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ddtl.config import command_line, load
from ddtl.config.load import ConfigError
from ddtl.config.overrides import key_of
from ddtl.config.where import groups, options
from ddtl.records.identity import short_hash
from ddtl.schema.run import OWN_FILES, Config
from ddtl.schema.sweep import ClassConfig, SearchConfig, SweepConfig
from ddtl.sweeps.plan import sweep_settings
from ddtl.sweeps.space import checks
from ddtl.sweeps.space.space import Sampled, Space, list_jobs, read_space
from ddtl.training.identity import counting
from ddtl.utils.redaction import redact_tree

LOCKED = "evaluation.test=false"
# Settings of train.py that a sweep sets or does without, and why.
_NOT_SHARED = {
    "evaluation.test": "a sweep never uses the test set; finalize=true does, once, with the best trial.",
    "run.name": "every trial has a folder of its own. sweep.name=… names the sweep.",
    "run.overwrite": "a sweep resumes its trials. To search again, give it another name: sweep.name=….",
}


@dataclass(frozen=True)
class Plan:
    """A sweep as requested.

    Attributes:
        settings: the sweep's own.
        fixed: overrides of every trial, ``evaluation.test=false`` among them.
        space: what varies.
        base: the trials' configuration without what varies; of a grid, the first combination.
        name: of the sweep.
        folder: where its records lie.
        words: the command line that it was read from.
        notes: lines for the person, such as a parameter that is excluded because it has no effect here.
        targets: of a study's runs, by trial: what each is evaluated on after training, as pairs of a dataset's name and
            the words of ``ddtl evaluate``.
        planned: by trial, the plan whose test-set uses count as one, see :func:`ddtl.records.test_ledger.count_as_one`;
            empty where each counts by itself.
    """

    settings: SweepConfig
    fixed: tuple[str, ...]
    space: Space
    base: Config
    name: str
    folder: Path
    words: tuple[str, ...] = field(compare=False)
    notes: tuple[str, ...] = field(compare=False, default=())
    targets: tuple[tuple[tuple[str, tuple[str, ...]], ...], ...] = ()
    planned: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """Return what makes the search the one that it is: plain JSON by dotted key, without what may change between
        calls.
        """
        return _identity(self.settings, self.space, self.base)


def read(words: Sequence[str], tried: bool = True) -> Plan:
    """Return the plan of a command line.

    Args:
        words: overrides. Those of ``conf/sweep.yaml`` are the sweep's; all others are for ``train.py`` and shared by
            all trials, but for those with several values, which make a grid.
        tried: whether trials are composed to see whether ``train.py`` would take them.

    Raises:
        ConfigError: with one line for every mistake found.
    """
    problems: list[str] = []
    shared, varied = _sort_words(words, problems)
    base: Config | None = None
    space: Space | None = None
    requested, wrong = sweep_settings.read([word for word in words if sweep_settings.is_own(word)], grid=bool(varied))
    problems += wrong
    devices = [] if requested is None else _devices(requested, shared, problems)
    fixed = (*shared, *devices, LOCKED)
    expanded, unreadable = command_line.expand(varied)
    jobs = list(map(list, dict.fromkeys(map(tuple, expanded))))
    problems += [*unreadable, *_grid_clashes(varied, shared)]
    notes: list[str] = []
    with _gathering(problems):
        base, notes = _trained([*fixed, *(jobs[0] if jobs else [])])
    if varied:
        space = list_jobs(jobs)
        for job in jobs[1:] if tried else []:
            with _gathering(problems):
                _trained([*fixed, *job])
        if len(jobs) < len(expanded):
            notes.append(f"of {len(expanded)} combinations {len(jobs)} are different, and each of these runs once.")
        requested = requested and requested.model_copy(update={"n_trials": len(jobs)})
    elif (
        requested is not None and requested.search is not None and not any(line.startswith("search=") for line in wrong)
    ):
        with _gathering(problems):
            search, more = _check_search(requested.search, shared, fixed, tried and base is not None)
            requested, space = requested.model_copy(update={"search": search}), read_space(search.space)
            notes += more
    elif not problems:
        problems.append(_nothing())
    if problems or requested is None or base is None or space is None:
        raise ConfigError(problems)
    name = _name(requested, space, base)
    folder = Path(os.path.expanduser(base.paths.runs_dir)) / "sweeps" / name
    return Plan(requested, fixed, space, base, name, folder, tuple(words), tuple(notes))


def composed_yaml(words: Sequence[str]) -> str:
    """Return the sweep's settings, and under ``train`` what its trials share; what ``--cfg job`` prints."""
    import yaml

    plan = read(words)
    tree = {**plan.settings.model_dump(mode="json"), "train": plan.base.model_dump(mode="json")}
    return yaml.safe_dump(redact_tree(tree), sort_keys=False)


@contextmanager
def _gathering(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        problems += error.problems


def _sort_words(words: Sequence[str], problems: list[str]) -> tuple[list[str], list[str]]:
    """Return the words for ``train.py``: those that all trials share, and those with several values."""
    shared: list[str] = []
    varied: list[str] = []
    for word in words:
        if sweep_settings.is_own(word):
            continue
        if key_of(word) in _NOT_SHARED:
            problems.append(f"{word}: {_NOT_SHARED[key_of(word)]}")
            continue
        (varied if command_line.has_several(word) else shared).append(word)
    return shared, varied


def _trained(words: Sequence[str]) -> tuple[Config, list[str]]:
    return load.check(words, also=sweep_settings.keys())


def _check_search(
    search: SearchConfig, shared: Sequence[str], fixed: Sequence[str], tried: bool
) -> tuple[SearchConfig, list[str]]:
    """Return the search without parameters that have no effect with these words, and a line about each of those.

    Raises:
        ConfigError: with one line for every mistake in its space.
    """
    space = read_space(search.space)
    clashes = list(_clashes(space, shared))
    if clashes:
        raise ConfigError(clashes)
    idle = checks.try_trials(space, fixed, sweep_settings.keys()) if tried else {}
    return sweep_settings.without(search, idle), [f"{key} is not searched here: {why}." for key, why in idle.items()]


def _devices(settings: SweepConfig, shared: Sequence[str], problems: list[str]) -> list[str]:
    """Return the word with which a trial uses all its GPUs; the trial's own, since it changes what is trained."""
    count = settings.engine.gpus_per_trial
    typed = [word for word in shared if key_of(word) == "trainer.devices"]
    if count == 1 or typed == [f"trainer.devices={count}"]:
        return []
    if typed:
        problems.append(
            f"{typed[-1]}: engine.gpus_per_trial={count} says how many a trial uses. Leave one of them out."
        )
    return [f"trainer.devices={count}"]


def _clashes(space: Sampled, shared: Sequence[str]) -> Iterator[str]:
    """Yield a line for each shared word that says what the search varies."""
    known = groups()
    for key in dict.fromkeys(place.parameter.key for place in space.places()):
        for word in shared:
            fixed = key_of(word)
            inside = (fixed.startswith(f"{key}.") and key not in known) or (
                key.startswith(f"{fixed}.") and fixed not in known
            )
            if fixed == key or inside:
                yield (
                    f"{word}: the search varies {key}. Leave this word out, or take the parameter out of the search: "
                    f"search.space.{key}=null."
                )


def _grid_clashes(varied: Sequence[str], shared: Sequence[str]) -> Iterator[str]:
    keys = [key_of(word) for word in varied]
    for word in shared:
        if key_of(word) in keys:
            yield f"{word}: the grid varies this setting. Leave one of the two out."
    for key, count in Counter(keys).items():
        if count > 1:
            yield f"{key}: is given {count} times with several values. Put them into one list: {key}=a,b,c."
    if "trainer.monitor" in keys:
        yield "trainer.monitor: trials are compared by one score. Give it one value."


def _nothing() -> str:
    return (
        f"nothing to search: take a space with search=…, there are {', '.join(options('search'))}, or give settings "
        "several values, such as optimizer.lr=1e-4,1e-3."
    )


def _name(settings: SweepConfig, space: Space, base: Config) -> str:
    if settings.sweep.name is not None:
        return settings.sweep.name
    if settings.search is not None:
        return f"{base.dataset.name}-{settings.search.name}"
    return f"{base.dataset.name}-grid-{short_hash(_identity(settings, space, base))}"


def _class(kind: str, chosen: ClassConfig) -> dict[str, Any]:
    return {f"{kind}.name": chosen.name, **{f"{kind}.args.{key}": value for key, value in chosen.args.items()}}


def _identity(settings: SweepConfig, space: Space, base: Config) -> dict[str, Any]:
    own_files = {f"train.dataset.{key}": getattr(base.dataset, key) for key in OWN_FILES}
    if base.dataset.labels is None:
        del own_files["train.dataset.labels"]  # which came after searches had been named
    return {
        "optuna": version("optuna"),
        "seed": settings.sweep.seed,
        "objective": list(settings.sweep.objective),
        **_class("sampler", settings.sampler),
        **_class("pruner", settings.pruner),
        **{f"space.{name}": what for name, what in space.described().items()},
        **{f"train.{key}": value for key, value in counting(base).items()},
        **own_files,
    }
