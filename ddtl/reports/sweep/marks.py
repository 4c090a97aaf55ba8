"""Marks of trials in the charts of a sweep: the same colour and shape for the same state in all of them."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from ddtl.reports.html.figures import Trace, stroke
from ddtl.reports.sweep.trials import Trial

COLORS = {
    "complete": "var(--series-1)",
    "pruned": "var(--reference)",
    "failed": "var(--bad)",
    "running": "var(--series-3)",
}
_SYMBOLS = {"complete": "circle", "pruned": "x-thin-open", "failed": "diamond-open", "running": "triangle-right-open"}


def marks(x: Sequence[float], y: Sequence[Any], state: str, trials: Sequence[Trial], name: str = "") -> Trace:
    """Return a mark for each trial in its state's colour."""
    trace = stroke(x, y, name or state, color=COLORS[state], mode="markers")
    trace["marker"] |= {"symbol": _SYMBOLS[state], "line": {"color": COLORS[state], "width": 1.5}}
    return {**trace, "text": [described(t) for t in trials], "hovertemplate": "%{text}<br>%{y:.4f}<extra></extra>"}


def described(trial: Trial) -> str:
    """Return a trial as the label of a pointer shows it: its number and what was sampled."""
    rows = [f"{key} = {spelled(value)}" for key, value in trial["params"].items()]
    return "<br>".join(html.escape(row, quote=False) for row in [f"trial {trial['number']}", *rows])


def lines(trials: Sequence[Trial], name: str, *, color: str, dash: str = "solid", width: float) -> Trace:
    """Return the curves of trials as one line with gaps: scores over epochs from 1."""
    x: list[float] = []
    y: list[float | None] = []
    texts: list[str] = []
    for trial in trials:
        for epoch, value in trial["curve"]:
            x.append(epoch + 1)
            y.append(value)
            texts.append(f"trial {trial['number']}, epoch {epoch + 1}: {spelled(value)}")
        x.append(x[-1])
        y.append(None)
        texts.append("")
    trace = stroke(x, y, name, color=color, dash=dash, width=width)
    return {**trace, "text": texts, "hovertemplate": "%{text}<extra></extra>"}


def spelled(value: Any) -> str:
    """Return a value in a few letters."""
    if value is None:
        return "null"
    if isinstance(value, float):
        return "–" if not math.isfinite(value) else f"{value:.3g}" if abs(value) < 0.01 else f"{value:.4g}"
    return str(value)
