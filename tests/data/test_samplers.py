"""The order of the data is a pure function of (seed, step), whoever asks for it and however it is dealt out."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings, strategies as st

from ddtl.data.loading.samplers import EvalBatches, Key, Shares, TrainBatches, balanced, permutation


def train_batches(
    n: int, shares: Shares, seed: int = 0, epoch: int = 0, limit: int | None = None, rare: int = 0
) -> TrainBatches:
    """Batches of n images; with ``rare``, of two classes in balance, the second of that many images."""
    labels = np.arange(n) >= n - rare if rare else None
    return TrainBatches(list(range(100, 100 + n)), shares, seed, lambda: epoch, limit, labels)


def global_batches(n: int, batch: int, world: int, accumulate: int, epoch: int, rare: int = 0) -> list[list[Key]]:
    """What all processes together train on in each optimiser step."""
    ranks = [
        list(train_batches(n, Shares(batch, world, rank, accumulate), epoch=epoch, rare=rare)) for rank in range(world)
    ]
    steps = len(ranks[0]) // accumulate
    return [
        [key for i in range(step * accumulate, (step + 1) * accumulate) for rank in ranks for key in rank[i]]
        for step in range(steps)
    ]


@given(
    n=st.integers(12, 200),
    world=st.integers(1, 3),
    accumulate=st.integers(1, 3),
    per_device=st.integers(1, 4),
    epoch=st.integers(0, 5),
    rare=st.integers(0, 3),
)
def test_every_way_to_deal_out_a_batch_trains_on_the_same_images_in_the_same_order(
    n, world, accumulate, per_device, epoch, rare
):
    batch = world * accumulate * per_device
    if n < batch:
        return
    assert global_batches(n, batch, world, accumulate, epoch, rare) == global_batches(n, batch, 1, 1, epoch, rare)


@given(n=st.integers(4, 100), batch=st.integers(1, 8), epoch=st.integers(0, 50), seed=st.integers(0, 2**31))
def test_an_epoch_holds_each_image_at_most_once_and_only_full_batches(n, batch, epoch, seed):
    batches = list(train_batches(n, Shares(batch), seed, epoch))
    rows = [row for keys in batches for row, *_ in keys]
    assert len(rows) == len(set(rows)) == n // batch * batch
    assert all(len(keys) == batch for keys in batches)
    assert all(100 <= row < 100 + n for row in rows)
    assert {drawn_in for keys in batches for _, drawn_in, _ in keys} <= {epoch}


def test_epochs_and_seeds_differ_and_repeat():
    orders = {tuple(permutation(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    assert tuple(permutation(50, 3, 4)) in orders


def test_the_images_left_out_differ_between_epochs():
    used = [{row for keys in train_batches(19, Shares(8), epoch=e) for row, *_ in keys} for e in range(20)]
    assert set.union(*used) == set(range(100, 119))


@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=4), epoch=st.integers(0, 9), seed=st.integers(0, 99))
def test_in_balance_each_class_is_drawn_equally_often_and_its_images_too(counts, epoch, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    times = np.bincount(balanced(labels, seed, epoch), minlength=len(labels))
    assert times.sum() == len(labels)
    per_class = [times[labels == label] for label in range(len(counts))]
    assert max(map(sum, per_class)) - min(map(sum, per_class)) <= 1
    assert all(drawn.max() - drawn.min() <= 1 for drawn in per_class)


def test_in_balance_every_image_has_its_turn_and_repeats_are_other_draws():
    labels = np.array([0] * 30 + [1] * 6)
    assert set(np.concatenate([balanced(labels, 0, epoch) for epoch in range(9)])) == set(range(36))
    keys = [key for batch in train_batches(36, Shares(6), rare=6) for key in batch]
    assert len(set(keys)) == 36
    assert sorted(before for row, _, before in keys if row == 135) == [0, 1, 2]


def test_the_epoch_is_read_when_iteration_starts_not_when_batches_are_asked_for():
    # Loader workers fetch ahead; by then the step may have moved on.
    now = [0]
    batches = TrainBatches(list(range(20)), Shares(4), 0, lambda: now[0])
    iterator = iter(batches)
    now[0] = 7
    assert [keys[0][1] for keys in iterator] == [0] * 5
    assert [keys[0][1] for keys in batches] == [7] * 5


def test_a_limit_counts_batches_and_keeps_whole_steps():
    assert len(train_batches(100, Shares(8, accumulate=2), limit=3)) == 4
    assert train_batches(100, Shares(8, accumulate=2), limit=3).steps == 2
    assert len(train_batches(100, Shares(8), limit=1000)) == 12


@given(n=st.integers(1, 60), world=st.integers(1, 4), per_device=st.integers(1, 7))
@settings(max_examples=60)
def test_an_evaluation_sees_every_image_once_in_equally_many_batches(n, world, per_device):
    ranks = [list(EvalBatches(list(range(n)), per_device, world, rank)) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    keys = [key for batches in ranks for batch in batches for key in batch]
    assert sorted(row for row, epoch, _ in keys if epoch >= 0) == list(range(n))
    assert sum(epoch < 0 for _, epoch, _ in keys) == -n % world
