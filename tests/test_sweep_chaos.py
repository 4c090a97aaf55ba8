"""Sweeps whose parts are killed at random."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.runs import ROOT


@pytest.mark.slow
def test_three_rounds_of_killing() -> None:
    command = [sys.executable, str(ROOT / "tools" / "chaos_sweep.py"), "--rounds", "3", "--trials", "3"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=800)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["problems"] == []
    assert (done.returncode, found["rounds"], found["trials"]) == (0, 3, 9)
