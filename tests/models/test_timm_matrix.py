"""Networks of timm, of three families, through the matrix of ``benchmarks/backbones.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import backbones
from ddtl.config.load import load
from ddtl.models.network import Network

NETWORKS = ("regnety_002", "vit_tiny_patch16_224", "test_resnet")


@pytest.mark.slow
def test_each_network_can_do_all_that_is_promised() -> None:
    command = [sys.executable, "-m", "benchmarks.backbones", *NETWORKS, "hrnet_w18_small"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    made = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=False
    )
    rows = {found["network"]: found for found in map(json.loads, made.stdout.splitlines())}
    assert made.returncode == 0, made.stdout + made.stderr[-5000:]
    assert list(rows) == [*NETWORKS, "hrnet_w18_small"]
    assert rows.pop("hrnet_w18_small")["stages"].startswith("refused: model.name=hrnet_w18_small: its layers are not")
    for name, found in rows.items():
        assert found["cached"] == found["resumed"] == "equal", name
        assert float(found["ONNX"]) <= 1e-4
        assert found["two processes"].startswith("equal; from one: ")


def test_what_differs_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks of the benchmark see what they are there to see."""
    digests = iter("ab")
    monkeypatch.setattr(backbones, "train", lambda settings: tmp_path)
    monkeypatch.setattr(backbones, "_weights", lambda folder: next(digests))
    with pytest.raises(RuntimeError, match="the weights differ"):
        backbones.cached("test_vit", tmp_path)


def test_a_weight_that_moves_among_updates_is_reported() -> None:
    settings = ["model=timm:test_vit", "model.weights=none", "dataset.image_size=64", "finetune=lora"]
    network = Network.of(load(settings), 2)
    network.freeze([], [], dict.fromkeys(network.backbone.stages, "lora"))
    network(torch.rand(2, 1, 64, 64)).sum().backward()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    backbones._require_frozen(network, before, "lora")
    layer = network.backbone.stages["blocks2"].blocks_2.attn.proj
    layer.lora_b.grad = None
    with pytest.raises(RuntimeError, match=r"lora: blocks2\.blocks_2\.attn\.proj\.lora_b should train and has no"):
        backbones._require_frozen(network, before, "lora")
    with torch.no_grad():
        layer._parameters["weight"] += 1
    with pytest.raises(RuntimeError, match=r"lora: blocks2\.blocks_2\.attn\.proj\.weight should not train and has"):
        backbones._require_frozen(network, before, "lora")


def test_a_table_has_a_row_for_each_network() -> None:
    rows = {"a": dict.fromkeys(backbones.COLUMNS, "equal"), "b": {"stages": "refused: no chain"}}
    lines = backbones.markdown(rows).splitlines()
    assert lines[0] == "| network | stages | schedules | cached | resumed | ONNX | heat map | two processes |"
    assert lines[2] == "| `a` | equal | equal | equal | equal | equal | equal | equal |"
    assert lines[3] == "| `b` | refused: no chain |  |  |  |  |  |  |"
