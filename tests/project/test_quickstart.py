"""The first command of a newcomer: the defaults, to the end, as its own process."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

from tests.support.runs import ROOT


@pytest.mark.slow
def test_the_defaults_learn_the_phantom(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), f"paths.runs_dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=850, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(next(tmp_path.glob("phantom/*/results.json")).read_text())
    assert results["test"]["roc_auc"] >= 0.95
    assert "ROC AUC" in done.stdout
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak_kib < 4 * 2**20
