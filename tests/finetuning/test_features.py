"""Stored outputs of frozen stages: the same run as without them, in less time, and a decision that is told."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from ddtl.data.loading.samplers import Shares, TrainBatches
from ddtl.finetuning import features
from ddtl.finetuning.feature_plan import Demand, decide, in_words, sentence
from ddtl.finetuning.schedule import Phase, StageState
from ddtl.models.module import Classifier
from ddtl.models.network import Network
from ddtl.records.run_folder import RunFolder
from ddtl.training.train import assemble
from ddtl.training.trainer import build_trainer
from ddtl.utils.reading import read_lines
from tests.support.runs import PullThePlugError, config, finish, same_tensors, small, start, state
from tests.support.tiny import tiny

__all__ = ["tiny"]  # a fixture

SHORT = (
    "trainer=cpu",
    "trainer.precision=32",
    "model.weights=none",
    "evaluation.replicates=100",
    "evaluation.test=false",
)
FEW = ("trainer.limit_batches=5", "trainer.max_epochs=2")
PLAIN = (*SHORT, "augment=none")
PROBE = "finetune=linear_probe"
NOTHING_KEPT = "finetune.cache_gb=0"


def fitted(folder: Path, *overrides: str) -> Path:
    """A small run as ``train`` makes it, without scores; its folder. Told twice, it goes on."""
    made = assemble(config(folder, *overrides))
    to = RunFolder(folder)
    to.last.parent.mkdir(parents=True, exist_ok=True)
    trainer = build_trainer(made, to, [])
    checkpoint = to.last if to.last.exists() else None
    module = made.module().to(memory_format=torch.channels_last)
    trainer.fit(module, datamodule=made.datamodule, ckpt_path=checkpoint, weights_only=True)
    return folder


def assert_same_training(ours: Path, theirs: Path) -> None:
    """That two runs of different settings came to the same numbers to the bit: weights, moments, curves, order."""
    a, b = (state(folder / "checkpoints" / "last.ckpt") for folder in (ours, theirs))
    for part in ("state_dict", "optimizer_states"):
        assert same_tensors(a[part], b[part]), part
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in read_lines(f / "metrics.jsonl")]
            for f in (ours, theirs)]  # fmt: skip
    assert rows[0] == rows[1]


@pytest.fixture
def embedded(monkeypatch) -> Counter[int]:
    """How many images have gone through that many stages apart from the others."""
    counts: Counter[int] = Counter()
    embed = features.FrozenFeatures._activations

    def counted(self, batch, depth):
        counts[depth] += len(batch["row"])
        return embed(self, batch, depth)

    monkeypatch.setattr(features.FrozenFeatures, "_activations", counted)
    return counts


@pytest.mark.parametrize(
    ("model", "last"),
    [("squeezenet1_1", "fire3"), ("resnet18", "layer4"), pytest.param("densenet121", "norm", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("precision", ["32", pytest.param("bf16-mixed", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_run_on_stored_features_equals_one_on_images_to_the_bit(tmp_path, embedded, model, last, precision):
    for number, settings in enumerate(((PROBE,), ("finetune=surgical", f"finetune.stages=[{last},head]"))):
        command = (*PLAIN, f"model={model}", f"trainer.precision={precision}", *FEW, *settings)
        stored = fitted(tmp_path / f"stored{number}", *command)
        assert embedded.total() > 1
        embedded.clear()
        computed = fitted(tmp_path / f"computed{number}", *command, NOTHING_KEPT)
        assert embedded.total() <= 1  # one to know the size of what is not kept
        assert_same_training(stored, computed)
        embedded.clear()


def test_every_image_is_computed_once_a_phase(tiny, tmp_path, embedded, capsys):
    phases = "finetune.phases=[{name: a, train: [head], epochs: 3}, {name: b, train: [layer4, head], epochs: 2}]"
    made = assemble(config(tmp_path, tiny))
    train, val = (len(made.datamodule.manifest.rows(split)) for split in ("train", "val"))
    fitted(tmp_path, tiny, *PLAIN, "finetune=lp_ft", phases, "trainer.max_epochs=5")
    whole_batches = -(-train // 8) * 8
    assert embedded == {5: 1 + whole_batches + val, 4: 1 + whole_batches + val}
    told = [line for line in capsys.readouterr().err.splitlines() if "kept" in line]
    assert len(told) == 2
    assert told[0].startswith(
        f"a, epochs 1 to 3: the frozen backbone's output is computed once and kept for {train} training images"
    )
    assert told[1].startswith("b, epochs 4 to 5: the output of the frozen stages stem to layer3 is computed once")


@pytest.mark.slow
def test_fixed_views_give_the_same_run_whether_they_are_kept_or_not(tiny, tmp_path, embedded):
    command = (tiny, *SHORT, "augment=strong", PROBE, "trainer.max_epochs=5", "dataset.sampling=balanced")
    kept = fitted(tmp_path / "3", *command, "finetune.cached_views=2")
    assert embedded.total() > 0
    computed = fitted(tmp_path / "4", *command, "finetune.cached_views=2", NOTHING_KEPT)
    assert_same_training(kept, computed)
    fresh = fitted(tmp_path / "5", *command)
    assert not same_tensors(state(kept / "checkpoints/last.ckpt"), state(fresh / "checkpoints/last.ckpt"))


def test_augmented_training_keeps_the_validation_images_alone(tiny, tmp_path, embedded, capsys):
    command = (tiny, *SHORT, "augment=strong", PROBE)
    kept = fitted(tmp_path / "6", *command)
    assert 1 < embedded[5] < 60
    assert "finetune.cached_views=4 would keep" in capsys.readouterr().err
    assert_same_training(kept, fitted(tmp_path / "7", *command, NOTHING_KEPT))


def test_stages_below_a_part_of_the_backbone_see_new_augmentations_in_each_epoch(tiny, tmp_path, capsys):
    phases = "finetune.phases=[{name: a, train: [head], epochs: 3}, {name: b, train: [layer4, head], epochs: 2}]"
    command = (tiny, *SHORT, "augment=strong", "finetune=lp_ft", phases, "trainer.max_epochs=5")
    kept = fitted(tmp_path / "kept", *command, "finetune.cached_views=2")
    told = [line for line in capsys.readouterr().err.splitlines() if "frozen" in line]
    assert "views of training images" in told[0]
    assert "training images (each epoch augments them differently; augment=none does not)" in told[1]
    assert_same_training(kept, fitted(tmp_path / "computed", *command, "finetune.cached_views=2", NOTHING_KEPT))


def test_what_does_not_fit_is_computed_each_time_and_the_line_says_so(tiny, tmp_path, embedded, capsys):
    command = (tiny, *PLAIN, PROBE)
    small_cache = fitted(tmp_path / "8", *command, "finetune.cache_gb=1e-6")
    assert embedded == {5: 1}
    assert "do not fit in finetune.cache_gb=1e-06" in capsys.readouterr().err
    assert_same_training(small_cache, fitted(tmp_path / "9", *command))


def test_a_run_without_frozen_stages_says_and_keeps_nothing(tiny, tmp_path, embedded, capsys):
    fitted(tmp_path, tiny, *PLAIN, "finetune=full")
    assert not embedded
    assert "frozen" not in capsys.readouterr().err


def test_validation_with_a_running_mean_keeps_what_never_trained_and_nothing_else(tiny, tmp_path, capsys):
    """After a phase in which they trained, the frozen stages' mean goes on moving towards them."""
    phases = "finetune.phases=[{name: a, train: [head], epochs: 2}, {name: b, train: [all], epochs: 2}, " \
             "{name: c, train: [head], epochs: 3}]"  # fmt: skip
    command = (tiny, *PLAIN, "finetune=lp_ft", phases, "trainer.max_epochs=7", "trainer.ema=0.9")
    kept = fitted(tmp_path / "10", *command)
    first, last = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("a, epochs", "c, epochs"))]
    assert "each time" not in first
    assert "each time for validation images (trainer.ema still moves the frozen stages)" in last
    assert_same_training(kept, fitted(tmp_path / "11", *command, NOTHING_KEPT))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [("augment=none",), ("augment=strong", "finetune.cached_views=3")])
@pytest.mark.parametrize("stop", [(1, 0), (2, 3), (4, 5)])
def test_a_run_stopped_in_a_stored_phase_resumes_to_the_same_bit(tiny, tmp_path, monkeypatch, settings, stop):
    command = (tiny, *SHORT, *settings, PROBE, "trainer.max_epochs=5", "model.head.dropout=0.5")
    whole = fitted(tmp_path / "whole", *command)
    step = Classifier.training_step
    ahead = [stop]

    def breaking(self, batch, batch_idx):
        assert "features" in batch
        if ahead and (self.current_epoch, batch_idx) == ahead[0]:
            ahead.pop()
            raise PullThePlugError
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", breaking)
    with pytest.raises(PullThePlugError):
        fitted(tmp_path / "broken", *command)
    assert_same_training(fitted(tmp_path / "broken", *command), whole)


@pytest.mark.slow
def test_two_processes_store_what_they_draw_and_come_to_the_same_numbers(tmp_path):
    command = small(tmp_path, *PLAIN, "model=squeezenet1_1", PROBE, "trainer.devices=2")
    for more, decision in (([], "output is computed once and kept"), ([NOTHING_KEPT], "finetune.cache_gb=0")):
        code, text = finish(start([*command, *more], OMP_NUM_THREADS="1"))
        assert code == 0, text
        assert decision in " ".join(text.split())
    kept, computed = tmp_path.glob("phantom/*")
    assert_same_training(kept, computed)


def test_views_take_turns_by_epoch_and_repeat():
    batches = TrainBatches(list(range(10)), Shares(5), seed=3, epoch=lambda: 0, views=lambda epoch: 3)
    for epoch in range(7):
        keys = [key for batch in batches.in_epoch(epoch) for key in batch]
        assert {(view, before) for _, view, before in keys} == {(epoch % 3, 0)}
        assert sorted(row for row, *_ in keys) == list(range(10))
    fresh = TrainBatches(list(range(10)), Shares(5), seed=3, epoch=lambda: 0)
    assert [[k[0] for k in b] for b in fresh.in_epoch(5)] == [[k[0] for k in b] for b in batches.in_epoch(5)]


def test_an_image_drawn_twice_in_an_epoch_shows_two_views():
    labels = np.array([0] * 9 + [1])
    batches = TrainBatches(list(range(10)), Shares(10), 0, lambda: 0, balance_by=labels, views=lambda epoch: 2)
    shown = Counter(view for row, view, _ in batches.in_epoch(1)[0] if row == 9)
    assert shown == {0: 2, 1: 3}  # five draws of the one image, beginning with the epoch's own view


@pytest.mark.parametrize(
    ("train", "val", "gb", "processes", "kept", "words"),
    [
        ((1000, 100), (200, 10), 0.0011, 1, (True, True), "100 training images (1.0 MB) and 10 validation images"),
        ((1000, 100), (200, 10), 0.00105, 1, (True, False), "of which 50 kB are left"),
        ((1000, 100), (200, 10), 0.0005, 1, (False, True), "1.0 MB do not fit in finetune.cache_gb=0.0005"),
        ((1000, 100), (200, 10), 0.0011, 2, (False, True), "finetune.cache_gb=0.0011, shared by 2 processes"),
        ((100, 100), (10, 10), 4, 1, (False, False), "none comes twice"),
        ((1000, 100), (200, 10), 0, 1, (False, False), "finetune.cache_gb=0"),
    ],
)
def test_what_is_kept_has_known_answers(train, val, gb, processes, kept, words):
    demands = [Demand("training images", *train), Demand("validation images", *val)]
    plan = decide(demands, bytes_each=10_000, cache_gb=gb, processes=processes)
    assert plan.kept == kept
    assert words in plan.reason


def test_a_reason_against_keeping_stands_whatever_the_room():
    plan = decide([Demand("training images", 100, 10, "they vary")], bytes_each=1, cache_gb=100)
    assert plan.kept == (False,)
    assert plan.reason == "computed each time for training images (they vary)"


def test_the_line_names_epochs_and_stages():
    frozen, trains = StageState(0.0, True), StageState(1.0, False)
    plan = decide([Demand("training images", 30, 10)], bytes_each=100, cache_gb=1)
    states = {"stem": frozen, "block1": trains, "head": trains}
    kept = "computed once and kept for 10 training images (1 kB)"
    assert (
        sentence(Phase("late", 4, 5, states), 1, plan)
        == f"late, epoch 5: the output of the frozen stage stem is {kept}"
    )
    assert sentence(Phase("p", 0, 3, states), 2, plan) == f"p, epochs 1 to 3: the frozen backbone's output is {kept}"


def test_sizes_in_words():
    assert [in_words(size) for size in (999, 123_456, 1.5e6, 42e6, 3.25e9, 12e9)] == [
        "1 kB", "123 kB", "1.5 MB", "42 MB", "3.2 GB", "12 GB",
    ]  # fmt: skip


def test_stored_activations_come_back_in_the_memory_layout_that_the_network_made():
    """Another layout of the same numbers could take another kernel, and another rounding."""
    for layout in (torch.channels_last, torch.contiguous_format):
        x = torch.rand(4, 3, 2, 5).to(memory_format=layout)
        keys = [(row, 0, 0) for row in range(4)]
        stored = features.Stored(1, {k: i for i, k in enumerate(keys)}, torch.empty(4, 30), (3, 2, 5), x.stride()[1:])
        stored.shaped(stored.values).copy_(x)
        again = stored.shaped(stored.values[stored.places(keys[::-1])])
        assert torch.equal(again, x.flip(0))
        assert again.stride() == x.stride()


def test_a_network_in_two_parts_is_the_network():
    from ddtl.config.load import load

    torch.manual_seed(0)
    net = Network(load(["model=squeezenet1_1", "model.weights=none"]).model, n_classes=2).eval()
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        for depth in range(len(net.stages)):
            assert torch.equal(net.classify(net.embed(images, depth), depth), net(images))
