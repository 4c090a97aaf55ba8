"""How a search went: the score of each trial, the best so far, and the curves of all trials."""

from __future__ import annotations

from collections.abc import Sequence

from ddtl.reports.html import format
from ddtl.reports.html.figures import REFERENCE, Spec, Trace, chart, scale, stroke
from ddtl.reports.html.page import Figure, Section
from ddtl.reports.sweep.marks import lines, marks
from ddtl.reports.sweep.record import Sweep
from ddtl.reports.sweep.trials import Trial, last_score, score
from ddtl.utils import wording


def section(sweep: Sweep) -> Section:
    """Return the scores trial by trial, and all curves where there are some."""
    return Section("Search", _charts(sweep))


def _charts(sweep: Sweep) -> list[Figure]:
    if not any(trial["curve"] or trial["values"] for trial in sweep.trials):
        return []
    winner = sweep.winner
    best = (
        f" and the best so far, {format.score(winner['values'][0])} from trial {winner['number']} on" if winner else ""
    )
    raised = "; only completed ones raise the best so far"
    if sweep.replicates:  # the best so far would be a replicate chosen by chance
        best, raised = "", ""
    history = Figure(
        "Trial by trial",
        history_spec(sweep.trials, sweep.names[0], sweep.signs[0], best=not sweep.replicates),
        f"Scores of {wording.count(len(sweep.trials), 'trial')}{best}.",
        f"A pruned trial is at the last score that it reported{raised}.",
    )
    if not any(trial["curve"] for trial in sweep.trials):
        return [history]
    n = sweep.counts["pruned"]
    count = wording.count(n, "trial was", "trials were")
    curves = Figure(
        "All curves",
        _curves_spec(sweep.trials, None if winner is None or sweep.replicates else winner["number"], sweep.names[0]),
        f"{sweep.names[0]} over the epochs of every trial; where a trial was pruned its curve ends in a cross.",
        f"{count} pruned: ended early, at the cross, as promising too little." if n else "",
    )
    return [history, curves]


def history_spec(trials: Sequence[Trial], monitor: str, sign: int, best: bool = True) -> Spec:
    """Draw the score of every trial in the order of their numbers, and the best so far.

    Args:
        trials: of the record.
        monitor: name of the score.
        sign: 1 where more is better, else -1.
        best: whether the best so far is drawn.
    """
    steps = running_best(trials, sign) if best else []
    traces = [stroke([n for n, _ in steps], [v for _, v in steps], "best so far", 1, shape="hv")] if steps else []
    for state in ("complete", "pruned", "running"):
        shown = [trial for trial in trials if trial["state"] == state and last_score(trial) is not None]
        if shown:
            traces.append(
                marks([trial["number"] for trial in shown], [last_score(trial) for trial in shown], state, shown)
            )
    x = {**scale("trial"), **({"dtick": 1} if len(trials) <= 12 else {})}
    return chart(traces, x, scale(monitor), legend="outside")


def running_best(trials: Sequence[Trial], sign: int) -> list[tuple[int, float]]:
    """Return (number, score) of each completed trial that was better than all before it, and of the last trial.

    Trials that were pruned raise nothing: their scores are those of unfinished training.
    """
    steps: list[tuple[int, float]] = []
    for trial in sorted(trials, key=lambda trial: int(trial["number"])):
        value = score(trial)
        if value is not None and (not steps or sign * value > sign * steps[-1][1]):
            steps.append((trial["number"], value))
    if steps and trials:
        steps.append((max(trial["number"] for trial in trials), steps[-1][1]))
    return steps


def _curves_spec(trials: Sequence[Trial], best: int | None, monitor: str) -> Spec:
    """Draw the score of every trial over its epochs, counted from 1; the winner's on top, with its unfreezings."""
    styles = {"complete": ("var(--bar)", "solid"), "pruned": (REFERENCE, "dot"), "failed": ("var(--bad)", "dash")}
    styles["running"] = ("var(--series-3)", "solid")
    traces = []
    for state, (color, dash) in styles.items():
        members = [t for t in trials if t["state"] == state and t["curve"] and t["number"] != best]
        if not members:
            continue
        traces.append(lines(members, state, color=color, dash=dash, width=1.3))
        if state in ("pruned", "failed"):
            ends = [t["curve"][-1] for t in members]
            ended = marks([e + 1 for e, _ in ends], [v for _, v in ends], state, members, f"{state} here")
            traces.append({**ended, "showlegend": False})
    winner = next((t for t in trials if t["number"] == best and t["curve"]), None)
    if winner is not None:
        traces.append(lines([winner], f"the winner, trial {best}", color="var(--series-2)", width=2.6))
        traces += _unfreezings(winner)
    last = max((epoch + 1 for trial in trials for epoch, _ in trial["curve"]), default=1)
    x_axis = {**scale("epoch"), "range": [0.8, last + 0.2], **({"dtick": 1} if last <= 12 else {})}
    return chart(traces, x_axis, scale(monitor), legend="outside")


def _unfreezings(winner: Trial) -> list[Trace]:
    by_epoch = dict(winner["curve"])
    starts = [epoch for epoch in winner.get("phases") or () if epoch and epoch in by_epoch]
    if not starts:
        return []
    trace = stroke([e + 1 for e in starts], [by_epoch[e] for e in starts], "a phase starts", mode="markers")
    trace["marker"] = {"color": "var(--ink)", "size": 9, "symbol": "circle-open", "line": {"width": 2}}
    return [trace]
