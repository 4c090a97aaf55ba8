"""The command line in Hydra's grammar: ``--help``, ``--cfg job``, ``-m`` and overrides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddtl.config.where import options
from ddtl.utils.errors import UserError
from ddtl.utils.suggest import did_you_mean

MAX_JOBS = 1000


@dataclass(frozen=True)
class CommandLine:
    """What was asked for, and the overrides as they were typed."""

    overrides: tuple[str, ...]
    help: bool = False
    show_config: bool = False
    multirun: bool = False


def parse(argv: Sequence[str]) -> CommandLine:
    """Split flags from overrides. Unknown flags stay among the overrides, whose reader names all mistakes at once.

    Raises:
        UserError: flags that do not go together.
    """
    overrides: list[str] = []
    flags = {"help": False, "show_config": False, "multirun": False}
    words = iter(argv)
    for word in words:
        match word:
            case "--help" | "-h":
                flags["help"] = True
            case "--multirun" | "-m":
                flags["multirun"] = True
            case "--resolve":
                pass  # Hydra's flag beside --cfg; what ddtl prints is resolved in any case
            case "--cfg" | "-c":
                if next(words, None) != "job":
                    raise UserError("--cfg takes one word: `--cfg job` prints the composed configuration.")
                flags["show_config"] = True
            case "--cfg=job":
                flags["show_config"] = True
            case _:
                overrides.append(word)
    if flags["show_config"] and flags["multirun"]:
        raise UserError("--cfg job prints one configuration: leave out -m, and give each key one value.")
    return CommandLine(tuple(overrides), **flags)


def own_settings(
    words: Sequence[str], readers: Mapping[str, Callable[[str], Any]]
) -> tuple[dict[str, Any], list[str], list[str]]:
    """The settings of a command that takes others than ``train.py`` does.

    Args:
        readers: key -> what makes its value of the text behind ``=``, and says by ``ValueError`` what is wrong with it.

    Returns:
        The values by key, the words that are no such setting, and a line for each mistake.
    """
    values: dict[str, Any] = {}
    others, problems = [], []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in readers:
            others.append(word)
            continue
        try:
            values[key] = readers[key](value)
        except ValueError as error:
            problems.append(f"{word}: {error}")
    return values, others, problems


# Where a run's images and the cache are; on another machine than the run's they are elsewhere.
_PATHS = ("paths.data_dir", "paths.cache_dir")


def settings_and_paths(
    words: Sequence[str], readers: Mapping[str, Callable[[str], Any]]
) -> tuple[dict[str, Any], list[str]]:
    """The settings of a command about one run, and the words that say where images are; all mistakes in one message.

    Args:
        words: behind the run.
        readers: as for :func:`own_settings`.

    Raises:
        UserError: there are mistakes.
    """
    values, others, problems = own_settings(words, readers)
    known, paths = (*readers, *_PATHS), []
    for word in others:
        key, equals, _ = word.partition("=")
        if equals and key in _PATHS:
            paths.append(word)
        else:
            problems.append(f"{word}: no such setting.{did_you_mean(key, known)} There are {', '.join(known)}.")
    if problems:
        raise UserError("\n".join(problems))
    return values, paths


def number_of_days(text: str) -> float:
    """Reads a number of days.

    Raises:
        ValueError: it is none.
    """
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < 1e6:
        raise ValueError("must be a number of days, 0 or more.")
    return days


def truth(text: str) -> bool:
    """Reads ``true`` and ``false``.

    Raises:
        ValueError: it is neither.
    """
    if text not in ("true", "false"):
        raise ValueError("takes true or false.")
    return text == "true"


def expand(overrides: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """The jobs of a ``-m`` command: every combination of its comma lists, ``choice()``, ``range()`` and ``glob()``.

    Returns:
        The jobs, and a line for each word that cannot be listed out; the jobs are without those.
    """
    each: list[list[str]] = []
    problems: list[str] = []
    for text in overrides:
        try:
            each.append(list(itertools.islice(_values(text), MAX_JOBS + 1)))
        except UserError as problem:
            problems.append(f"{text}: {problem}")
    count = math.prod(len(values) for values in each)
    if count > MAX_JOBS:
        return [], [
            *problems,
            f"-m: more than {MAX_JOBS} combinations. Give fewer values, or search: sweep.py search=….",
        ]
    return [list(job) for job in itertools.product(*each)], problems


def has_several(text: str) -> bool:
    """Whether a word gives its key several values: ``a,b``, ``choice()``, ``range()`` or ``glob()``."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(text).is_sweep_override()
    except HydraException:
        return False


def _values(text: str) -> Iterator[str]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        yield text  # whoever reads the job says what is wrong with it
        return
    key, values = override.get_key_element(), override.value()
    found: Iterator[Any]
    if not override.is_sweep_override():
        found = iter([text])
    elif isinstance(values, Glob):
        found = (f"{key}={name}" for name in values.filter(options(override.key_or_group)))
    elif override.is_discrete_sweep():
        found = (f"{key}={value}" for value in override.sweep_string_iterator())
    else:
        raise UserError("has no end of values. List them: a,b,c or range(start,stop,step).")
    first = next(found, None)
    if first is None:
        raise UserError("stands for no value at all.")
    yield from itertools.chain([first], found)
