"""The sweep's memory: who gets which trial, what survives a kill, and what is refused."""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from ddtl.errors import UserError
from ddtl.sweeps import opening, storages
from ddtl.sweeps.settings import Plan
from ddtl.sweeps.settle import completed, failed, pruned, stopped
from ddtl.sweeps.space import listed
from ddtl.sweeps.store import Store
from ddtl.sweeps.task import ATTEMPTS
from tests.runs import ROOT
from tests.sweep_plans import gone, orphaned, plan

ELSEWHERE = {"host": "elsewhere"}


def ended(store: Store, *, worst: float = 0.0) -> dict[int, tuple[str, ...]]:
    """Work at all trials that there are; what each was told."""
    told = {}
    while (task := store.next()) is not None:
        told[task.number] = task.overrides
        store.end(task, completed([worst + task.number / 100]))
    return told


def states(store: Store) -> Counter[str]:
    return Counter(trial.state.name for trial in store.trials())


def reasons(store: Store, number: int) -> list[str]:
    return [attempt["reason"] for attempt in store.trials()[number].user_attrs[ATTEMPTS]]


def test_a_sweep_has_as_many_trials_as_it_was_told(tmp_path: Path) -> None:
    store = opening.opened(plan(tmp_path))
    told = ended(store)
    assert list(told) == list(range(6))
    assert len(set(told.values())) == 6
    assert all(words[-1] == "evaluation.test=false" for words in told.values())
    now = store.snapshot()
    assert (now.total, now.complete, now.left, now.best) == (6, 6, 0, (5, (0.05,)))


def test_the_total_counts_all_calls_of_the_command(tmp_path: Path) -> None:
    ended(opening.opened(plan(tmp_path, "n_trials=2")))
    assert ended(opening.opened(plan(tmp_path, "n_trials=2"))) == {}
    assert list(ended(opening.opened(plan(tmp_path, "n_trials=5")))) == [2, 3, 4]
    less = opening.opened(plan(tmp_path, "n_trials=3"))
    assert ended(less) == {}
    assert (less.snapshot().total, less.snapshot().left) == (5, 0)


def test_a_task_says_what_a_person_types(tmp_path: Path) -> None:
    task = opening.opened(plan(tmp_path / "my runs", f"paths.data_dir='{tmp_path}/my data'")).next()
    assert task is not None
    assert shlex.split(task.line) == ["python", "train.py", *task.overrides]


def test_a_failed_pruned_or_slow_trial_counts_once(tmp_path: Path) -> None:
    store = opening.opened(plan(tmp_path))
    ends = [completed([0.5]), pruned(), failed("out_of_memory", "no room"), completed([float("nan")]), failed("error")]
    for outcome in ends:
        task = store.next()
        assert task is not None
        store.report(task.number, 0, 0.4)
        store.end(task, outcome)
    assert states(store) == {"COMPLETE": 1, "PRUNED": 1, "FAIL": 3}
    assert store.snapshot().left == 1
    assert store.snapshot().failures == (
        "trial 2: out of memory: no room",
        "trial 3: nan: the score is not a number",
        "trial 4: error",
    )


def test_a_success_ends_a_row_of_failures_and_so_does_a_new_command(tmp_path: Path) -> None:
    store = opening.opened(plan(tmp_path))
    for outcome in (failed("error", "a"), completed([0.5]), failed("nan", "b")):
        task = store.next()
        assert task is not None
        store.end(task, outcome)
    assert store.snapshot().failures == ("trial 2: nan: b",)
    assert opening.opened(plan(tmp_path)).snapshot().failures == ()


@pytest.mark.parametrize("outcome", [stopped(), failed("disk_full"), failed("killed", "SIGKILL")])
def test_a_trial_that_is_kept_is_the_next_one_under_its_number(tmp_path: Path, outcome: Any) -> None:
    store = opening.opened(plan(tmp_path))
    first, second = store.next(), store.next()
    assert first is not None
    assert second is not None
    store.report(first.number, 0, 0.5)
    store.end(first, outcome)
    assert states(store) == {"WAITING": 1, "RUNNING": 1}
    assert store.snapshot().waiting == 1
    again = opening.reopened(store.folder).next()
    assert again is not None
    assert (again.number, again.overrides, again.attempt) == (0, first.overrides, 2)
    assert store.trials()[0].intermediate_values == {0: 0.5}
    assert reasons(store, 0) == [outcome.end]
    assert states(store) == {"RUNNING": 2}


def test_a_trial_whose_worker_is_gone_goes_on_as_often_as_retries_say(tmp_path: Path) -> None:
    asked = plan(tmp_path, "sweep.retries=2", "n_trials=1")
    for attempt in (1, 2, 3):
        store = opening.opened(asked)
        task = store.next()
        assert task is not None
        assert (task.number, task.attempt) == (0, attempt)
        orphaned(store, 0, gone())
    store = opening.opened(asked)
    assert states(store) == {"FAIL": 1}
    assert store.next() is None
    attrs = store.trials()[0].user_attrs
    assert attrs["words"].startswith("killed 3 times; at last: its process is gone")
    assert reasons(store, 0) == ["killed"] * 3


def test_a_new_command_leaves_nothing_running_that_is_dead(tmp_path: Path) -> None:
    store = opening.opened(plan(tmp_path))
    assert all(store.next() is not None for _ in range(3))
    for number in range(3):
        orphaned(store, number, gone())
    assert states(opening.opened(plan(tmp_path))) == {"WAITING": 3}


def test_nobody_goes_on_while_the_trials_own_process_still_ends(tmp_path: Path) -> None:
    store = opening.opened(plan(tmp_path, "n_trials=1"))
    task = store.next()
    assert task is not None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    store.started(task, child.pid)
    orphaned(store, 0, gone())
    assert store.next() is None
    assert store.snapshot().left == 1
    child.communicate()
    again = store.next()
    assert again is not None
    assert again.attempt == 2


def test_a_worker_on_another_host_is_dead_when_it_has_been_silent_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opening.opened(plan(tmp_path, "n_trials=1"))
    assert store.next() is not None
    orphaned(store, 0, ELSEWHERE)
    assert store.next() is None
    monkeypatch.setattr(storages, "STALE_SECONDS", -1)
    again = store.next()
    assert again is not None
    assert again.attempt == 2


def test_a_living_worker_on_another_host_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storages, "BEAT_SECONDS", 0.05)
    store = opening.opened(plan(tmp_path))
    task = store.next()
    assert task is not None
    beat = store.folder / "beats" / str(task.trial_id)
    first = beat.stat().st_mtime_ns
    for _ in range(100):
        if beat.stat().st_mtime_ns > first:
            break
        store._closed.wait(0.05)
    assert beat.stat().st_mtime_ns > first
    store.end(task, completed([0.5]))
    assert not beat.exists()
    store.close()


def test_whoever_lost_a_trial_no_longer_decides_about_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = opening.opened(plan(tmp_path, "n_trials=1"))
    lost = store.next()
    assert lost is not None
    orphaned(store, 0, gone())
    again = store.next()
    assert again is not None
    store.end(lost, completed([0.9]))
    assert "another worker has gone on" in capsys.readouterr().err
    assert states(store) == {"RUNNING": 1}
    store.end(again, completed([0.1]))
    assert store.trials()[0].value == 0.1
    store.end(lost, completed([0.9]))
    assert store.trials()[0].value == 0.1


def test_killed_between_writing_down_an_end_and_telling_it_the_end_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opening.opened(plan(tmp_path, "n_trials=1"))
    task = store.next()
    assert task is not None

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store.study, "tell", killed)
    with pytest.raises(KeyboardInterrupt):
        store.end(task, completed([0.7]))
    assert states(store) == {"RUNNING": 1}
    orphaned(store, 0, gone())
    after = opening.opened(plan(tmp_path, "n_trials=1"))
    assert after.trials()[0].value == 0.7
    assert reasons(after, 0) == ["completed"]


@pytest.mark.parametrize("steps", range(4))
def test_killed_while_its_parameters_were_drawn_a_trial_gets_the_same_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    left_alone = ended(opening.opened(plan(tmp_path / "alone")))
    store = opening.opened(plan(tmp_path / "killed"))
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
    if "owner" in opening.reopened(store.folder).trials()[3].user_attrs:
        monkeypatch.undo()
        orphaned(store, 3, gone())
    after = opening.opened(plan(tmp_path / "killed"))
    told = ended(after)
    assert list(told) == [3, 4, 5]
    own = {number: words[:2] for number, words in told.items()}
    assert own == {number: left_alone[number][:2] for number in own}
    assert states(after) == {"COMPLETE": 6}


_WORKER = """
import os, sys, time, random
from pathlib import Path
from ddtl.sweeps import opening
from ddtl.sweeps.settle import completed
store = opening.reopened(Path(sys.argv[1]))
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


def test_several_processes_share_the_trials_out(tmp_path: Path) -> None:
    store = opening.opened(plan(tmp_path, "n_trials=40"))
    done = workers(store.folder, 3)
    assert sorted(number for numbers in done for number in numbers) == list(range(40))
    assert states(store) == {"COMPLETE": 40}


def test_processes_that_die_leave_their_trials_to_the_others(tmp_path: Path) -> None:
    store = opening.opened(plan(tmp_path, "n_trials=20", "sweep.retries=100"))
    for _ in range(40):
        if not store.snapshot().left:
            break
        workers(store.folder, 2, "dies")
    assert states(store) == {"COMPLETE": 20}
    assert all(reasons(store, number)[-1] == "completed" for number in range(20))


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
    whole = ended(opening.opened(plan(tmp_path / "one", *words)))
    opening.opened(plan(tmp_path / "many", *words))
    parts: dict[int, tuple[str, ...]] = {}
    for _ in range(10):
        store = opening.reopened(tmp_path / "many" / "sweeps" / "small")
        task = store.next()
        assert task is not None
        parts[task.number] = task.overrides
        store.end(task, completed([task.number / 100]))
    assert {n: words[:-2] for n, words in parts.items()} == {n: words[:-2] for n, words in whole.items()}
    assert len({words[:-2] for words in whole.values()}) > 6


def test_another_seed_is_another_sweep(tmp_path: Path) -> None:
    one = ended(opening.opened(plan(tmp_path, "sweep.name=a", "n_trials=2")))
    other = ended(opening.opened(plan(tmp_path, "sweep.name=b", "n_trials=2", "sweep.seed=1")))
    assert one[0] != other[0]


def test_a_quasi_random_sequence_stays_one(tmp_path: Path) -> None:
    words = ["sampler.name=QMCSampler", "sampler.args={}", "n_trials=17"]
    opening.opened(plan(tmp_path, *words))
    rates = []
    for _ in range(17):
        store = opening.reopened(tmp_path / "sweeps" / "small")
        task = store.next()
        assert task is not None
        rates.append(store.trials()[task.number].params["optimizer.lr"])
        store.end(task, completed([0.5]))
    depth = [(math.log10(rate) + 5) / 3 for rate in rates[1:]]  # the first one is drawn independently
    assert sorted(int(16 * share) for share in depth) == list(range(16))


def test_listed_jobs_come_in_their_order(tmp_path: Path) -> None:
    jobs = [["seed=3"], ["seed=1"], ["seed=2"]]
    made = plan(tmp_path, "n_trials=3")
    made = replace(made, space=listed(jobs), name="small-final", folder=made.folder / "final")
    opening.opened(made)
    told = ended(opening.reopened(made.folder))
    assert [words[0] for words in told.values()] == ["seed=3", "seed=1", "seed=2"]


def test_another_search_under_the_same_name_is_refused_with_what_differs(tmp_path: Path) -> None:
    ended(opening.opened(plan(tmp_path)))
    before = (tmp_path / "sweeps" / "small" / "journal.log").read_bytes()
    with pytest.raises(UserError, match=r"space\.optimizer\.lr: was .*0\.01.*, is .*0\.1(?s:.*)sweep\.name=") as no:
        opening.opened(plan(tmp_path, "search.space.optimizer.lr={float: [1e-5, 1e-1], log: true}", "trainer=cpu"))
    assert "seed" not in str(no.value)
    assert (tmp_path / "sweeps" / "small" / "journal.log").read_bytes() == before
    with pytest.raises(UserError, match=r"train\.optimizer\.weight_decay: was"):
        opening.opened(plan(tmp_path, "optimizer.weight_decay=0.3"))


def test_a_changed_plan_is_refused_even_where_only_the_journal_is_left(tmp_path: Path) -> None:
    store = opening.opened(plan(tmp_path))
    (store.folder / "plan.json").unlink()
    with pytest.raises(UserError, match="seed: was 0, is 1"):
        opening.opened(plan(tmp_path, "sweep.seed=1"))
    opening.opened(plan(tmp_path))
    assert (store.folder / "plan.json").exists()


def test_what_does_not_change_the_search_may_change(tmp_path: Path) -> None:
    ended(opening.opened(plan(tmp_path, "n_trials=1")))
    changed = ["n_trials=2", "finalize=false", "logger=none", "sweep.retries=9", "engine.workers=2"]
    assert list(ended(opening.opened(plan(tmp_path, *changed)))) == [1]


def test_a_joined_sweep_has_the_plan_of_the_command(tmp_path: Path) -> None:
    store = opening.opened(plan(tmp_path))
    assert opening.reopened(store.folder).plan == store.plan


def test_no_sweep_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the folder of a sweep"):
        opening.reopened(tmp_path)


def test_a_torn_journal_is_mended_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = opening.opened(plan(tmp_path))
    ended(store)
    with (store.folder / "journal.log").open("ab") as file:
        file.write(b'{"op_code":')
    after = opening.opened(plan(tmp_path, "n_trials=7"))
    assert "journal.torn" in capsys.readouterr().err
    assert list(ended(after)) == [6]


def sqlite(tmp_path: Path) -> str:
    return f"sweep.storage='sqlite:///{tmp_path / 'sweep.db'}'"


def test_sqlite_serves_one_worker(tmp_path: Path) -> None:
    store = opening.opened(plan(tmp_path, sqlite(tmp_path), "engine.workers=1"))
    ended(store)
    assert states(opening.opened(plan(tmp_path, sqlite(tmp_path), "engine.workers=1"))) == {"COMPLETE": 6}
    store.close()


@pytest.mark.parametrize("words", [["engine.workers=2"], ["engine=ray"]])
def test_sqlite_is_refused_for_several_with_the_reason(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(UserError, match=r"SQLite locks its whole file.*engine\.workers=1"):
        opening.opened(plan(tmp_path, sqlite(tmp_path), *words))
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("mysql://me:hush@host/db", "only postgresql"),
        ("postgresql//me:hush@host", "no URL"),
        ("postgresql://me:hush@127.0.0.1:1/db", "cannot be opened"),
        ("postgresql://me@127.0.0.1:1/db?password=hush", "cannot be opened"),
    ],
)
def test_a_storage_that_does_not_do_is_refused_without_its_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], storage: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        opening.opened(plan(tmp_path, f"sweep.storage='{storage}'"))
    assert "hush" not in str(refusal.value)
    assert "hush" not in "".join(capsys.readouterr())
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or "hush" not in file.read_text()


def test_the_password_may_stand_in_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "postgresql://me:hush@host/db"
    monkeypatch.setenv(storages.VARIABLE, secret)
    assert storages.address(None) == secret
    assert storages.address("postgresql://me@host/db") == secret
    assert storages.address("postgresql://me@other/db") == "postgresql://me@other/db"
    monkeypatch.delenv(storages.VARIABLE)
    assert storages.address(None) is None


def test_two_objectives_make_a_front_and_prune_nothing(tmp_path: Path) -> None:
    two = ["sweep.objective=[score,seconds]", "pruner.name=NopPruner", "n_trials=3"]
    store = opening.opened(plan(tmp_path, *two))
    for values in ([0.9, 100.0], [0.8, 50.0], [0.7, 60.0]):
        task = store.next()
        assert task is not None
        assert store.report(task.number, 0, 0.1) is False
        store.end(task, completed(values))
    now = store.snapshot()
    assert now.best is None
    assert sorted(now.front) == [0, 1]
    assert store.trials()[0].intermediate_values == {0: 0.1}


def test_the_pruner_is_asked_at_each_epoch(tmp_path: Path) -> None:
    store = opening.opened(plan(tmp_path, "pruner.name=MedianPruner", "pruner.args={n_startup_trials: 1}"))
    good, bad = store.next(), store.next()
    assert good is not None
    assert bad is not None
    assert store.report(good.number, 0, 0.9) is False
    store.end(good, completed([0.9]))
    assert opening.reopened(store.folder).report(bad.number, 0, 0.5) is True
    assert store.report(bad.number, 0, 0.5) is True  # an epoch may be reported again
    store.end(bad, pruned())
    assert store.trials()[1].state == TrialState.PRUNED


def test_a_running_trial_is_shown_with_its_last_epoch(tmp_path: Path) -> None:
    store = opening.opened(plan(tmp_path))
    task = store.next("slot 1")
    assert task is not None
    assert store.snapshot().running[0].epoch is None
    store.note(task.number, {"epochs": 9, "phases": [0, 3]})
    store.report(task.number, 0, 0.5)
    store.report(task.number, 1, 0.6)
    (running,) = store.snapshot().running
    assert (running.number, running.epoch, running.epochs, running.score, running.worker) == (0, 1, 9, 0.6, "slot 1")


def test_nothing_secret_is_kept_of_a_plan_with_a_password(tmp_path: Path) -> None:
    from ddtl.sweeps import plan_file

    asked: Plan = plan(tmp_path, "sweep.storage='postgresql://me:hush@host/db'")
    kept = plan_file.without_password(asked)
    kept.folder.mkdir(parents=True)
    plan_file.write(kept)
    text = (kept.folder / plan_file.NAME).read_text()
    assert "hush" not in text + repr(kept)
    assert json.loads(text)["settings"]["sweep"]["storage"] == "postgresql://me@host/db"
