"""A sweep in a real PostgreSQL database: several workers, dead ones, signs of life, a lost connection, the password."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddtl.sweeps.store import open, record, storages
from ddtl.sweeps.store.outcome import completed
from ddtl.utils.errors import UserError
from tests.support import fork_server, postgres
from tests.support.runs import ROOT, small
from tests.support.sweep_plans import ELSEWHERE, SEARCH, ended, gone, orphaned, plan, reasons, states, workers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="ddtl-postgres-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        with postgres.server(folder / "server") as found:
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_several_workers_share_the_trials_out(tmp_path: Path, url: str) -> None:
    store = open.open_sweep(plan(tmp_path, f"sweep.storage='{url}'", "sweep.name=several", "n_trials=30"), workers=3)
    done = workers(store.folder, 3, **store.environment)
    assert sorted(number for numbers in done for number in numbers) == list(range(30))
    assert states(store) == {"COMPLETE": 30}
    assert store.snapshot().best == (29, (0.29,))
    store.close()


def test_workers_that_die_leave_their_trials_to_the_others(tmp_path: Path, url: str) -> None:
    words = [f"sweep.storage='{url}'", "sweep.name=dying", "n_trials=8", "sweep.retries=100"]
    store = open.open_sweep(plan(tmp_path, *words))
    for _ in range(20):
        if not store.snapshot().left:
            break
        workers(store.folder, 2, "dies", **store.environment)
    assert states(store) == {"COMPLETE": 8}
    store.close()


def test_the_database_knows_whose_signs_of_life_have_stopped(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storages, "HEARTBEAT_SECONDS", 1)
    asked = plan(tmp_path, f"sweep.storage='{url}'", "sweep.name=silent", "n_trials=2")
    here = open.open_sweep(asked)
    living = here.next()  # this one's heart goes on beating
    assert living is not None
    set_back(url, living.trial_id, 2 * storages.STALE_SECONDS)
    until = time.monotonic() + 120
    while (here._place.silence(living.trial_id) or 0.0) > storages.STALE_SECONDS:
        assert time.monotonic() < until, "no heartbeat comes"
        time.sleep(0.1)
    there = open.open_sweep(asked)
    silent = there.next()
    assert silent is not None
    there._closed.set()
    for number in (0, 1):
        orphaned(here, number, ELSEWHERE)
    assert here.next() is None
    set_back(url, silent.trial_id, 2 * storages.STALE_SECONDS)
    again = here.next()
    assert again is not None
    assert (again.number, again.attempt) == (1, 2)
    assert states(here) == {"RUNNING": 2}
    here.close()
    there.close()


def set_back(url: str, trial: int, seconds: float) -> None:
    """Set back the time of a trial's last heartbeat."""
    from sqlalchemy import create_engine, text

    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        what = "UPDATE trial_heartbeats SET heartbeat = heartbeat - make_interval(secs => :by) WHERE trial_id = :trial"
        assert connection.execute(text(what), {"by": seconds, "trial": trial}).rowcount == 1
    engine.dispose()


def test_a_sweep_resumes_and_refuses_another_as_in_a_file(tmp_path: Path, url: str) -> None:
    words = [f"sweep.storage='{url}'", "sweep.name=goes-on"]
    store = open.open_sweep(plan(tmp_path, *words))
    task = store.next()
    assert task is not None
    orphaned(store, 0, gone())
    store.close()
    after = open.open_sweep(plan(tmp_path, *words))
    told = ended(after)
    assert list(told) == list(range(6))
    assert told[0] == task.overrides
    assert reasons(after, 0) == ["killed", "completed"]
    with pytest.raises(UserError, match="seed: was 0, is 1"):
        open.open_sweep(plan(tmp_path / "elsewhere", *words, "sweep.seed=1"))
    after.close()


def test_a_lost_connection_is_made_again(tmp_path: Path, url: str) -> None:
    from sqlalchemy import create_engine, text

    store = open.open_sweep(plan(tmp_path, f"sweep.storage='{url}'", "sweep.name=lost"))
    task = store.next()
    assert task is not None
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = :user"
    with engine.begin() as connection:
        connection.execute(text(others), {"user": "sweeper"})
    engine.dispose()
    store.end(task, completed([0.5]))
    assert states(store) == {"COMPLETE": 1}
    store.close()


def test_the_same_seed_gives_the_same_trials_as_a_file(tmp_path: Path, url: str) -> None:
    store = open.open_sweep(plan(tmp_path / "database", f"sweep.storage='{url}'", "sweep.name=same", "n_trials=12"))
    ours = {number: words[:2] for number, words in ended(store).items()}
    theirs = ended(open.open_sweep(plan(tmp_path / "file", "n_trials=12")))
    assert ours == {number: words[:2] for number, words in theirs.items()}
    store.close()


def test_the_password_reaches_neither_disk_nor_terminal(
    tmp_path: Path, url: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    password = _password(url)
    store = open.open_sweep(plan(tmp_path, f"sweep.storage='{url}'", "sweep.name=secret", "n_trials=2"))
    workers(store.folder, 1, **store.environment)
    assert states(store) == {"COMPLETE": 2}
    assert password in store.environment[storages.VARIABLE]
    assert password not in repr(store.plan)
    assert password not in "".join(capfd.readouterr())
    record.write(store)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 1
    assert not [file for file in files if password.encode() in file.read_bytes()]
    wrong = url.replace(password, "some-other-word")
    with pytest.raises(UserError, match="cannot be opened") as refusal:
        open.open_sweep(plan(tmp_path, f"sweep.storage='{wrong}'", "sweep.name=secret", "n_trials=2"))
    assert "some-other-word" not in str(refusal.value)
    monkeypatch.delenv(storages.VARIABLE)
    with pytest.raises(UserError, match="cannot be opened"):
        open.reopen(store.folder)
    store.close()


def test_a_whole_sweep_leaves_no_password_anywhere(tmp_path: Path, url: str) -> None:
    shared = small(tmp_path, "model=squeezenet1_1", "model.weights=none", "trainer=cpu", "finetune=full")
    words = [*SEARCH, *(word for word in shared if not word.startswith("dataset.batch_size="))]
    words += ["n_trials=2", "engine.workers=1", "sweep.seeds=2", "sweep.name=whole", f"sweep.storage='{url}'"]
    command = [sys.executable, str(ROOT / "sweep.py"), *words]
    done = fork_server.run(command, capture_output=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads((tmp_path / "sweeps" / "whole" / "sweep.json").read_text())
    assert found["counts"]["complete"] == 2
    password = _password(url).encode()
    assert password not in done.stdout + done.stderr
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.name == "environment.json" for file in files)
    assert [file for file in files if password in file.read_bytes()] == []


def _password(url: str) -> str:
    return url.partition(":")[2].partition(":")[2].partition("@")[0]
