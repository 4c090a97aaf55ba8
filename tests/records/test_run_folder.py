"""Who may work in a run's folder, and what a crash leaves of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ddtl.records import run_folder
from ddtl.records.run_folder import RunFolder, open_run
from ddtl.utils import processes
from ddtl.utils.errors import UserError
from ddtl.utils.files import write_json
from tests.support import records

IDENTITY = {"dataset.digest": "d", "seed": 1}
OTHER = {"dataset.digest": "d", "seed": 2}

OWNER = """
import os, sys, time
from pathlib import Path
from ddtl.records.run_folder import open_run
path = Path(sys.argv[1])
with open_run(path, {"dataset.digest": "d", "seed": 1}, False):
    if sys.argv[2] == "with a worker":  # of a DataLoader, which holds what its parent held for as long as it lives
        fds = Path("/proc/self/fd").iterdir()
        lock = next(fd for fd in fds if os.path.realpath(fd) == str((path / ".lock").resolve()))
        os.dup(int(lock.name))
        if os.fork() == 0:
            until = time.monotonic() + 600
            while not Path(sys.argv[3]).exists() and time.monotonic() < until:
                time.sleep(0.02)
            os._exit(0)
    print("open", flush=True)
    time.sleep(600)
"""


@contextmanager
def owner(path: Path, worker: str = "alone") -> Iterator[subprocess.Popen[str]]:
    """Another process that owns the folder; a worker of it lives until there is a file ``end_of(path)``."""
    command = [sys.executable, "-c", OWNER, str(path), worker, str(end_of(path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            process.kill()
            end_of(path).touch()


def end_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.end")


def instead_of_waiting(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Do something each time that the start of a run waits."""

    def sleep(seconds: float) -> None:
        do()
        time.sleep(seconds)

    monkeypatch.setattr(run_folder, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))


def contents(path: Path) -> dict[str, str]:
    """Every file but the lock and its owner."""
    files = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return {str(file.relative_to(path)): file.read_text() for file in files}


def make_run(path: Path) -> RunFolder:
    """The folder of a finished run."""
    with open_run(path, IDENTITY, overwrite=False) as folder:
        for file in (folder.config, folder.metrics, folder.last, folder.best, folder.predictions):
            file.write_text(file.name)
        write_json(folder.results, records.record(records.table()))
    return folder


def test_a_new_folder_holds_the_identity_and_no_owner_afterwards(tmp_path: Path) -> None:
    with open_run(tmp_path / "a" / "b", IDENTITY, overwrite=False) as folder:
        assert json.loads(folder.identity.read_text()) == IDENTITY
        assert folder.last.parent.is_dir()
        assert folder.finished() is None
    assert contents(folder.path).keys() == {"identity.json"}
    assert not (folder.path / ".owner.json").exists()


def test_a_run_is_resumed_with_and_finished_with_its_results(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    with open_run(tmp_path / "a", IDENTITY, overwrite=False) as folder:
        assert folder.finished() == json.loads(json.dumps(records.record(records.table())))
        assert folder.last.read_text() == "last.ckpt"


def test_nothing_is_made_before_the_block_begins(tmp_path: Path) -> None:
    open_run(tmp_path / "a" / "b", IDENTITY, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "a")
    instead_of_waiting(monkeypatch, lambda: pytest.fail("it waits"))
    before = contents(tmp_path / "a")
    with owner(tmp_path / "a") as process:
        for overwrite in (False, True):
            with (
                pytest.raises(UserError, match=rf"in use by another process \(process {process.pid} on ") as raised,
                open_run(tmp_path / "a", IDENTITY, overwrite=overwrite),
            ):
                pass
            assert "\n" not in str(raised.value)
        assert contents(tmp_path / "a") == before
        assert json.loads((tmp_path / "a" / ".owner.json").read_text())["pid"] == process.pid


def test_a_killed_process_leaves_the_folder_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with owner(tmp_path / "a") as process:
        process.kill()
        process.wait()
        instead_of_waiting(monkeypatch, lambda: pytest.fail("it waits"))
        with open_run(tmp_path / "a", IDENTITY, overwrite=False):
            pass


linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


@linux
def test_the_next_start_waits_for_the_workers_of_a_killed_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with owner(tmp_path / "a", "with a worker") as process:
        with pytest.raises(UserError), open_run(tmp_path / "a", IDENTITY, overwrite=False):
            pass
        process.kill()
        process.wait()
        instead_of_waiting(monkeypatch, end_of(tmp_path / "a").touch)
        with open_run(tmp_path / "a", IDENTITY, overwrite=False):
            assert end_of(tmp_path / "a").exists(), "it has waited"


@linux
def test_it_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "_WORKERS_NOTICE", 0.5)
    with owner(tmp_path / "a", "with a worker") as process:
        process.kill()
        process.wait()
        with pytest.raises(UserError, match="in use"), open_run(tmp_path / "a", IDENTITY, overwrite=False):
            pass


def test_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    before = contents(tmp_path / "a")
    with (
        pytest.raises(UserError, match=r"contains another run") as raised,
        open_run(tmp_path / "a", OTHER | {"model.name": "densenet121"}, overwrite=False),
    ):
        pass
    lines = str(raised.value).split("\n")[1:-1]
    assert lines == ["  model.name: was (absent), is densenet121", "  seed: was 1, is 2"]
    assert contents(tmp_path / "a") == before
    with open_run(tmp_path / "a", IDENTITY, overwrite=False):
        pass


def test_overwrite_starts_again_and_follows_no_link(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "last.ckpt").write_text("precious")
    (folder.path / "link").symlink_to(tmp_path / "elsewhere")
    (folder.path / "checkpoints" / "link").symlink_to(tmp_path / "elsewhere")
    (folder.path / "dangling").symlink_to(tmp_path / "nowhere")
    with open_run(folder.path, OTHER, overwrite=True):
        assert contents(folder.path).keys() == {"identity.json"}
        assert json.loads(folder.identity.read_text()) == OTHER
    assert (tmp_path / "elsewhere" / "last.ckpt").read_text() == "precious"


def test_overwrite_of_checkpoints_that_lie_behind_a_link(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    (folder.path / "checkpoints").rename(tmp_path / "elsewhere")
    (folder.path / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with open_run(folder.path, IDENTITY, overwrite=True):
        assert not folder.last.exists()
    assert (tmp_path / "elsewhere" / "last.ckpt").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("file", ["thesis.tex", ".hidden", "identity.json"])
def test_a_folder_that_is_no_runs_is_left_as_it_is(tmp_path: Path, file: str, overwrite: bool) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / file).write_text('{"name": "mine"}')
    (tmp_path / "a" / "sub").mkdir()
    with pytest.raises(UserError, match="not the folder of a run"), open_run(tmp_path / "a", IDENTITY, overwrite):
        pass
    assert {child.name for child in (tmp_path / "a").iterdir()} == {file, "sub"}
    assert (tmp_path / "a" / file).read_text() == '{"name": "mine"}'


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_its_place(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(UserError, match="not the folder of a run"), open_run(tmp_path / "a", IDENTITY, overwrite):
        pass
    with pytest.raises(UserError, match=r"paths\.runs_dir"), open_run(tmp_path / "a" / "b", IDENTITY, overwrite):
        pass
    assert (tmp_path / "a").read_text() == "mine"


def test_a_folder_that_cannot_be_locked(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    (tmp_path / "a" / ".lock").unlink()
    (tmp_path / "a" / ".lock").mkdir()
    with pytest.raises(UserError, match="cannot write there"), open_run(tmp_path / "a", IDENTITY, overwrite=False):
        pass


def test_an_error_inside_frees_the_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path / "a", IDENTITY, overwrite=False):
        raise KeyboardInterrupt
    with owner(tmp_path / "a"):
        pass


_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def killed_before_change(number: int, work: Callable[[], None]) -> bool:
    """Do the work in a child that is killed before its n-th change to the file system; False if it got through."""
    pid = os.fork()
    if pid == 0:
        left = number

        def hook(event: str, args: tuple[object, ...]) -> None:
            nonlocal left
            if event in _CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & 3):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            sys.addaudithook(hook)
            work()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def start(path: Path, identity: dict[str, object], overwrite: bool) -> Callable[[], None]:
    def work() -> None:
        with open_run(path, identity, overwrite):
            pass

    return work


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@needs_fork
def test_a_kill_at_any_moment_of_the_first_start(tmp_path: Path) -> None:
    number = 1
    while killed_before_change(number, start(tmp_path / str(number), IDENTITY, False)):
        with open_run(tmp_path / str(number), IDENTITY, overwrite=False) as folder:
            assert json.loads(folder.identity.read_text()) == IDENTITY
        number += 1
    assert number > 8


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("identity", [IDENTITY, OTHER])
def test_a_kill_at_any_moment_of_overwriting(tmp_path: Path, identity: dict[str, object]) -> None:
    number = 1
    while True:
        folder = make_run(tmp_path / str(number))
        before = contents(folder.path)
        if not killed_before_change(number, start(folder.path, identity, True)):
            break
        left = contents(folder.path)
        if "results.json" in left:  # still finished, so still whole
            assert left == before
        if "checkpoints/last.ckpt" in left:  # gone on with, so it needs the rest
            assert left.keys() >= before.keys() - {"results.json"}
        if "identity.json" in left and json.loads(left["identity.json"]) == IDENTITY:
            with open_run(folder.path, IDENTITY, overwrite=False):
                pass
        with open_run(folder.path, identity, overwrite=True):
            assert contents(folder.path).keys() == {"identity.json"}
        number += 1
    assert number > 12


def test_a_number_that_another_process_has_now_keeps_no_run_in_use(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    path = tmp_path / "run" / run_folder.OWNER

    def in_use(owner: dict[str, Any], written: float = 0.0) -> bool:
        path.write_text(json.dumps(owner))
        os.utime(path, (time.time() - written,) * 2)
        found = run_folder.owner_of(tmp_path / "run")
        assert found is not None
        return run_folder.alive(found)

    with owner(tmp_path / "other") as process:
        now = processes.process(process.pid)
        assert in_use(now)
        assert not in_use({**now, "started": "1"}), "the number was given to another process since"
        assert not in_use({**now, "place": "another boot pid:[1]"}), "the machine was started again since"
        assert in_use({**now, "host": "elsewhere"}), "cannot be seen from here"
        before = {"pid": process.pid, "host": now["host"]}  # as earlier versions wrote it
        assert in_use(before)
        assert not in_use(before, written=3600), "the process began after that was written"
    assert not in_use(now)
    assert not in_use(before)
