"""The page about a sweep: a pure function of its record, ``sweep.json``."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from ddtl.reports.html import format
from ddtl.reports.html.page import Block, Code, Figure, Fold, Headline, Page, Section, Text, render
from ddtl.reports.sweep import figures, parameters, tables, trials
from ddtl.reports.sweep.record import Sweep, duration, line, settings, varied
from ddtl.reports.sweep.replicates import Setting
from ddtl.schema.scores import title_of
from ddtl.utils import wording


def render_sweep(sweep: Sweep) -> str:
    """The page as HTML."""
    return render(page(sweep))


def page(sweep: Sweep) -> Page:
    """The page, part by part."""
    record = sweep.record
    sections: dict[str, Sequence[Block]] = {
        "Result": _result(sweep),
        "Search": _search(sweep),
        "Score against time": _pareto(sweep),
        "Parameters": _parameters(sweep),
        "Workers": _workers(sweep),
        "Failures": tables.failures(sweep),
        "Trials": tables.trials(sweep),
        "Repeat it": _repeat(sweep),
    }
    sampler, pruner = (record["identity"].get(f"{part}.name", "") for part in ("sampler", "pruner"))
    how = [f"search {record['search']}", sampler, pruner] if record["search"] else ["grid"]
    parts = [record["dataset"], *how, f"Optuna {record['optuna']}"]
    return Page(
        eyebrow="ddtl sweep",
        title=record["name"],
        subtitle=" · ".join(filter(None, parts)),
        headlines=_headlines(sweep),
        warnings=_warnings(sweep),
        sections=[Section(title, blocks) for title, blocks in sections.items() if blocks],
    )


def _headlines(sweep: Sweep) -> list[Headline]:
    winner, counts = sweep.winner, sweep.counts
    others = [f"{counts[state]} {state}" for state in ("pruned", "failed", "running", "waiting") if counts[state]]
    seconds = sum(trial["seconds"] or 0 for trial in sweep.trials)
    epochs = sum(len(trial["curve"]) for trial in sweep.trials)
    found = [
        Headline(
            f"Best {'mean ' if sweep.replicates else ''}validation {sweep.title}",
            format.score(winner["values"][0]) if winner else format.NONE,
            _which(sweep) if winner else "no trial completed",
        ),
        Headline("Trials", f"{len(sweep.trials)}", ", ".join([f"{counts['complete']} complete", *others])),
        Headline("Spent", duration(seconds), f"all trials together, {wording.count(epochs, 'epoch')}"),
    ]
    difference = _difference(sweep)
    return found if difference is None else [*found, difference]


def _which(sweep: Sweep) -> str:
    """What the best score is of, and of how many it is the best."""
    best = sweep.settings[0]
    if not sweep.replicates:
        return f"trial {best.trials[0]}, best of {len(sweep.ranked)}: optimistic"
    return f"{_spread(best)}; best of {wording.count(len(sweep.settings), 'setting')}: optimistic"


def _spread(setting: Setting) -> str:
    """How far the replicates of a setting lie apart."""
    which = wording.listed([str(number) for number in setting.trials])
    if len(setting.trials) == 1:
        return f"trial {which} alone, of {wording.count(setting.of, 'replicate')}"
    low, high = format.score(min(setting.scores)), format.score(max(setting.scores))
    return f"mean of {len(setting.trials)} replicates (trials {which}), {low} to {high}"


def _difference(sweep: Sweep) -> Headline | None:
    comparison = (sweep.final or {}).get("comparison")
    if not comparison:
        return None
    judged = comparison["pairs"][0]["differences"][comparison["score"]]
    interval = format.interval(judged["interval"])[1:-1]
    note = f"{wording.percent(comparison['level'])} CI {interval}" if interval else "no interval"
    title = f"Test {title_of(comparison['score'])} by {comparison['unit']}, winner less default"
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
        found.append(f"{failed} of {len(sweep.trials)} trials failed; the reasons stand below.")
    if running:
        found.append(
            f"{wording.count(running, 'trial')} had not ended when this was written. The same command goes on with the "
            "sweep."
        )
    return found + [str(note) for note in (sweep.final or {}).get("caveats", ())]


def _result(sweep: Sweep) -> list[Block]:
    winner, final = sweep.winner, sweep.final
    if winner is None:
        return [Text("No trial was completed, so there is nothing to choose from.", "bad")]
    best = format.score(winner["values"][0])
    chosen = Text(f"Trial {winner['number']} has the best validation {sweep.title}, {best}: {varied(winner)}.")
    if sweep.replicates:
        spread = _spread(sweep.settings[0])
        chosen = Text(f"The best mean validation {sweep.title} is {best} ({spread}): {varied(winner)}.")
    typed = Code(line(winner, test=True))
    if final is None:
        told = f"{_unused(sweep)} This line takes the winner's run, or trains it, and scores it:"
        return [chosen, Text(told), typed]
    told = "The winner's line to type; seed=… trains it with another seed:"
    claim = Text(final["claim"], "good" if final["claimed"] else "plain")
    return [chosen, claim, tables.finals(sweep, final), Text(told), typed]


def _unused(sweep: Sweep) -> str:
    """That the sweep left the test set alone, and how often other runs had used it where that is known."""
    n = sweep.record.get("test_uses")
    if n is None:  # of an earlier version
        return "This sweep has not used the test set."
    others = f"{wording.count(n, 'use')} by other runs" if n else "no use by other runs"
    return f"This sweep has not used the test set; the ledger had counted {others} when this was written."


def _search(sweep: Sweep) -> list[Block]:
    if not any(trial["curve"] or trial["values"] for trial in sweep.trials):
        return []
    winner = sweep.winner
    best = (
        f" and the best so far, {format.score(winner['values'][0])} from trial {winner['number']} on" if winner else ""
    )
    raised = "; only completed ones raise the best so far"
    if sweep.replicates:  # the best so far would be the luckiest replicate
        best, raised = "", ""
    history = Figure(
        "Trial by trial",
        figures.history(sweep.trials, sweep.names[0], sweep.signs[0], best=not sweep.replicates),
        f"Score of each of {len(sweep.trials)} trials{best}.",
        f"A pruned trial stands at the last score that it reported{raised}.",
    )
    if not any(trial["curve"] for trial in sweep.trials):
        return [history]
    n = sweep.counts["pruned"]
    told = f"{wording.count(n, 'trial was', 'trials were')} pruned: ended early, at the cross, as promising too little."
    curves = Figure(
        "All curves",
        figures.curves(sweep.trials, None if winner is None or sweep.replicates else winner["number"], sweep.names[0]),
        f"{sweep.names[0]} over the epochs of every trial; where a trial was pruned its curve ends in a cross.",
        told if n else "",
    )
    return [history, curves]


def _pareto(sweep: Sweep) -> list[Block]:
    if not sweep.two or not sweep.ranked:
        return []
    front = trials.front(sweep.ranked, sweep.signs)
    of = "setting" if sweep.replicates else "trial"
    figure = Figure(
        "Pareto front",
        figures.pareto(sweep.ranked, front, sweep.names),
        f"{wording.count(len(front), of)} on the Pareto front of {sweep.names[0]} against {sweep.names[1]}.",
        "No other trial is better than one on the front in one objective without being worse in the other.",
    )
    return [figure, tables.front(sweep, front)]


def _parameters(sweep: Sweep) -> list[Block]:
    every = [{**trial, "params": sweep.chosen(trial)} for trial in sweep.trials]
    scored = [t for t in every if t["state"] in ("complete", "pruned") and trials.last_score(t) is not None]
    axes = parameters.parameters(scored, sweep.space)
    if not axes or len(scored) < 2:
        return []
    best = [number for one in sweep.settings[: max(1, round(len(sweep.settings) / 10))] for number in one.trials]
    of = " of the settings" if sweep.replicates else ""
    parallel = Figure(
        "From settings to score",
        figures.parallel(scored, axes, best, sweep.signs[0]),
        f"A line for each of {len(scored)} trials through {len(axes)} parameters to its score.",
        f"The best tenth{of}, {wording.count(len(best), 'trial')}, stands out. A pruned trial is at its last score. "
        "What a trial did not use, as it belongs to another choice, runs along the lane below.",
    )
    found = parameters.importances(every, sweep.space, sweep.signs[0])
    if found.why_not:
        return [parallel, Text(f"There are no importances of the parameters: {found.why_not}.")]
    hint = ", and with so few trials it is a hint." if found.of < parameters.MANY else "."
    importances = Figure(
        "Importance of the parameters",
        figures.importances(found.shares),
        "Shares: " + ", ".join(f"{name} {share:.2f}" for name, share in found.shares.items()) + ".",
        f"PED-ANOVA (Watanabe et al. 2023, IJCAI): how far the best {found.best} of {found.of} completed trials differ "
        f"in a parameter from all of them. Pruned trials are not in it{hint}",
    )
    return [parallel, importances]


def _workers(sweep: Sweep) -> list[Block]:
    parts = trials.stretches(sweep.record)
    if not parts:
        return []
    names = trials.workers(parts)
    idle = trials.idle_share(parts)
    longest = max(part.end for part in parts)
    unit, seconds = ("hours", 3600.0) if longest > 10_800 else ("minutes", 60.0) if longest > 180 else ("seconds", 1.0)
    return [
        Text(f"Idle: {wording.percent(idle)} of the time between a worker's first and its last trial."),
        Figure(
            "What the workers did when",
            figures.timeline(parts, names, unit, seconds),
            f"{len(parts)} bars of {wording.count(len(names), 'worker')} over {longest / seconds:.0f} {unit}.",
            "Numbers are those of the trials. Times in which the whole sweep was stopped are left out.",
        ),
    ]


def _repeat(sweep: Sweep) -> list[Block]:
    blocks: list[Block] = []
    if sweep.winner is not None:
        blocks += [Text("The winning trial as it ran, without using the test set:"), Code(line(sweep.winner))]
    space = tables.space(sweep)
    if space is not None:
        blocks.append(space)
    how = {key: v for key, v in sweep.record["identity"].items() if not key.startswith(("space.", "train."))}
    blocks.append(Fold("Sampler and pruner", [Code(_yaml(how))]))
    return [*blocks, Fold("What all trials shared", [Code(_yaml(settings(sweep)))])]


def _yaml(tree: object) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100).rstrip()
