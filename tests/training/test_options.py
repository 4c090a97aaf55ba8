"""Running mean of the weights, accumulation, balanced sampling, torch.compile; and that runs resume with each."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import log_loss
from torch import nn

from ddtl.data.loading.dataset import Slices
from ddtl.models.module import Classifier
from ddtl.records import predictions as prediction_table
from ddtl.training import callbacks, weight_averaging
from ddtl.utils.errors import TrainingFailure
from tests.support.runs import PullThePlugError, assert_same_run, config, run, same_tensors, state

# Without BatchNorm and dropout, dealing out a batch in another way changes only the order of a sum.
PLAIN = ("model=squeezenet1_1", "model.head.dropout=0", "trainer=cpu", "trainer.limit_batches=6")


def last(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = state(folder / "checkpoints" / "last.ckpt")["state_dict"]
    return weights


# --- the running mean -------------------------------------------------------------------------------------------------


def test_the_running_mean_is_its_closed_form_from_the_first_step_on():
    network = nn.BatchNorm1d(3)
    running = weight_averaging.RunningMean(network, decay := 0.9)  # type: ignore[arg-type]
    seen = []
    for step in range(1, 8):
        for value in network.state_dict().values():
            value.copy_(torch.randn_like(value) if value.is_floating_point() else value + 2)
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        running.update(step)
        weights = torch.tensor([decay ** (step - i) for i in range(1, step + 1)], dtype=torch.float64)
        for name, value in running.mean.items():
            if value.is_floating_point():
                stacked = torch.stack([each[name] for each in seen]).double()
                wanted = (weights[:, None] * stacked).sum(0) / weights.sum()
                torch.testing.assert_close(value.double(), wanted, atol=1e-6, rtol=1e-5)
    assert running.mean["num_batches_tracked"] == seen[-1]["num_batches_tracked"] == 14


@pytest.fixture(scope="module")
def with_mean(tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("mean"), *PLAIN, "trainer.ema=0.8").folder


@pytest.mark.slow
def test_the_running_mean_is_what_is_scored_and_kept_and_training_does_not_know_of_it(with_mean, tmp_path):
    without = run(tmp_path, *PLAIN).folder
    assert same_tensors(last(with_mean), last(without))
    best = state(with_mean / "checkpoints" / "best.ckpt")
    kept = load_file(with_mean / "model.safetensors")
    assert same_tensors(kept, best["callbacks"]["running_mean"]["mean"])
    raw = {name.removeprefix("network."): value for name, value in best["state_dict"].items()}
    assert any(not torch.equal(kept[name], raw[name]) for name in kept)

    scores = json.loads((with_mean / "results.json").read_text())
    rows = [json.loads(line) for line in (with_mean / "metrics.jsonl").read_text().splitlines()]
    assert scores["val"]["roc_auc"] == pytest.approx(rows[scores["best_epoch"]]["val/roc_auc"], abs=1e-6)
    table = prediction_table.read(with_mean / "predictions.csv").of("val")  # of two batches, 32 images and 4
    loss = log_loss(table.label, table.probabilities)
    assert rows[scores["best_epoch"]]["val/loss"] == pytest.approx(loss, abs=1e-5)


def test_a_running_mean_takes_in_a_step_once_however_many_batches_it_has(tmp_path, monkeypatch):
    steps = []
    update = weight_averaging.RunningMean.update

    def counted(self, step):
        steps.append(step)
        update(self, step)

    monkeypatch.setattr(weight_averaging.RunningMean, "update", counted)
    run(tmp_path, *PLAIN, "trainer.ema=0.8", "trainer.accumulate=2", "trainer.max_epochs=2")
    assert steps == [1, 2, 3, 4, 5, 6]


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_balanced_sampling_feeds_each_class_equally_often(tmp_path, monkeypatch):
    labels: list[int] = []
    whole = Slices.__getitems__

    def watched(self: Slices, keys):
        if len(keys) == 8:  # training batches; the evaluation's are larger
            labels.extend(self.labels[[row for row, *_ in keys]].tolist())
        return whole(self, keys)

    monkeypatch.setattr(Slices, "__getitems__", watched)
    run(tmp_path, *PLAIN, "dataset.phantom.prevalence=0.2", "dataset.sampling=balanced", "trainer.limit_batches=null")
    counts = Counter(labels)
    assert counts[0] == pytest.approx(counts[1], rel=0.1)
    assert len(labels) > 300


# --- resuming with each -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("trainer.ema=0.8", "augment=strong"),
        ("trainer.accumulate=2", "trainer.limit_batches=12"),
        ("dataset.sampling=balanced", "dataset.phantom.prevalence=0.3"),
        ("trainer.compile=true", "trainer.ema=0.8", "trainer.accumulate=2", "trainer.limit_batches=12"),
    ],
    ids=["ema", "accumulate", "balanced", "compile"],
)
def test_a_run_that_broke_resumes_to_the_same_bit(tmp_path, monkeypatch, options):
    command = (*PLAIN, "model.head.dropout=0.3", *options)
    whole = run(tmp_path / "whole", *command).folder
    assert not any("_orig_mod" in name for name in last(whole))

    step = Classifier.training_step
    calls = 0

    def breaking(self, batch, batch_idx):
        nonlocal calls
        calls += 1
        if calls > 9 * (2 if "trainer.accumulate=2" in options else 1):  # in the middle of the second epoch
            raise PullThePlugError
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", breaking)
        with pytest.raises(PullThePlugError):
            run(tmp_path / "broken", *command)
    broken = run(tmp_path / "broken", *command).folder
    assert broken.name == whole.name
    assert_same_run(broken, whole)


# --- torch.compile ----------------------------------------------------------------------------------------------------


def test_a_compiler_that_fails_is_a_failure_that_names_the_way_on(tmp_path, monkeypatch):
    from torch._dynamo.exc import TorchDynamoException

    def broken(self, batch, batch_idx):
        raise TorchDynamoException("no C++ compiler")

    monkeypatch.setattr(Classifier, "training_step", broken)
    with pytest.raises(TrainingFailure, match=r"no C\+\+ compiler.*trainer\.compile=false"):
        run(tmp_path, *PLAIN, "trainer.compile=true")


# --- ranks that drift apart -------------------------------------------------------------------------------------------


def test_ranks_with_different_weights_end_the_run(monkeypatch):
    class Trainer:
        world_size = 2
        current_epoch = 4

    module = nn.Linear(2, 2)
    monkeypatch.setattr(callbacks, "gather", lambda mine: [*mine, *mine])
    callbacks._assert_ranks_agree(Trainer(), module)  # type: ignore[arg-type]
    monkeypatch.setattr(callbacks, "gather", lambda mine: [*mine, "another"])
    with pytest.raises(TrainingFailure, match="different weights after epoch 5"):
        callbacks._assert_ranks_agree(Trainer(), module)  # type: ignore[arg-type]


def test_the_options_are_part_of_what_a_run_is(tmp_path):
    assert config(tmp_path, "trainer.ema=0.9").trainer.ema == 0.9
    for wrong in ("trainer.ema=1", "trainer.ema=0", "dataset.sampling=weighted"):
        with pytest.raises(Exception, match=wrong.partition("=")[0]):
            config(tmp_path, wrong)


# --- checkpoints further apart than epochs ----------------------------------------------------------------------------
@pytest.mark.slow
def test_a_run_that_is_saved_less_often_resumes_from_further_back_to_the_same_bit(tmp_path, monkeypatch):
    seldom = (*PLAIN, "optimizer.lr=1e-5", "trainer.max_epochs=5", "trainer.checkpoint_seconds=3600")
    whole = run(tmp_path / "whole", *seldom[:-1]).folder
    saved, fourth = [], []
    save, start = callbacks.EpochEnd._save, callbacks.EpochEnd.on_train_epoch_start

    def keeping(self, trainer, improved):
        saved.append((trainer.current_epoch, improved))
        save(self, trainer, improved)

    def stopped_once(self, trainer, module):
        if trainer.current_epoch == 3 and not fourth:
            fourth.append(state(self.folder.last)["epoch"])
            raise KeyboardInterrupt
        start(self, trainer, module)

    monkeypatch.setattr(callbacks.EpochEnd, "_save", keeping)
    monkeypatch.setattr(callbacks.EpochEnd, "on_train_epoch_start", stopped_once)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(tmp_path / "seldom", *seldom)
    before = list(saved)
    folder = run(tmp_path / "seldom", *seldom).folder
    # A process's first epoch, better ones and the last one: so the stopped run went on from further back than epoch 2.
    assert [epoch for epoch, improved in before if not improved] == []
    assert fourth[0] < 2
    after = saved[len(before) :]
    assert after[0][0] == fourth[0] + 1
    assert [epoch for epoch, improved in after[1:] if not improved] in ([4], [])
    assert saved[-1][0] == 4
    assert_same_run(folder, whole)
