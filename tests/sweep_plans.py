"""Plans of sweeps, and processes that are no more: what tests of the sweep's memory share. No torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from ddtl.sweeps import owner, settings
from ddtl.sweeps.settings import Plan
from ddtl.sweeps.store import Store
from ddtl.sweeps.task import OWNER

SEARCH = (
    "search=lr",
    "search.space={optimizer.lr: {float: [1e-5, 1e-2], log: true}, dataset.batch_size: {choice: [8, 16, 32]}}",
)


def plan(runs_dir: Path, *words: str) -> Plan:
    """A sweep of two parameters on the phantom."""
    typed = [*SEARCH, f"paths.runs_dir='{runs_dir}'", "n_trials=6", "sweep.name=small", *words]
    return settings.read(typed, tried=False)


def gone() -> dict[str, Any]:
    """A process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = owner.process(process.pid)
    process.communicate()
    return found


def orphaned(store: Store, number: int, worker: dict[str, Any]) -> None:
    """Make another process the worker of a running trial."""
    trial = store.trials()[number]
    store.storage.set_trial_user_attr(trial._trial_id, OWNER, {**trial.user_attrs[OWNER], **worker})
