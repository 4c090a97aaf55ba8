"""The order of the data: a pure function of (seed, step), the same for any number of processes. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

# One image of a batch: its row in the manifest, and the seeds of its augmentation: the epoch it is drawn in, and how
# often it has been drawn in that epoch before.
Key = tuple[int, int, int]

_LARGE = 64  # images


@dataclass(frozen=True)
class Shares:
    """How a global batch is divided: ``accumulate`` times over ``world`` processes.

    Attributes:
        batch: images an optimiser step, over everything.
        world: processes.
        rank: this process.
        accumulate: batches an optimiser step.
    """

    batch: int
    world: int = 1
    rank: int = 0
    accumulate: int = 1

    @property
    def per_device(self) -> int:
        """Images in one batch of one process."""
        return self.batch // (self.world * self.accumulate)

    @property
    def evaluated(self) -> int:
        """Images at a time in evaluation: without gradients what fits in training fits twice over."""
        return max(self.per_device, 32)


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of ``n`` images in an epoch."""
    return np.random.default_rng([seed, epoch, 0]).permutation(n)


def balanced(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """As many draws as there are images, each class equally often (to one draw), in random order.

    Within a class no image is drawn again before every other one has been drawn as often; which ones
    are drawn again, or not at all, is another draw in each epoch.

    Args:
        labels: (N,) class of each image.
        seed, epoch: what the order is a function of.

    Returns:
        (N,) positions in ``labels``.
    """
    rng = np.random.default_rng([seed, epoch, 2])
    classes = rng.permutation(np.unique(labels))
    quotas = [len(labels) // len(classes) + (i < len(labels) % len(classes)) for i in range(len(classes))]
    drawn = []
    for label, quota in zip(classes, quotas, strict=True):
        members = np.flatnonzero(labels == label)
        rounds = [rng.permutation(members) for _ in range(-(-quota // len(members)))]
        drawn.append(np.concatenate(rounds)[:quota])
    return rng.permutation(np.concatenate(drawn))


class TrainBatches:
    """The batches of one epoch for one process; iterated again for every epoch.

    The last images of an epoch that do not fill a batch are excluded; they are others in each epoch.

    Args:
        rows: manifest rows of the training images.
        shares: how batches are divided.
        seed: of the run.
        epoch: tells the epoch at the moment when iteration starts.
        limit: use only this many batches.
        balance_by: class of each of ``rows``, to draw each class equally often; None draws each image once.
        views: tells how many fixed augmentations an image has in an epoch, which then take turns; 0 for new ones.
    """

    def __init__(
        self,
        rows: list[int],
        shares: Shares,
        seed: int,
        epoch: Callable[[], int],
        limit: int | None = None,
        balance_by: np.ndarray | None = None,
        views: Callable[[int], int] = lambda epoch: 0,
    ) -> None:
        self.rows = np.asarray(rows)
        self.shares = shares
        self.seed = seed
        self.epoch = epoch
        self.balance_by = balance_by
        self.views = views
        steps = len(rows) // shares.batch
        self.steps = steps if limit is None else min(steps, -(-limit // shares.accumulate))

    def __len__(self) -> int:
        return self.steps * self.shares.accumulate

    def __iter__(self) -> Iterator[list[Key]]:
        # Not a generator: loader workers ask for batches ahead of time, and the epoch must be read now.
        return iter(self.in_epoch(self.epoch()))

    def in_epoch(self, epoch: int) -> list[list[Key]]:
        """The keys of this process's batches in an epoch."""
        order = (
            permutation(len(self.rows), self.seed, epoch)
            if self.balance_by is None
            else balanced(self.balance_by, self.seed, epoch)
        )
        before: Counter[int] = Counter()
        keys: list[Key] = []
        views = self.views(epoch)
        for row in self.rows[order].tolist():
            # A fixed view is seeded as an epoch of its number is, whichever epoch shows it.
            keys.append((row, (epoch + before[row]) % views, 0) if views else (row, epoch, before[row]))
            before[row] += 1
        size, world, rank = self.shares.per_device, self.shares.world, self.shares.rank
        starts = [(index * world + rank) * size for index in range(len(self))]
        return [keys[start : start + size] for start in starts]


class EvalBatches:
    """Rows in order, given to the processes in turn; the last ones get fillers so that all make equal steps.

    A filler is written as ``(row, -1, 0)``.
    """

    def __init__(self, rows: list[int], per_device: int, world: int = 1, rank: int = 0) -> None:
        keys: list[Key] = [(row, 0, 0) for row in rows]
        keys += [(rows[0], -1, 0)] * (-len(rows) % world)
        mine = keys[rank::world]
        self.batches = [mine[i : i + per_device] for i in range(0, len(mine), per_device)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)


class MixedBatches:
    """Rows mixed, always in the same way, in large batches of nearly equal size.

    What does not go evenly into the processes is excluded.
    """

    def __init__(self, rows: list[int], world: int = 1, rank: int = 0) -> None:
        mixed = np.asarray(rows)[permutation(len(rows), 0, 0)]
        mine = mixed[: len(rows) // world * world][rank::world]
        parts = np.array_split(mine, max(1, len(mine) // _LARGE))
        self.batches: list[list[Key]] = [[(row, 0, 0) for row in part.tolist()] for part in parts]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)
