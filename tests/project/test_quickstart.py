"""The first command of a newcomer: the defaults, to the end, as its own process."""

from __future__ import annotations

import json
import resource

import pytest

from tests.support.runs import finish, start


@pytest.mark.slow
def test_the_defaults_learn_the_phantom(tmp_path):
    code, text = finish(start([f"paths.runs_dir={tmp_path}"]))
    assert code == 0, text
    results = json.loads(next(tmp_path.glob("phantom/*/results.json")).read_text())
    assert results["test"]["roc_auc"] >= 0.95
    assert "roc_auc" in text
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak_kib < 4 * 2**20
