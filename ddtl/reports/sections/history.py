"""Curves over the epochs of training: of one run, or of several in one chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddtl.reports.html.figures import REFERENCE, Spec, chart, label, note, scale, stroke, vertical
from ddtl.reports.html.page import Block, Figure, Row
from ddtl.schema.scores import with_unit
from ddtl.utils import wording

Epochs = Sequence[Mapping[str, Any]]

_PHASES_NAMED = 12  # of more, the names would cover each other


def one_run(
    rows: Epochs, names: Sequence[str], title: str, best: int | None, phases: Sequence[tuple[int, str]] = ()
) -> Spec:
    """Draw some numbers of a run over its epochs, counted from 1.

    Args:
        rows: of ``metrics.jsonl``.
        names: which of its numbers.
        title: of the axis.
        best: the epoch, counted from 0, that is marked.
        phases: the first epoch, counted from 0, and the name of each phase of the schedule.
    """
    x = np.array([row["epoch"] + 1 for row in rows])
    mode = "lines" if len(rows) > 40 else "lines+markers"
    traces = [stroke(x, [row.get(name) for row in rows], name, i, mode=mode) for i, name in enumerate(names)]
    axis = {**scale("epoch"), "range": [0.5, float(x[-1]) + 0.5]}
    if len(rows) <= 10:
        axis["dtick"] = 1
    spec = chart(traces, axis, scale(title), legend="outside")
    spec["layout"]["shapes"], spec["layout"]["annotations"] = [], []
    for first, name in phases if len(phases) > 1 else ():
        if first >= len(rows):
            continue
        if first:
            line = {"color": REFERENCE, "width": 1, "dash": "solid"}
            spec["layout"]["shapes"].append(vertical(first + 0.5) | {"line": line})
        if len(phases) <= _PHASES_NAMED:
            spec["layout"]["annotations"].append(_phase(first + 0.5, name))
    if best is not None:
        spec["layout"]["shapes"].append(vertical(best + 1))
        spec["layout"]["annotations"].append(note(best + 1, f"epoch {best + 1}", left=best >= len(rows) / 2))
    return spec


def _phase(x: float, name: str) -> dict[str, Any]:
    """Return the name of a phase, upright next to the line where it starts."""
    at = {"x": x, "y": 1, "xref": "x", "yref": "paper", "xanchor": "left", "yanchor": "top", "textangle": 90}
    return {**at, "text": label(name), "showarrow": False, "font": {"size": 11, "color": "var(--muted)"}}


def several_runs(rows: Mapping[str, Epochs], key: str) -> Spec:
    """Draw one number over the epochs, a line for each run."""
    traces = [
        stroke([row["epoch"] + 1 for row in found], [row.get(key) for row in found], name, i, mode="lines+markers")
        for i, (name, found) in enumerate(rows.items())
    ]
    return chart(traces, {**scale("epoch"), "nticks": 8}, scale(key), legend="outside")


def blocks(rows: Mapping[str, Epochs], record: Mapping[str, Any]) -> list[Block]:
    """Return validation loss and the monitored score, a line for each run; nothing where none was recorded.

    Args:
        rows: those of ``metrics.jsonl``, by the run's name.
        record: with ``monitor``, the score that chooses the epoch.
    """
    known = {name: found for name, found in rows.items() if found}
    if not known:
        return []
    names = wording.listed(list(known))
    shown = dict.fromkeys(["val/loss", str(record.get("monitor") or "val/loss")])
    return [
        Row(
            [
                Figure(with_unit(key), several_runs(known, key), f"{with_unit(key)} over the epochs of {names}.")
                for key in shown
            ]
        )
    ]
