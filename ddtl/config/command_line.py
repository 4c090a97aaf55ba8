"""The command line in Hydra's grammar: ``--help``, ``--cfg job``, ``-m`` and overrides."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from ddtl.errors import UserError


@dataclass(frozen=True)
class CommandLine:
    """What was asked for, and the overrides as they were typed."""

    overrides: tuple[str, ...]
    help: bool = False
    show_config: bool = False
    multirun: bool = False


def parse(argv: Sequence[str]) -> CommandLine:
    """Split flags from overrides.

    Raises:
        UserError: a flag that ddtl does not know.
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
            case _ if word.startswith("-"):
                raise UserError(f"{word}: no such flag. There are --help, --cfg job and -m (--multirun).")
            case _:
                overrides.append(word)
    return CommandLine(tuple(overrides), **flags)


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The jobs of a ``-m`` command: every combination of its comma lists, ``choice()``, ``range()`` and ``glob()``.

    Raises:
        UserError: an override that cannot be read or not be listed out.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from ddtl.config.load import group_options

    parser = OverridesParser.create()
    choices: list[list[str]] = []
    for text in overrides:
        try:
            override = parser.parse_override(text)
            if not override.is_sweep_override():
                choices.append([text])
            elif override.is_discrete_sweep():
                key = override.get_key_element()
                choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
            else:
                glob = override.value()
                options = group_options(override.key_or_group)
                choices.append([f"{override.key_or_group}={name}" for name in glob.filter(options)])  # type: ignore[union-attr]
        except (HydraException, AttributeError) as error:
            raise UserError(f"{text}: cannot be listed out into jobs ({error}).") from error
    return [list(job) for job in itertools.product(*choices)]
