"""After the search: the winner against the default settings, both retrained, on the test set, once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddtl.config import load
from ddtl.config.overrides import key_of
from ddtl.records.identity import short_hash
from ddtl.reports.sweep.replicates import KEYS, varied
from ddtl.schema.scores import SCORES
from ddtl.schema.sweep import ClassConfig
from ddtl.sweeps.plan.settings import Plan
from ddtl.sweeps.space.space import list_jobs
from ddtl.sweeps.store.task import OVERRIDES
from ddtl.training.identity import counting
from ddtl.utils import console
from ddtl.utils.errors import UserError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from ddtl.reports.comparison.runs import Compared
    from ddtl.sweeps.store.store import Store

FINAL = "final"  # the study's user attribute: what was found
WINNER, DEFAULT = "the winner", "the default"
_UNLOCKED = "evaluation.test=true"


def finalize(store: Store, run: Callable[[Store], None]) -> dict[str, Any] | None:
    """Train the winner and the default settings over seeds, score them, and compare them.

    Args:
        store: of a search that has ended.
        run: runs the trials that are left in a store, as the engine does.

    Returns:
        What :func:`conclude` found; None where no trial was completed. It is in the study from then on, so that the
        sweep's record has it.
    """
    from ddtl.sweeps.store import open

    plan = final_plan(store)
    if plan is None:
        return None
    os.environ.update(store.environment)  # a password is in no plan
    final = open.open_sweep(plan)
    try:
        run(final)
        found = conclude(store, final)
    finally:
        final.close()
    store.study.set_user_attr(FINAL, found)
    return found


def final_plan(store: Store) -> Plan | None:
    """Return the runs that the comparison needs, as a sweep of listed jobs; None where no trial was completed.

    The winner and the default settings, each with ``sweep.seeds`` seeds that the search has not used: the winning trial
    itself was chosen for a good validation score, and its luck would speak for the winner. Its folder is within the
    sweep's and is named after the winner, so that a search that continues and finds a better one has another
    comparison.
    """
    winner = best_trial(store)
    if winner is None:
        return None
    plan = store.plan
    shared = [word for word in plan.fixed if key_of(word) not in ("seed", "evaluation.test")]
    own = [word for word in winner.user_attrs[OVERRIDES] if word not in plan.fixed and key_of(word) not in KEYS]
    settings = [own] if _alike(own, shared) else [own, []]
    jobs = [[*words, f"seed={seed}"] for seed in _seeds(store) for words in settings]
    section = plan.settings.sweep.model_copy(update={"objective": ("score",), "name": None})
    final_settings = plan.settings.model_copy(
        update={
            "search": None,
            "n_trials": len(jobs),
            "finalize": False,
            "pruner": ClassConfig(name="NopPruner", args={}),
            "sweep": section,
        }
    )
    name = f"final-{winner.number}-{plan.settings.sweep.seeds}-seeds"
    return replace(
        plan,
        settings=final_settings,
        fixed=(*shared, _UNLOCKED),
        space=list_jobs(jobs),
        base=load.check([*shared, *jobs[0]])[0],
        name=f"{plan.name}-{name}",
        folder=plan.folder / name,
        # Written down by the opening of its store, before the first run is scored.
        planned=(f"finalize {plan.name} {short_hash({'jobs': [[*shared, *words] for words in jobs]})}",) * len(jobs),
    )


def best_trial(store: Store) -> FrozenTrial | None:
    """Return the first trial of the best setting, of equal ones the first; with two objectives too the score
    decides.
    """
    from ddtl.sweeps.store.snapshot import settings

    best = settings(store.study)
    return store.trials()[best[0].trials[0]] if best else None


def conclude(store: Store, final: Store) -> dict[str, Any]:
    """Return what the comparison found, as plain JSON for the sweep's record.

    Args:
        store: of the search.
        final: of the plan that :func:`final_plan` made, when no trial is left.
    """
    winner = best_trial(store)
    assert winner is not None, "the final plan was made for one"
    runs = _runs(final)
    monitor = store.plan.base.trainer.monitor
    found: dict[str, Any] = {
        "winner": winner.number,
        "monitor": monitor,
        "seeds": sorted({run["seed"] for found in runs.values() for run in found}),
        "runs": runs,
        "comparison": None,
        "claimed": False,
        "caveats": [],
    }
    if DEFAULT not in runs:
        return {**found, "claim": "The winner has the default settings: there is nothing to compare it with."}
    missing = [name for name, each in runs.items() if not any(run["run"] for run in each)]
    if missing:
        return {**found, "claim": f"There is no comparison: no run of {' and '.join(missing)} was completed."}
    found |= _compare(runs, final.folder.parent, monitor)
    return found | {"caveats": [*_on_one_part(store), *found["caveats"]]}


def print_result(final: dict[str, Any]) -> None:
    """Print the result at the terminal: a line, and the caveats."""
    console.out.print(final["claim"], markup=False)
    for note in final["caveats"]:
        console.out.print(f"! {note}", style="yellow", markup=False)


def _compare(runs: dict[str, list[dict[str, Any]]], sweep: Path, monitor: str) -> dict[str, Any]:
    """Return the paired comparison over seeds, on the test set."""
    from ddtl.evaluation.comparison.comparison import compare
    from ddtl.reports.comparison import claims, tables

    name = monitor.partition("/")[2]
    score = name if name in SCORES else "roc_auc"  # a loss is not a score of the test; by patient it is where it can be
    try:
        compared = _read(runs)
        result = compare(compared.methods, score=score, paired_seeds=_same_seeds(runs))
    except UserError as problem:
        return {"claim": f"There is no comparison: {problem}"}
    return {
        "comparison": tables.record(compared, result),
        "claimed": claims.claimed(result.pairs[0]),
        "claim": claims.claim(result.pairs[0]),
        "caveats": [*_failure_lines(runs), *claims.caveats(compared, result.pairs)],
    }


def _on_one_part(store: Store) -> list[str]:
    """Return that the search was over several folds or splits, of which the comparison is on one."""
    words = [trial.user_attrs.get(OVERRIDES, ()) for trial in store.trials()]
    keys = [key for key in varied(words) if key != "seed"]
    if not keys:
        return []
    what = " and ".join(keys)
    return [f"The search was over several values of {what}; this comparison is on the usual one alone."]


def _read(runs: dict[str, list[dict[str, Any]]]) -> Compared:
    """Return the runs as two methods."""
    from ddtl.reports.comparison import runs as compared

    folders = {name: [Path(run["run"]) for run in each if run["run"]] for name, each in runs.items()}
    found = compared.read([folder for each in folders.values() for folder in each], "test")
    answers = [run for method in found.methods for run in method.runs]
    by_folder = {run.name: run for run in answers}
    methods = [
        replace(found.methods[0], name=name, runs=tuple(by_folder[str(folder)] for folder in each))
        for name, each in folders.items()
    ]
    return replace(found, methods=methods, only_seeds=False, also=[])


def _same_seeds(runs: dict[str, list[dict[str, Any]]]) -> bool:
    """Return whether the completed runs of every method have the same seeds, in the same order, as the plan gives
    them.
    """
    seeds = [[run["seed"] for run in each if run["run"]] for each in runs.values()]
    return all(each == seeds[0] for each in seeds)


def _failure_lines(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    counts = {name: sum(not run["run"] for run in each) for name, each in runs.items()}
    return [f"{count} of {len(runs[name])} runs of {name} failed." for name, count in counts.items() if count]


def _runs(final: Store) -> dict[str, list[dict[str, Any]]]:
    """Return the runs by method: seed, folder and validation score, both None where it failed."""
    jobs: Sequence[Sequence[str]] = final.plan.space.jobs  # type: ignore[attr-defined]
    found: dict[str, list[dict[str, Any]]] = {}
    for trial in final.trials():
        *words, seed = jobs[trial.number]
        first = words == list(jobs[0][:-1])
        done = trial.state.name == "COMPLETE"
        run = {
            "seed": int(_value(seed)),
            "run": trial.user_attrs["run"] if done else None,
            "score": trial.values[0] if done else None,
        }
        found.setdefault(WINNER if first else DEFAULT, []).append(run)
    return found


def _value(word: str) -> str:
    """Return what follows a word's ``=``."""
    return word.partition("=")[2]


def _seeds(store: Store) -> list[int]:
    """Return the first ones that no trial of the search had."""
    words = [word for trial in store.trials() for word in trial.user_attrs.get(OVERRIDES, ())]
    used = {int(_value(word)) for word in words if key_of(word) == "seed" and _value(word).isdigit()}
    first = max({store.plan.base.seed, *used}) + 1
    return list(range(first, first + store.plan.settings.sweep.seeds))


def _alike(own: Sequence[str], shared: Sequence[str]) -> bool:
    """Return whether the winner's settings are the default ones."""
    winner, default = (load.check([*shared, *words, _UNLOCKED])[0] for words in (own, []))
    return counting(winner) == counting(default)
