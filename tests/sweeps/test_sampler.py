"""What is proposed: a function of the seed, the trial's number and the history, and of nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddtl.sweeps.space.space import list_jobs
from ddtl.sweeps.store import open
from ddtl.sweeps.store.outcome import completed
from tests.support.sweep_plans import ended, gone, orphaned, plan, states


@pytest.mark.parametrize("steps", range(4))
def test_killed_while_its_parameters_were_drawn_a_trial_gets_the_same_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    left_alone = ended(open.open_sweep(plan(tmp_path / "alone")))
    store = open.open_sweep(plan(tmp_path / "killed"))
    for number in range(3):
        task = store.next()
        assert task is not None
        store.end(task, completed([number / 100]))
    writes = 0

    def until_killed(write: Any) -> Any:
        def written(*args: Any, **more: Any) -> Any:
            nonlocal writes
            if writes == steps:
                raise KeyboardInterrupt
            writes += 1
            return write(*args, **more)

        return written

    for name in ("set_trial_param", "set_trial_user_attr"):
        monkeypatch.setattr(store.storage, name, until_killed(getattr(store.storage, name)))
    with pytest.raises(KeyboardInterrupt):
        store.next()
    if "owner" in open.reopen(store.folder).trials()[3].user_attrs:
        monkeypatch.undo()
        orphaned(store, 3, gone())
    after = open.open_sweep(plan(tmp_path / "killed"))
    told = ended(after)
    assert list(told) == [3, 4, 5]
    own = {number: words[:2] for number, words in told.items()}
    assert own == {number: left_alone[number][:2] for number in own}
    assert states(after) == {"COMPLETE": 6}


SAMPLERS = {
    "TPESampler": "{multivariate: true, group: true, n_startup_trials: 4}",
    "RandomSampler": "{}",
    "QMCSampler": "{}",
    "NSGAIISampler": "{population_size: 4}",
    "BruteForceSampler": "{}",
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_proposed_does_not_depend_on_the_process(tmp_path: Path, name: str) -> None:
    words = [f"sampler.name={name}", f"sampler.args={SAMPLERS[name]}", "n_trials=10"]
    if name == "BruteForceSampler":
        words.append("search.space={dataset.batch_size: {int: [1, 10]}}")
    whole = ended(open.open_sweep(plan(tmp_path / "one", *words)))
    open.open_sweep(plan(tmp_path / "many", *words))
    parts: dict[int, tuple[str, ...]] = {}
    for _ in range(10):
        store = open.reopen(tmp_path / "many" / "sweeps" / "small")
        task = store.next()
        assert task is not None
        parts[task.number] = task.overrides
        store.end(task, completed([task.number / 100]))
    assert {n: words[:-2] for n, words in parts.items()} == {n: words[:-2] for n, words in whole.items()}
    assert len({words[:-2] for words in whole.values()}) > 6


def test_another_seed_is_another_sweep(tmp_path: Path) -> None:
    one = ended(open.open_sweep(plan(tmp_path, "sweep.name=a", "n_trials=2")))
    other = ended(open.open_sweep(plan(tmp_path, "sweep.name=b", "n_trials=2", "sweep.seed=1")))
    assert one[0] != other[0]


def test_a_quasi_random_sequence_stays_one(tmp_path: Path) -> None:
    words = ["sampler.name=QMCSampler", "sampler.args={}", "n_trials=17"]
    open.open_sweep(plan(tmp_path, *words))
    rates = []
    for _ in range(17):
        store = open.reopen(tmp_path / "sweeps" / "small")
        task = store.next()
        assert task is not None
        rates.append(store.trials()[task.number].params["optimizer.lr"])
        store.end(task, completed([0.5]))
    depth = [(math.log10(rate) + 5) / 3 for rate in rates[1:]]  # the first one is drawn independently
    assert sorted(int(16 * share) for share in depth) == list(range(16))


def test_listed_jobs_come_in_their_order(tmp_path: Path) -> None:
    jobs = [["seed=3"], ["seed=1"], ["seed=2"]]
    made = plan(tmp_path, "n_trials=3")
    made = replace(made, space=list_jobs(jobs), name="small-final", folder=made.folder / "final")
    open.open_sweep(made)
    told = ended(open.reopen(made.folder))
    assert [words[0] for words in told.values()] == ["seed=3", "seed=1", "seed=2"]
