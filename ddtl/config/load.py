"""Overrides to a typed ``Config``: Hydra composes, the schema converts, and every mistake comes in one message."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from ddtl.config import checks, compose, sources
from ddtl.config.convert import Schema, convert, text_keys
from ddtl.config.overrides import Setting, numbers_as_typed, read
from ddtl.config.where import OWN, groups
from ddtl.schema.run import Config
from ddtl.utils.errors import UserError
from ddtl.utils.redaction import add_secrets_of, redact_tree

log = logging.getLogger(__name__)

# Keys of conf/train.yaml whose value comes from a variable, where that is set.
_VARIABLES = {
    "paths.data_dir": "DDTL_DATA",
    "paths.cache_dir": "DDTL_CACHE",
    "paths.weights_mirror": "DDTL_WEIGHTS_MIRROR",
    "paths.data_mirror": "DDTL_DATA_MIRROR",
}


class ConfigError(UserError):
    """Every mistake in one message; ``problems`` contains a line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(dict.fromkeys(problems))
        count = len(self.problems)
        lines = self.problems if count == 1 else [f"{count} problems in the configuration:", *self.problems]
        super().__init__("\n  ".join(lines))


def load(overrides: Sequence[str] = (), config_name: str = "train", *, writes: bool = True) -> Config:
    """Compose ``conf/<config_name>.yaml`` with overrides such as ``optimizer.lr=1e-4`` and convert it.

    Settings that are allowed but have no effect are logged as warnings.

    Args:
        overrides: key=value and group=option.
        config_name: file under ``conf/``.
        writes: whether the command writes to paths.runs_dir.

    Raises:
        UserError: with one line for every mistake found.
    """
    config, warnings = check(overrides, config_name, writes=writes)
    for warning in warnings:
        log.warning(warning)
    return config


def check(
    overrides: Sequence[str] = (), config_name: str = "train", also: Iterable[str] = (), *, writes: bool = True
) -> tuple[Config, list[str]]:
    """As :func:`load`, but hands the warnings over.

    Args:
        overrides: as for :func:`load`.
        config_name: as for :func:`load`.
        also: keys that the command knows besides, for the did-you-mean.
        writes: as for :func:`load`.

    Raises:
        UserError: with one line for every mistake found.
    """
    config, settings = typed(overrides, config_name, Config, partial(checks.problems, writes=writes), also)
    config = config.model_copy(update={"dataset": sources.resolved(config.dataset)})
    return config, checks.warnings(config, {setting.key for setting in settings})


def typed(
    overrides: Sequence[str],
    config_name: str,
    schema: type[Schema],
    contradictions: Callable[[Schema], list[str]],
    also: Iterable[str] = (),
) -> tuple[Schema, list[Setting]]:
    """``conf/<config_name>.yaml`` with overrides as a ``schema``, and the settings that were requested by their key.

    Raises:
        UserError: with one line for every mistake found, those of ``contradictions`` included.
    """
    known_groups = groups(config_name)
    words = read(overrides, known_groups, set(text_keys(schema)))
    base = compose.composed(config_name, words.choices)
    settings, unknown = compose.check_keys(base, words.settings, [*known_groups, *also])
    tree, unresolved = compose.resolved(base, settings)
    config, mistyped = convert(tree, schema, numbers_as_typed(settings))
    problems = [*words.problems, *unknown, *unresolved]
    for key, line in mistyped.items():
        is_given = any(_related(setting.key, key) for setting in settings)
        problems.append(line if is_given else f"{line} {_origin(key)}")
    if config is None:
        # The other checks are still worth their answer: check the rest without the mistyped values.
        sound = [setting for setting in settings if not any(_related(setting.key, key) for key in mistyped)]
        config, _ = convert(compose.resolved(base, sound)[0], schema)
    if config is not None:
        unsure = [*mistyped, *(f"{group}." for group in words.unsure)]
        problems += [line for line in contradictions(config) if not any(key in line for key in unsure)]
        for url in _urls(config):
            add_secrets_of(url)
    if problems:
        raise ConfigError(problems)
    assert config is not None
    return config, settings


def _urls(config: Any) -> Iterator[str | None]:
    """The settings that may contain a password, wherever they were set."""
    yield from (config.paths.data_mirror, config.paths.weights_mirror) if hasattr(config, "paths") else ()
    yield config.logger.mlflow.store if hasattr(config, "logger") else None
    yield config.sweep.storage if hasattr(config, "sweep") else None


def composed_yaml(overrides: Sequence[str] = (), config_name: str = "train") -> str:
    """The configuration as YAML, every reference resolved, no secret in it; what ``--cfg job`` prints."""
    import yaml

    tree = load(overrides, config_name, writes=False).model_dump(mode="json")
    return yaml.safe_dump(redact_tree(tree), sort_keys=False)


def _origin(key: str) -> str:
    """Where a value comes from that is not on the command line, and how to change it."""
    variable = _VARIABLES.get(key)
    if variable is None or variable not in os.environ:
        own = os.environ.get(OWN)
        return f"It is set in a file under conf/ or {own}." if own else "It is set in a file under conf/."
    return f"It is the value of the variable {variable}; the default is taken without it: unset {variable}"


def _related(one: str, other: str) -> bool:
    """Whether two keys are the same or one is within the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
