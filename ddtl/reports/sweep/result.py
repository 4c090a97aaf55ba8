"""What a sweep found: the winner, and how it compares with the default settings on the test set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddtl.reports.html import format
from ddtl.reports.html.page import Block, Cell, Code, Section, Table, Text
from ddtl.reports.sweep.record import Sweep, line, varied
from ddtl.reports.sweep.replicates import Setting
from ddtl.schema.scores import title_of
from ddtl.utils import wording


def section(sweep: Sweep) -> Section:
    """Return the winner, the comparison where there was one, and the command."""
    return Section("Result", _blocks(sweep))


def _blocks(sweep: Sweep) -> list[Block]:
    winner, final = sweep.winner, sweep.final
    if winner is None:
        return [Text("No trial was completed, so there is nothing to choose from.", "bad")]
    best = format.score(winner["values"][0])
    chosen = Text(f"Trial {winner['number']} has the best validation {sweep.title}, {best}: {varied(winner)}.")
    if sweep.replicates:
        limits = spread(sweep.settings[0])
        chosen = Text(f"The best mean validation {sweep.title} is {best} ({limits}): {varied(winner)}.")
    command = Code(line(winner, test=True))
    if final is None:
        text = f"{_unused(sweep)} This command takes the winner's run, or trains it, and scores it:"
        return [chosen, Text(text), command]
    text = "The winner's command; seed=… trains it with another seed:"
    return [chosen, _finals(sweep, final), Text(text), command]


def _unused(sweep: Sweep) -> str:
    """Return that the sweep did not use the test set, and how often other runs had where that is known."""
    n = sweep.record.get("test_uses")
    if n is None:  # of an earlier version
        return "This sweep has not used the test set."
    others = f"{wording.count(n, 'use')} by other runs" if n else "no use by other runs"
    return f"This sweep has not used the test set; the ledger had counted {others} when this was written."


def spread(setting: Setting) -> str:
    """Return how far apart the replicates of a setting are."""
    which = wording.listed([str(number) for number in setting.trials])
    if len(setting.trials) == 1:
        return f"trial {which} alone, of {wording.count(setting.of, 'replicate')}"
    low, high = format.score(min(setting.scores)), format.score(max(setting.scores))
    return f"mean of {len(setting.trials)} replicates (trials {which}), {low} to {high}"


def _finals(sweep: Sweep, final: Mapping[str, Any]) -> Table:
    """Return the winner and the default settings, each over its seeds."""
    comparison = final["comparison"]
    title = f"{title_of(comparison['score'])} by {comparison['unit']}" if comparison else "score"
    rows: list[list[str | Cell]] = []
    for name, runs in final["runs"].items():
        scores = [run["score"] for run in runs if run["score"] is not None]
        mean = sum(scores) / len(scores) if scores else None
        rows.append([name, f"{len(scores)}", format.score(mean), _test_score(comparison, name)])
    seeds = wording.listed([str(seed) for seed in final["seeds"]])
    return Table(
        "The winner against the default settings",
        ["", "runs", f"validation {sweep.title}", f"test {title}"],
        rows,
        f"Trained again with seeds {seeds}, which the search did not use, so that no run was chosen by chance; each "
        "was scored on the test set once. Means over the seeds; the intervals cover patients and seeds.",
    )


def _test_score(comparison: Mapping[str, Any] | None, name: str) -> str | Cell:
    method = next((found for found in comparison["methods"] if found["name"] == name), None) if comparison else None
    if method is None or comparison is None:
        return format.NONE
    judged = comparison["score"]
    return Cell(format.score(method["scores"][judged]), format.interval(method["intervals"][judged]))
