"""Two processes through the real launchers: Lightning's own on one machine, and torchrun with two nodes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ddtl.records import predictions as prediction_table
from ddtl.utils.reading import read_lines
from ddtl.utils.threads import cores
from tests.support.runs import ROOT, finish, small, start, state

# Without BatchNorm and dropout and in full precision, dealing out a batch changes only the order of a sum; Adam would
# make whole steps of that where a gradient is near 0. Balanced sampling of rare patients: the hardest to deal out.
PLAIN = (
    "model=squeezenet1_1", "model.head.dropout=0", "trainer=cpu", "trainer.max_epochs=2", "trainer.limit_batches=6",
    "optimizer=sgd", "dataset.sampling=balanced", "dataset.phantom.prevalence=0.3", "logger=csv",
    "logger.wandb.mode=offline",
)  # fmt: skip

pytestmark = pytest.mark.slow


def folder_of(runs_dir: Path) -> Path:
    """The one run folder."""
    folders = [path for path in (runs_dir / "phantom").iterdir() if path.is_dir()]
    assert len(folders) == 1, folders
    return folders[0]


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """The run that one process makes."""
    runs_dir = tmp_path_factory.mktemp("one")
    code, text = finish(start(small(runs_dir, *PLAIN), OMP_NUM_THREADS="1"))
    assert code == 0, text
    return folder_of(runs_dir)


def assert_agrees(one: Path, two: Path, text: str) -> None:
    """That two processes made one run, the same as one process within float tolerance."""
    assert text.count("epoch 1/2") == text.count("test-set use number 1") == 1, text
    for name, value in state(one / "checkpoints" / "last.ckpt")["state_dict"].items():
        assert value.allclose(state(two / "checkpoints" / "last.ckpt")["state_dict"][name], atol=1e-4), name
    results = [json.loads((folder / "results.json").read_text()) for folder in (one, two)]
    table = prediction_table.read(two / "predictions.csv")
    assert Counter(table.split.tolist()) == {split: results[1]["splits"][split]["images"] for split in ("val", "test")}
    assert len(set(table.sample_id.tolist())) == len(table)
    assert results[1]["test"]["roc_auc"] == pytest.approx(results[0]["test"]["roc_auc"], abs=0.01)
    rows = [read_lines(folder / "metrics.jsonl") for folder in (one, two)]
    assert len(rows[1]) == 2
    assert rows[1][0]["val/loss"] == pytest.approx(rows[0][0]["val/loss"], abs=1e-3)
    assert rows[1][0]["step"] == rows[0][0]["step"]
    assert len(list(two.glob("wandb/offline-run-*"))) == 1
    assert json.loads((two / "environment.json").read_text())["threads"] <= max(1, cores() // 2)


def test_two_processes_of_one_machine(one, tmp_path):
    command = small(tmp_path, *PLAIN, "trainer.devices=2")
    code, text = finish(start(command, OMP_NUM_THREADS="64"))  # more than there are: each gets its share
    assert code == 0, text
    assert_agrees(one, folder_of(tmp_path), text)

    code, text = finish(start(command))
    assert code == 0, text
    assert "this run is finished" in text


def test_torchrun_with_two_nodes(one, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
        f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-backend=c10d", "--rdzv-id=ddtl", str(ROOT / "train.py"),
        *small(tmp_path, *PLAIN, "trainer.num_nodes=2", "trainer.strategy=ddp"),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    nodes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        for _ in range(2)
    ]
    texts = [node.communicate(timeout=600)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], texts
    assert_agrees(one, folder_of(tmp_path), "".join(texts))


def test_torchrun_with_other_numbers_than_the_settings_is_a_mistake(tmp_path):
    environment = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "0"}
    code, text = finish(start(small(tmp_path, "trainer.devices=1"), **environment))
    assert code == 2
    assert "Set trainer.devices=2 trainer.num_nodes=2 trainer.strategy=ddp." in text
    assert not list(tmp_path.iterdir())
