"""JSON Schema of the configuration files, for editors: keys, types, bounds and choices, with their meanings.

It comes of the models that check the configuration and of the comments under ``conf/``. What depends on several keys
at once is checked by the commands alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ddtl.config.help_page import every_comment
from ddtl.config.where import groups, keys_in, option_file, options, text_of
from ddtl.schema.backbones import backbones
from ddtl.schema.run import Config
from ddtl.schema.scores import MONITORS
from ddtl.schema.section import Section
from ddtl.schema.sweep import SweepConfig
from ddtl.utils.errors import UserError
from ddtl.utils.suggest import did_you_mean

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = {"type": "string", "pattern": r"^\$\{.+\}$", "description": "the value of another key"}
_MARKUP = re.compile(r"(?::\w+:)?`+~?([^`]+)`+")  # of docstrings, which an editor shows as it is
_LAST_GROUPS = ("experiment", "debug")  # whose files are about the whole


def kinds() -> list[str]:
    """What there is a schema for: ``train``, the whole of train.py, ``sweep``, and each group of files."""
    return ["train", "sweep", *(group for name in ("train", "sweep") for group in groups(name))]


def schema(kind: str = "train") -> dict[str, Any]:
    """Return the schema of a kind of file, in which no key is required: a file has what differs from its default.

    Args:
        kind: one of :func:`kinds`.

    Raises:
        UserError: there is no such kind of file.
    """
    if kind not in kinds():
        raise UserError(f"{kind}: no such kind of file.{did_you_mean(kind, kinds())} There are {', '.join(kinds())}.")
    model: type[Section] = SweepConfig if kind == "sweep" or kind in groups("sweep") else Config
    whole = _whole(model, "sweep" if model is SweepConfig else "train")
    if kind in ("train", "sweep") or _is_global(kind):
        found = whole
    else:
        found = whole["properties"][kind]
        found = next((one for one in found.get("anyOf", ()) if "properties" in one), found)
    defaults = {"type": "array", "description": "the files that this one begins with"}
    return {
        "$schema": DIALECT,
        "title": f"ddtl: {kind}",
        "type": "object",
        **{key: found[key] for key in ("description", "additionalProperties") if key in found},
        "properties": {"defaults": defaults, **found["properties"]},
        "$defs": {"parameter": _parameter()},
    }


def _is_global(group: str) -> bool:
    """Return whether the files of a group have keys of the whole configuration."""
    if group in _LAST_GROUPS:
        return True
    files = [option_file(group, option) for option in options(group)]
    return any(path.exists() and text_of(path).startswith("# @package _global_") for path in files)


def _whole(model: type[Section], config_name: str) -> dict[str, Any]:
    tree, comments = model.model_json_schema(), every_comment(config_name)
    found: dict[str, Any] = _plain(tree, tree["$defs"], comments, "")
    if model is Config:
        found["properties"]["trainer"]["properties"]["monitor"]["enum"] = list(MONITORS)
        name = found["properties"]["model"]["properties"]["name"]
        of_timm = {"type": "string", "description": "a network of timm, with model.library=timm"}
        name["anyOf"] = [{"enum": list(backbones())}, of_timm]
        name.pop("type")
    for group in ("loss", "engine"):  # whose files have keys of one option alone
        if group in found["properties"]:
            part = found["properties"][group]
            for name in _own_keys(group) - set(part["properties"]):
                about = comments.get(f"{group}.{name}", "")
                part["properties"][name] = {**part["additionalProperties"], "description": about}
            part["additionalProperties"] = False
    if model is SweepConfig:
        search = next(one for one in found["properties"]["search"]["anyOf"] if "properties" in one)
        search["properties"]["space"] |= {
            "propertyNames": {"enum": [*_keys(_whole(Config, "train")), *groups("train")]},
            "additionalProperties": {"$ref": "#/$defs/parameter"},
            "minProperties": 1,
        }
    return found


def _own_keys(group: str) -> set[str]:
    paths = [option_file(group, option) for option in options(group)]
    return set().union(*(keys_in(path) for path in paths if path.exists()))


def _plain(node: Any, defs: Mapping[str, Any], comments: Mapping[str, str], key: str) -> Any:
    """Return a part of pydantic's schema without references to others, each key with its meaning and none required."""
    if isinstance(node, list):
        return [_plain(item, defs, comments, key) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("description"), str):
        node = {**node, "description": _MARKUP.sub(r"\1", node["description"])}
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name not in defs:
            return {"type": "object"}  # a part of its own kind, such as a pool's sources
        return _plain({**defs[name], **_without(node, "$ref")}, _without(defs, name), comments, key)
    found = {
        name: _plain(value, defs, comments, key)
        for name, value in node.items()
        if name not in ("$defs", "required", "title", "default", "properties", "discriminator")
    }
    if "properties" in node:
        below = {name: f"{key}.{name}" if key else name for name in node["properties"]}
        found["properties"] = {
            name: _plain(value, defs, comments, below[name])
            | ({"description": comments[below[name]]} if comments.get(below[name]) else {})
            for name, value in node["properties"].items()
        }
    return _or_reference(found) if key else found


def _or_reference(found: dict[str, Any]) -> dict[str, Any]:
    """Return what a value may be, where that is not any text: or the reference to another key, ``${optimizer.lr}``."""
    kind = found.get("type")
    if kind in ("object", "null") or (kind == "string" and "enum" not in found) or not {"type", "enum"} & set(found):
        return found
    about = {name: found[name] for name in ("description",) if name in found}
    return {"anyOf": [_without(found, "description"), _REFERENCE], **about}


def _without(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key != name}


def _keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Return the dotted keys of a schema."""
    for name, value in tree.get("properties", {}).items():
        yield prefix + name
        for part in [value, *value.get("anyOf", ())]:
            yield from _keys(part, f"{prefix}{name}.")


def _parameter() -> dict[str, Any]:
    """What a parameter of a search space may be; see ``docs/sweeps.md``."""

    def numbers(kind: str, of: str) -> dict[str, Any]:
        bounds = {"type": "array", "items": {"type": of}, "minItems": 2, "maxItems": 2}
        return {
            "type": "object",
            "properties": {
                kind: {**bounds, "description": "the lower and the upper bound"},
                "log": {"type": "boolean", "description": "true: drawn on a log scale"},
                "step": {"type": of, "exclusiveMinimum": 0, "description": "distance of neighbours"},
            },
            "required": [kind],
            "additionalProperties": False,
        }

    below = {"anyOf": [{"type": "null"}, {"type": "object", "additionalProperties": {"$ref": "#/$defs/parameter"}}]}
    choice = {
        "type": "object",
        "properties": {
            "choice": {
                "anyOf": [
                    {"type": "array", "minItems": 1},
                    {"type": "object", "minProperties": 1, "additionalProperties": below},
                ],
                "description": "the values, or the values with the parameters that each brings",
            }
        },
        "required": ["choice"],
        "additionalProperties": False,
    }
    return {"oneOf": [numbers("float", "number"), numbers("int", "integer"), choice]}
