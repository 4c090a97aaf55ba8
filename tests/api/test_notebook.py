"""A notebook's cell: no script, a stop button, and lines that are shown once."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import ddtl
from ddtl.api import session
from ddtl.utils import signals
from tests.support.runs import SMALL, assert_same_run, hold_at_checkpoints

WORDS = [*SMALL, "model=squeezenet1_1", "model.weights=none"]


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as at a terminal, also where the tests were started in the background, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_setting_that_is_given_twice_is_refused() -> None:
    lr: dict[str, Any] = {"optimizer.lr": 1e-4}
    message = r"optimizer\.lr=1e-3: optimizer\.lr is given twice, as a word and as a keyword"
    for call in (ddtl.train, ddtl.sweep, partial(ddtl.study, "study=seeds"), partial(ddtl.dataset, "phantom")):
        with pytest.raises(ddtl.UserError, match=message):
            call("optimizer.lr=1e-3", **lr)
    with pytest.raises(ddtl.UserError, match="is given twice"):
        ddtl.train("optimizer.lr=1e-3", optimizer={"lr": 1e-4})
    assert session.as_typed(["seed=1"], {"optimizer.lr": 1e-4}) == ["seed=1", "optimizer.lr=0.0001"]


class Kernel:
    """A notebook's kernel, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        try:
            from jupyter_client.manager import start_new_kernel
        except ModuleNotFoundError:
            reason = "needs ipykernel, which `make docs` installs"
            (pytest.fail if os.environ.get("DDTL_REQUIRE_DATA") else pytest.skip)(reason)
        held, self.hold = hold_at_checkpoints(folder / "hold")
        environment = {**os.environ, **held, "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(folder / "ipython")}
        self.manager, self.client = start_new_kernel(startup_timeout=300, cwd=str(folder), env=environment)
        self.shown: list[dict[str, Any]] = []  # by media type; Rich shows lines this way as well

    def start(self, cell: str) -> str:
        return self.client.execute(cell)

    def wait(self, message: str, seconds: float = 300) -> tuple[str, str]:
        """Wait for a cell's end: the name and the text of its error, empty where it has none."""
        while True:
            found = self.client.get_iopub_msg(timeout=seconds)
            if found["parent_header"].get("msg_id") != message:
                continue
            kind, content = found["msg_type"], found["content"]
            if kind in ("execute_result", "display_data"):
                self.shown.append(content["data"])
            elif kind == "error":
                return content["ename"], content["evalue"]
            elif kind == "status" and content["execution_state"] == "idle":
                return "", ""

    def run(self, cell: str) -> None:
        assert self.wait(self.start(cell)) == ("", ""), cell


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel(tmp_path)
    yield made
    made.client.stop_channels()
    made.manager.shutdown_kernel(now=True)


@pytest.mark.slow
def test_a_training_stopped_in_a_kernel_is_resumed_by_the_same_cell_to_the_bit(tmp_path: Path, kernel: Kernel) -> None:
    runs = tmp_path / "stopped"
    words = [*WORDS, f"paths.runs_dir={runs}"]
    kernel.run("import signal, sys, ddtl; handler, argv = signal.getsignal(signal.SIGINT), list(sys.argv)")
    train = f"run = ddtl.train(*{words!r}); run"
    cell = kernel.start(train)
    deadline = time.monotonic() + 300
    while not any(runs.glob("phantom/*/checkpoints/last.ckpt")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kernel.manager.interrupt_kernel()
    name, text = kernel.wait(cell)
    assert name == "KeyboardInterrupt"
    assert "stopped; the same call resumes it" in text
    kernel.hold.unlink()
    kernel.run("assert signal.getsignal(signal.SIGINT) is handler and sys.argv == argv")
    kernel.run(f"assert ddtl.runs({str(runs)!r})['state'].tolist() == ['stopped']")
    kernel.run(train)
    assert "ROC AUC" in kernel.shown[-1]["text/html"]
    kernel.run("run.scores()")
    assert "<table" in kernel.shown[-1]["text/html"]
    kernel.run("run.plot_roc()")
    assert kernel.shown[-1]["application/vnd.plotly.v1+json"]["data"]

    whole = [*WORDS, f"paths.runs_dir={tmp_path / 'whole'}"]
    script = f"import ddtl; ddtl.train(*{whole!r})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, env=environment, cwd=tmp_path)
    (resumed,), (uninterrupted,) = runs.glob("phantom/*/"), (tmp_path / "whole").glob("phantom/*/")
    assert_same_run(resumed, uninterrupted)
    shown = "".join(one.get("text/plain", "") for one in kernel.shown)
    assert [shown.count(f"epoch {epoch}/3") for epoch in (1, 2, 3)] == [1, 1, 1]
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
