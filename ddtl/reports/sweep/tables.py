"""The tables of a sweep's page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ddtl.reports.html import format
from ddtl.reports.html.page import Block, Cell, Fold, Table, Text
from ddtl.reports.sweep import trials as sweep_trials
from ddtl.reports.sweep.record import REASONS, Sweep, duration, spelled, varied, without_folders
from ddtl.reports.sweep.trials import Trial
from ddtl.schema.scores import title_of
from ddtl.utils import wording

_SHOWN = 10  # trials in the table that stands open


def finals(sweep: Sweep, final: Mapping[str, Any]) -> Table:
    """The winner and the default settings, each over its seeds."""
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
        f"Trained anew with seeds {seeds}, which the search did not use, so that no run was chosen for its luck; each "
        "was scored on the test set once. Means over the seeds; the intervals hold patients and seeds.",
    )


def _test_score(comparison: Mapping[str, Any] | None, name: str) -> str | Cell:
    method = next((found for found in comparison["methods"] if found["name"] == name), None) if comparison else None
    if method is None or comparison is None:
        return format.NONE
    judged = comparison["score"]
    return Cell(format.score(method["scores"][judged]), format.interval(method["intervals"][judged]))


def front(sweep: Sweep, trials: Sequence[Trial]) -> Table:
    """The trials of the Pareto front."""
    rows = [[f"trial {t['number']}", format.score(t["values"][0]), f"{t['values'][1]:,.0f}", varied(t)] for t in trials]
    return Table("The front", ["", sweep.title, "seconds", "settings"], rows, words=(3,))


def failures(sweep: Sweep) -> list[Block]:
    """Failed trials by reason, and what was broken off and gone on with."""
    failed = [trial for trial in sweep.trials if trial["state"] == "failed"]
    blocks: list[Block] = []
    if failed:
        rows: list[list[str | Cell]] = []
        for reason, count in Counter(str(trial["reason"]) for trial in failed).most_common():
            which = [trial for trial in failed if str(trial["reason"]) == reason]
            told = ", ".join(str(trial["number"]) for trial in which)
            rows.append([REASONS.get(reason, reason), f"{count}", told, _last_line(which[0]["words"])])
        note = "trials/NUMBER.log in the sweep's folder holds all that a trial said."
        blocks.append(
            Table("Failed trials by reason", ["", "trials", "which", "words of the first"], rows, note, (2, 3))
        )
    broken = Counter(part["reason"] for trial in sweep.trials for part in sweep_trials.broken_off(trial))
    if broken:
        told = wording.listed([f"{count} × {REASONS.get(reason, reason)}" for reason, count in broken.most_common()])
        blocks.append(Text(f"Broken off, and gone on with from the last checkpoint: {told}."))
    return blocks


def trials(sweep: Sweep) -> list[Block]:
    """All trials, the best first: the foremost openly."""
    rest = sorted((t for t in sweep.trials if t["state"] != "complete"), key=lambda t: int(t["number"]))
    done = sweep_trials.ranked(sweep.trials, sweep.signs[0])
    if sweep.replicates:
        done.sort(key=lambda t: int(t["number"]))  # by score they would be ranked by luck
    rows = [_row(trial, sweep) for trial in [*done, *rest]]
    columns = ["", "state", sweep.title, *(["seconds"] if sweep.two else []), "epochs", "time", "settings"]
    words = (1, len(columns) - 1)
    if sweep.replicates:
        every = Table("All trials, by number", columns, rows, words=words, sortable=True)
        return [_settings(sweep), Fold(f"All {len(rows)} trials", [every])]
    blocks: list[Block] = [Table("The best trials", columns, rows[:_SHOWN], words=words, sortable=True)]
    if len(rows) > _SHOWN:
        every = Table("All trials, the best first", columns, rows, words=words, sortable=True)
        blocks.append(Fold(f"All {len(rows)} trials", [every]))
    return blocks


def _settings(sweep: Sweep) -> Table:
    """Each setting over its replicates, the best mean first."""
    rows: list[list[str | Cell]] = []
    for setting, shown in zip(sweep.settings, sweep.ranked, strict=True):
        seconds = [f"{setting.means[1]:,.0f}"] if sweep.two else []
        low, high = (format.score(pick(setting.scores)) for pick in (min, max))
        rows.append(
            [
                wording.listed([str(number) for number in setting.trials]),
                f"{len(setting.trials)} of {setting.of}",
                format.score(setting.means[0]),
                format.NONE if setting.deviation is None else format.score(setting.deviation),
                f"{low} to {high}",
                *seconds,
                varied(shown),
            ]
        )
    columns = ["trials", "complete", f"mean {sweep.title}", "SD", "lowest to highest"]
    columns += [*(["seconds"] if sweep.two else []), "settings"]
    note = (
        f"Means over the replicates, which differ in {wording.listed(sweep.replicates)} alone; SD: standard deviation."
    )
    if sweep.never_completed:
        none = wording.count(sweep.never_completed, "setting has", "settings have")
        note += f" {none} no completed trial, and no mean."
    return Table("Settings, the best mean first", columns, rows, note, words=(0, len(columns) - 1), sortable=True)


def space(sweep: Sweep) -> Table | None:
    """What was searched; None for a grid."""
    if not sweep.space:
        return None
    rows = [[name, _range(spec), " or ".join(spec.get("where", ())) or "always"] for name, spec in sweep.space.items()]
    return Table("What was searched", ["", "values", "where"], rows, words=(1, 2))


def _range(spec: Mapping[str, Any]) -> str:
    if "choice" in spec:
        return ", ".join(map(spelled, spec["choice"]))
    kind = "int" if "int" in spec else "float"
    low, high = spec[kind]
    how = ", on a log scale" if spec.get("log") else f", in steps of {spec['step']:g}" if spec.get("step") else ""
    return f"{low:g} to {high:g}{' (whole numbers)' if kind == 'int' else ''}{how}"


def _row(trial: Trial, sweep: Sweep) -> list[str | Cell]:
    last = sweep_trials.last_score(trial)
    shown = Cell(format.score(last), "" if trial["state"] == "complete" or last is None else "(last)")
    state = str(trial["state"])
    if state == "failed":
        state += f": {REASONS.get(str(trial['reason']), trial['reason'])}"
    done = trial["state"] == "complete"
    second = [f"{trial['values'][1]:,.0f}" if done else format.NONE] if sweep.two else []
    took = duration(trial["seconds"]) if trial["seconds"] else format.NONE
    return [f"trial {trial['number']}", state, shown, *second, f"{len(trial['curve'])}", took, varied(trial)]


def _last_line(words: str | None) -> str:
    lines = (words or "").strip().splitlines()
    return without_folders(lines[-1])[:200] if lines else format.NONE
