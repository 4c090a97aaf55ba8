"""Charts of a sweep as plain Plotly specifications, from the trials of its record."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ddtl.reports.html.figures import REFERENCE, Spec, Trace, chart, label, scale, short, stroke
from ddtl.reports.sweep.parameters import Parameter
from ddtl.reports.sweep.trials import Stretch, best_so_far, last_score, score

Trial = Mapping[str, Any]

# A state's colour and mark: the same in every chart.
_COLORS = {
    "complete": "var(--series-1)",
    "pruned": "var(--reference)",
    "failed": "var(--bad)",
    "running": "var(--series-3)",
}
_MARKS = {"complete": "circle", "pruned": "x-thin-open", "failed": "diamond-open", "running": "triangle-right-open"}
_UNUSED = -0.16  # height of the lane of what a trial did not use
_CHOICES_SHOWN = 8


def history(trials: Sequence[Trial], monitor: str, sign: int, best: bool = True) -> Spec:
    """The score of every trial in the order of their numbers, and the best so far.

    Args:
        trials: of the record.
        monitor: name of the score.
        sign: 1 where more is better, else -1.
        best: whether the best so far is drawn.
    """
    steps = best_so_far(trials, sign) if best else []
    traces = [stroke([n for n, _ in steps], [v for _, v in steps], "best so far", 1, shape="hv")] if steps else []
    for state in ("complete", "pruned", "running"):
        shown = [trial for trial in trials if trial["state"] == state and last_score(trial) is not None]
        if shown:
            traces.append(
                _marks([trial["number"] for trial in shown], [last_score(trial) for trial in shown], state, shown)
            )
    x = {**scale("trial"), **({"dtick": 1} if len(trials) <= 12 else {})}
    return chart(traces, x, scale(monitor), legend="outside")


def importances(shares: Mapping[str, float]) -> Spec:
    """Bars, the greatest on top."""
    names = list(shares)[::-1]
    bar: Trace = {
        "type": "bar",
        "orientation": "h",
        "x": short([shares[name] for name in names]),
        "y": [label(name) for name in names],
        "name": "importance",
        "showlegend": False,
        "marker": {"color": "var(--series-1)"},
        "hovertemplate": "%{x:.2f}<extra></extra>",
    }
    y = {**scale(""), "type": "category", "ticklabelstandoff": 6}
    return chart([bar], {**scale("share of the importance"), "rangemode": "tozero"}, y, legend="outside")


def parallel(trials: Sequence[Trial], parameters: Sequence[Parameter], best: Iterable[int], sign: int) -> Spec:
    """A line a trial through its parameters' values to its score, on an axis each.

    What a trial did not use, as it belongs to another choice, runs through a lane of its own below.

    Args:
        trials: those with a score, complete and pruned.
        parameters: the axes, from the left; the score is the last one.
        best: numbers of the trials that stand out.
        sign: 1 where more is better, else -1.
    """
    best = set(best)
    scores = Parameter.of("score", [last_score(trial) for trial in trials])
    axes = [*parameters, scores]
    groups = {
        "pruned": [trial for trial in trials if trial["state"] == "pruned"],
        "complete": [t for t in trials if t["state"] == "complete" and t["number"] not in best],
        "the best": sorted((t for t in trials if t["number"] in best), key=lambda t: sign * (score(t) or 0.0)),
    }
    looks = {"pruned": (REFERENCE, "dot", 1), "complete": ("var(--bar)", "solid", 1.3)}
    traces = []
    for name, members in groups.items():
        if not members:
            continue
        color, dash, width = looks.get(name, ("var(--series-2)", "solid", 2.4))
        x, y, texts = _threads(members, axes)
        trace = stroke(x, y, name, color=color, dash=dash, width=width)
        traces.append({**trace, "text": texts, "hovertemplate": "%{text}<extra></extra>"})
    x_axis = {
        **scale(""),
        "tickvals": list(range(len(axes))),
        "ticktext": [_broken(axis.name) for axis in axes],
        "range": [-0.2, len(axes) - 0.9],
        "side": "top",
        "tickangle": 0,
        "tickfont": {"size": 11},
    }
    unused = any(axis.name not in trial["params"] for trial in trials for axis in parameters)
    y_axis = {
        **scale(""),
        "showticklabels": False,
        "showgrid": False,
        "range": [_UNUSED - 0.06 if unused else -0.06, 1.06],
    }
    spec = chart(traces, x_axis, y_axis, legend="outside")
    spec["layout"]["legend"] |= {"y": -0.04, "yanchor": "top"}
    spec["layout"]["margin"]["t"] = 70
    spec["layout"]["annotations"] = [note for i, axis in enumerate(axes) for note in _ticks(i, axis)]
    for note in spec["layout"]["annotations"][-2:]:  # those of the score: there is no room to its right
        note |= {"xanchor": "right", "xshift": -5}
    if unused:
        spec["layout"]["annotations"].append(_tick(-0.2, _UNUSED, "not used", shift=2))
    return spec


def curves(trials: Sequence[Trial], best: int | None, monitor: str) -> Spec:
    """The score of every trial over its epochs, counted from 1; the winner's on top, with its unfreezings."""
    traces = []
    looks = {"complete": ("var(--bar)", "solid"), "pruned": (REFERENCE, "dot"), "failed": ("var(--bad)", "dash")}
    looks["running"] = ("var(--series-3)", "solid")
    for state, (color, dash) in looks.items():
        members = [t for t in trials if t["state"] == state and t["curve"] and t["number"] != best]
        if not members:
            continue
        x, y, texts = _joined(members)
        trace = stroke(x, y, state, color=color, dash=dash, width=1.3)
        traces.append({**trace, "text": texts, "hovertemplate": "%{text}<extra></extra>"})
        if state in ("pruned", "failed"):
            ends = [t["curve"][-1] for t in members]
            marks = _marks([e + 1 for e, _ in ends], [v for _, v in ends], state, members, f"{state} here")
            traces.append({**marks, "showlegend": False})
    winner = next((t for t in trials if t["number"] == best and t["curve"]), None)
    if winner is not None:
        x, y, texts = _joined([winner])
        trace = stroke(x, y, f"the winner, trial {best}", color="var(--series-2)", width=2.6)
        traces.append({**trace, "text": texts, "hovertemplate": "%{text}<extra></extra>"})
        traces += _unfreezings(winner)
    last = max((epoch + 1 for trial in trials for epoch, _ in trial["curve"]), default=1)
    x_axis = {**scale("epoch"), "range": [0.8, last + 0.2], **({"dtick": 1} if last <= 12 else {})}
    return chart(traces, x_axis, scale(monitor), legend="outside")


def timeline(stretches: Sequence[Stretch], workers: Sequence[str], unit: str, seconds: float) -> Spec:
    """What each worker did when.

    Args:
        stretches: each a time in which a worker had a trial.
        workers: names, the first on top.
        unit, seconds: of the axis, as ``minutes`` and 60.
    """
    traces = []
    for state, color in (_COLORS | {"broken off": "var(--series-4)"}).items():
        shown = [part for part in stretches if part.state == state]
        if not shown:
            continue
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "base": short([part.start / seconds for part in shown]),
                "x": short([part.length / seconds for part in shown]),
                "y": [label(part.worker) for part in shown],
                "name": state,
                "marker": {"color": color, "line": {"color": "var(--ground)", "width": 1}},
                "text": [str(part.trial) for part in shown],
                "textposition": "inside",
                "insidetextanchor": "middle",
                "textangle": 0,
                "textfont": {"color": "var(--ground)"},
                "hovertemplate": "trial %{text}: %{x:.2f} " + unit + "<extra></extra>",
            }
        )
    order = [label(name) for name in reversed(workers)]
    y = {**scale(""), "type": "category", "categoryorder": "array", "categoryarray": order, "ticklabelstandoff": 6}
    spec = chart(traces, {**scale(f"{unit} since the start"), "rangemode": "tozero"}, y, legend="outside")
    spec["layout"] |= {"barmode": "overlay", "bargap": 0.35, "uniformtext": {"minsize": 9, "mode": "hide"}}
    return spec


def pareto(trials: Sequence[Trial], front: Sequence[Trial], names: Sequence[str]) -> Spec:
    """The second objective against the first one: every complete trial, and the front.

    Args:
        trials: the complete ones.
        front: those that no other one beats in both, ordered by the second objective.
        names: of the objectives.
    """
    inside = {trial["number"] for trial in front}
    others = [trial for trial in trials if trial["number"] not in inside]
    traces = [_marks([t["values"][1] for t in others], [t["values"][0] for t in others], "complete", others)]
    x, y = [t["values"][1] for t in front], [t["values"][0] for t in front]
    line = stroke(x, y, "Pareto front", 1, shape="hv", mode="lines+markers")
    traces.append(
        {**line, "text": [_told(t) for t in front], "hovertemplate": "%{text}<br>%{x:.3g}, %{y:.4f}<extra></extra>"}
    )
    return chart(traces, {**scale(names[1]), "rangemode": "tozero"}, scale(names[0]), legend="outside")


def _marks(x: Sequence[float], y: Sequence[Any], state: str, trials: Sequence[Trial], name: str = "") -> Trace:
    """A mark a trial in its state's colour."""
    trace = stroke(x, y, name or state, color=_COLORS[state], mode="markers")
    trace["marker"] |= {"symbol": _MARKS[state], "line": {"color": _COLORS[state], "width": 1.5}}
    return {**trace, "text": [_told(t) for t in trials], "hovertemplate": "%{text}<br>%{y:.4f}<extra></extra>"}


def _told(trial: Trial) -> str:
    """A trial in a pointer's label: its number and what was sampled."""
    rows = [f"{key} = {_spelled(value)}" for key, value in trial["params"].items()]
    return "<br>".join(html.escape(row, quote=False) for row in [f"trial {trial['number']}", *rows])


def _joined(trials: Sequence[Trial]) -> tuple[list[float], list[float | None], list[str]]:
    """The curves of trials as one line with gaps: epochs from 1, scores, words for the pointer."""
    x: list[float] = []
    y: list[float | None] = []
    texts: list[str] = []
    for trial in trials:
        for epoch, value in trial["curve"]:
            x.append(epoch + 1)
            y.append(value)
            texts.append(f"trial {trial['number']}, epoch {epoch + 1}: {_spelled(value)}")
        x.append(x[-1])
        y.append(None)
        texts.append("")
    return x, y, texts


def _unfreezings(winner: Trial) -> list[Trace]:
    by_epoch = dict(winner["curve"])
    starts = [epoch for epoch in winner.get("phases") or () if epoch and epoch in by_epoch]
    if not starts:
        return []
    trace = stroke([e + 1 for e in starts], [by_epoch[e] for e in starts], "a phase starts", mode="markers")
    trace["marker"] = {"color": "var(--ink)", "size": 9, "symbol": "circle-open", "line": {"width": 2}}
    return [trace]


def _threads(trials: Sequence[Trial], axes: Sequence[Parameter]) -> tuple[list[float], list[float | None], list[str]]:
    """Lines of trials through the axes as one line with gaps."""
    x: list[float] = []
    y: list[float | None] = []
    texts: list[str] = []
    for trial in trials:
        values = {**trial["params"], "score": last_score(trial)}
        # Lines that share a choice would lie on each other: each is moved a little, always alike.
        aside = ((trial["number"] * 0.618034) % 1 - 0.5) * 0.05
        for i, axis in enumerate(axes):
            place = axis.place(values[axis.name]) if axis.name in values else None
            x.append(i)
            y.append(_UNUSED + aside if place is None else place + aside * axis.is_choice)
        x.append(x[-1])
        y.append(None)
        texts += [f"{_told(trial)}<br>score {_spelled(values['score'])}"] * len(axes) + [""]
    return x, y, texts


def _ticks(i: int, axis: Parameter) -> list[dict[str, Any]]:
    """The ends of a number's axis, or the choices."""
    if not axis.is_choice:
        return [_tick(i, place, _spelled(value)) for value, place in ((axis.low, 0.0), (axis.high, 1.0))]
    chosen = axis.choices if len(axis.choices) <= _CHOICES_SHOWN else (axis.choices[0], axis.choices[-1])
    return [_tick(i, axis.place(choice) or 0.0, label(_spelled(choice))) for choice in chosen]


def _tick(x: float, y: float, text: str, shift: int = 5) -> dict[str, Any]:
    return {
        "x": x,
        "y": y,
        "text": text,
        "showarrow": False,
        "xanchor": "left",
        "xshift": shift,
        "borderpad": 1,
        "bgcolor": "var(--ground)",
        "opacity": 0.85,
        "font": {"size": 11, "color": "var(--ink)"},
    }


def _broken(name: str) -> str:
    """A parameter's name in lines of a few letters, broken where its words end."""
    lines = [""]
    for word in name.replace(".", ".\0").replace("_", "_\0").replace("/", "/\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(word) > 10:
            lines.append("")
        lines[-1] += word
    return "<br>".join(label(line) for line in lines[:4])


def _spelled(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return "–" if not math.isfinite(value) else f"{value:.3g}" if abs(value) < 0.01 else f"{value:.4g}"
    return str(value)
