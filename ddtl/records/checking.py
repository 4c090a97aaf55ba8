"""Checks a record against its schema; the first fault becomes one line that names the file and the key."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NoReturn

import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from ddtl.utils.reading import Unreadable

# Extra keys are kept, and no value is quietly turned into another type.
OPEN = ConfigDict(strict=True, extra="allow")

_LONGEST = 100_000  # characters of a text
_NAME = 4096

Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Text = Annotated[str, Field(max_length=_LONGEST)]
Name = Annotated[str, Field(min_length=1, max_length=_NAME)]


def fault(words: str) -> PydanticCustomError:
    """Return what a validator of a schema raises; ``words`` are what the value should be."""
    return PydanticCustomError("record", "{words}", {"words": words})


def _moment(text: str) -> str:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or not 1970 < found.year < 3000:
        raise fault("should be a time in ISO 8601, such as 2026-11-23T12:00:00+00:00")
    return text


def _folder_name(text: str) -> str:
    if text in ("", ".", "..") or "/" in text or "\\" in text or "\0" in text:
        raise fault("should be the name of a folder, without a path")
    return text


def _below(text: str) -> str:
    path = PurePosixPath(text)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in text or "\\" in text:
        raise fault("should be a path within its folder: not absolute, and without ..")
    return text


def _scalar(value: Any) -> Any:
    if isinstance(value, dict | list):
        raise fault("should be a number, text, true, false or null")
    return value


Moment = Annotated[str, Field(max_length=64), AfterValidator(_moment)]
FolderName = Annotated[str, Field(max_length=255), AfterValidator(_folder_name)]
Below = Annotated[str, Field(max_length=_NAME), AfterValidator(_below)]
Scalar = Annotated[Any, AfterValidator(_scalar)]


class Contradiction(ValueError):
    """Parts of a record that do not fit each other.

    Attributes:
        key: dotted, of the part that is wrong.
        words: what it should be.
    """

    def __init__(self, key: str, words: str) -> None:
        super().__init__(f"{key} {words}")
        self.key, self.words = key, words


def check(path: Path, value: Any, schema: Any, fix: str = "", where: str = "") -> Any:
    """Return the value, if it is of the schema.

    Args:
        path: of the file, for the message.
        value: as it was read.
        schema: a TypedDict, or another type that pydantic takes.
        fix: what to do, as a sentence.
        where: what in the file it is, such as ``line 3``.

    Raises:
        Unreadable: it is not, with the first fault.
    """
    try:
        adapter(schema).validate_python(value, strict=True)
    except ValidationError as error:
        raise refusal(path, error, adapter(schema).json_schema, fix, where) from None
    return Record.of(value, (path, fix), (where,) if where else ())


class Record(dict[str, Any]):
    """A record, or a part of one: a missing key that is requested is a fault of its file, reported in one line.

    A schema demands what every version of ddtl has written; what a page or a command needs besides is found out here.
    """

    __slots__ = ("_at", "_file")
    _file: tuple[Path, str]  # and what to do
    _at: tuple[Any, ...]  # the path to this part: its last key, after the path to what contains it

    @classmethod
    def of(cls, value: Any, file: tuple[Path, str], at: tuple[Any, ...] = ()) -> Any:
        """Return the value, with each dict in it made a part of that file's record."""
        if isinstance(value, dict):
            made = cls(value)
            made._file, made._at = file, at
            for key, each in value.items():
                if isinstance(each, dict | list):
                    made[key] = cls.of(each, file, (at, key))
            return made
        if isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
            return [cls.of(each, file, (at, i)) for i, each in enumerate(value)]
        return value

    def __missing__(self, key: object) -> NoReturn:
        (path, fix), keys = getattr(self, "_file", (Path(), "")), [key]
        at = getattr(self, "_at", ())
        while at:
            at, last = at if len(at) == 2 else ((), at[0])
            keys.append(last)
        shown = [part if isinstance(part, int) or _KEY.fullmatch(str(part)) else "…" for part in reversed(keys)]
        raise MissingKey(path, f"{'.'.join(map(str, shown))} is missing", fix)


def alike(record: Any, value: Any) -> Any:
    """Return the value as a record of the same file, where ``record`` is one."""
    return Record.of(value, record._file, record._at) if isinstance(record, Record) else value


_KEY = re.compile(r"[\w ./-]{1,40}")  # any other comes from the file


class MissingKey(Unreadable, KeyError):
    """A record that lacks a key; whoever can do without it may catch it as a ``KeyError``."""

    __str__ = Exception.__str__


# Pages show parts of records as YAML.
yaml.SafeDumper.add_representer(Record, yaml.SafeDumper.represent_dict)


def fits(value: Any, schema: Any) -> bool:
    """Return whether a value is of a schema."""
    try:
        adapter(schema).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def refusal(path: Path, error: ValidationError, json_schema: Any, fix: str = "", where: str = "") -> Unreadable:
    """Return the refusal of a file that pydantic found a fault in.

    Args:
        path: of the file.
        error: pydantic's.
        json_schema: makes the schema's JSON schema, which tells the keys that are ddtl's own.
        fix, where: as for :func:`check`.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    words = describe_error(first, _keys(json_schema()))
    return Unreadable(path, f"{where}, {words}" if where else words, fix)


def agree(path: Path, faults: Iterable[Contradiction], fix: str = "") -> None:
    """Refuse a file whose parts do not fit each other.

    Raises:
        Unreadable: there is a fault; the first one.
    """
    first = next(iter(faults), None)
    if first is not None:
        raise Unreadable(path, str(first), fix)


@cache
def adapter(schema: Any) -> TypeAdapter[Any]:
    """Pydantic's checker of a schema, made once."""
    return TypeAdapter(schema)


def describe_error(error: ErrorDetails, known_keys: Iterable[str]) -> str:
    """Return a fault as ``test.roc_auc should be a number``; keys that are not part of the schema are not repeated."""
    known_keys = set(known_keys)
    at = ""
    *parents, last = error["loc"] or ("",)
    for part in (*parents, last):
        if isinstance(part, int):
            at += f"[{part}]"
        elif part in known_keys:
            at += f".{part}" if at else part
        elif part is last and error["type"] not in ("missing", "extra_forbidden") and not _is_tag(part):
            at += ".…" if at else "…"
    return f"{at or 'the whole'} {_words(error)}"


def _is_tag(part: str) -> bool:
    """Return whether a part of a place is pydantic's name of a type among several."""
    return any(sign in part for sign in "[-(") or part in ("float", "int", "str", "bool", "none", "tuple", "list")


_SAYS = {
    "missing": "is missing",
    "extra_forbidden": "contains a key that this version of ddtl does not know",
    "dict_type": "should be an object",
    "model_type": "should be an object",
    "model_attributes_type": "should be an object",
    "list_type": "should be a list",
    "tuple_type": "should be a list",
    "float_type": "should be a number",
    "finite_number": "should be a finite number",
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "string_type": "should be text",
    "bool_type": "should be true or false",
    "none_required": "should be null",
    "greater_than": "should be more than {gt:.10g}",
    "greater_than_equal": "should be at least {ge:.10g}",
    "less_than": "should be less than {lt:.10g}",
    "less_than_equal": "should be at most {le:.10g}",
    "string_too_long": "should be at most {max_length:,} characters long",
    "string_too_short": "should not be empty",
    "too_short": "should have {min_length} or more entries",
    "too_long": "should have {max_length} or fewer entries",
    "literal_error": "should be {expected}",
}


def _words(error: ErrorDetails) -> str:
    if error["type"] == "record":
        return error["msg"]
    return _SAYS.get(error["type"], "is not what ddtl writes there").format(**error.get("ctx", {}))


def _keys(json_schema: Mapping[str, Any]) -> set[str]:
    """Return the names of all keys of a schema."""
    found: set[str] = set()
    left: list[Any] = [json_schema]
    while left:
        one = left.pop()
        if isinstance(one, Mapping):
            properties = one.get("properties")
            if isinstance(properties, Mapping):
                found.update(properties)
            left.extend(one.values())
        elif isinstance(one, Sequence) and not isinstance(one, str):
            left.extend(one)
    return found


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def inside(root: Path, *names: str) -> Path:
    """Return a path that a record names, within a folder.

    Raises:
        Unreadable: a link leads out of the folder.
    """
    path = root.joinpath(*names)
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise Unreadable(path, f"leads out of {root}", "What a record names must be in its own folder.")
    return path
