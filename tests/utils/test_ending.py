"""The end of a command's process: at once, but with all that Python promises for it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

START = "import atexit, sys, threading, time\nfrom ddtl.utils import ending\nending.prepare()\n"
# What is left to Python's end of a process: to take apart modules, and objects with them.
LEFT = "class Left:\n    def __del__(self): print('taken apart', flush=True)\nleft = Left()\nleft.itself = left\n"


def ended(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", START + LEFT + code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("code", [0, 2, 143])
def test_the_exit_code_is_the_commands(code: int) -> None:
    done = ended(f"ending.leave({code})")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_handlers_threads_and_output_come_first() -> None:
    done = ended(
        "def late():\n    time.sleep(0.3)\n    print('thread')\n"
        "atexit.register(lambda: print('handler'))\n"
        "threading.Thread(target=late).start()\n"
        "sys.stdout.write('output ')\n"
        "ending.leave(0)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "output thread\nhandler\n", "")


def test_what_nobody_expected_ends_as_ever() -> None:
    done = ended("1 / 0")
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert done.stdout == "taken apart\n"


def test_closed_streams_are_no_error() -> None:
    assert ended("sys.stdout.close(); sys.stderr = None; ending.leave(3)").returncode == 3


def test_ctrl_c_while_a_command_is_imported_ends_it_without_a_word() -> None:
    done = ended("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_where_ctrl_c_is_ignored_it_stays_so() -> None:
    done = subprocess.run(
        [sys.executable, "-c", START + "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nending.leave(0)"],
        check=False, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    assert done.returncode == 0
