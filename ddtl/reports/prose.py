"""Words of reports: text is in ``templates/``, facts are in code.

A template contains macros. Each gets facts, as plain values, and returns one line: line breaks and runs of spaces in it
become one space. There are two kinds:

- ``NAME.txt.jinja``: plain text. Whoever puts it into a page, a terminal or Markdown escapes it there.
- ``NAME.md.jinja``: Markdown. Every fact is escaped on its way in; only the template's own letters are markup.

A fact that is missing is an error, never an empty word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from ddtl.reports.html import format
from ddtl.utils import wording

if TYPE_CHECKING:
    from jinja2 import Environment

_SPACES = re.compile(r"[ \n]+")
_MARKDOWN = ".md.jinja"


class Words:
    """The macros of a template, as methods that return a line.

    Args:
        name: of the file in ``templates/``.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, macro: str) -> Callable[..., str]:
        found = getattr(_environment(self._name.endswith(_MARKDOWN)).get_template(self._name).module, macro)
        return lambda *facts, **named: _line(found(*facts, **named))


def document(name: str, /, **facts: Any) -> str:
    """Return a whole template, such as a file in Markdown, filled with facts."""
    return _environment(name.endswith(_MARKDOWN)).get_template(name).render(**facts).strip() + "\n"


def escaped(text: object) -> str:
    """Return text as Markdown shows it letter by letter, on one line."""
    return _inline(text).strip()


def _inline(text: object) -> str:
    """Return text escaped, with the spaces at its ends."""
    return re.sub(r"([\\`*_{}\[\]<>#|~!&$])", r"\\\1", re.sub(r"\s+", " ", str(text)))


class Markdown(str):
    """Text whose markup is our own: no name and no word of a user is in it, unless it is escaped."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def code(text: str) -> Markdown:
    """Return text as inline code of Markdown, whatever back-quotes it contains."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    flat = " ".join(text.split())
    return Markdown(f"{fence} {flat} {fence}" if "`" in text else f"`{flat}`")


def _line(text: str) -> str:
    """Return text on one line; what is markup stays so."""
    return type(text)(_SPACES.sub(" ", text).strip())


def _escaping(value: Any) -> Any:
    """Return what a template puts out, escaped for Markdown unless a template made it or it is :class:`Markdown`."""
    return value if hasattr(value, "__html__") else Markdown(_inline(value))


@cache
def _environment(is_markdown: bool) -> Environment:
    import jinja2
    from jinja2 import FunctionLoader, StrictUndefined

    class OfRecords(jinja2.Environment):
        def getattr(self, obj: Any, attribute: str) -> Any:
            """Return an item of a record: it is the record that says in which file a missing one should be."""
            if isinstance(obj, Mapping) and not hasattr(type(obj), attribute):
                return obj[attribute]
            return super().getattr(obj, attribute)

    folder = resources.files("ddtl.reports").joinpath("templates")
    environment = OfRecords(
        loader=FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=is_markdown,
        finalize=_escaping if is_markdown else None,
    )
    environment.filters |= {
        "capital": lambda text: type(text)(format.capitalised(text)),
        "count": wording.count,
        "interval": format.interval,
        "level": format.level,
        "line": _line,
        "listed": lambda words: wording.listed(list(words)),
        "p_value": format.p_value,
        "percent": wording.percent,
        "score": format.score,
        "sentence": format.sentence,
        "g": lambda value, digits=6: f"{value:.{digits}g}",
        "thousands": lambda n: f"{n:,}",
    }
    return environment
