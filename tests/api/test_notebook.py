"""A notebook's cell: no script, a stop button, and lines that are shown once."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import ddtl
from ddtl.api import session
from ddtl.utils import signals
from tests.support.runs import SMALL, assert_same_run

WORDS = [*SMALL, "model=squeezenet1_1", "model.weights=none"]


def test_a_setting_that_is_given_twice_is_refused() -> None:
    lr: dict[str, Any] = {"optimizer.lr": 1e-4}
    message = r"optimizer\.lr=1e-3: optimizer\.lr is given twice, as a word and as a keyword"
    for call in (ddtl.train, ddtl.sweep, partial(ddtl.study, "study=seeds"), partial(ddtl.dataset, "phantom")):
        with pytest.raises(ddtl.UserError, match=message):
            call("optimizer.lr=1e-3", **lr)
    with pytest.raises(ddtl.UserError, match="is given twice"):
        ddtl.train("optimizer.lr=1e-3", optimizer={"lr": 1e-4})
    assert session.as_typed(["seed=1"], {"optimizer.lr": 1e-4}) == ["seed=1", "optimizer.lr=0.0001"]


# As in a kernel: the main module is no file, and the stop button sends SIGINT while the cell runs.
CELLS = """
import os, signal, sys, threading, time
from pathlib import Path
sys.argv = ["ipykernel_launcher.py", "-f", "kernel.json"]
assert not hasattr(sys.modules["__main__"], "__file__")
import ddtl

runs = Path({runs!r})
words = {words!r}

def press_stop():
    while not any(runs.glob("phantom/*/checkpoints/last.ckpt")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

before = signal.getsignal(signal.SIGINT)
threading.Thread(target=press_stop, daemon=True).start()
try:
    ddtl.train(*words)
except KeyboardInterrupt as stopped:
    print("stopped:", stopped)
else:
    sys.exit("nothing was stopped")
assert signal.getsignal(signal.SIGINT) is before
assert sys.argv[0] == "ipykernel_launcher.py"
states = ddtl.runs(runs)["state"].tolist()
assert states == ["stopped"], states
run = ddtl.train(*words)
print("finished:", run.path)
"""


@pytest.mark.slow
def test_a_stopped_training_is_resumed_by_the_same_call_to_the_bit(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    runs = tmp_path / "stopped"
    words = [*WORDS, f"paths.runs_dir={runs}"]
    code = CELLS.format(runs=str(runs), words=words)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "stopped: stopped; the same call resumes it" in done.stdout
    whole = [*WORDS, f"paths.runs_dir={tmp_path / 'whole'}"]
    script = f"import ddtl; ddtl.train(*{whole!r})"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, env=environment, cwd=tmp_path)
    (resumed,), (uninterrupted,) = runs.glob("phantom/*/"), (tmp_path / "whole").glob("phantom/*/")
    assert_same_run(resumed, uninterrupted)
    assert [done.stderr.count(f"epoch {epoch}/3") for epoch in (1, 2, 3)] == [1, 1, 1]
    command = json.loads((resumed / "environment.json").read_text())["command"]
    assert command == ["train.py", *words]


def interrupted(within: Any) -> None:
    with session.command("train.py", []):
        within()


def test_ctrl_c_is_raised_at_the_end_and_everything_is_as_before() -> None:
    before, hook, argv = signal.getsignal(signal.SIGINT), sys.unraisablehook, sys.argv
    steps = []

    def within() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)  # a second one does not interrupt what closes files
            steps.append("closed")

    with pytest.raises(KeyboardInterrupt, match="the same call resumes it"):
        interrupted(within)
    assert steps == ["closed"]
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook, sys.argv) == (before, hook, argv)


def test_ctrl_c_within_a_finaliser_is_not_lost() -> None:
    class Closing:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def within() -> None:
        Closing().__del__()

    with pytest.raises(KeyboardInterrupt):
        interrupted(within)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_stop_by_another_signal_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(lambda: signals.unwind(signal.SIGTERM, None))


def test_a_mistake_stays_itself_and_other_threads_get_no_signals() -> None:
    def mistake() -> None:
        raise ddtl.UserError("so it is")

    with pytest.raises(ddtl.UserError, match="so it is"):
        interrupted(mistake)
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: interrupted(lambda: seen.append(signal.getsignal(signal.SIGINT))))
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


def test_lines_are_shown_unless_the_program_has_decided_about_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    root, ours = logging.getLogger(), logging.getLogger("ddtl")
    for logger in (root, ours):
        for name in ("handlers", "level", "propagate"):
            monkeypatch.setattr(logger, name, getattr(logger, name))
    monkeypatch.setattr(ours, "handlers", [])
    monkeypatch.setattr(root, "handlers", [logging.NullHandler()])
    session.show_lines()
    assert ours.handlers == []
    monkeypatch.setattr(root, "handlers", [])
    session.show_lines()
    assert len(ours.handlers) == 1
    session.show_lines()
    assert len(ours.handlers) == 1
