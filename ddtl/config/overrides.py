"""The words ``group=option`` and ``key=value``, read in Hydra's grammar."""

from __future__ import annotations

import re
import shlex
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ddtl.config.suggest import closest, did_you_mean
from ddtl.config.where import options

FLAGS = ("help", "cfg", "multirun")

# What Hydra's grammar wants quoted and nobody can mistake: ~/data, epoch=3.ckpt.
_PLAIN = re.compile(r"\+{0,2}([\w.]+)=([^,'\"\[\]{}()$\\]*)")


@dataclass(frozen=True)
class Setting:
    """A key, the value it shall have, and the words in which that was asked."""

    key: str
    value: Any
    text: str


@dataclass
class Asked:
    """What a command line asks for.

    Attributes:
        choices: the option of each group that was named.
        settings: the values, in the order given.
        problems: a line for each word that means nothing.
        unsure: groups whose option was mistyped; ``choices`` holds the nearest one for them.
    """

    choices: dict[str, str] = field(default_factory=dict)
    settings: list[Setting] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unsure: set[str] = field(default_factory=set)


class _Unreadable(ValueError):
    pass


class _NoGrammar(_Unreadable):
    """Hydra's grammar has no such word."""


def key_of(text: str) -> str:
    """The key of a word, whether or not its value can be read."""
    return text.partition("=")[0].lstrip("+").strip()


def read(overrides: Iterable[str], groups: Mapping[str, str | None], texts: Container[str] = ()) -> Asked:
    """Sort words into options of ``groups`` and values of keys.

    Args:
        overrides: the words.
        groups: as :func:`ddtl.config.where.groups` lists them.
        texts: keys whose value is text and nothing else: what Hydra's grammar cannot read is then taken as it stands.
    """
    asked = Asked()
    before = ""
    for text in overrides:
        earlier, before = before, text
        try:
            key, value = _key_and_value(text, texts)
            if key not in groups:
                asked.settings.append(Setting(key, value, text))
            elif value is None and groups[key] is None:
                asked.choices.pop(key, None)
            else:
                _choose(asked, key, str(value))
        except _NoGrammar:
            asked.problems.append(f"{text or repr(text)}: {_how_to_write(text, earlier, texts)}")
        except _Unreadable as problem:
            asked.problems.append(f"{text or repr(text)}: {problem}")
    return asked


def _choose(asked: Asked, group: str, option: str) -> None:
    known = options(group)
    if option in known:
        asked.choices[group] = option
        return
    asked.unsure.add(group)
    hint, nearest = did_you_mean(option, known), closest(option, known)
    if nearest is not None:
        asked.choices[group] = nearest
    raise _Unreadable(f"no such option.{hint} There are {', '.join(known)}.")


def _key_and_value(text: str, texts: Container[str] = ()) -> tuple[str, Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if text.startswith("-"):
        raise _Unreadable(_no_flag(text))
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
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
        raise _Unreadable("nothing can be taken away. Set the value that you want instead.")
    if override.package is not None:
        raise _Unreadable(f"settings stay in their place. Write {key}=… without @.")
    if override.is_sweep_override():
        value = text.partition("=")[2]
        if key in texts:
            as_text = in_shell(f"{key}={shown(value.strip(), quoted=True)}")
            raise _Unreadable(f"several values. Add -m to run each of them, or quote it as one text: {as_text}")
        raise _Unreadable(f"several values. Add -m to run each of them, or put a list in brackets: {key}=[…].")
    return key, override.value()


def _is_literal(key: str, value: str) -> bool:
    """Whether a text that the grammar cannot read is meant as it stands.

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
    corrected = f"{key}={_requoted(value.strip(), is_text=key.lstrip('+') in texts)}"
    try:
        _key_and_value(corrected)
    except _Unreadable:
        return "cannot be read. A value with special signs stands in quotes inside quotes: run.name=\"'a, b'\"."
    return f"cannot be read. A value with special signs stands in quotes inside quotes: {in_shell(corrected)}"


def _requoted(value: str, is_text: bool) -> str:
    """A value with closed quotes and brackets, and quotes around what the grammar cannot read in a list or dict."""
    if is_text:
        return shown(value.strip("'\""), quoted=True)
    if value[:1] == "[":
        items = [item.strip().strip("'\"") for item in value[1:].removesuffix("]").split(",")]
        return shown(items, quoted=True)
    if value[:1] == "{":
        return re.sub(r"(:\s*)([^\s'\"{\[][^,}]*)", lambda m: m[1] + shown(m[2].strip(), quoted=True), value)
    return value


def in_shell(word: str) -> str:
    """A word as it is typed in a POSIX shell."""
    quoted = shlex.quote(word)
    # Quotes within quotes are read more easily where the outer ones are double and keep every sign.
    plain = "'" in word and not re.search(r'[$`"!]|\\[\\\n]|\\$', word)
    return f'"{word}"' if plain else quoted


def shown(value: Any, quoted: bool = False) -> str:
    """A value as it would be typed; ``quoted``: text that Hydra would read as something else stands in quotes."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return f"[{', '.join(shown(item, quoted) for item in value)}]"
        case dict():
            return f"{{{', '.join(f'{key}: {shown(item, quoted)}' for key, item in value.items())}}}"
        case str() if quoted and not (value and _reads_as(value)):
            inner = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
            return f"'{inner}'"
    return str(value)


def _reads_as(text: str) -> bool:
    """Whether Hydra reads the bare text as that text."""
    try:
        return bool(_key_and_value(f"key={text}")[1] == text)
    except _Unreadable:
        return False
