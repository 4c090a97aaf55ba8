"""The command line in Hydra's grammar: ``--help``, ``--cfg job``, ``-m`` and overrides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ddtl.config.where import options
from ddtl.utils.errors import UserError

MAX_JOBS = 1000


@dataclass(frozen=True)
class CommandLine:
    """What was requested, and the overrides as they were typed."""

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
                pass  # Hydra's flag that goes with --cfg; what ddtl prints is resolved in any case
            case "--cfg" | "-c":
                if next(words, None) != "job":
                    raise UserError("--cfg takes one word: `--cfg job` prints the composed configuration.")
                flags["show_config"] = True
            case "--cfg=job":
                flags["show_config"] = True
            case _:
                overrides.append(word)
    if flags["show_config"] and flags["multirun"]:
        raise UserError("--cfg job prints one configuration: omit -m, and give each key one value.")
    return CommandLine(tuple(overrides), **flags)


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
