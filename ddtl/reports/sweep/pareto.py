"""Score against time, where a sweep has both for objectives: the trials than which no other one is better in both."""

from __future__ import annotations

from collections.abc import Sequence

from ddtl.reports.html import format
from ddtl.reports.html.figures import Spec, chart, scale, stroke
from ddtl.reports.html.page import Figure, Section, Table
from ddtl.reports.sweep.marks import described, marks
from ddtl.reports.sweep.record import Sweep, varied
from ddtl.reports.sweep.trials import Trial
from ddtl.utils import wording

_TITLE = "Score against time"


def section(sweep: Sweep) -> Section:
    """Return the chart and the front as a table; nothing for a single objective."""
    if not sweep.two or not sweep.ranked:
        return Section(_TITLE, [])
    best = front(sweep.ranked, sweep.signs)
    of = "setting" if sweep.replicates else "trial"
    figure = Figure(
        "Pareto front",
        _spec(sweep.ranked, best, sweep.names),
        f"{wording.count(len(best), of)} on the Pareto front of {sweep.names[0]} against {sweep.names[1]}.",
        "No other trial is better than one on the front in one objective without being worse in the other.",
    )
    return Section(_TITLE, [figure, _table(sweep, best)])


def front(trials: Sequence[Trial], signs: Sequence[int]) -> list[Trial]:
    """Return the completed trials than which no other is better in one objective and not worse in the other."""
    done = sorted(
        (trial for trial in trials if trial["state"] == "complete"),
        key=lambda trial: (-signs[1] * trial["values"][1], -signs[0] * trial["values"][0], trial["number"]),
    )
    found: list[Trial] = []
    for trial in done:
        if not found or signs[0] * trial["values"][0] > signs[0] * found[-1]["values"][0]:
            found.append(trial)
    return found


def _spec(trials: Sequence[Trial], front: Sequence[Trial], names: Sequence[str]) -> Spec:
    """Draw the second objective against the first one: every complete trial, and the front.

    Args:
        trials: the complete ones.
        front: those than which no other one is better in both, ordered by the second objective.
        names: of the objectives.
    """
    inside = {trial["number"] for trial in front}
    others = [trial for trial in trials if trial["number"] not in inside]
    traces = [marks([t["values"][1] for t in others], [t["values"][0] for t in others], "complete", others)]
    x, y = [t["values"][1] for t in front], [t["values"][0] for t in front]
    line = stroke(x, y, "Pareto front", 1, shape="hv", mode="lines+markers")
    traces.append(
        {**line, "text": [described(t) for t in front], "hovertemplate": "%{text}<br>%{x:.3g}, %{y:.4f}<extra></extra>"}
    )
    return chart(traces, {**scale(names[1]), "rangemode": "tozero"}, scale(names[0]), legend="outside")


def _table(sweep: Sweep, trials: Sequence[Trial]) -> Table:
    rows = [[f"trial {t['number']}", format.score(t["values"][0]), f"{t['values'][1]:,.0f}", varied(t)] for t in trials]
    return Table("The front", ["", sweep.title, "seconds", "settings"], rows, words=(3,))
