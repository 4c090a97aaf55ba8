"""Overrides to a typed ``Config``: Hydra composes, the schema converts, and every mistake comes in one message."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ddtl.config import checks
from ddtl.config.schema import Config
from ddtl.config.suggest import did_you_mean
from ddtl.config.where import conf_dir
from ddtl.errors import UserError

log = logging.getLogger(__name__)


def load(overrides: Sequence[str] = (), config_name: str = "train") -> Config:
    """Compose ``conf/<config_name>.yaml`` with ``overrides`` and convert it.

    Settings that are allowed but have no effect are logged as warnings.

    Raises:
        UserError: with one line for every mistake found.
    """
    tree, problems, explicit = _compose(overrides, config_name)
    config, type_problems = _convert(tree)
    problems += type_problems
    if config is None:
        # The other checks are still worth their answer: look at the rest with the mistyped values put back.
        defaults, _, _ = _compose([text for text in overrides if _is_group(text)], config_name)
        config, _ = _convert(_mended(tree, defaults))
    if config is not None:
        problems += checks.problems(config)
    if problems:
        raise UserError(_message(problems))
    assert config is not None
    for warning in checks.warnings(config, explicit):
        log.warning(warning)
    return config


def composed_yaml(overrides: Sequence[str] = (), config_name: str = "train") -> str:
    """The composed configuration as YAML, every reference resolved; what ``--cfg job`` prints."""
    import yaml

    load(overrides, config_name)
    tree, _, _ = _compose(overrides, config_name)
    return yaml.safe_dump(tree, sort_keys=False)


def group_options(group: str) -> list[str]:
    """The options of a group; empty where there is no such group."""
    folder = conf_dir() / group
    return sorted(path.stem for path in folder.glob("*.yaml")) if group and folder.is_dir() else []


@contextmanager
def _hydra() -> Iterator[None]:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    folder = conf_dir()
    if not (folder / "train.yaml").is_file():
        raise UserError(f"the configuration files are missing: {folder} holds no train.yaml. Install ddtl again.")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder), version_base="1.3"):
        yield


def _compose(overrides: Sequence[str], config_name: str) -> tuple[dict[str, Any], list[str], set[str]]:
    """Compose what can be composed; (tree, a line for each override that cannot, the keys that were set)."""
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    with _hydra():
        groups, values, problems = _sorted_out(overrides)
        defaults = compose(config_name, overrides=groups)
        known = list(_keys(OmegaConf.to_container(defaults, resolve=False)))
        accepted: list[str] = []
        explicit: set[str] = set()
        for key, text in values:
            if key in known:
                accepted.append(text)
                explicit.add(key)
            else:
                problems.append(f"{text}: {_unknown_key(key, known)}")
        try:
            composed = compose(config_name, overrides=[*groups, *accepted])
            tree = OmegaConf.to_container(composed, resolve=True)
        except (HydraException, OmegaConfBaseException) as error:
            problems.append(" ".join(str(error).split()))
            tree = OmegaConf.to_container(defaults, resolve=True)
    assert isinstance(tree, dict)
    return tree, problems, explicit  # type: ignore[return-value]


def _sorted_out(overrides: Sequence[str]) -> tuple[list[str], list[tuple[str, str]], list[str]]:
    """Overrides as (group choices, [(key, override)], problems)."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    groups: list[str] = []
    values: list[tuple[str, str]] = []
    problems: list[str] = []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            problems.append(
                f"{text}: cannot be read. Write key=value, and quote values with special signs: key='\"a, b\"'."
            )
            continue
        key = override.key_or_group
        options = group_options(key)
        if override.is_sweep_override():
            problems.append(
                f"{text}: several values. Add -m to run each of them, or put a list in brackets: {key}=[…]."
            )
        elif override.is_delete():
            problems.append(f"{text}: nothing can be taken away. Set the value that you want instead.")
        elif options:
            choice = override.value()
            if choice in options or (choice is None and key in ("experiment", "debug")):
                groups.append(f"{key}={'null' if choice is None else choice}")
            else:
                hint = did_you_mean(str(choice), options)
                problems.append(f"{text}: no such option.{hint} There are {', '.join(options)}.")
        else:
            # Hydra adds a key with `+`; every key that means something is there, so it is checked like the rest.
            values.append((key, text.lstrip("+")))
    return groups, values, problems


def _is_group(text: str) -> bool:
    key = text.lstrip("+").partition("=")[0]
    return text.lstrip("+").partition("=")[2] in group_options(key)


def _keys(tree: Any, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


def _unknown_key(key: str, known: list[str]) -> str:
    parent = key.rpartition(".")[0]
    if parent in known and not any(name.startswith(parent + ".") for name in known):
        return f"{parent} has no keys of its own here."
    return f"no such key.{did_you_mean(key, known)}"


def _convert(tree: dict[str, Any]) -> tuple[Config | None, list[str]]:
    """The typed configuration, or a line for each value of a wrong type or out of bounds."""
    from pydantic import ValidationError

    try:
        return Config.model_validate(tree), []
    except ValidationError as error:
        return None, list(dict.fromkeys(_type_problem(item) for item in error.errors()))


def _type_problem(item: Any) -> str:
    keys = [
        str(part) for part in item["loc"] if isinstance(part, str) and not part.startswith(("literal[", "constrained-"))
    ]
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "missing":
        return f"{'.'.join(keys)}: missing."
    return f"{'.'.join(keys)}={item['input']}: {message[0].lower()}{message[1:]}."


def _mended(tree: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """``tree`` with the values that do not convert replaced by their defaults."""
    from pydantic import ValidationError

    try:
        Config.model_validate(tree)
        return tree
    except ValidationError as error:
        for item in error.errors():
            node, default = tree, defaults
            path = list(item["loc"])
            for depth, part in enumerate(path):
                if not isinstance(node, dict) or part not in node or part not in default:
                    break
                last = depth + 1 == len(path) or not isinstance(node[part], dict)
                if last:
                    node[part] = default[part]
                    break
                node, default = node[part], default[part]
    return tree


def _message(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return f"{len(problems)} problems in the configuration:\n" + "\n".join(f"  {line}" for line in problems)
