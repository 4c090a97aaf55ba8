"""Charts as plain Plotly specifications, from plain arrays; their colours are names in ``templates/style.css``."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddtl.evaluation.calibration import Bin
from ddtl.evaluation.decision import NetBenefit
from ddtl.reports.html.curves import GRID, Band, Curves

Spec = dict[str, Any]
Trace = dict[str, Any]

SERIES = tuple(f"var(--series-{i})" for i in range(1, 7))
_DASHES = ("solid", "dash", "dot", "dashdot")
REFERENCE = "var(--reference)"
_LONGEST_NAME = 28


def label(name: str) -> str:
    """A name as Plotly shows it letter by letter: it takes tags for markup. Long ones are cut."""
    flat = " ".join(name.split())
    short = flat if len(flat) <= _LONGEST_NAME else flat[: _LONGEST_NAME - 1] + "…"
    return html.escape(short, quote=False)


def roc(curves: Mapping[str, Curves], point: tuple[float, float] | None = None) -> Spec:
    """ROC curves by name, the first with its band.

    Args:
        curves: what is drawn, in the order of the legend.
        point: false-positive and true-positive rate at the threshold in use.
    """
    traces = [stroke(GRID, GRID, "chance", color=REFERENCE, dash="dot", width=1)]
    traces += [part for curve in list(curves.values())[:1] for part in band(curve.roc_band)]
    traces += [stroke(*curve.roc, name, i) for i, (name, curve) in enumerate(curves.items())]
    if point is not None:
        traces.append(_point(*point, "at the threshold"))
    return chart(traces, share("1 - specificity"), share("sensitivity"), legend="bottom right")


def precision_recall(
    curves: Mapping[str, Curves], prevalence: float | None = None, point: tuple[float, float] | None = None
) -> Spec:
    """Precision-recall curves by name, the first with its band.

    Args:
        curves: as for :func:`roc`.
        prevalence: share of positives: the precision of chance.
        point: recall and precision at the threshold in use.
    """
    traces = [part for curve in list(curves.values())[:1] for part in band(curve.precision_recall_band)]
    if prevalence is not None:
        level = np.full(2, prevalence)
        traces.append(stroke(np.array([0.0, 1.0]), level, "chance", color=REFERENCE, dash="dot", width=1))
    traces += [stroke(*c.precision_recall, name, i, shape="vh") for i, (name, c) in enumerate(curves.items())]
    if point is not None:
        traces.append(_point(*point, "at the threshold"))
    return chart(traces, share("recall (sensitivity)"), share("precision (PPV)"), legend="bottom left")


def reliability(bins: Mapping[str, Sequence[Bin]], x: str, y: str) -> Spec:
    """Reliability diagrams by name, above the number of samples in each bin.

    Args:
        bins: from :func:`ddtl.evaluation.calibration.reliability`.
        x, y: what the axes show.
    """
    traces = [stroke(np.array([0.0, 1.0]), np.array([0.0, 1.0]), "perfect", color=REFERENCE, dash="dot", width=1)]
    for i, (name, found) in enumerate(bins.items()):
        counts = [part.count for part in found]
        shares = [part.share_positive for part in found]
        line = stroke(np.array([part.mean_p for part in found]), shares, name, i, mode="lines+markers")
        traces.append({**line, "customdata": counts, "hovertemplate": "%{x:.3f}, %{y:.3f}, n = %{customdata}"})
        traces.append(
            {
                "type": "bar",
                "x": short([(part.low + part.high) / 2 for part in found]),
                "width": short([(part.high - part.low) * 0.9 / max(1, len(bins)) for part in found]),
                "offset": short([(i / len(bins) - 0.5) * (part.high - part.low) * 0.9 for part in found]),
                "y": counts,
                "yaxis": "y2",
                "marker": {"color": ("var(--bar)", "var(--bar-2)")[i % 2]},
                "name": label(name),
                "showlegend": False,
                "hovertemplate": "n = %{y}",
            }
        )
    spec = chart(traces, share(x), {**share(y), "domain": [0.3, 1]}, legend="bottom right")
    spec["layout"]["legend"]["y"] = 0.32  # within the upper part
    spec["layout"]["xaxis"]["anchor"] = "y2"
    spec["layout"]["yaxis2"] = {**scale("n"), "domain": [0, 0.2], "rangemode": "tozero", "nticks": 3}
    spec["layout"]["barmode"] = "overlay"
    return spec


def decision_curve(
    rows: Mapping[str, Sequence[NetBenefit]], threshold: float | None = None, limits: Band | None = None
) -> Spec:
    """Net benefit of the model, by name, against calling everyone and nobody positive.

    Args:
        rows: from :func:`ddtl.evaluation.decision.decision_curve`, all at the same thresholds.
        threshold: the one in use, marked.
        limits: of the first model, at the same thresholds.
    """
    first = next(iter(rows.values()))
    t = np.array([row.threshold for row in first])
    # What runs far below zero says nothing more, and would leave no height for the rest.
    best = max([row.model or 0.0 for found in rows.values() for row in found] + [first[0].treat_all or 0.0, 0.01])
    traces = [
        *band(limits, x=t),
        stroke(t, [row.treat_all for row in first], "everyone", color=REFERENCE, dash="dash", width=1),
        stroke(t, [row.treat_none for row in first], "nobody", color=REFERENCE, dash="dot", width=1),
        *(stroke(t, [row.model for row in found], name, i) for i, (name, found) in enumerate(rows.items())),
    ]
    x = {**share("threshold probability"), "range": [0, float(t[-1])]}
    spec = chart(traces, x, {**scale("net benefit"), "range": [-0.35 * best, 1.08 * best]}, legend="outside")
    if threshold is not None and threshold <= t[-1]:
        spec["layout"]["shapes"] = [upright(threshold)]
    return spec


def epochs(rows: Sequence[Mapping[str, Any]], names: Sequence[str], title: str, best: int | None) -> Spec:
    """Curves over the epochs, counted from 1.

    Args:
        rows: of ``metrics.jsonl``.
        names: which of its numbers.
        title: of the axis.
        best: the epoch, counted from 0, that is marked.
    """
    x = np.array([row["epoch"] + 1 for row in rows])
    mode = "lines" if len(rows) > 40 else "lines+markers"
    traces = [stroke(x, [row.get(name) for row in rows], name, i, mode=mode) for i, name in enumerate(names)]
    axis = {**scale("epoch"), "range": [0.5, float(x[-1]) + 0.5]}
    if len(rows) <= 10:
        axis["dtick"] = 1
    spec = chart(traces, axis, scale(title), legend="outside")
    if best is not None:
        spec["layout"]["shapes"] = [upright(best + 1)]
        spec["layout"]["annotations"] = [_note(best + 1, f"epoch {best + 1}", left=best >= len(rows) / 2)]
    return spec


def lr_ramp(
    rates: np.ndarray,
    losses: np.ndarray,
    smoothed: np.ndarray,
    *,
    ends: tuple[float, float],
    readings: Mapping[str, float],
    chosen: float | None,
) -> Spec:
    """Loss against a rising learning rate.

    Args:
        rates, losses, smoothed: (N,) of a range test, as far as it went.
        ends: of the whole ramp.
        readings: rates by rule, marked on the smoothed curve.
        chosen: the rate suggested, marked.
    """
    traces = [stroke(rates, losses, "each step", color="var(--bar)", width=1), stroke(rates, smoothed, "smoothed")]
    for place, (rule, rate) in enumerate(readings.items(), start=1):
        point = _point(rate, float(np.interp(math.log(rate), np.log(rates), smoothed)), rule)
        point["marker"]["color"] = SERIES[place]
        traces.append(point)
    # The fall fills the picture; where the loss runs away, it may leave it.
    low, first = float(losses.min()), float(losses[: max(1, len(losses) // 10)].max())
    room = 0.15 * (first - low) or 0.1
    x = {**scale("learning rate"), "type": "log", "range": [math.log10(end) for end in ends], "exponentformat": "power"}
    spec = chart(traces, x, {**scale("training loss"), "range": [low - room, first + 2 * room]}, legend="outside")
    for trace in traces:
        trace["hovertemplate"] = "%{x:.2g}, %{y:.4f}"
    if chosen is not None:
        spec["layout"]["shapes"] = [upright(chosen)]
    return spec


def _note(x: float, text: str, *, left: bool) -> dict[str, Any]:
    """Words at the foot of an upright line."""
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
    """A line in the colour, and beyond the sixth the dash, of its place in the legend."""
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


def band(found: Band | None, fill: str = "var(--band)", x: Sequence[float] | np.ndarray = GRID) -> list[Trace]:
    """What lies between two curves at ``x``; nothing where there is none."""
    if found is None:
        return []
    outline = {"type": "scatter", "mode": "lines", "x": short(x), "hoverinfo": "skip", "showlegend": False}
    line = {"color": "var(--clear)", "width": 0}
    return [
        {**outline, "y": short(found.low), "line": line},
        {**outline, "y": short(found.high), "line": line, "fill": "tonexty", "fillcolor": fill},
    ]


def _point(x: float, y: float, name: str) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": short([x]),
        "y": short([y]),
        "name": label(name),
        "marker": {"color": "var(--ink)", "size": 10, "symbol": "circle-open", "line": {"width": 2}},
        "hovertemplate": "%{x:.3f}, %{y:.3f}",
    }


def upright(x: float) -> dict[str, Any]:
    """A dotted line at x."""
    line = {"color": REFERENCE, "width": 1, "dash": "dot"}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line, "layer": "below"}


def scale(title: str) -> dict[str, Any]:
    """An axis."""
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
    """An axis from 0 to 1."""
    return {**scale(title), "range": [-0.01, 1.01], "dtick": 0.2}


_LEGENDS: dict[str, dict[str, Any]] = {
    "bottom right": {"x": 0.98, "xanchor": "right", "y": 0.03, "yanchor": "bottom"},
    "bottom left": {"x": 0.03, "xanchor": "left", "y": 0.03, "yanchor": "bottom"},
    "outside": {"x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "orientation": "h"},
}


def chart(traces: list[Trace], x: dict[str, Any], y: dict[str, Any], *, legend: str) -> Spec:
    """Traces on two axes; ``legend`` is where it stands, of ``_LEGENDS``."""
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


def short(values: Sequence[float | None] | np.ndarray) -> list[float | None]:
    """Plain numbers of five digits, which no screen can tell from more; what is no number leaves a gap."""
    return [None if v is None or not math.isfinite(v) else float(f"{v:.5g}") for v in values]
