"""The mean of the last epochs' weights: what it is, that a resumed run has the same, and that it is what is scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from torch import nn

from ddtl.config.load import load
from ddtl.training.batchnorm import layers_of, measure
from ddtl.training.train import assemble
from ddtl.training.weight_averaging import MeanOfLast
from ddtl.utils.errors import UserError
from tests.support.runs import PullThePlugError, assert_same_run, break_at, run, small, state
from tests.support.tiny import tiny

__all__ = ["tiny"]  # a fixture


def test_it_is_the_mean_of_the_last_epochs() -> None:
    layer = nn.Linear(3, 2)
    seen = []
    mean = MeanOfLast(layer, first=2)  # type: ignore[arg-type]
    for epoch in range(5):
        with torch.no_grad():
            layer.weight.normal_()
        seen.append(layer.weight.detach().clone())
        mean.update(epoch)
    assert torch.allclose(mean.mean["weight"], torch.stack(seen[2:]).mean(dim=0), atol=1e-6)


@pytest.mark.slow
def test_the_mean_is_scored_with_statistics_of_its_own(tiny: str, tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", tiny, "trainer.precision=32")
    made = run(tmp_path / "mean", tiny, "trainer.precision=32", "trainer.average_last=2")
    assert made.folder.name != plain.folder.name
    results = json.loads((made.folder / "results.json").read_text())
    assert (results["averaged_epochs"], results["best_epoch"]) == (2, 2)
    last = state(made.folder / "checkpoints" / "last.ckpt")
    mean, kept = last["callbacks"]["mean_of_last"]["mean"], load_file(made.folder / "model.safetensors")
    assert torch.allclose(kept["head.layers.1.weight"], mean["head.layers.1.weight"])
    assert not torch.allclose(mean["head.layers.1.weight"], last["state_dict"]["network.head.layers.1.weight"])
    # The training itself is what it is without.
    other = state(plain.folder / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(torch.equal(value, other[name]) for name, value in last["state_dict"].items())
    anew = assemble(load([*small(tmp_path, tiny), "trainer.precision=32"]))
    anew.network.load_state_dict(mean)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    module = anew.module()
    measure(trainer, module, anew.datamodule, "train", layers_of(module))
    assert all(torch.allclose(value, kept[name], atol=1e-5) for name, value in anew.network.state_dict().items())


@pytest.mark.slow
def test_a_run_that_broke_comes_to_the_same_mean(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It breaks in each epoch that counts: the second and third time there is a mean to restore."""
    words = [tiny, "trainer.max_epochs=4", "trainer.average_last=3", "trainer.limit_batches=4"]
    whole = run(tmp_path / "whole", *words).folder
    ahead = [(1, 2), (2, 2), (3, 2)]
    break_at(monkeypatch, ahead)
    for _ in range(len(ahead)):
        with pytest.raises(PullThePlugError):
            run(tmp_path / "broken", *words)
    broken = run(tmp_path / "broken", *words).folder
    assert not ahead
    assert_same_run(broken, whole)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.average_last=99"], "there are no more than trainer.max_epochs=10"),
        (["trainer.average_last=2", "trainer.ema=0.9"], "both average the weights"),
        (["trainer.average_last=2", "trainer.patience=3"], "trainer.patience leaves open"),
    ],
)
def test_a_contradiction_names_the_key(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(words)
