"""Where trials run: the slots of a machine, workers that are lost, and the same study by every engine."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ddtl.sweeps.engines import local, remote
from ddtl.sweeps.store import open, outcome
from ddtl.sweeps.store.store import Store
from ddtl.sweeps.workers.stopping import Stop
from ddtl.utils import threads
from ddtl.utils.errors import UserError
from tests.support.hostile_folder import command, hostile
from tests.support.sweep_plans import plan
from tests.support.sweep_trials import unseen

__all__ = ["hostile"]  # a fixture


def shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus: Sequence[str], *words: str) -> list[Any]:
    """What the slots of a machine with eight cores and these GPUs show to their trials."""
    monkeypatch.setattr(local, "visible_gpus", lambda: list(gpus))
    monkeypatch.setattr(threads, "cores", lambda: 8)
    return [slot.gpus for slot in local.slots(plan(tmp_path, *words))]


def test_slots_share_the_gpus_out(monkeypatch, tmp_path):
    four = ("0", "1", "2", "3")
    assert shown(monkeypatch, tmp_path, four) == [("0",), ("1",), ("2",), ("3",)]
    assert shown(monkeypatch, tmp_path, four, "engine.workers=2") == [("0",), ("1",)]
    assert shown(monkeypatch, tmp_path, four, "engine.gpus_per_trial=2") == [("0", "1"), ("2", "3")]
    assert shown(monkeypatch, tmp_path, ("5",), "engine.workers=2") == [("5",), ("5",)]
    assert shown(monkeypatch, tmp_path, four, "trainer=cpu", "engine.workers=3") == [None] * 3
    assert shown(monkeypatch, tmp_path, ()) == [None]


@pytest.mark.parametrize(
    ("gpus", "words", "message"),
    [
        ((), ["engine.workers=9"], "9 processes on 8 cores.*engine.workers=8"),
        ((), ["engine.workers=5", "engine.gpus_per_trial=2"], "10 processes on 8 cores.*engine.workers=4"),
        (("0",), ["engine.gpus_per_trial=2"], "need 2 GPUs, and this machine has 1"),
        (("0", "1"), ["engine.gpus_per_trial=2", "engine.workers=2"], "need 4 GPUs, and this machine has 2"),
    ],
)
def test_more_than_the_machine_has_is_a_mistake(monkeypatch, tmp_path, gpus, words, message):
    with pytest.raises(UserError, match=message):
        shown(monkeypatch, tmp_path, gpus, *words)


@pytest.mark.parametrize(
    ("named", "count", "expected"),
    [(None, 2, ["0", "1"]), ("3, GPU-ab", 2, ["3", "GPU-ab"]), ("3,9", 1, ["3"]), ("", 0, []), (None, None, [])],
)
def test_gpus_are_named_as_the_driver_counts_them(monkeypatch, named, count, expected):
    class Driver:
        def cuInit(self, flags: int) -> int:  # noqa: N802
            return 0

        def cuDeviceGetCount(self, found: Any) -> int:  # noqa: N802
            found._obj.value = count
            return 0

    def opened(name: str) -> Driver:
        if count is None:
            raise OSError("no such library")
        return Driver()

    monkeypatch.setattr(ctypes, "CDLL", opened)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert local.visible_gpus() == expected


class Elsewhere:
    """A worker that does as many trials as it is given, and is then lost, or comes to its end."""

    def __init__(self, store: Store, trials: int, *, lost: bool = False, problem: str | None = None) -> None:
        self.lost, self.problem = lost, problem
        self.killed = False
        for _ in range(trials):
            if (task := store.next()) is not None:
                store.end(task, outcome.completed([0.5]))

    def ended(self) -> bool:
        return True

    def result(self) -> str | None:
        if self.lost:
            raise RuntimeError("the node went down")
        return self.problem

    def end(self) -> None:
        self.killed = True


def test_lost_workers_are_replaced(tmp_path):
    store = open.open_sweep(plan(tmp_path, "n_trials=5", "sweep.retries=3"))
    placed: list[int] = []

    def place(names: Sequence[str]) -> list[Elsewhere]:
        placed.append(len(names))
        return [Elsewhere(store, 1, lost=True) for _ in names]

    assert remote.run(store, Stop(tmp_path / "stop"), unseen, 2, place) is None
    assert placed == [2, 2, 1]  # never more than trials are left
    assert store.snapshot().left == 0


def test_workers_that_are_always_lost_end_in_words(tmp_path):
    store = open.open_sweep(plan(tmp_path, "n_trials=5", "sweep.retries=1"))
    placed: list[Elsewhere] = []

    def place(names: Sequence[str]) -> list[Elsewhere]:
        placed.extend(found := [Elsewhere(store, 0, lost=True) for _ in names])
        return found

    problem = remote.run(store, Stop(tmp_path / "stop"), unseen, 1, place)
    assert problem is not None
    assert problem.startswith("the workers have ended, and trials are left")
    assert len(placed) == 2


def test_a_problem_of_a_worker_and_a_stop_end_the_rounds(tmp_path):
    store = open.open_sweep(plan(tmp_path, "n_trials=5"))
    stop = Stop(tmp_path / "stop")
    assert remote.run(store, stop, unseen, 1, lambda names: [Elsewhere(store, 1, problem="disk full")]) == "disk full"

    def stopped(names: Sequence[str]) -> list[Elsewhere]:
        stop.ask()
        return [Elsewhere(store, 1)]

    assert remote.run(store, stop, unseen, 1, stopped) is None
    assert store.snapshot().complete == 2


def test_workers_elsewhere_end_with_the_command(tmp_path):
    class Endless(Elsewhere):
        def ended(self) -> bool:
            raise KeyboardInterrupt

    store = open.open_sweep(plan(tmp_path))
    worker = Endless(store, 0)
    with pytest.raises(KeyboardInterrupt):
        remote.run(store, Stop(tmp_path / "stop"), unseen, 1, lambda names: [worker])
    assert worker.killed


ENGINE = ("engine.workers=1", "n_trials=4")


def trials(runs_dir: Path) -> list[dict[str, Any]]:
    """The trials of the small sweep there, without what differs from one call to the next."""
    record = json.loads((runs_dir / "sweeps" / "small" / "sweep.json").read_text())
    assert record["counts"]["running"] == 0
    return [{key: trial[key] for key in ("number", "state", "params", "values", "curve")} for trial in record["trials"]]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The trials of the small sweep on this machine."""
    from tests.sweeps.test_report_callback import sweep  # with torch, which the quick tests go without

    runs_dir = tmp_path_factory.mktemp("local")
    ended = sweep(runs_dir, *ENGINE, "engine=local")
    assert ended.returncode == 0, ended.stderr
    return trials(runs_dir)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "slurm"])
def test_every_engine_makes_the_same_study_and_imports_nothing_from_the_folder_it_is_typed_in(
    hostile: Path, here: list[dict[str, Any]], engine: str
) -> None:
    from tests.support.runs import small
    from tests.sweeps.test_report_callback import SWEEP

    pytest.importorskip({"ray": "ray", "slurm": "submitit"}[engine])
    runs_dir = hostile.parent / "runs"
    command(hostile, "sweep", *small(runs_dir, *SWEEP, *ENGINE, f"engine={engine}"), OMP_NUM_THREADS="1")
    assert len(here) == 4
    assert len({json.dumps(trial["params"]) for trial in here}) == 4
    assert trials(runs_dir) == here
