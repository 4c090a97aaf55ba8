"""The journal: torn lines, damaged lines, killed and crowded writers, full disks."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings as setting, strategies as st
from optuna.storages.journal import JournalFileBackend

from ddtl.records import journal as record
from ddtl.sweeps.store import journal
from ddtl.utils.errors import UserError
from tests.support.sweep_plans import ROOT

optuna.logging.set_verbosity(optuna.logging.WARNING)


def study(path: Path) -> optuna.Study:
    return optuna.create_study(study_name="s", storage=journal.storage(path), load_if_exists=True)


def filled(path: Path, trials: int = 3) -> bytes:
    """A journal of a few trials; its bytes."""
    made = study(path)
    for number in range(trials):
        made.tell(made.ask(), float(number))
    return path.read_bytes()


def values(path: Path) -> list[float | None]:
    """As Optuna itself reads them."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    return [trial.value for trial in optuna.load_study(study_name="s", storage=storage).get_trials()]


@setting(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(min_value=1))
def test_wherever_a_line_is_cut_off_the_rest_is_read_and_written_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal.log"
    path.unlink(missing_ok=True)
    (tmp_path / "journal.torn").unlink(missing_ok=True)
    whole = filled(path)
    last = whole.rstrip(b"\n").rpartition(b"\n")[2]
    kept = 1 + cut % (len(last) - 1)
    path.write_bytes(whole[: -len(last) - 1 + kept])  # the line that told the last value
    news = journal.repair(path)
    assert news is not None
    assert "journal.torn" in news
    assert json.loads((tmp_path / "journal.torn").read_text())["torn"].encode() == last[:kept]
    assert path.read_bytes() == whole[: -len(last) - 1]
    study(path).tell(2, 7.0)
    assert values(path) == [0.0, 1.0, 7.0]


def test_a_whole_journal_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    whole = filled(path)
    assert journal.repair(path) is None
    assert path.read_bytes() == whole
    assert not (tmp_path / "journal.torn").exists()


def test_no_journal_is_no_fault(tmp_path: Path) -> None:
    assert journal.repair(tmp_path / "journal.log") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "bad", [b"{", b"", b"\x00\x00\x00", b"[1]", b'{"no": "operation"}', b'{"op_code": 1}{"op_code"']
)
@pytest.mark.parametrize("tail", [b"", b'{"op_co'])
def test_any_other_bad_line_stops_with_its_number_and_changes_nothing(tmp_path: Path, bad: bytes, tail: bytes) -> None:
    path = tmp_path / "journal.log"
    lines = filled(path).splitlines()
    lines[2] = bad
    damaged = b"\n".join(lines) + b"\n" + tail
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"journal\.log, line 3: is damaged"):
        journal.repair(path)
    assert path.read_bytes() == damaged
    assert not (tmp_path / "journal.torn").exists()


def test_a_last_line_that_is_damaged_but_whole_is_not_taken_for_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    lines = len(filled(path).splitlines())
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "trial_\n')
    with pytest.raises(UserError, match=f"line {lines + 1}"):
        journal.repair(path)


def test_what_a_killed_neighbour_tore_does_not_spoil_what_is_written_next(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    filled(path)
    made = study(path)
    trial = made.ask()
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"trial')
    made.tell(trial, 3.0)
    assert values(path) == [0.0, 1.0, 2.0, 3.0]
    assert json.loads((tmp_path / "journal.torn").read_text())["torn"] == '{"op_code":4,"trial'


def test_a_tail_longer_than_what_is_read_at_once_is_found_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    whole = filled(path)
    torn = b'{"op_code":8,"user_attr":"' + b"x" * 200_000
    path.write_bytes(whole + torn)
    study(path).set_user_attr("a", 1)
    assert path.read_bytes().startswith(whole + b'{"op_code"')
    assert json.loads((tmp_path / "journal.torn").read_text())["torn"].encode() == torn


def test_optuna_alone_would_have_lost_the_study(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    filled(path)
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"trial')
    plain = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    made = optuna.load_study(study_name="s", storage=plain)
    made.set_user_attr("a", 1)
    with pytest.raises(ValueError, match="Expecting"):
        made.set_user_attr("b", 1)
    with pytest.raises(ValueError, match="Expecting"):
        values(path)


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.log"
    filled(path)
    made = study(path)
    whole = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        made.set_user_attr("a", "x" * 100)
    monkeypatch.undo()
    assert path.read_bytes() == whole
    made.set_user_attr("b", 1)
    assert made.user_attrs == {"b": 1}


def test_the_lock_of_a_killed_writer_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.log"
    made = study(path)
    (tmp_path / "journal.log.lock").touch()
    # Optuna's own waits for 30 seconds.
    impatient = SimpleNamespace(**vars(time) | {"sleep": lambda _: pytest.fail("it waits")})
    monkeypatch.setattr("optuna.storages.journal._file.time", impatient)
    made.set_user_attr("a", 1)
    assert not (tmp_path / "journal.log.lock").exists()


@pytest.mark.slow
def test_the_lock_of_a_writer_with_optunas_own_storage_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    made = study(path)
    other = optuna.storages.journal.JournalFileSymlinkLock(str(path))
    other.acquire()
    code = (
        "import sys, pathlib; from ddtl.sweeps.store import journal; import optuna;"
        "study = optuna.load_study(study_name='s', storage=journal.storage(pathlib.Path(sys.argv[1])));"
        "print('ready', flush=True); study.set_user_attr('a', 1)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    with pytest.raises(subprocess.TimeoutExpired):
        writer.wait(timeout=2)
    assert "a" not in made.user_attrs
    other.release()
    assert writer.wait(timeout=300) == 0
    assert made.user_attrs == {"a": 1}


_WRITER = """
import pathlib, sys
import optuna
from ddtl.sweeps.store import journal
optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.load_study(study_name="s", storage=journal.storage(pathlib.Path(sys.argv[1])))
print("ready", flush=True)
number, enough = 0, pathlib.Path(sys.argv[1] + ".enough")
while number < int(sys.argv[3]) or (sys.argv[3] == "0" and not enough.exists()):
    study.set_user_attr(sys.argv[2], number)
    number += 1
print(number)
"""


def writer(path: Path, name: str, times: int = 0) -> subprocess.Popen[Any]:
    """Write ``times`` values of an attribute ``name``, 0 for as long as there is no PATH.enough."""
    command = [sys.executable, "-c", _WRITER, str(path), name, str(times)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_a_living_writers_line_is_never_taken_for_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    study(path)
    with writer(path, "a") as one:
        before = path.stat().st_size
        for _ in range(20):
            assert journal.repair(path) is None
        while path.stat().st_size == before:
            assert one.poll() is None
            assert journal.repair(path) is None
        (tmp_path / "journal.log.enough").touch()
        assert one.stdout is not None
        written = int(one.stdout.read())
    assert one.returncode == 0
    assert study(path).user_attrs == {"a": written - 1}


def test_killed_in_the_middle_of_writing_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    study(path)
    survivor = writer(path, "survivor", 100)
    for round_ in range(2):
        victim = writer(path, f"victim {round_}")
        time.sleep(0.2)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        assert victim.stdout is not None
        victim.stdout.close()
    with survivor:
        assert survivor.wait(timeout=300) == 0
    journal.repair(path)
    assert study(path).user_attrs["survivor"] == 99


@pytest.mark.parametrize("change", ["first", "middle", "two", "edited", "doubled"])
def test_a_line_that_was_removed_before_others_is_noticed(tmp_path: Path, change: str) -> None:
    """Optuna numbers trials by their lines: without one, the others' values would be taken for its."""
    path = tmp_path / "journal.log"
    lines = filled(path).splitlines(keepends=True)
    at = {"first": 0, "two": 3}.get(change, 4)
    removed = lines[:at] + lines[at + (2 if change == "two" else 1) :]
    if change == "edited":
        removed = [*lines[:at], lines[at].replace(b'"op_code":', b'"op_code": '), *lines[at + 1 :]]
    if change == "doubled":
        removed = [*lines[: at + 1], *lines[at:]]
    path.write_bytes(b"".join(removed))
    with pytest.raises(UserError, match=r"journal\.log: lines before line \d+ were removed or changed"):
        journal.repair(path)
    assert path.read_bytes() == b"".join(removed)


def test_a_journal_that_others_wrote_in_is_whole(tmp_path: Path) -> None:
    """An earlier version, and Optuna's dashboard, say nothing of where their lines begin."""
    path = tmp_path / "journal.log"
    backend = JournalFileBackend(str(path))
    theirs = optuna.create_study(study_name="s", storage=optuna.storages.JournalStorage(backend))
    theirs.tell(theirs.ask(), 0.5)
    ours = optuna.load_study(study_name="s", storage=journal.storage(path))
    ours.tell(ours.ask(), 1.5)
    theirs.set_user_attr("note", "by hand")
    ours.set_user_attr("a", 1)
    assert journal.repair(path) is None
    assert [trial.value for trial in theirs.get_trials()] == [0.5, 1.5]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(UserError, match="were removed or changed"):
        journal.repair(path)


def test_what_is_written_is_what_a_record_may_hold(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    filled(path)
    record.check(path)
    with path.open("ab") as file:
        file.write(b'{"op_code": 99, "worker_id": "x"}\n')
    with pytest.raises(UserError, match="op_code is none that ddtl knows"):
        record.check(path)


def test_a_pipe_in_its_place_makes_nobody_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "journal.log")
    with pytest.raises((UserError, OSError)):
        journal.repair(tmp_path / "journal.log")
