"""The disk space of a sweep: checkpoints are kept of its best trials alone, records and predictions of all."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from ddtl.records.run_folder import LOCK, RunFolder
from ddtl.sweeps.store.snapshot import SESSIONS, settings

if TYPE_CHECKING:
    from ddtl.sweeps.store.store import Store


def tidy(store: Store) -> None:
    """Delete the checkpoints of the trials that came to their end and are not among the best ``sweep.keep``.

    Without its checkpoints a run that is resumed begins again. What the sweep has not made stays as it is.
    """
    made = datetime.fromisoformat(store.study.user_attrs[SESSIONS][0]).timestamp()
    runs_dir = os.path.realpath(os.path.expanduser(store.plan.base.paths.runs_dir))
    for path in losers(store):
        folder = RunFolder(path)
        if not Path(os.path.realpath(path)).is_relative_to(runs_dir):  # what a journal names is a claim
            continue
        try:
            if not any(file.exists() for file in (folder.last, folder.best)):
                continue
            if folder.identity.stat().st_mtime < made or "test" in (folder.finished() or {}):
                continue
            with FileLock(path / LOCK, timeout=0):
                folder.last.unlink(missing_ok=True)  # first: without it a run begins again
                folder.best.unlink(missing_ok=True)
        except (OSError, ValueError, Timeout):
            continue  # in use by a trial of the same configuration, or gone


def losers(store: Store) -> list[Path]:
    """Return the run folders of the trials that were pruned, or are complete and not among the best; of no other
    trial's.
    """
    from optuna.trial import TrialState

    trials = store.trials()
    best: set[int] = set()
    for setting in settings(store.study):
        if len(best) < store.plan.settings.sweep.keep:
            best |= set(setting.trials)
    if len(store.study.directions) > 1:
        best |= {trial.number for trial in store.study.best_trials}
    ended = {trial.number for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)} - best
    others = {trial.user_attrs.get("run") for trial in trials if trial.number not in ended}
    runs = {trial.user_attrs.get("run") for trial in trials if trial.number in ended}
    return [Path(run) for run in runs - others if run is not None]
