"""How commands end when their terminal is gone, and that one mistake is one message."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ddtl.audits import fingerprints
from ddtl.commands import launch
from ddtl.data.manifest import Sample
from ddtl.utils import console, signals
from ddtl.utils.errors import TrainingFailure
from tests.support import fork_server
from tests.support.runs import ROOT, small, wait_for_epochs

TINY = (
    "model=squeezenet1_1",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_batches=2",
    "dataset.num_workers=1",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "streams"),
    [
        ("train.py", "2>/dev/full"), ("train.py", "2>&- >&- <&-"), ("sweep.py", "2>&- >&- <&-"),
    ],
)  # fmt: skip
def test_a_terminal_that_takes_nothing_does_not_end_a_training(tmp_path: Path, script: str, streams: str) -> None:
    words = small(tmp_path, *TINY, *(("seed=0,1",) if script == "sweep.py" else ()))
    line = shlex.join([sys.executable, str(ROOT / script), *words])
    done = subprocess.run(f"{line} {streams}", shell=True, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert len(list(tmp_path.glob("phantom/squeezenet*/results.json"))) == (2 if script == "sweep.py" else 1)


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [False, True])
def test_a_hang_up_says_how_to_resume_and_nothing_else(tmp_path: Path, whole_group: bool) -> None:
    words = small(tmp_path, *TINY, "trainer.max_epochs=500", "dataset.num_workers=2")
    line = [sys.executable, str(ROOT / "train.py"), *words]
    with fork_server.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        wait_for_epochs(tmp_path, process, 1)
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGHUP)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGHUP
    assert err.endswith(f"stopped by signal 1; the same command resumes it:\n  {shlex.join(line)}\n")
    assert "Traceback" not in err


DELETED = """\
import os, signal, sys, time
from ddtl.commands.launch import guarded
class Slow:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        time.sleep(0.2)
def main(argv):
    Slow()
    time.sleep(20)
    return 0
sys.exit(guarded(main, []))
"""


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGTERM"])
def test_a_signal_is_not_lost_while_an_object_is_deleted(name: str) -> None:
    """As at the end of each epoch, where the loader's processes are ended."""
    code = DELETED.replace("{name}", name)
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    assert done.returncode == 128 + getattr(signal, name)
    assert "the same command resumes it" in done.stderr
    assert "Traceback" not in done.stderr


FORKED = """\
import multiprocessing, os, signal, sys, time
from ddtl.commands.launch import guarded
pinned = []
def before():
    os.kill(os.getpid(), signal.{name})
    time.sleep(0.2)
    pinned.append(1)
def main(argv):
    os.register_at_fork(before=before, after_in_parent=lambda: pinned.pop(), after_in_child=lambda: pinned.pop())
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0.1,), daemon=True)
    child.start()
    time.sleep(20)
    return 0
sys.exit(guarded(main, []))
"""


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGTERM"])
def test_a_signal_waits_while_a_process_is_forked(name: str) -> None:
    """Libraries keep a list of their own around a fork, which an exception in between would leave askew."""
    code = FORKED.replace("{name}", name)
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    assert done.returncode == 128 + getattr(signal, name)
    assert "the same command resumes it" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP])
def test_decoding_processes_leave_a_signal_to_their_command(signum: int) -> None:
    with signals.held():
        child = subprocess.Popen([sys.executable, "-c", "print(1, flush=True); input()"], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signum)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)
    child.kill()
    child.communicate()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()).isdisjoint({signal.SIGINT, signal.SIGHUP})


def _end(data: bytes, gray: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_decoding_process_that_is_killed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setattr(fingerprints, "_FEW", 2)
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    samples = [Sample(str(i), tmp_path / "a.png", 0) for i in range(4)]
    with pytest.raises(TrainingFailure, match="a process that decodes images was ended"):
        list(fingerprints._read_all(samples, 2, _end))


def test_a_thread_that_the_machine_denies_something_says_so_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: Exception) -> None:
        raise error

    before = threading.excepthook
    threading.excepthook = launch._in_a_thread
    console.renew()
    try:
        for error in (
            OSError(28, "No space left on device", "x"),
            EOFError("end"),
            ZeroDivisionError("ours"),
        ):
            thread = threading.Thread(target=fail, args=(error,), name="saver")
            thread.start()
            thread.join()
    finally:
        threading.excepthook = before
        console.renew()
    err = capsys.readouterr().err
    assert "warning: the thread saver has ended: x: No space left on device\n" in err
    assert err.count("Traceback") == 1
    assert "ZeroDivisionError" in err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            PermissionError(13, "Permission denied", "/root/x"), 2,
            "error: /root/x: this user may not use it (Permission denied). Give this user the right to, or name "
            "another place.\n",
        ),
        (OSError(28, "No space left on device", "x"), 1, "error: x: No space left on device\n"),
    ],
)  # fmt: skip
def test_what_this_user_may_not_do_is_a_mistake_of_the_command(
    error: OSError, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: object) -> int:
        raise error

    console.renew()
    try:
        assert launch._code_of(main, []) == code
    finally:
        console.renew()
    assert capsys.readouterr().err == line
