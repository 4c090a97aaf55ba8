"""Curves over the epochs of training: of one run, or of several in one chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddtl.reports.html.figures import Spec, chart, note, scale, stroke, vertical
from ddtl.reports.html.page import Block, Figure, Row
from ddtl.schema.scores import by_image
from ddtl.utils import wording

Epochs = Sequence[Mapping[str, Any]]


def one_run(rows: Epochs, names: Sequence[str], title: str, best: int | None) -> Spec:
    """Draw some numbers of a run over its epochs, counted from 1.

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
        spec["layout"]["shapes"] = [vertical(best + 1)]
        spec["layout"]["annotations"] = [note(best + 1, f"epoch {best + 1}", left=best >= len(rows) / 2)]
    return spec


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
                Figure(by_image(key), several_runs(known, key), f"{by_image(key)} over the epochs of {names}.")
                for key in shown
            ]
        )
    ]
