"""Adapters in two processes, by the real launcher: equal to the bit, near the run of one, and nothing else moves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ddtl.models.adapters import chosen
from ddtl.models.network import Network
from ddtl.utils.reading import read_lines
from tests.support.runs import ROOT, config, run, small

ADAPTERS = {"bitfit": "biases", "norm_affine": "norm_affine", "ssf": "ssf", "lora": "lora"}
EPOCHS = 2
# A small vision transformer, which has all that they train. It has no BatchNorm, so in full precision and without
# dropout sharing a batch out changes only the order of a sum; Adam would make whole steps of that.
SETTINGS = (
    "model=timm:test_vit", "model.head.dropout=0", "optimizer=sgd", "optimizer.momentum=0", "optimizer.lr=0.1",
    "optimizer.weight_decay=0.1", "trainer=cpu", "trainer.precision=32", f"trainer.max_epochs={EPOCHS}",
    "trainer.limit_batches=2", "evaluation.test=false", "dataset.num_workers=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what two processes wrote."""
    folder = tmp_path_factory.mktemp("two")
    words = {name: (*SETTINGS, f"finetune={name}", f"run.name={name}", "trainer.devices=2") for name in ADAPTERS}
    jobs = [{"name": name, "overrides": small(folder, *words[name]), "wrap_again": True} for name in ADAPTERS]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.runs_in_a_row", str(folder)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ADAPTERS)
def test_two_processes_make_the_adapter_of_one(together: Path, tmp_path: Path, name: str) -> None:
    first, second = (read_lines(together / f"{name}-{rank}.jsonl") for rank in (0, 1))
    assert [row["epoch"] for row in first] == list(range(EPOCHS))
    assert first == second
    assert len({row["digest"] for row in first}) == EPOCHS  # they train
    words = (*SETTINGS, f"finetune={name}")
    torch.manual_seed(0)
    net = Network.of(config(tmp_path, *words), 2)
    before, now = net.state_dict(), load_file(together / "phantom" / name / "model.safetensors")
    trained = {f"backbone.stages.{key}" for key in chosen(net.backbone.stages, ADAPTERS[name])}
    trained |= {key for key in now if key.startswith("head.")}
    assert {key for key in now if not torch.equal(now[key], before[key])} <= trained
    theirs = load_file(together / "phantom" / name / "adapter.safetensors")
    assert theirs.keys() == trained
    ours = load_file(run(tmp_path, *words).folder / "adapter.safetensors")
    for key, value in ours.items():
        assert value.allclose(theirs[key], atol=1e-5), key
    assert any(not torch.equal(theirs[key], before[key]) for key in trained if key.startswith("backbone."))
