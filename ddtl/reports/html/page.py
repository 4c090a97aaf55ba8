"""A self-contained HTML page of headlines, warnings, sections, tables and figures: what every report is made of.

A page is described by the dataclasses here and rendered by one template. Its sections are functions of the facts that
it is about, one file each: see :func:`make_sections`. All text is escaped on its way into the page, inside the JSON of
figures and in drawings too, so a class or a file may have any name. The page makes no network requests, which its
own content security policy also forbids; it lets no script run but ours, and no style be set but ours. Tables and
drawings need no JavaScript, figures and the sorting of tables need it.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

if TYPE_CHECKING:
    from jinja2 import Environment

Facts = TypeVar("Facts")
Tone = Literal["main", "other", "good", "bad"]


@dataclass(frozen=True)
class Cell:
    """A cell with more than its text.

    Attributes:
        text: what it shows.
        note: small print after the text: an interval, or why there is no number.
        shade: 0 to 1, how strongly it is coloured; for tables of counts.
    """

    text: str
    note: str = ""
    shade: float = 0.0


Rows = list[list[str | Cell]]


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
        caption: what it shows, in a line.
        columns: headings.
        rows: one value a heading.
        note: what a reader must know about it, below.
        words: columns of words and not numbers, other than the first.
        sortable: a click on a heading sorts the rows by it.
        stacked: small print is below its number, so that many columns fit.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    note: str = ""
    words: Sequence[int] = ()
    sortable: bool = False
    stacked: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            assert len(row) == len(self.columns), f"{self.caption}: {row}"


@dataclass(frozen=True)
class Figure:
    """A chart.

    Attributes:
        title: what it shows, above it.
        spec: ``{"data": […], "layout": {…}}`` as Plotly takes it; colours may be ``var(--name)`` of ``style.css``.
        alt: what it shows, for those who do not see it.
        caption: what a reader must know about it, below.
        square: its axes are of one length, as those of two rates should be.
    """

    kind: ClassVar[str] = "figure"
    title: str
    spec: dict[str, Any]
    alt: str
    caption: str = ""
    square: bool = False


@dataclass(frozen=True)
class Drawing:
    """A drawing that needs no JavaScript.

    Attributes:
        title: what it shows, above it.
        svg: an ``<svg>`` element whose texts are escaped already; its title says what is on it.
        caption: what a reader must know about it, below.
    """

    kind: ClassVar[str] = "drawing"
    title: str
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Estimate:
    """A row of a :class:`Forest`: a number with its interval.

    Attributes:
        name: whose number it is.
        value, low, high: the number and its interval; None where there is none.
        text: both, as they are read.
        tone: ``main`` what the chart is about, ``other`` what it is compared with, ``good`` and ``bad`` a verdict.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    text: str
    tone: Tone = "main"


@dataclass(frozen=True)
class Forest:
    """Numbers with their intervals on one axis, a row each; it needs no JavaScript and is read as a table is.

    Attributes:
        title: what it shows, above it.
        axis: what the numbers are.
        estimates: the rows.
        ticks: where the axis has a number; the first and the last are its ends. See :func:`ticks_around`.
        reference: where a vertical line is: chance, or no difference; None where there is none.
        caption: what a reader must know about it, below.
    """

    kind: ClassVar[str] = "forest"
    title: str
    axis: str
    estimates: Sequence[Estimate]
    ticks: Sequence[float]
    reference: float | None = None
    caption: str = ""

    def place(self, value: float) -> str:
        """Return where a value is, in per cent of the axis; what is outside is at its end."""
        low, high = self.ticks[0], self.ticks[-1]
        return f"{100 * min(1.0, max(0.0, (value - low) / (high - low))):.2f}%"

    def width(self, one: Estimate) -> str:
        """Return how long the interval of a row is, in per cent of the axis."""
        assert one.low is not None
        assert one.high is not None
        return f"{float(self.place(one.high)[:-1]) - float(self.place(one.low)[:-1]):.2f}%"

    @property
    def summary(self) -> str:
        """All rows in a sentence, for those who do not see them."""
        return "; ".join(f"{one.name}: {one.text}" for one in self.estimates)


def ticks_around(estimates: Sequence[Estimate], reference: float | None = None) -> list[float]:
    """Return four to nine round numbers around all intervals and the reference."""
    ends = [x for one in estimates for x in (one.value, one.low, one.high) if x is not None]
    ends += [] if reference is None else [reference]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    span = max(high - low, 1e-3)
    step = 10.0 ** math.floor(math.log10(span))
    step *= next(factor for factor in (0.1, 0.2, 0.25, 0.5, 1, 2) if span / (step * factor) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) + 0.0 for i in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str
    tone: Literal["plain", "good", "bad"] = "plain"


@dataclass(frozen=True)
class Code:
    """Lines as they are, to be read or copied."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Notice:
    """Something found, and what to do about it.

    Attributes:
        label: a word or two before the title.
        title: what it is.
        text: more of it.
        fix: what to do.
    """

    kind: ClassVar[str] = "notice"
    label: str
    title: str
    text: str
    fix: str = ""
    tone: Literal["plain", "warn", "bad"] = "plain"


@dataclass(frozen=True)
class Photo:
    """A small photograph.

    Attributes:
        uri: a ``data:`` URI, since a page makes no network requests.
        text, note: what is below it.
        alt: what it shows, for those who do not see it, where ``text`` does not describe it.
    """

    uri: str
    text: str
    note: str = ""
    alt: str = ""

    def __post_init__(self) -> None:
        assert self.uri.startswith("data:image/"), self.uri[:40]


@dataclass(frozen=True)
class Photos:
    """Photographs that belong together, side by side.

    Attributes:
        title: what they show, above them.
        photos: with what is below each.
        caption: what a reader must know about them, below.
        wide: whether all are twice as wide as high; otherwise each is fitted into the same frame.
    """

    kind: ClassVar[str] = "photos"
    title: str
    photos: Sequence[Photo]
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Row:
    """Blocks side by side where the screen is wide enough."""

    kind: ClassVar[str] = "row"
    blocks: Sequence[Table | Figure | Forest | Text | Code | Photos]


@dataclass(frozen=True)
class Fold:
    """Blocks behind a line that opens them."""

    kind: ClassVar[str] = "fold"
    summary: str
    blocks: Sequence[Table | Figure | Text | Code]


Block = Table | Figure | Drawing | Forest | Text | Code | Notice | Photos | Row | Fold


@dataclass(frozen=True)
class Section:
    """A titled part of a page; one without blocks is not shown."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """What a link to it ends in."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Headline:
    """A number that is read first.

    Attributes:
        label: what it is, above it.
        value: it.
        note: small print below: its interval.
        mark: what makes it untrustworthy, on it; empty where nothing does.
    """

    label: str
    value: str
    note: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        eyebrow: what kind of page it is, above the title.
        title: what it is about.
        subtitle: a line below it, that tells it from others of its kind.
        answer: the finding in one or two sentences, before all numbers.
        headlines: at most four.
        caveat: what is true of every number on the page, next to the headlines; empty where there is nothing.
        warnings: sentences that come before everything else.
        sections: the rest.
    """

    eyebrow: str
    title: str
    subtitle: str = ""
    answer: str = ""
    headlines: Sequence[Headline] = ()
    caveat: str = ""
    warnings: Sequence[str] = ()
    sections: Sequence[Section] = ()


def make_sections(of: Iterable[Callable[[Facts], Section]], facts: Facts) -> list[Section]:
    """Make the sections of a page, in order, without those that have nothing to show.

    Args:
        of: the function ``section`` of each section's module.
        facts: what the page is about, such as a run as it is stored.
    """
    made = [section(facts) for section in of]
    return [section for section in made if section.blocks]


def side_by_side(charts: Sequence[Figure]) -> list[Block]:
    """Arrange charts in rows of two."""
    return [Row(charts[i : i + 2]) if len(charts[i : i + 2]) > 1 else charts[i] for i in range(0, len(charts), 2)]


def render(page: Page) -> str:
    """Return the page as HTML, which loads nothing from the network and runs no script but ours: see :func:`policy`."""
    shown = [block for section in page.sections for block in section.blocks]
    sortable = any(_has(block, lambda one: isinstance(one, Table) and one.sortable) for block in shown)
    charts = any(_has(block, lambda one: isinstance(one, Figure)) for block in shown)
    parts = _parts()
    scripts = [parts.tables] * sortable + [parts.plotly, parts.charts] * charts
    styles = [parts.style] + [parts.plotly_style] * charts
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            page=page,
            policy=policy(scripts, styles),
            scripts=scripts,
            style=parts.style,
            charts=parts.plotly_style if charts else "",
            maps=map_style(parts.plotly) if charts else "",
        )
    )


def map_style(plotly: str) -> str:
    """Return the name under which Plotly adds the styles of maps to every page, unless something has that name."""
    found = re.search(r'getElementById\("([0-9a-f]{64})"\)', plotly)
    return found[1] if found else "maps"


def policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """Return the Content-Security-Policy of a page that contains just these scripts and style sheets."""
    return (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def full_policy() -> str:
    """Return the policy under which any page of this version works, and nothing else in it runs."""
    parts = _parts()
    return policy([parts.tables, parts.plotly, parts.charts], [parts.style, parts.plotly_style])


def is_of_this_version(page: Path) -> bool:
    """Return whether a stored page contains just scripts and style sheets that :func:`full_policy` knows."""
    with page.open("rb") as file:
        head = file.read(4096).decode("utf-8", "replace")
    named = set(re.findall(r"sha256-[\w+/]+=", head))
    return bool(named) and named <= set(re.findall(r"sha256-[\w+/]+=", full_policy()))


def _hashes(texts: Sequence[str]) -> str:
    return " ".join(map(_hash, texts)) or "'none'"


@cache
def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@dataclass(frozen=True)
class _Parts:
    """What a page is made of other than its own content; each is between its tags to the letter."""

    style: str
    plotly_style: str
    plotly: str
    tables: str
    charts: str


@cache
def _parts() -> _Parts:
    templates = resources.files(__package__).joinpath("templates")

    def text(name: str) -> str:
        return templates.joinpath(name).read_text(encoding="utf-8")

    plotly = resources.files("plotly").joinpath("package_data", "plotly.min.js")
    return _Parts(
        style=text("style.css"),
        plotly_style=text("plotly.css"),
        plotly=plotly.read_text(encoding="utf-8"),
        tables=text("tables.js"),
        charts=text("colours.js") + text("charts.js"),
    )


def _has(block: Block, what: Callable[[Block], bool]) -> bool:
    """Return whether a block is of a kind, or contains one."""
    return what(block) or (isinstance(block, Row | Fold) and any(_has(inner, what) for inner in block.blocks))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    templates = resources.files(__package__).joinpath("templates")
    environment = Environment(
        loader=FunctionLoader(lambda name: templates.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment
