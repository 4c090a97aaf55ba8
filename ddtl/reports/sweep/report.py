"""The page about a sweep: a pure function of its record, ``sweep.json``."""

from __future__ import annotations

from ddtl.reports.html import format
from ddtl.reports.html.page import Headline, Page, make_sections, render
from ddtl.reports.sweep import failures, parameters, pareto, reproduce, result, search, trial_table, workers
from ddtl.reports.sweep.record import Sweep
from ddtl.reports.sweep.result import spread
from ddtl.reports.sweep.trials import has_unknown_end, spent
from ddtl.schema.scores import LOWER_IS_BETTER, title_of
from ddtl.utils import wording

# A section is one file: its numbers, its words and its charts.
SECTIONS = (
    result.section,
    search.section,
    pareto.section,
    parameters.section,
    workers.section,
    failures.section,
    trial_table.section,
    reproduce.section,
)


def render_sweep(sweep: Sweep) -> str:
    """Return the page as HTML."""
    return render(page(sweep))


def page(sweep: Sweep) -> Page:
    """Return the page, section by section."""
    record = sweep.record
    sampler, pruner = (record["identity"].get(f"{part}.name", "") for part in ("sampler", "pruner"))
    how = [f"search {record['search']}", sampler, pruner] if record["search"] else ["grid"]
    parts = [record["dataset"], *how, f"Optuna {record['optuna']}"]
    return Page(
        eyebrow="ddtl sweep",
        title=record["name"],
        subtitle=" · ".join(filter(None, parts)),
        answer=answer(sweep),
        headlines=_headlines(sweep),
        warnings=_warnings(sweep),
        sections=make_sections(SECTIONS, sweep),
    )


def answer(sweep: Sweep) -> str:
    """Return whether the winner is better than the default settings on the test set, in the first sentence."""
    winner, final = sweep.winner, sweep.final
    if winner is None:
        return "No trial was completed, so there is no winner."
    if final is None:
        best = f"{format.score(winner['values'][0])}, the best of {len(sweep.ranked)} and so optimistic"
        return (
            "Whether the winner is better than the default settings is not known: they were not compared on the test "
            f"set (finalize=true does). Its validation {sweep.title} is {best}."
        )
    comparison = final.get("comparison")
    if not comparison:
        return f"The winner was not compared with the default settings on the test set. {final['claim']}"
    judged = comparison["pairs"][0]["differences"][comparison["score"]]["value"]
    if not final["claimed"] or judged is None:
        return f"The winner is not shown to be better than the default settings. {final['claim']}"
    is_better = (judged < 0) == (comparison["score"] in LOWER_IS_BETTER)
    verdict = (
        "The winner is better than the default settings."
        if is_better
        else "The default settings are better than the winner."
    )
    return f"{verdict} {final['claim']}"


def _headlines(sweep: Sweep) -> list[Headline]:
    winner, counts = sweep.winner, sweep.counts
    others = [f"{counts[state]} {state}" for state in ("pruned", "failed", "running", "waiting") if counts[state]]
    seconds = sum(spent(trial) or 0 for trial in sweep.trials)
    unknown = sum(has_unknown_end(attempt) for trial in sweep.trials for attempt in trial["attempts"])
    without = f", without {wording.count(unknown, 'attempt')} killed at an unknown time" if unknown else ""
    epochs = sum(len(trial["curve"]) for trial in sweep.trials)
    found = [
        Headline(
            f"Best {'mean ' if sweep.replicates else ''}validation {sweep.title}",
            format.score(winner["values"][0]) if winner else format.NONE,
            _which(sweep) if winner else "no trial completed",
        ),
        Headline("Trials", f"{len(sweep.trials)}", ", ".join([f"{counts['complete']} complete", *others])),
        Headline("Spent", wording.duration(seconds), f"all trials together, {wording.count(epochs, 'epoch')}{without}"),
    ]
    difference = _difference(sweep)
    return found if difference is None else [*found, difference]


def _which(sweep: Sweep) -> str:
    """Return what the best score is of, and of how many it is the best."""
    best = sweep.settings[0]
    if not sweep.replicates:
        return f"trial {best.trials[0]}, best of {len(sweep.ranked)}: optimistic"
    return f"{spread(best)}; best of {wording.count(len(sweep.settings), 'setting')}: optimistic"


def _difference(sweep: Sweep) -> Headline | None:
    comparison = (sweep.final or {}).get("comparison")
    if not comparison:
        return None
    judged = comparison["pairs"][0]["differences"][comparison["score"]]
    interval = format.interval(judged["interval"])[1:-1]
    note = f"{format.level(comparison['level'])} CI {interval}" if interval else "no interval"
    title = f"Test {title_of(comparison['score'])} by {comparison['unit']}, winner minus default"
    return Headline(title, format.score(judged["value"]), note)


def _warnings(sweep: Sweep) -> list[str]:
    found = []
    done, failed, running = len(sweep.ranked), sweep.counts["failed"], sweep.counts["running"] + sweep.counts["waiting"]
    of = "settings" if sweep.replicates else "trials"
    unequal = [setting for setting in sweep.settings if len(setting.trials) < len(sweep.settings[0].trials)]
    if sweep.replicates:
        found.append(
            f"Trials that differ in {wording.listed(sweep.replicates)} alone are replicates of one setting. Settings "
            "are ranked by their mean; a replicate is nothing to choose."
        )
    if unequal:
        found.append(
            f"Ranked last: {wording.count(len(unequal), 'setting')} with fewer completed replicates than the best one."
        )
    if done > 1:
        where = "below" if sweep.final else "which finalize=true makes"
        found.append(
            f"The winner's validation {sweep.title} is the best of {done} {of} and therefore optimistic, the more so "
            f"the more {of} there are. What counts is the comparison with the default settings on the test set, "
            f"{where}."
        )
    if failed and failed >= 0.2 * len(sweep.trials):
        found.append(f"{failed} of {len(sweep.trials)} trials failed; the reasons are below.")
    if running:
        found.append(
            f"{wording.count(running, 'trial')} had not ended when this was written. The same command resumes the "
            "sweep."
        )
    return found + [str(note) for note in (sweep.final or {}).get("caveats", ())]
