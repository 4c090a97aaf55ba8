"""Plans of sweeps, and processes that are no more: what tests of the sweep's memory share. No torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ddtl.sweeps.plan import settings
from ddtl.sweeps.plan.settings import Plan
from ddtl.sweeps.store.outcome import completed
from ddtl.sweeps.store.store import Store
from ddtl.sweeps.store.task import ATTEMPTS, OWNER
from ddtl.utils import processes

ROOT = Path(__file__).resolve().parents[2]

ELSEWHERE = {"host": "elsewhere"}
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
    found = processes.process(process.pid)
    process.communicate()
    return found


def orphaned(store: Store, number: int, worker: dict[str, Any]) -> None:
    """Make another process the worker of a running trial."""
    trial = store.trials()[number]
    store.storage.set_trial_user_attr(trial._trial_id, OWNER, {**trial.user_attrs[OWNER], **worker})


def ended(store: Store) -> dict[int, tuple[str, ...]]:
    """Work at all trials that there are; what each was told."""
    told = {}
    while (task := store.next()) is not None:
        told[task.number] = task.overrides
        store.end(task, completed([task.number / 100]))
    return told


def states(store: Store) -> Counter[str]:
    return Counter(trial.state.name for trial in store.trials())


def reasons(store: Store, number: int) -> list[str]:
    return [attempt["reason"] for attempt in store.trials()[number].user_attrs[ATTEMPTS]]


_WORKER = """
import os, sys, time, random
from pathlib import Path
from ddtl.sweeps.store import open as opening
from ddtl.sweeps.store.outcome import completed
store = opening.reopen(Path(sys.argv[1]))
while (task := store.next()) is not None:
    store.report(task.number, 0, 0.5)
    print(task.number, flush=True)
    if sys.argv[2] == "dies" and random.random() < 0.2:
        os._exit(1)
    store.end(task, completed([task.number / 100]))
"""


def workers(folder: Path, count: int, how: str = "works", **environment: str) -> list[list[int]]:
    """The numbers that each of several processes worked at."""
    command = [sys.executable, "-c", _WORKER, str(folder), how]
    each = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
        for _ in range(count)
    ]
    return [[int(line) for line in process.communicate(timeout=300)[0].split()] for process in each]
