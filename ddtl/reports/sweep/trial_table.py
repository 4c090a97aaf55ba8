"""Every trial of a sweep with what it varied; where trials are replicates, their settings with means."""

from __future__ import annotations

from ddtl.reports.html import format
from ddtl.reports.html.page import Block, Cell, Fold, Section, Table
from ddtl.reports.sweep.record import REASONS, Sweep, varied
from ddtl.reports.sweep.trials import Trial, last_score, ranked, spent
from ddtl.utils import wording

_SHOWN = 10  # trials in the table that is not folded


def section(sweep: Sweep) -> Section:
    """Return all trials, the best first; where they are replicates, their settings."""
    return Section("Trials", _tables(sweep))


def _tables(sweep: Sweep) -> list[Block]:
    rest = sorted((t for t in sweep.trials if t["state"] != "complete"), key=lambda t: int(t["number"]))
    done = ranked(sweep.trials, sweep.signs[0])
    if sweep.replicates:
        done.sort(key=lambda t: int(t["number"]))  # by score they would be ranked by chance
    rows = [_row(trial, sweep) for trial in [*done, *rest]]
    columns = ["", "state", sweep.title, *(["seconds"] if sweep.two else []), "epochs", "time", "settings"]
    words = (1, len(columns) - 1)
    if sweep.replicates:
        every = Table("All trials, by number", columns, rows, words=words, sortable=True)
        return [_settings(sweep), Fold(f"All trials ({len(rows)})", [every])]
    blocks: list[Block] = [Table("The best trials", columns, rows[:_SHOWN], words=words, sortable=True)]
    if len(rows) > _SHOWN:
        every = Table("All trials, the best first", columns, rows, words=words, sortable=True)
        blocks.append(Fold(f"All trials ({len(rows)})", [every]))
    return blocks


def _settings(sweep: Sweep) -> Table:
    """Return each setting over its replicates, the best mean first."""
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


def _row(trial: Trial, sweep: Sweep) -> list[str | Cell]:
    last = last_score(trial)
    shown = Cell(format.score(last), "" if trial["state"] == "complete" or last is None else "(last)")
    state = str(trial["state"])
    if state == "failed":
        state += f": {REASONS.get(str(trial['reason']), trial['reason'])}"
    done = trial["state"] == "complete"
    second = [f"{trial['values'][1]:,.0f}" if done else format.NONE] if sweep.two else []
    seconds = spent(trial)
    took = wording.duration(seconds) if seconds else format.NONE
    return [f"trial {trial['number']}", state, shown, *second, f"{len(trial['curve'])}", took, varied(trial)]
