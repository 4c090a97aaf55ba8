"""Whatever happens to a trial: it is recorded with its reason, and the sweep goes on, or stops with a clear word."""

from __future__ import annotations

import errno
import faulthandler
import os
import signal
import time
from pathlib import Path
from typing import NoReturn

import pytest

from ddtl.sweeps.store import outcome
from ddtl.sweeps.store.outcome import Outcome
from ddtl.sweeps.workers import processes
from ddtl.sweeps.workers.trial import TrialJob, explain_failure
from ddtl.utils.errors import NotFinite, TrainingFailure, UserError
from tests.support.sweep_trials import attempts, instead, states, worked


def kill_myself(job: TrialJob) -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def crash(job: TrialJob) -> Outcome:
    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


def leave(job: TrialJob) -> NoReturn:
    os._exit(7)


def sleep(job: TrialJob) -> Outcome:
    time.sleep(600)
    raise AssertionError


def sleep_soundly(job: TrialJob) -> Outcome:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return sleep(job)


def raises(error: BaseException):
    def body(job: TrialJob) -> Outcome:
        raise error

    return body


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        (crash, "error", "crashed by SIGSEGV"),
        (leave, "error", "ended with exit code 7"),
        (sleep, "time_limit", "was not done after 0.01 minutes (sweep.trial_minutes)"),
        (sleep_soundly, "time_limit", "sweep.trial_minutes"),
        (raises(MemoryError()), "out_of_memory", "MemoryError"),
        (raises(RuntimeError("DefaultCPUAllocator: can't allocate memory")), "out_of_memory", "can't allocate"),
        (raises(NotFinite("the loss became nan")), "nan", "the loss became nan"),
        (raises(UserError("no such weights")), "error", "no such weights"),
        (raises(ZeroDivisionError("a\nlast line")), "error", "last line"),
        (raises(SystemExit(3)), "error", "SystemExit: 3"),
    ],
)
def test_a_failed_trial_has_a_reason_and_the_next_one_runs(monkeypatch, tmp_path, body, reason, words):
    instead(monkeypatch, lambda job: body(job) if job.number == 0 else outcome.completed([0.5]))
    age = processes.TrialProcess.age
    # The next one may take as long as it likes: a machine may stall for longer than the limit.
    monkeypatch.setattr(processes.TrialProcess, "age", lambda self: age(self) if self.job.number == 0 else 0.0)
    store, problem = worked(
        tmp_path, "n_trials=2", "sweep.trial_minutes=0.01" if reason == "time_limit" else "n_trials=2"
    )
    assert problem is None
    assert states(store) == ["FAIL", "COMPLETE"]
    [(found, said)] = attempts(store)
    assert found == reason
    assert words in said


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_killed_trial_is_resumed_with(monkeypatch, tmp_path, signum):
    def killed_once(job: TrialJob) -> Outcome:
        first = job.log.with_suffix(".first")
        if not first.exists():
            first.touch()
            if signum == signal.SIGHUP:
                signal.signal(signum, signal.SIG_DFL)  # which nohup has the tests ignore
            os.kill(os.getpid(), signum)
            time.sleep(600)
        return outcome.completed([0.5])

    instead(monkeypatch, killed_once)
    store, _ = worked(tmp_path, "n_trials=1")
    assert states(store) == ["COMPLETE"]
    assert [reason for reason, _ in attempts(store)] == ["killed", "completed"]


def test_a_trial_that_is_always_killed_fails_in_the_end(monkeypatch, tmp_path):
    instead(monkeypatch, kill_myself)
    store, problem = worked(tmp_path, "n_trials=1", "sweep.retries=2")
    assert problem is None
    assert states(store) == ["FAIL"]
    assert store.trials()[0].user_attrs["words"].startswith("killed 3 times; at last: ended by SIGKILL")


def test_a_full_disk_stops_the_sweep_and_the_same_command_resumes(monkeypatch, tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")

    def unwritable(job: TrialJob) -> Outcome:
        raise TrainingFailure("could not write last.ckpt: No space left on device. Make room.") from full

    instead(monkeypatch, unwritable)
    store, problem = worked(tmp_path, "n_trials=3")
    assert problem is not None
    assert problem.startswith("the disk is full: could not write last.ckpt")
    assert states(store) == ["WAITING"]
    (tmp_path / "stop").unlink()

    instead(monkeypatch, lambda job: outcome.completed([0.5]))
    store, problem = worked(tmp_path, "n_trials=3")
    assert problem is None
    assert states(store) == ["COMPLETE"] * 3
    assert [reason for reason, _ in attempts(store)] == ["disk_full", "completed"]


def test_a_disk_too_full_for_the_store_stops_with_a_word_and_leaves_no_process(monkeypatch, tmp_path):
    instead(monkeypatch, sleep)
    from ddtl.sweeps.store.store import Store

    pids: list[int] = []

    def started(self: Store, task: object, pid: int) -> None:
        pids.append(pid)
        raise OSError(errno.ENOSPC, "No space left on device", "journal.log")

    monkeypatch.setattr(Store, "started", started)
    with pytest.raises(TrainingFailure, match=r"the disk is full: could not write journal\.log"):
        worked(tmp_path, "n_trials=1")
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_trial_after_trial_that_fails_stops_the_sweep_with_the_reasons(monkeypatch, tmp_path):
    instead(monkeypatch, raises(UserError("no such file: weights.pt")))
    store, problem = worked(tmp_path, "n_trials=6", "sweep.max_failures=3")
    assert problem is not None
    assert problem.startswith("failed trials in a row: 3 (sweep.max_failures):")
    assert problem.count("error: no such file: weights.pt") == 3
    assert states(store) == ["FAIL"] * 3


def test_failures_with_a_success_between_them_stop_nothing(monkeypatch, tmp_path):
    def every_third(job: TrialJob) -> Outcome:
        if job.number % 3:
            raise ValueError("broken")
        return outcome.completed([0.5])

    instead(monkeypatch, every_third)
    store, problem = worked(tmp_path, "n_trials=6", "sweep.max_failures=3")
    assert problem is None
    assert states(store).count("FAIL") == 4


def test_the_reason_is_found_behind_the_words_for_the_user():
    error = UserError("cannot write there. Make room.")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert explain_failure(error) == ("disk_full", "cannot write there. Make room.")
    assert explain_failure(OSError(errno.EACCES, "Permission denied"))[0] == "error"
    assert explain_failure(ValueError()) == ("error", "ValueError")


def test_what_a_trial_prints_is_in_its_log(monkeypatch, tmp_path: Path, capfd):
    def prints(job: TrialJob) -> Outcome:
        os.write(1, b"from below\n")
        raise ZeroDivisionError("why it broke")

    instead(monkeypatch, prints)
    with capfd.disabled():
        store, _ = worked(tmp_path, "n_trials=1")
    log = (store.folder / "trials" / "0.log").read_text()
    assert "from below" in log
    assert "Traceback" in log
    assert "ZeroDivisionError: why it broke" in log


def test_a_process_that_the_system_killed_for_memory_is_told_from_one_killed_by_hand(tmp_path: Path) -> None:
    assert processes._by_code(-9, tmp_path, True).end == "out_of_memory"
    assert processes._by_code(-9, tmp_path, False).end == "killed"
    assert processes._by_code(-15, tmp_path, True).end == "killed"
    assert processes.oom_kills() >= 0


def test_a_kill_for_memory_of_long_before_was_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, kills = {"now": 0.0}, {"n": 5}
    monkeypatch.setattr(processes.time, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(processes, "oom_kills", lambda: kills["n"])
    process = object.__new__(processes.TrialProcess)
    process._oom_kills = [(0.0, 5)]
    for now, n in ((1.0, 5), (2.0, 6), (3.0, 6)):
        clock["now"], kills["n"] = now, n
        process._note_oom_kills()
    assert process._oom_kills[0][1] == 5, "just now: it may be this one's"
    for now in (4.0, 5.0, 6.0):
        clock["now"] = now
        process._note_oom_kills()
    assert process._oom_kills[0][1] == 6
