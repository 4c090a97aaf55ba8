"""What a sweep varied: the parameters as axes of a chart, and how much each of them mattered."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddtl.reports.html.figures import REFERENCE, Spec, Trace, chart, label, scale, short, stroke
from ddtl.reports.html.page import Block, Figure, Section, Text, side_by_side
from ddtl.reports.sweep import scatter
from ddtl.reports.sweep.axes import Parameter
from ddtl.reports.sweep.marks import described, spelled
from ddtl.reports.sweep.record import Sweep
from ddtl.reports.sweep.trials import Trial, last_score, score
from ddtl.utils import wording

FEWEST = 15  # completed trials that importances need: the best five of them are then a third
_BEST = 5
MANY = 50  # completed trials from which on importances are more than a hint
_UNUSED = -0.16  # height of the lane of what a trial did not use
_CHOICES_SHOWN = 8


def section(sweep: Sweep) -> Section:
    """Return a line for each trial through its parameters, and how much each parameter mattered."""
    return Section("Parameters", _blocks(sweep))


def _blocks(sweep: Sweep) -> list[Block]:
    every = [{**trial, "params": sweep.chosen(trial)} for trial in sweep.trials]
    scored = [t for t in every if t["state"] in ("complete", "pruned") and last_score(t) is not None]
    axes = parameters(scored, sweep.space)
    if not axes or len(scored) < 2:
        return []
    best = [number for one in sweep.settings[: max(1, round(len(sweep.settings) / 10))] for number in one.trials]
    of = " of the settings" if sweep.replicates else ""
    lines = Figure(
        "From settings to score",
        parallel_spec(scored, axes, best, sweep.signs[0]),
        f"A line for each trial ({len(scored)}) through the parameters ({len(axes)}) to its score.",
        f"The best tenth{of}, {wording.count(len(best), 'trial')}, is highlighted. A pruned trial is at its last "
        "score. What a trial did not use, as it belongs to another choice, runs along the lane below.",
    )

    each = side_by_side(scatter.figures(scored, axes, sweep.names[0], best))
    found = importances(every, sweep.space, sweep.signs[0])
    if found.why_not:
        return [*each, lines, Text(f"There are no importances of the parameters: {found.why_not}.")]
    hint = ", and with so few trials it is a hint." if found.of < MANY else "."
    bars = Figure(
        "Importance of the parameters",
        _importances_spec(found.shares),
        "Shares: " + ", ".join(f"{name} {share:.2f}" for name, share in found.shares.items()) + ".",
        f"PED-ANOVA (Watanabe et al. 2023, IJCAI): how far the best {found.best} of {found.of} completed trials differ "
        f"in a parameter from all of them. Pruned trials are not in it{hint}",
    )
    return [*each, bars, lines]


def parameters(trials: Sequence[Trial], space: Mapping[str, Mapping[str, Any]]) -> list[Parameter]:
    """Return what the trials varied: first what all of them used, in the order in which they name it.

    Args:
        trials: of the record.
        space: how the parameters are described; empty for a grid, whose values are words.
    """
    names = dict.fromkeys(name for trial in trials for name in trial["params"])
    values = {name: [t["params"][name] for t in trials if name in t["params"]] for name in names}
    ordered = sorted(names, key=lambda name: len(values[name]) < len(trials))
    return [Parameter.of(name, values[name], space.get(name)) for name in ordered]


@dataclass(frozen=True)
class Importances:
    """How much each parameter decides about being among the best.

    Attributes:
        shares: by parameter, the greatest first; they add up to 1. Empty where ``why_not`` says why.
        best, of: how many of how many completed trials count as good.
    """

    shares: Mapping[str, float]
    best: int = 0
    of: int = 0
    why_not: str = ""


def importances(trials: Sequence[Trial], space: Mapping[str, Mapping[str, Any]], sign: int) -> Importances:
    """Compute PED-ANOVA of the completed trials, a parameter that only some use included.

    Watanabe, Bansal and Hutter 2023 (IJCAI); for conditional parameters Kato, Watanabe and others 2026 (KDD), as Optuna
    computes them.

    Args:
        trials: of the record.
        space: as for :func:`parameters`.
        sign: 1 where a greater score is better, else -1.
    """
    done = [trial for trial in trials if trial["state"] == "complete"]
    if len(done) < FEWEST:
        return Importances({}, why_not=f"completed trials: {len(done)}; importances need {FEWEST}")
    axes = [axis for axis in parameters(done, space) if axis.low != axis.high and len(axis.choices) != 1]
    if not axes:
        return Importances({}, why_not="nothing was varied among the completed trials")
    if len({score(trial) for trial in done}) == 1:
        return Importances({}, why_not="all completed trials have the same score")
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    quantile = max(0.1, _BEST / len(done))
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about choices that very few trials made: the text says how many there are
            found = get_param_importances(
                _rebuilt(done, axes, sign),
                evaluator=PedAnovaImportanceEvaluator(target_quantile=quantile),
                params=[axis.name for axis in axes],
            )
    finally:
        optuna.logging.set_verbosity(verbosity)
    shares = dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
    return Importances(shares, math.ceil(quantile * len(done)), len(done))


def _rebuilt(trials: Sequence[Trial], axes: Sequence[Parameter], sign: int) -> Any:
    """Return a study in memory of completed trials and their first objective."""
    import optuna

    study = optuna.create_study(direction="maximize" if sign > 0 else "minimize")
    distributions = {axis.name: axis.distribution() for axis in axes}
    for trial in trials:
        used = {name: value for name, value in trial["params"].items() if name in distributions}
        study.add_trial(
            optuna.trial.create_trial(
                params=used, distributions={name: distributions[name] for name in used}, value=score(trial)
            )
        )
    return study


def parallel_spec(trials: Sequence[Trial], axes_: Sequence[Parameter], best: Iterable[int], sign: int) -> Spec:
    """Draw a line for each trial through its parameters' values to its score, on an axis each.

    What a trial did not use, as it belongs to another choice, runs through a lane of its own below.

    Args:
        trials: those with a score, complete and pruned.
        axes_: the parameters, from the left; the score is the last one.
        best: numbers of the trials that are highlighted.
        sign: 1 where more is better, else -1.
    """
    best = set(best)
    scores = Parameter.of("score", [last_score(trial) for trial in trials])
    axes = [*axes_, scores]
    groups = {
        "pruned": [trial for trial in trials if trial["state"] == "pruned"],
        "complete": [t for t in trials if t["state"] == "complete" and t["number"] not in best],
        "the best": sorted((t for t in trials if t["number"] in best), key=lambda t: sign * (score(t) or 0.0)),
    }
    styles = {"pruned": (REFERENCE, "dot", 1), "complete": ("var(--bar)", "solid", 1.3)}
    traces = []
    for name, members in groups.items():
        if not members:
            continue
        color, dash, width = styles.get(name, ("var(--series-2)", "solid", 2.4))
        x, y, texts = _threads(members, axes)
        trace = stroke(x, y, name, color=color, dash=dash, width=width)
        traces.append({**trace, "text": texts, "hovertemplate": "%{text}<extra></extra>"})
    x_axis = {
        **scale(""),
        "tickvals": list(range(len(axes))),
        "ticktext": [_broken(axis.name) for axis in axes],
        "range": [-0.2, len(axes) - 0.9],
        "side": "top",
        "tickfont": {"size": 11},
    }
    unused = any(axis.name not in trial["params"] for trial in trials for axis in axes_)
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


def _threads(trials: Sequence[Trial], axes: Sequence[Parameter]) -> tuple[list[float], list[float | None], list[str]]:
    """Return lines of trials through the axes as one line with gaps."""
    x: list[float] = []
    y: list[float | None] = []
    texts: list[str] = []
    for trial in trials:
        values = {**trial["params"], "score": last_score(trial)}
        # Lines that share a choice would cover each other: each is moved a little, always alike.
        aside = ((trial["number"] * 0.618034) % 1 - 0.5) * 0.05
        for i, axis in enumerate(axes):
            place = axis.place(values[axis.name]) if axis.name in values else None
            x.append(i)
            y.append(_UNUSED + aside if place is None else place + aside * axis.is_choice)
        x.append(x[-1])
        y.append(None)
        texts += [f"{described(trial)}<br>score {spelled(values['score'])}"] * len(axes) + [""]
    return x, y, texts


def _ticks(i: int, axis: Parameter) -> list[dict[str, Any]]:
    """Return the ends of a number's axis, or the choices."""
    if not axis.is_choice:
        return [_tick(i, place, spelled(value)) for value, place in ((axis.low, 0.0), (axis.high, 1.0))]
    chosen = axis.choices if len(axis.choices) <= _CHOICES_SHOWN else (axis.choices[0], axis.choices[-1])
    return [_tick(i, axis.place(choice) or 0.0, label(spelled(choice))) for choice in chosen]


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
    """Return a parameter's name in lines of a few letters, broken where its words end."""
    lines = [""]
    for word in name.replace(".", ".\0").replace("_", "_\0").replace("/", "/\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(word) > 10:
            lines.append("")
        lines[-1] += word
    return "<br>".join(label(line) for line in lines[:4])


def _importances_spec(shares: Mapping[str, float]) -> Spec:
    """Draw bars, the greatest on top."""
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
