"""Two processes through the real launcher."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from ddtl.evaluation import predictions as prediction_table
from ddtl.files import read_lines
from tests.runs import finish, small, start, state


@pytest.mark.slow
def test_two_processes_make_one_run_that_agrees_with_one_process(tmp_path):
    # Without BatchNorm and dropout and in full precision, dealing out a batch changes only the order of a sum.
    plain = (
        "model=squeezenet1_1", "model.head.dropout=0", "trainer=cpu", "trainer.max_epochs=2", "trainer.limit_batches=6",
        "logger=csv",
    )  # fmt: skip
    folders = []
    for name, more in (("one", ()), ("two", ("trainer.devices=2", "trainer.strategy=ddp"))):
        code, text = finish(start(small(tmp_path / name, *plain, *more), OMP_NUM_THREADS="1"))
        assert code == 0, text
        assert text.count("epoch 1/2") == text.count("look 1 at this test set") == 1, text
        folders += [path for path in (tmp_path / name / "phantom").iterdir() if path.is_dir()]
    assert len(folders) == 2
    one, two = folders
    for name, value in state(one / "checkpoints" / "last.ckpt")["state_dict"].items():
        assert value.allclose(state(two / "checkpoints" / "last.ckpt")["state_dict"][name], atol=1e-4), name
    table = prediction_table.read(two / "predictions.csv")
    results = [json.loads((folder / "results.json").read_text()) for folder in folders]
    assert Counter(table.split.tolist()) == {split: results[1]["splits"][split]["images"] for split in ("val", "test")}
    assert results[1]["test"]["roc_auc"] == pytest.approx(results[0]["test"]["roc_auc"], abs=0.01)
    rows = [read_lines(folder / "metrics.jsonl") for folder in folders]
    assert len(rows[1]) == 2
    assert rows[1][0]["val/loss"] == pytest.approx(rows[0][0]["val/loss"], abs=1e-3)
    assert rows[1][0]["step"] == rows[0][0]["step"]
