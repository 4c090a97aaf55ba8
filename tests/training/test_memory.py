"""The collector's view of a process that trains."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import gc, weakref
import torch
from ddtl.utils.memory import collect_seldom, pass_over_imports

class Node: pass

usual = gc.get_threshold()
collect_seldom()
assert gc.get_threshold()[0] > usual[0]
pass_over_imports()
assert gc.get_threshold() == usual, "training collects as ever"
passed = gc.get_freeze_count()
cycle = Node()
cycle.itself, gone = cycle, weakref.ref(cycle)
pass_over_imports()
assert gc.get_freeze_count() == passed > 100_000, "only what stood at the first call is passed over"
del cycle
gc.collect()
assert gone() is None, "later garbage is found"
"""


@pytest.mark.slow
def test_only_imports_are_passed_over_and_the_process_ends_without_a_word() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
