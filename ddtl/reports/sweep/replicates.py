"""Trials that differ in nothing but chance are replicates of one setting: settings are ranked by their mean.

A seed, a fold or another split is nothing to choose: the best of several is so by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ddtl.config.overrides import key_of

# What makes another replicate of a setting, and no other setting.
KEYS = ("seed", "dataset.split_seed", "dataset.fold", "dataset.phantom.seed")

# Number, words and values of a trial; None where it is not complete.
Scored = tuple[int, Sequence[str], Sequence[float] | None]


@dataclass(frozen=True)
class Setting:
    """What is compared: the words that trials share but for :data:`KEYS`.

    Attributes:
        words: without those of :data:`KEYS`.
        trials: numbers of the completed ones, one for each replicate.
        values: of each of them, by objective.
        of: how many replicates were begun.
    """

    words: tuple[str, ...]
    trials: tuple[int, ...]
    values: tuple[tuple[float, ...], ...]
    of: int

    @property
    def scores(self) -> list[float]:
        """The first objective of each."""
        return [values[0] for values in self.values]

    @property
    def means(self) -> list[float]:
        """The mean of each objective."""
        return [sum(each) / len(each) for each in zip(*self.values, strict=True)]

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the scores over the replicates (n - 1); None for a single one."""
        n, mean = len(self.scores), self.means[0]
        return math.sqrt(sum((score - mean) ** 2 for score in self.scores) / (n - 1)) if n > 1 else None


def setting(words: Iterable[str]) -> tuple[str, ...]:
    """Return the words of a trial without those of :data:`KEYS`."""
    return tuple(word for word in words if key_of(word) not in KEYS)


def varied(trials: Iterable[Sequence[str]]) -> list[str]:
    """Return those of :data:`KEYS` in which trials differ; none where there are no replicates.

    Args:
        trials: the words of each.
    """
    found: dict[str, set[str | None]] = {key: set() for key in KEYS}
    for words in trials:
        given = {key_of(word): word.partition("=")[2] for word in words if key_of(word) in found}
        for key, values in found.items():
            values.add(given.get(key))
    return [key for key, values in found.items() if len(values) > 1]


def parts(trials: Iterable[Sequence[str]]) -> list[str]:
    """Return the words that train a setting on every fold and split that the trials had, for ``train.py``.

    One of several folds alone would be scored on a part of the images. Seeds are left to the user of the command:
    those of the search have been used.

    Args:
        trials: the words of each.
    """
    trials = list(trials)
    found = []
    for key in varied(trials):
        if key != "seed":
            values = [word.partition("=")[2] for words in trials for word in words if key_of(word) == key]
            found.append(f"{key}={','.join(sorted(set(values), key=lambda text: (len(text), text)))}")
    return [*found, "--multirun"] if found else []


def ranked(trials: Sequence[Scored], sign: int) -> list[Setting]:
    """Return the settings with a completed trial, the best mean first; of fewer completed replicates last.

    The mean of a setting whose replicates failed or were pruned is over the others. Without replicates each
    trial is a setting.

    Args:
        trials: of the sweep, by number.
        sign: 1 where more is better, else -1.
    """
    keys = varied(words for _, words, _ in trials)
    groups: dict[object, dict[tuple[str, ...], tuple[int, Sequence[float] | None]]] = {}
    for number, words, values in trials:
        own = setting(words) if keys else tuple(words)
        replicate = tuple(word for word in words if key_of(word) in KEYS)
        group = groups.setdefault((own, None if keys else number), {})
        if replicate not in group or group[replicate][1] is None:  # the same words again are the same run
            group[replicate] = (number, values)
    found = []
    for (own, _), group in groups.items():  # type: ignore[misc]
        done = [(number, tuple(values)) for number, values in group.values() if values is not None]
        if done:
            numbers, scores = zip(*done, strict=True)
            found.append(Setting(own, numbers, scores, len(group)))
    return sorted(found, key=lambda s: (-len(s.trials), -sign * s.means[0], s.trials[0]))


def without(params: Iterable[str]) -> list[str]:
    """Return names of parameters but for those of :data:`KEYS`."""
    return [name for name in params if name.rpartition("/")[2] not in KEYS]
