"""Whether ``train.py`` would take the trials of a space: composed at its bounds, in all its branches, and at random."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ddtl.config import checks, load
from ddtl.config.load import ConfigError
from ddtl.schema.run import Config
from ddtl.sweeps.space.space import ParameterPlace, Sampled
from ddtl.sweeps.space.syntax import Choice

_AT_RANDOM = 20
# What a search does not vary: a pattern of keys, and why.
_IMAGES = (
    "kind|name|protocol|n_folds|fold|split_seed|val_fraction|test_fraction|root|table|classes|patients|patient_regex"
)
_NOT_VARIED = (
    (r"(paths|logger|run|evaluation|debug)(\..*)?", "it does not make another model. Set it on the command line"),
    (
        rf"experiment|dataset(\.({_IMAGES}|phantom.*))?",
        "scores on other images cannot be compared. Set it on the command line",
    ),
    (r"trainer\.monitor", "trials are compared by one score. Set it on the command line"),
    (r"seed", "the best of some seeds is luck. sweep.seeds repeats the best trial over seeds"),
)


@dataclass(frozen=True)
class _Trial:
    """A trial that was composed: Optuna's parameters, the words, and the configuration."""

    params: dict[str, Any]
    words: tuple[str, ...]
    config: Config


def try_trials(space: Sampled, fixed: Sequence[str], also: Sequence[str] = ()) -> dict[str, str]:
    """Compose trials of a space, for mistakes that no single parameter shows.

    Args:
        space: the space.
        fixed: the words that all trials share.
        also: keys that the command knows besides, for the did-you-mean.

    Returns:
        The keys that have no effect with these fixed words, wherever they are, and why.

    Raises:
        ConfigError: with one line for every mistake found.
    """
    places = list(space.places())
    keys = dict.fromkeys(place.parameter.key for place in places)
    problems = [
        f"search.space.{key}: {why}." for key in keys for pattern, why in _NOT_VARIED if re.fullmatch(pattern, key)
    ]
    if problems:
        raise ConfigError(problems)
    trials: list[_Trial] = []
    refused: dict[str, str] = {}
    for params, words in _draw_trials(space, places):
        try:
            config, _ = load.check([*fixed, *words], also=also)
        except ConfigError as error:
            for line in error.problems:
                about = re.split(r"[=:]", line, maxsplit=1)[0]
                refused.setdefault(about, f"search.space: {line} (In the trial {' '.join(words)}.)")
        else:
            trials.append(_Trial(params, words, config))
    if refused:
        raise ConfigError(list(refused.values()))
    return _without_effect(places, trials)


def _draw_trials(space: Sampled, places: Sequence[ParameterPlace]) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """Yield parameters and words of trials: one at each bound and option, all else at random, and some all at
    random.
    """
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    optuna.logging.set_verbosity(level)
    for place in places:
        for value in _ends(place):
            study.enqueue_trial({**place.conditions(), place.parameter.name: value})
    seen: set[tuple[str, ...]] = set()
    for _ in range(len(study.get_trials(deepcopy=False)) + _AT_RANDOM):
        trial = study.ask()
        words = tuple(space.suggest(trial))
        if words not in seen:
            seen.add(words)
            yield trial.params, words


def _ends(place: ParameterPlace) -> list[Any]:
    parameter = place.parameter
    if isinstance(parameter, Choice):
        return [option.stored for option in parameter.options]
    return [parameter.low, parameter.high]


def _without_effect(places: Sequence[ParameterPlace], trials: Sequence[_Trial]) -> dict[str, str]:
    """Return keys that change nothing in any trial.

    Raises:
        ConfigError: with a line for each parameter that changes nothing in some trials that have it.
    """
    left_out: dict[str, str] = {}
    problems: list[str] = []
    for key, idle, why in checks.WITHOUT_EFFECT:
        found: dict[bool, list[ParameterPlace]] = defaultdict(list)
        for place in places:
            if place.parameter.key == key:
                for trial in trials:
                    if place.reached(trial.params):
                        found[idle(trial.config)].append(place)
        if found[True] and not found[False]:
            left_out[key] = why
        elif found[True]:
            place = found[True][0]
            always = place not in found[False]
            where = f"below {place.format_condition()}" if always else "in some trials"
            fix = "Take it out there." if always else "Put it below the option of a choice where it counts."
            problems.append(f"search.space.{key} has no effect {where}: {why}. {fix}")
    if problems:
        raise ConfigError(problems)
    return left_out
