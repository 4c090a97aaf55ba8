"""How a run was trained: its epochs, the loss, and the score that chose the epoch."""

from __future__ import annotations

from ddtl.reports.html import format
from ddtl.reports.html.page import Figure, Row, Section, Text
from ddtl.reports.run import schedule
from ddtl.reports.run.stored import Stored
from ddtl.reports.sections import history
from ddtl.schema.scores import TITLES, with_unit
from ddtl.utils import wording


def section(stored: Stored) -> Section:
    """Return which epoch is scored, and the curves over the epochs; nothing where none were recorded."""
    if not stored.metrics or not {"monitor", "best_epoch"} <= stored.record.keys():
        return Section("Training", [])
    monitor, best = stored.record["monitor"], stored.record["best_epoch"]
    found = schedule.of(stored)
    phases = [(phase.first, phase.name) for phase in found.phases] if found else []
    changes = " Solid: a phase of the schedule starts." if len(phases) > 1 else ""
    note = f"Dotted: the best epoch.{changes}"
    losses = Figure(
        "Loss",
        history.one_run(stored.metrics, ["train/loss", "val/loss"], "loss", best, phases),
        f"Training and validation loss over {wording.count(len(stored.metrics), 'epoch')}.",
        note,
    )
    charts = [losses]
    if monitor != "val/loss":
        score, name = monitor.partition("/")[2], with_unit(monitor)
        spec = history.one_run(stored.metrics, [monitor], with_unit(TITLES.get(score, score)), best, phases)
        charts.append(Figure(f"What chose the epoch: {name}", spec, f"{name} over the epochs.", note))
    return Section("Training", [Text(_summary(stored)), Row(charts)])


def _summary(stored: Stored) -> str:
    monitor, best = stored.record["monitor"], stored.record["best_epoch"]
    seconds = sum(row.get("seconds", 0) for row in stored.metrics)
    took = wording.count(round(seconds / 60), "minute") if seconds >= 120 else wording.count(round(seconds), "second")
    value = next((row.get(monitor) for row in stored.metrics if row["epoch"] == best), None)
    scored = f"Epoch {best + 1} had the best {with_unit(monitor)} ({format.score(value)}) and is the one scored."
    if "averaged_epochs" in stored.record:
        scored = f"Scored is the mean of the weights after each of the last {stored.record['averaged_epochs']}."
    return f"{wording.count(len(stored.metrics), 'epoch')} in {took}. {scored}"
