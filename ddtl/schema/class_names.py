"""Class names on the command line: ``[a, 'b c']`` and ``{'no lesion': normal, null: COVID}``.

Their spelling counts, and Hydra's grammar changes it: it reads ``null``, ``01`` and ``1e3`` as other values, takes no
quotes around the keys of a dict, and of a key that is given twice keeps the last.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# Text that needs no quotes in a list or map.
_PLAIN = re.compile(r"[^\s,:'\"\[\]{}$\\](?:[^,:'\"\[\]{}$\\\n]*[^\s,:'\"\[\]{}$\\])?")

_NO_TEXT = {"true", "false", "null", "nan", "inf"}


class Name(NamedTuple):
    """A name, and whether it is in quotes, where ``${`` is text and no reference."""

    text: str
    is_quoted: bool


_MISSING = Name("NAME_OF_THE_CLASS", False)


@dataclass
class Names:
    """What a list or map of names was read as.

    Attributes:
        is_map: whether it is in braces.
        pairs: each name, and in a map the class that it is given.
        end: the place behind the closing bracket.
        problem: what is wrong first; empty where nothing is.
    """

    is_map: bool
    pairs: list[tuple[Name, Name | None]] = field(default_factory=list)
    end: int = 0
    problem: str = ""

    def value(self) -> dict[str, str] | list[str]:
        """The names as OmegaConf is given them."""
        if self.is_map:
            return {name.text: _for_omegaconf(class_) for name, class_ in self.pairs if class_ is not None}
        return [_for_omegaconf(name) for name, _ in self.pairs]

    def corrected(self) -> str:
        """The list or map as it can be typed, the first of each label."""
        if not self.is_map:
            return f"[{','.join(_typed(name) for name, _ in self.pairs)}]"
        once = {name.text: (name, class_) for name, class_ in reversed(self.pairs) if class_ is not None}
        return f"{{{', '.join(f'{_typed(name)}: {_typed(class_)}' for name, class_ in reversed(once.values()))}}}"


def read(text: str) -> Names:
    """Read the list or map that a text begins with.

    Text in quotes of either kind is read as Hydra reads it (a backslash counts where it precedes a quote), and bare
    text is kept as it is typed.
    """
    is_map = text[0] == "{"
    closing, kind = ("}", "brace") if is_map else ("]", "bracket")
    found = Names(is_map)
    problems: list[str] = []
    at = 1
    while True:
        at = _skip_blanks(text, at)
        if at >= len(text):
            problems.append(f"a {kind} is not closed")
            break
        if text[at] == closing:
            at += 1
            break
        name, at = _name(text, at, f":,{closing}" if is_map else f",{closing}", problems)
        class_: Name | None = None
        if is_map and text[at : at + 1] == ":":
            class_, at = _name(text, _skip_blanks(text, at + 1), f",{closing}", problems)
            class_ = class_ if class_.text or class_.is_quoted else _MISSING
        elif is_map:
            problems.append(f"{name.text!r} has no class")
            class_ = _MISSING
        found.pairs.append((name, class_))
        at += text[at : at + 1] == ","
    labels = [name.text for name, _ in found.pairs]
    twice = next((label for label in labels if is_map and labels.count(label) > 1), None)
    if twice is not None:
        problems.append(f"{twice!r} is given twice; keep the right one")
    found.end, found.problem = at, next(iter(problems), "")
    return found


def format_names(class_map: Sequence[str] | dict[str, str]) -> str:
    """A list or map of names as it is typed, before a shell's quotes."""
    is_map = isinstance(class_map, dict)
    items = class_map.items() if isinstance(class_map, dict) else ((name, None) for name in class_map)
    return Names(
        is_map, [(Name(name, True), None if class_ is None else Name(class_, True)) for name, class_ in items]
    ).corrected()


def quoted(text: str) -> str:
    """A text in quotes, as Hydra's grammar reads it: a backslash counts where it precedes a quote or the end."""
    inner = re.sub(r"(\\*)('|\Z)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"'{inner}'"


def _typed(name: Name) -> str:
    text = name.text
    if name.is_quoted:
        # Quotes wherever a reader may take the name for something else.
        is_word = text.isascii() and text.replace("-", "_").isidentifier() and text[0] != "-"
        return text if is_word and text.lower() not in _NO_TEXT else quoted(text)
    return text if _PLAIN.fullmatch(text) or "${" in text else quoted(text)


def _for_omegaconf(name: Name) -> Any:
    """A name in which OmegaConf finds a reference only where one was meant."""
    if not name.is_quoted:
        return name.text
    return re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + "\\${", name.text)


def _name(text: str, at: int, stops: str, problems: list[str]) -> tuple[Name, int]:
    """A name and the place behind it."""
    if text[at : at + 1] in ("'", '"'):
        inner, end = _in_quotes(text, at)
        end_of_item = _skip_blanks(text, end)
        if end and (end_of_item == len(text) or text[end_of_item] in stops):
            return Name(inner, True), end_of_item
        problems.append("there is text behind a closing quote" if end else "a quote is not closed")
        bare = _bare(text, at, stops)
        return Name(re.sub("['\"]", "", bare).strip(), False), at + len(bare)
    bare = _bare(text, at, stops)
    name = bare.strip()
    if not name:
        problems.append("a name is empty")
    elif name[0] in "[{":
        problems.append("a class is one name")
        name = name.strip("[]{} ")
    return Name(name, False), at + len(bare)


def _bare(text: str, at: int, stops: str) -> str:
    found = re.compile(rf"(?:\$\{{[^}}]*\}}|[^{re.escape(stops)}])*").match(text, at)
    return found[0] if found else ""


def _in_quotes(text: str, at: int) -> tuple[str, int]:
    """The text in the quotes that open at a place, and the place behind them; 0 where they are not closed."""
    quote, start, inner = text[at], at + 1, ""
    for found in re.compile(rf"(\\*){quote}").finditer(text, start):
        inner += text[start : found.start()] + "\\" * (len(found[1]) // 2)
        start = found.end()
        if len(found[1]) % 2 == 0:
            return inner, start
        inner += quote
    return inner, 0


def _skip_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at
