"""Plain data to a typed configuration, and pydantic's errors to sentences for its user."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError

from ddtl.config.overrides import format_value
from ddtl.schema.section import Section
from ddtl.utils.suggest import did_you_mean

Schema = TypeVar("Schema", bound=Section)

_SAYS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text, in quotes where it looks like a number",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must be made of letters, digits, - and _",
    "tuple_type": "must be a list in brackets: {key}=[{shown}]",
    "dict_type": "must be a dict in braces: {{name: value}}",
    "greater_than": "must be more than {gt:.10g}",
    "greater_than_equal": "must be at least {ge:.10g}",
    "less_than": "must be less than {lt:.10g}",
    "less_than_equal": "must be at most {le:.10g}",
    "too_long": "takes {max_length} values",
    "too_short": "takes at least {min_length} value",
}
_NO_SECTION = ("model_type", "model_attributes_type")  # pydantic's names for a value where keys are wanted


def convert(
    tree: Mapping[str, Any], schema: type[Schema], typed: Mapping[str, str] | None = None
) -> tuple[Schema | None, dict[str, str]]:
    """``tree`` as a ``schema``; or, by key, what is wrong with each value of a wrong type or out of bounds.

    Args:
        tree: plain data.
        schema: its class.
        typed: by key, numbers as they were typed (``1e3``, ``2024_01_05``), for the messages.
    """
    try:
        return schema.model_validate(tree), {}
    except ValidationError as error:
        lines: dict[str, str] = {}
        for item in error.errors():
            key, line = _explained(item, tree, schema, typed or {})
            lines.setdefault(key, line)
        return None, lines


def text_keys(schema: type[Section], prefix: str = "") -> Iterator[str]:
    """The keys of a schema, in sections at any depth, whose value is text and nothing else."""
    for name, field in schema.model_fields.items():
        parts = [part for part in (field.annotation, *get_args(field.annotation)) if part is not type(None)]
        section = _section(field.annotation)
        if section.model_fields and get_origin(field.annotation) is not dict:
            yield from text_keys(section, f"{prefix}{name}.")
        elif all(_is_text(part) for part in parts if get_origin(part) not in (Union, types.UnionType)):
            yield f"{prefix}{name}"


def _is_text(part: Any) -> bool:
    return part is str or (get_origin(part) is Annotated and get_args(part)[0] is str)


def _place(loc: Sequence[str | int], tree: Any) -> tuple[list[str], Any]:
    """The keys that an error's place leads to, lists of sections included, and the value at the last of them."""
    names: list[str] = []
    value = tree
    for part in loc:
        if isinstance(value, list) and isinstance(part, int):
            known = part < len(value) and isinstance(value[part], dict)
        else:
            known = isinstance(value, dict) and part in value
        if not known:
            break
        names.append(str(part))
        value = value[part]
    return names, value


def _explained(item: Any, tree: Any, schema: type[Section], typed: Mapping[str, str]) -> tuple[str, str]:
    """The key of one of pydantic's errors, and a line about it."""
    names, value = _place(item["loc"], tree)
    key = ".".join(names)
    as_typed = typed.get(key, format_value(value))
    inside = len(names) < len(item["loc"])
    if item["type"] == "missing" and isinstance(value, dict):
        full = ".".join([*names, item["loc"][-1]])
        return full, f"{full}: missing; {key or 'the configuration'} needs it."
    if item["type"] == "extra_forbidden":
        siblings = [".".join([*names[:-1], name]) for name in _fields(names[:-1], schema)]
        return key, f"{key}: no such key.{did_you_mean(key, siblings)}"
    if item["type"] == "missing":
        return key, f"{key}={format_value(value)}: takes two values."
    words = _literals(_type_of(names, schema))
    if inside and words:  # a number or one of some words: the first error is about the number
        options = [format_value(word) for word in words]
        hint = did_you_mean(as_typed, options)
        return key, f"{key}={as_typed}: {_says(item, key=key, shown=as_typed)}, or one of {', '.join(options)}.{hint}"
    if inside:
        keys = f"must be a dict of {', '.join(_fields(names, schema))}" if item["type"] in _NO_SECTION else ""
        return key, f"{key}={as_typed}: {format_value(item['input'])} {keys or _says(item)}."
    return key, f"{key}={as_typed}: {_wrong(item, key, _type_of(names, schema), as_typed)}"


# Of some schedules alone, which need them.
_NEVER_NULL = ("finetune.alpha", "finetune.probe", "finetune.rank", "finetune.stages")
_UNQUOTED = "must be without quotes."


def _wrong(item: Any, key: str, wanted: Any, as_typed: str) -> str:
    value = item["input"]
    allowed = _literals(wanted)
    nullable = type(None) in get_args(wanted)
    if item["type"] == "literal_error":
        options = [format_value(option) for option in [*allowed, *([None] if nullable else [])]]
        named = [option for option in options if option != ""]
        choice = (
            f"one of {', '.join(named)}" if len(named) == len(options) else f"{', '.join(named)}, or empty ({key}=)"
        )
        return f"must be {choice}.{did_you_mean(format_value(value), named)}" if value not in options else _UNQUOTED
    if item["type"] in _NO_SECTION:
        first = next(iter(_section(wanted).model_fields), None)
        if first is None:  # in a dict of sections, whose names are free
            return "must be a dict of keys and values."
        return f"is a section with keys of its own. Set one of them, such as {key}.{first}."
    if item["type"] == "string_type" and isinstance(value, (int, float)):
        return f"must be text. To have it taken as text, quote it: {key}=\"'{as_typed}'\"."
    either = ", or null" if nullable and item["type"] != "value_error" and key not in _NEVER_NULL else ""
    return f"{_says(item, key=key, shown=as_typed)}{either}."


def _says(item: Any, **names: str) -> str:
    if item["type"] == "value_error":  # of a check of our own
        return str(item["ctx"]["error"]).removesuffix(".")
    if item["type"] not in _SAYS:
        return str(item["msg"][0].lower() + item["msg"][1:])
    return _SAYS[item["type"]].format(**item.get("ctx", {}), **names)


def _type_of(names: list[str], schema: type[Section]) -> Any:
    """The type of a key's value in the schema."""
    wanted: Any = schema
    for name in names:
        if name.isdecimal():  # a place in a list of sections
            continue
        field = _section(wanted).model_fields.get(name)
        wanted = field.annotation if field is not None else None
    return wanted


def _fields(names: list[str], schema: type[Section]) -> list[str]:
    """The keys of a section."""
    return list(_section(_type_of(names, schema)).model_fields)


def _section(wanted: Any) -> type[Section]:
    """The class among the alternatives of a type; the empty one where there is none."""
    for each in (wanted, *get_args(wanted)):
        if isinstance(each, type) and issubclass(each, Section):
            return each
    return Section


def _literals(wanted: Any) -> list[Any]:
    if get_origin(wanted) is Literal:
        return list(get_args(wanted))
    if get_origin(wanted) in (Union, types.UnionType):
        return [option for each in get_args(wanted) for option in _literals(each)]
    return []
