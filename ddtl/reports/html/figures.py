"""What charts are made of, as plain Plotly specifications; colours are names in ``templates/style.css``.

A chart that one section shows is drawn in the file of that section, from the lines, points, bands and axes here.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from ddtl.reports.html.curves import GRID, Band

Spec = dict[str, Any]
Trace = dict[str, Any]

SERIES = tuple(f"var(--series-{i})" for i in range(1, 7))
FILLS = ("var(--band)", *(f"var(--band-{i})" for i in range(2, 7)))  # of the same colours
_DASHES = ("solid", "dash", "dot", "dashdot")
REFERENCE = "var(--reference)"
_LONGEST_NAME = 28


def label(name: str) -> str:
    """Return a name as Plotly shows it letter by letter: it takes tags for markup. Of long ones the middle is cut."""
    flat = " ".join(name.split())
    short = flat if len(flat) <= _LONGEST_NAME else f"{flat[: _LONGEST_NAME // 2 - 1]}…{flat[-_LONGEST_NAME // 2 :]}"
    return html.escape(short, quote=False)


def note(x: float, text: str, *, left: bool) -> dict[str, Any]:
    """Return words at the foot of a vertical line."""
    return {
        "x": x,
        "y": 0,
        "xref": "x",
        "yref": "paper",
        "xanchor": "right" if left else "left",
        "yanchor": "bottom",
        "text": text,
        "showarrow": False,
        "font": {"size": 12, "color": "var(--muted)"},
    }


def place_of(colour: int, dash: int) -> int:
    """Return the place of a line in a colour and a dash of their own: what :func:`stroke` makes of it is both."""
    return colour % len(SERIES) + len(SERIES) * (dash % len(_DASHES))


def stroke(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float | None] | np.ndarray,
    name: str,
    place: int = 0,
    *,
    color: str | None = None,
    dash: str | None = None,
    width: float = 2,
    shape: str = "linear",
    mode: str = "lines",
) -> Trace:
    """Return a line in the colour, and beyond the sixth the dash, of its place in the legend."""
    color = color or SERIES[place % len(SERIES)]
    dash = dash or _DASHES[place // len(SERIES) % len(_DASHES)]
    trace: Trace = {
        "type": "scatter",
        "mode": mode,
        "x": short(x),
        "y": short(y),
        "name": label(name),
        "line": {"color": color, "dash": dash, "width": width, "shape": shape},
        "hovertemplate": "%{x:.3f}, %{y:.3f}",
    }
    if "markers" in mode:
        trace["marker"] = {"color": color, "size": 7}
    return trace


def chance(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, name: str = "chance") -> Trace:
    """Return the dotted line of what needs no network, or of what is perfect."""
    return stroke(x, y, name, color=REFERENCE, dash="dot", width=1)


def band(found: Band | None, fill: str = "var(--band)", x: Sequence[float] | np.ndarray = GRID) -> list[Trace]:
    """Return what is between two curves at ``x``; nothing where there is none."""
    if found is None:
        return []
    outline = {"type": "scatter", "mode": "lines", "x": short(x), "hoverinfo": "skip", "showlegend": False}
    line = {"color": "var(--clear)", "width": 0}
    return [
        {**outline, "y": short(found.low), "line": line},
        {**outline, "y": short(found.high), "line": line, "fill": "tonexty", "fillcolor": fill},
    ]


def point(x: float, y: float, name: str) -> Trace:
    """Return an open circle."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": short([x]),
        "y": short([y]),
        "name": label(name),
        "marker": {"color": "var(--ink)", "size": 10, "symbol": "circle-open", "line": {"width": 2}},
        "hovertemplate": "%{x:.3f}, %{y:.3f}",
    }


def vertical(x: float) -> dict[str, Any]:
    """Return a dotted line at x."""
    line = {"color": REFERENCE, "width": 1, "dash": "dot"}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line, "layer": "below"}


def scale(title: str) -> dict[str, Any]:
    """Return an axis."""
    return {
        "title": {"text": html.escape(title, quote=False), "standoff": 10, "font": {"size": 13}},
        "color": "var(--muted)",
        "gridcolor": "var(--grid)",
        "linecolor": "var(--line)",
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
    }


def share(title: str) -> dict[str, Any]:
    """Return an axis from 0 to 1."""
    return {**scale(title), "range": [-0.01, 1.01], "dtick": 0.2}


_LEGENDS: dict[str, dict[str, Any]] = {
    "bottom right": {"x": 0.98, "xanchor": "right", "y": 0.03, "yanchor": "bottom"},
    "bottom left": {"x": 0.03, "xanchor": "left", "y": 0.03, "yanchor": "bottom"},
    "outside": {"x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "orientation": "h"},
}


def chart(traces: list[Trace], x: dict[str, Any], y: dict[str, Any], *, legend: str) -> Spec:
    """Return traces on two axes, with a legend at one of the places ``_LEGENDS``."""
    layout = {
        "font": {"family": "system-ui, -apple-system, Segoe UI, Roboto, Inter, sans-serif", "size": 13}
        | {"color": "var(--ink)"},
        "paper_bgcolor": "var(--clear)",
        "plot_bgcolor": "var(--clear)",
        "margin": {"l": 52, "r": 12, "t": 12, "b": 48},
        "xaxis": x,
        "yaxis": y,
        "legend": {**_LEGENDS[legend], "bgcolor": "var(--clear)", "font": {"size": 12, "color": "var(--ink)"}},
        "showlegend": True,
        "hoverlabel": {"bgcolor": "var(--surface)", "bordercolor": "var(--line)", "font": {"color": "var(--ink)"}},
        "dragmode": False,
    }
    return {"data": traces, "layout": layout}


def square(spec: Spec) -> Spec:
    """Return a chart whose axes, both from 0 to 1, are drawn equally long whatever room there is."""
    spec["layout"]["xaxis"] |= {"constrain": "domain"}
    spec["layout"]["yaxis"] |= {"constrain": "domain", "scaleanchor": "x"}
    return spec


def short(values: Sequence[float | None] | np.ndarray) -> list[float | None]:
    """Return plain numbers of five digits, more than a screen shows; what is not a number leaves a gap."""
    return [None if v is None or not math.isfinite(v) else float(f"{v:.5g}") for v in values]


def on_paper(spec: Spec) -> Spec:
    """Return a specification for use outside of a page: with the colours of the light theme for their names."""
    found: Spec = _coloured(spec, _paper_colours())
    return found


def _coloured(value: Any, colours: Mapping[str, str], key: str = "") -> Any:
    """Return what ``templates/colours.js`` makes of a value within a specification."""
    if isinstance(value, str):
        name = _COLOUR_NAME.fullmatch(value) if key.endswith("color") else None
        return value if name is None else colours[name[1]]
    if isinstance(value, Mapping):
        return {name: _coloured(part, colours, name) for name, part in value.items()}
    return [_coloured(part, colours, key) for part in value] if isinstance(value, list) else value


_COLOUR_NAME = re.compile(r"var\(--([\w-]+)\)")


@cache
def _paper_colours() -> dict[str, str]:
    style = resources.files("ddtl.reports.html").joinpath("templates", "style.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--([\w-]+): ([^;]+);", style[: style.index("}")]))
