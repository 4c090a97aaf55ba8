"""The page of a learning-rate range test, from its record alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ddtl.reports.html.figures import SERIES, Spec, chart, point, scale, stroke, vertical
from ddtl.reports.html.page import Code, Figure, Headline, Page, Section, Table, Text, render

# What each test trains, in words.
TESTS = {"head": "the head, backbone frozen", "network": "all that the schedule trains"}
_ENDS = {
    "": "the ramp ran to its end",
    "diverged": "the ramp was stopped when the loss diverged",
    "not finite": "the ramp was stopped when the loss became infinite or no number",
}

_HOW = (
    "The rate rises exponentially from step to step while a copy of the network trains on the run's own batches. The "
    "smoothed loss is that of batches of equal difficulty: what the untrained network finds hard is removed. A third "
    "of the rate at which it is lowest is suggested; the other readings are those of fastai, for comparison. Only a "
    "comparison on validation shows which rate trains best."
)


def suggestions(record: Mapping[str, Any]) -> Table:
    """Return the readings of each test; the last one is the suggestion."""
    *others, chosen = record["rules"]
    rows = []
    for name, test in record["tests"].items():
        readings = [f"{test['rules'][rule]:.2g}" if rule in test["rules"] else "–" for rule in (*others, chosen)]
        rows.append([TESTS[name], *readings])
    return Table("Learning rates, by what trains", ["trains", *others, f"suggested: {chosen}"], rows)


def remarks(record: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each test that suggests nothing, and what readers must know about the others."""
    found = []
    for name, test in record["tests"].items():
        lines = [test["why_not"]] if test["why_not"] else test["notes"]
        found += [f"{TESTS[name]}: {line}." for line in lines]
    return found


def answer(record: Mapping[str, Any]) -> str:
    """Return the suggestion in a sentence: the rate, the range in which others read it, and what to make of it."""
    if not record["suggestion"]:
        return "No learning rate can be suggested: the loss did not fall clearly over the rates that were tested."
    rate = record["suggestion"]["optimizer.lr"]
    name = "network" if "network" in record["tests"] else "head"
    readings = sorted(value for rule, value in record["tests"][name]["rules"].items() if rule != record["rules"][-1])
    span = f" (other rules read {readings[0]:.1g} to {readings[-1]:.1g})" if readings else ""
    ratio = record["suggestion"].get("finetune.head_lr_ratio", 1.0)
    head = f", with the head at {ratio:g} times that rate" if ratio != 1.0 else ""
    return (
        f"Begin with optimizer.lr={rate:g}{span}{head}: a third of the rate at which the training loss was "
        "lowest. It is a place to begin a search, not its result."
    )


def page(record: Mapping[str, Any]) -> str:
    """Return the page of a range test, as HTML."""
    curves = [_figure(name, test, record) for name, test in record["tests"].items()]
    has_command = record["command"] is not None
    no_rate = Text("There is no rate to suggest; the remarks above say why.", "bad")
    line = Code(record["command"]) if has_command else no_rate
    train = Section("Train with it", [line])
    readings = Section("How the rate was read", [suggestions(record), Text(_HOW)])
    ramp = f"{record['steps']} steps from {record['lr_min']:g} to {record['lr_max']:g}"
    return render(
        Page(
            eyebrow="learning-rate range test",
            title=f"{record['dataset']} · {record['model']} · {record['finetune']}",
            subtitle=f"{ramp}, {record['optimizer']}, batches of {record['batch_size']}, {record['precision']}, "
            f"seed {record['seed']}",
            answer=answer(record),
            headlines=[Headline(key, f"{value:g}") for key, value in record["suggestion"].items()],
            warnings=remarks(record),
            sections=[Section("Loss against the learning rate", curves), train, readings],
        )
    )


def _figure(name: str, test: Mapping[str, Any], record: Mapping[str, Any]) -> Figure:
    return Figure(
        TESTS[name].capitalize(),
        _ramp(
            *(np.array(test[key]) for key in ("lr", "loss", "smoothed")),
            ends=(record["lr_min"], record["lr_max"]),
            readings=test["rules"],
            chosen=test["rate"],
        ),
        f"Training loss over a rising learning rate, for {TESTS[name]}: as measured and smoothed.",
        f"{len(test['lr'])} of {record['steps']} steps; {_ENDS[test['ended']]}. Dotted vertical: the suggestion.",
    )


def _ramp(
    rates: np.ndarray,
    losses: np.ndarray,
    smoothed: np.ndarray,
    *,
    ends: tuple[float, float],
    readings: Mapping[str, float],
    chosen: float | None,
) -> Spec:
    """Draw the loss against a rising learning rate.

    Args:
        rates, losses, smoothed: (N,) of a range test, as far as it went.
        ends: of the whole ramp.
        readings: rates by rule, marked on the smoothed curve.
        chosen: the rate suggested, marked.
    """
    traces = [stroke(rates, losses, "each step", color="var(--bar)", width=1), stroke(rates, smoothed, "smoothed")]
    for place, (rule, rate) in enumerate(readings.items(), start=1):
        reading = point(rate, float(np.interp(math.log(rate), np.log(rates), smoothed)), rule)
        reading["marker"]["color"] = SERIES[place]
        traces.append(reading)
    # The fall fills the chart; where the loss diverges, it may leave it.
    low, first = float(losses.min()), float(losses[: max(1, len(losses) // 10)].max())
    room = 0.15 * (first - low) or 0.1
    x = {**scale("learning rate"), "type": "log", "range": [math.log10(end) for end in ends], "exponentformat": "power"}
    spec = chart(traces, x, {**scale("training loss"), "range": [low - room, first + 2 * room]}, legend="outside")
    for trace in traces:
        trace["hovertemplate"] = "%{x:.2g}, %{y:.4f}"
    if chosen is not None:
        spec["layout"]["shapes"] = [vertical(chosen)]
    return spec
