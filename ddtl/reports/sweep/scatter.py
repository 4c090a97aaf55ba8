"""The score of each trial against each parameter: where the good values are, and whether the range was wide enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddtl.reports.html.figures import Spec, chart, label, scale
from ddtl.reports.html.page import Figure
from ddtl.reports.sweep.axes import Parameter
from ddtl.reports.sweep.marks import marks, spelled
from ddtl.reports.sweep.trials import Trial, last_score

_MOST = 12  # parameters: more charts make the page long
_STATES = ("pruned", "complete", "failed", "running")


def figures(trials: Sequence[Trial], axes: Sequence[Parameter], score: str, best: Sequence[int]) -> list[Figure]:
    """Return a chart for each parameter with two values or more.

    Args:
        trials: those with a score, complete and pruned.
        axes: the parameters.
        score: what the trials were compared by.
        best: numbers of the trials that are highlighted.
    """
    shown = [axis for axis in axes if len(used(trials, axis)) > 1][:_MOST]
    return [
        Figure(
            axis.name,
            spec(used(trials, axis), axis, score, best),
            f"{score} against {axis.name} of {len(used(trials, axis))} trials.",
            f"{'Logarithmic axis. ' if axis.log else ''}{_unused(trials, axis)}".strip(),
        )
        for axis in shown
    ]


def spec(trials: Sequence[Trial], axis: Parameter, score: str, best: Sequence[int]) -> Spec:
    """Draw trials that used a parameter, its value from left to right; the dashboard shows those that run as well."""
    groups = {state: [t for t in trials if t["state"] == state and t["number"] not in best] for state in _STATES}
    groups["the best"] = [t for t in trials if t["number"] in best]
    traces = []
    for name, members in groups.items():
        if members:
            x = [_place(axis, trial) for trial in members]
            trace = marks(
                x, [last_score(t) for t in members], "complete" if name == "the best" else name, members, name
            )
            if name == "the best":
                trace["marker"] |= {"color": "var(--series-2)", "size": 9, "line": {"width": 0}}
            traces.append(trace)
    return chart(traces, _axis(axis), scale(score), legend="outside")


def used(trials: Sequence[Trial], axis: Parameter) -> list[Trial]:
    """Return the trials that used a parameter."""
    return [trial for trial in trials if trial["params"].get(axis.name) is not None or _is_choice(axis, trial)]


def _is_choice(axis: Parameter, trial: Trial) -> bool:
    """Return whether a trial made a choice: one of them may be null."""
    return axis.is_choice and axis.name in trial["params"]


def _unused(trials: Sequence[Trial], axis: Parameter) -> str:
    n = len(trials) - len(used(trials, axis))
    return f"Not used by {n} of {len(trials)} trials, as it belongs to another choice." if n else ""


def _place(axis: Parameter, trial: Trial) -> float:
    """Return where a trial is; of a choice a little aside, always alike, so that trials do not cover each other."""
    value = trial["params"][axis.name]
    if not axis.is_choice:
        return float(value)
    return axis.choices.index(value) + ((trial["number"] * 0.618034) % 1 - 0.5) * 0.3


def _axis(axis: Parameter) -> dict[str, Any]:
    found = scale("")
    found["title"]["text"] = label(axis.name)  # cut, as a name may be longer than the chart is wide
    if axis.is_choice:
        names = [label(spelled(choice)) for choice in axis.choices]
        ticks = {"tickvals": list(range(len(names))), "ticktext": names, "range": [-0.5, len(names) - 0.5]}
        return {**found, **ticks}
    return {**found, "type": "log", "dtick": 1, "exponentformat": "power"} if axis.log else {**found, "nticks": 6}
