"""The sweep as one plain record, from which its report is made."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from ddtl.records import test_ledger
from ddtl.reports.sweep import replicates
from ddtl.reports.sweep.record import RECORD
from ddtl.reports.sweep.replicates import Setting
from ddtl.sweeps.store.snapshot import SESSIONS, ended_at, seconds, settings, since
from ddtl.sweeps.store.task import ATTEMPTS, OVERRIDES, OWNER, REASON, WORDS
from ddtl.utils.files import write_json
from ddtl.utils.wording import now, train_command

if TYPE_CHECKING:
    from ddtl.sweeps.store.store import Store

_ATTEMPT = ("worker", "started", "ended", "found", REASON, WORDS)
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def write(store: Store) -> dict[str, Any]:
    """Write the record into the sweep's folder; returns it."""
    found = record(store)
    with store.exclusively():  # two commands may work at one sweep
        write_json(store.folder / RECORD, found)
    return found


def record(store: Store) -> dict[str, Any]:
    """Return everything that is known about the sweep, as plain JSON; what is not a finite number is null.

    Times are ISO 8601 in UTC. A trial's ``values`` are there when it is complete; its ``curve`` contains pairs of an
    epoch, from 0, and the monitor's value; ``attempts`` are those that ended, each with its reason, and with when
    its end was ``found`` where that was later; ``run`` is the
    name of its folder. ``replicates`` are the keys in which trials differ by chance alone, such as ``seed``, and
    ``settings`` then contains what is compared, the best mean first; the best trial is the first one of the best
    setting. ``test_uses`` is how often the dataset's test sets had been used by any run below the runs folder.
    """
    plan, study = store.plan, store.study
    runs_dir = Path(plan.base.paths.runs_dir).expanduser()
    trials = [_trial(trial) for trial in store.trials()]
    states = Counter(trial["state"] for trial in trials)
    now_ = store.snapshot()
    ends = [trial["ended"] for trial in trials if trial["ended"]]
    sessions = study.user_attrs.get(SESSIONS) or [now()]
    varied = replicates.varied(trial["overrides"] for trial in trials)
    parts = replicates.parts(trial["overrides"] for trial in trials)
    return {
        "name": plan.name,
        "dataset": plan.base.dataset.name,
        "search": None if plan.settings.search is None else plan.settings.search.name,
        "objective": list(plan.settings.sweep.objective),
        "directions": [direction.name.lower() for direction in study.directions],
        "monitor": plan.base.trainer.monitor,
        "identity": plan.identity(),
        "optuna": str(plan.identity()["optuna"]),
        "started": sessions[0],
        "ended": now() if now_.left or not ends else max(ends),
        "counts": {state: states[state] for state in _STATES.values()},
        "total": now_.total,
        "trials": trials,
        "best": None if now_.best is None else now_.best[0],
        "front": list(now_.front),
        "final": study.user_attrs.get("final"),
        "test_uses": sum(test_ledger.uses_of(runs_dir, plan.base.dataset.name).values()),
        "replicates": varied,
        "settings": [_setting(setting, parts) for setting in settings(study)] if varied else None,
    }


def _setting(setting: Setting, parts: Sequence[str]) -> dict[str, Any]:
    return {
        "overrides": list(setting.words),
        "line": train_command((*setting.words, *parts)),
        "trials": list(setting.trials),
        "replicates": setting.of,
        "mean": [_finite(value) for value in setting.means],
        "deviation": setting.deviation,
        "lowest": _finite(min(setting.scores)),
        "highest": _finite(max(setting.scores)),
    }


def _trial(trial: FrozenTrial) -> dict[str, Any]:
    attrs, state = trial.user_attrs, _STATES[trial.state]
    attempts = attrs.get(ATTEMPTS, [])
    overrides = tuple(attrs.get(OVERRIDES, ()))
    curve = [[epoch, _finite(value)] for epoch, value in sorted(trial.intermediate_values.items())]
    owner = attrs.get(OWNER, {})
    return {
        "number": trial.number,
        "state": state,
        "reason": attrs.get(REASON) if state == "failed" else None,
        "words": attrs.get(WORDS, "") if state == "failed" else "",
        "params": trial.params,
        "overrides": list(overrides),
        "line": train_command(overrides),
        "values": [_finite(value) for value in trial.values] if state == "complete" else None,
        "curve": curve,
        "epochs": len(curve),
        "phases": attrs.get("phases"),
        "started": attempts[0]["started"] if attempts else owner.get("since"),
        "ended": ended_at(trial) or None if trial.state.is_finished() else None,
        "seconds": seconds(trial) + (since(owner["since"]) if state == "running" and owner else 0.0),
        "fit_seconds": attrs.get("fit_seconds"),
        "predict_seconds": attrs.get("predict_seconds"),
        "run": Path(attrs["run"]).name if "run" in attrs else None,
        "worker": owner.get("worker"),
        "attempts": [{key: attempt[key] for key in _ATTEMPT if key in attempt} for attempt in attempts],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
