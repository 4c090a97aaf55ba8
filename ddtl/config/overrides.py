"""The words ``group=option`` and ``key=value``, read in Hydra's grammar."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ddtl.config.where import options
from ddtl.schema import class_names
from ddtl.schema.backbones import TIMM
from ddtl.utils.suggest import closest, did_you_mean

FLAGS = ("help", "cfg", "multirun")

# What Hydra's grammar wants quoted and nobody can mistake: ~/data, epoch=3.ckpt.
_PLAIN = re.compile(r"\+{0,2}([\w.]+)=([^,'\"\[\]{}()$\\]*)")
# A setting, and what a shell makes of {a: b, c: d} without quotes where it expands braces: key=a:b key=c:d.
_SETTING = re.compile(r"\+{0,2}[\w.@/:]+=")
_EXPANDED = re.compile(r"\+{0,2}([\w.]*\.(?:class_map|window))=([^\s:,'\"\[\]{}$]+):([^,'\"\[\]{}$]*)")


@dataclass(frozen=True)
class Setting:
    """A key, the value it shall have, and the words in which that was requested."""

    key: str
    value: Any
    text: str


@dataclass
class Overrides:
    """What a command line requests.

    Attributes:
        choices: the option of each group that was named.
        settings: the values, in the order given.
        problems: a line for each word that means nothing.
        unsure: groups whose option was mistyped; ``choices`` contains the nearest one for them.
    """

    choices: dict[str, str] = field(default_factory=dict)
    settings: list[Setting] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unsure: set[str] = field(default_factory=set)


class _Unreadable(ValueError):
    pass


class _NoGrammar(_Unreadable):
    """Hydra's grammar has no such word."""


class _NotNames(_Unreadable):
    """A list of classes or a map of them that is not in order."""


def key_of(text: str) -> str:
    """The key of a word, whether or not its value can be read."""
    return text.partition("=")[0].lstrip("+").strip()


def numbers_as_typed(settings: Iterable[Setting]) -> dict[str, str]:
    """The text of each number as it was typed, by key: Hydra reads ``1e3`` as 1000.0 and ``2024_01_05`` as 20240105."""
    numbers = (setting for setting in settings if type(setting.value) in (int, float))
    return {setting.key: setting.text.partition("=")[2].strip() for setting in numbers}


def read(overrides: Iterable[str], groups: Mapping[str, str | None], texts: Container[str] = ()) -> Overrides:
    """Sort words into options of ``groups`` and values of keys.

    Args:
        overrides: the words.
        groups: as :func:`ddtl.config.where.groups` lists them.
        texts: keys whose value is text and nothing else: what Hydra's grammar cannot read is then taken as it is.
    """
    found = Overrides()
    before = ""
    for text, fault in whole_words(overrides):
        earlier, before = before, text
        if fault:
            found.problems.append(fault)
            continue
        try:
            key, value = _key_and_value(text, texts)
            if key not in groups:
                found.settings.append(Setting(key, value, text))
            elif value is None and groups[key] is None:
                found.choices.pop(key, None)
            else:
                _choose(found, key, str(value))
        except _NoGrammar:
            found.problems.append(f"{text or repr(text)}: {_how_to_write(text, earlier, texts)}")
        except _Unreadable as problem:
            found.problems.append(f"{text or repr(text)}: {problem}")
    return found


def whole_words(overrides: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The words; those into which a shell has split one list or dict as one word, with a line about it."""
    words = list(overrides)
    while words:
        key, _, value = words[0].partition("=")
        count = 1
        pairs: list[str] = []
        if value.lstrip()[:1] in ("[", "{"):
            while words[count:] and _open_brackets(" ".join(words[:count])) and not _SETTING.match(words[count]):
                count += 1
        elif _EXPANDED.fullmatch(words[0]):
            for part in itertools.takewhile(bool, map(_EXPANDED.fullmatch, words)):
                if part is None or part[1] != key.lstrip("+"):
                    break
                pairs.append(f"{part[2]}: {part[3].strip()}")
            count = len(pairs)
        whole, words = " ".join(words[:count]), words[count:]
        if count == 1:
            yield whole, ""
        elif pairs:
            why, value = "a shell expands braces that are not in quotes", f"{{{', '.join(pairs)}}}"
            yield whole, f"{whole}: {why}. Quote it whole: {in_shell(f'{key}={value}')}"
        else:
            why, value = "a shell splits this at its blanks", _requoted(key, whole.partition("=")[2].strip(), False)
            yield whole, f"{whole}: {why}. Quote it whole: {in_shell(f'{key}={value}')}"


def _open_brackets(text: str) -> int:
    """How many brackets and braces of a text, those in quotes aside, are not closed."""
    bare = re.sub(r"""'(?:\\'|[^'])*'|"(?:\\"|[^"])*\"""", "", text)
    return sum(bare.count(sign) for sign in "[{") - sum(bare.count(sign) for sign in "]}")


def _choose(found: Overrides, group: str, option: str) -> None:
    if group == "model" and option.startswith(TIMM):
        found.choices[group] = TIMM.removesuffix(":")
        found.settings.append(Setting("model.name", option.removeprefix(TIMM), f"model={option}"))
        return
    known = options(group)
    if option in known:
        found.choices[group] = option
        return
    found.unsure.add(group)
    hint, nearest = did_you_mean(option, known), closest(option, known)
    if nearest is not None:
        found.choices[group] = nearest
    raise _Unreadable(f"no such option.{hint} There are {', '.join(known)}.")


def _key_and_value(text: str, texts: Container[str] = ()) -> tuple[str, Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if text.startswith("-"):
        raise _Unreadable(_no_flag(text))
    names = _names_of_classes(text)
    if isinstance(names, Setting):
        return names.key, names.value
    text, hidden = _without_names(text) if names is None else (text, {})
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        if names is not None:
            raise names from None
        plain = _PLAIN.fullmatch(text)
        if plain is not None:
            return plain[1], plain[2].strip()
        key, equals, value = text.lstrip("+").partition("=")
        if equals and key in texts and _is_literal(key, value.strip()):
            return key, value.strip()
        raise _NoGrammar from None
    # Hydra adds a key with `+`; every key that means something is there already, so `+` changes nothing here.
    key = override.key_or_group
    if override.is_delete():
        raise _Unreadable("nothing can be removed. Set the value that you want instead.")
    if override.package is not None:
        raise _Unreadable(f"settings stay in their place. Write {key}=… without @.")
    if override.is_sweep_override():
        value = text.partition("=")[2]
        if key in texts:
            as_text = in_shell(f"{key}={format_value(value.strip(), quoted=True)}")
            raise _Unreadable(f"several values. Add -m to run each of them, or quote it as one text: {as_text}")
        raise _Unreadable(f"several values. Add -m to run each of them, or put a list in brackets: {key}=[…].")
    if names is not None:
        raise names
    return key, _with_names(override.value(), hidden)


def _is_literal(key: str, value: str) -> bool:
    """Whether a text that the grammar cannot read is meant as it is.

    With quotes or a reference the grammar was meant, and with brackets perhaps a list, except in a regular expression.
    """
    if key.endswith("_regex"):
        return value[:1] not in ("'", '"') and "${" not in value
    return not set(value) & set("'\"[]{}$")


def _no_flag(text: str) -> str:
    word = text.lstrip("-")
    if "=" in word:
        return f"settings are written without dashes: {word}."
    nearest = closest(word, FLAGS)
    hint = f" Did you mean --{nearest}?" if nearest else ""
    return f"no such flag.{hint} There are --help, --cfg job and -m; settings are written key=value."


def _how_to_write(text: str, earlier: str, texts: Container[str]) -> str:
    if "=" not in text:
        joined = in_shell(f"{earlier} {text}")
        whole = f" If it belongs to the word before it: {joined}" if "=" in earlier else ""
        return f"cannot be read. Write key=value or group=option.{whole}"
    key, _, value = text.partition("=")
    corrected = f"{key}={_requoted(key, value.strip(), is_text=key.lstrip('+') in texts)}"
    try:
        _key_and_value(corrected)
    except _Unreadable:
        return "cannot be read. Put a value with special characters in quotes inside quotes: run.name=\"'a, b'\"."
    return f"cannot be read. Put a value with special characters in quotes inside quotes: {in_shell(corrected)}"


def _requoted(key: str, value: str, is_text: bool) -> str:
    """A value with closed quotes and brackets, and quotes around what the grammar cannot read in a list or dict."""
    if is_text:
        return format_value(value.strip("'\""), quoted=True)
    if value[:1] in ("[", "{") and _NAMES.search(key):
        return class_names.read(value).corrected()
    if value[:1] == "[":
        items = [item.strip().strip("'\"") for item in value[1:].removesuffix("]").split(",")]
        return f"[{', '.join(_readable(item) for item in items if item)}]"
    if value[:1] == "{":
        closed = value + "}" * _open_brackets(value)
        return re.sub(r"(:\s*)([^\s'\"{\[][^,}]*)", lambda m: m[1] + _readable(m[2].strip()), closed)
    return value


def _readable(text: str) -> str:
    """A bare value as it is typed, in quotes where Hydra's grammar cannot read it."""
    try:
        _key_and_value(f"key={text}")
    except _Unreadable:
        return class_names.quoted(text)
    return text


# Lists and maps of class names, as values and inside of dicts (dataset.own={third: {class_map: {…}}}).
_NAMES = re.compile(r"(?:^|\.)(class_map|classes)$")
_NAMES_INSIDE = re.compile(r"""'(?:\\'|[^'])*'|"(?:\\"|[^"])*"|\b(class_map|classes)\s*:\s*(?=[\[{])""")


def _names_of_classes(text: str) -> Setting | _NotNames | None:
    """The value of a key of class names, or what is wrong with it; None for other words."""
    key, equals, value = text.lstrip("+").partition("=")
    key, value = key.strip(), value.strip()
    names = _NAMES.search(key)
    if not equals or names is None or not value.startswith("{" if names[1] == "class_map" else "["):
        return None
    found = class_names.read(value)
    behind = value[found.end :]
    problem = found.problem or (f"there is {behind!r} behind it" if behind else "")
    if problem:
        return _NotNames(f"{problem}. Write {in_shell(f'{key}={found.corrected()}')}")
    return Setting(key, found.value(), text)


def _without_names(text: str) -> tuple[str, dict[str, Any]]:
    """An override with plain text in the place of the class names in its dict, and what they stand for."""
    key, _, value = text.partition("=")
    names: dict[str, Any] = {}
    if not value.lstrip().startswith("{"):
        return text, names
    at = 0
    while inside := _NAMES_INSIDE.search(value, at):
        at = inside.end()
        if inside[1] is None or (inside[1] == "class_map") != (value[at] == "{"):
            continue
        found = class_names.read(value[at:])
        before, behind = value[:at], value[at + found.end :]
        if found.problem:
            corrected = in_shell(f"{key}={before}{found.corrected()}{behind}")
            raise _Unreadable(f"{inside[1]}: {found.problem}. Write {corrected}")
        word = f"names_{len(names)}"
        names[word] = found.value()
        value, at = f"{before}{word}{behind}", at + len(word)
    return f"{key}={value}", names


def _with_names(value: Any, names: Mapping[str, Any]) -> Any:
    if not names:
        return value
    if isinstance(value, dict):
        return {key: _put_names(key, item, names) for key, item in value.items()}
    return value


def _put_names(key: str, value: Any, names: Mapping[str, Any]) -> Any:
    is_names = key in ("class_map", "classes") and isinstance(value, str)
    return names.get(value, value) if is_names else _with_names(value, names)


def in_shell(word: str) -> str:
    """A word as it is typed in a POSIX shell."""
    quoted = shlex.quote(word)
    # Quotes within quotes are read more easily where the outer ones are double and keep every sign.
    plain = "'" in word and not re.search(r'[$`"!]|\\[\\\n]|\\$', word)
    return f'"{word}"' if plain else quoted


def format_value(value: Any, quoted: bool = False) -> str:
    """A value as it would be typed; ``quoted``: text that Hydra would read as something else is in quotes."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return f"[{', '.join(format_value(item, quoted) for item in value)}]"
        case dict():
            return f"{{{', '.join(f'{key}: {format_item(key, item, quoted)}' for key, item in value.items())}}}"
        case str() if quoted and not (value and _reads_as(value)):
            return class_names.quoted(value)
    return str(value)


def format_item(key: Any, value: Any, quoted: bool = True) -> str:
    """The value of a key in a dict: class names keep their own quotes."""
    return (
        class_names.format_names(value)
        if quoted and key in ("class_map", "classes") and value
        else format_value(value, quoted)
    )


def _reads_as(text: str) -> bool:
    """Whether Hydra reads the bare text as that text."""
    try:
        return bool(_key_and_value(f"key={text}")[1] == text)
    except _Unreadable:
        return False
