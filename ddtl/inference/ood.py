"""Is an image like those that the network was trained on? Distances between embeddings, and where a warning begins.

The distance is that to the k-th nearest training image, between pooled features of unit length (Sun, Ming, Zhu & Li
2022, ICML). The cut is an order statistic of the distances of validation images, so that of new images like those a
known share is warned of (split conformal prediction: Vovk, Gammerman & Shafer 2005; for this use Bates et al. 2023,
Annals of Statistics 51:149). No torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

NEIGHBOUR = 10


@dataclass(frozen=True)
class Reference:
    """What images are compared with.

    Attributes:
        train: (N, D) float32 of unit length: the training images' features.
        val: (M,) distances of the validation images, sorted.
    """

    train: np.ndarray
    val: np.ndarray

    @classmethod
    def of(cls, train: np.ndarray, val: np.ndarray) -> Reference:
        """From the features of both, (N, D) and (M, D); at least one of each."""
        units = unit(train)
        return cls(units, np.sort(distance(units, unit(val))))

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Return (B,) distances of images from their (B, D) features: 0 for a training image's twin, at most 2."""
        return distance(self.train, unit(features))

    def cut(self, false_alarms: float) -> Cut:
        """Where a warning begins.

        Args:
            false_alarms: the share of images like the validation images that may be warned of.
        """
        n = len(self.val)
        rank = min(math.ceil((n + 1) * (1 - false_alarms)), n)
        return Cut(float(self.val[rank - 1]), 1 - rank / (n + 1), float(np.mean(self.val > self.val[rank - 1])), n)


@dataclass(frozen=True)
class Cut:
    """From which distance on an image is out of distribution.

    Attributes:
        distance: images beyond it are out of distribution.
        expected: the share of new images like the validation images that is beyond it, at most. With fewer
            validation images than 1 / share - 1 it is more than was requested, and the cut is the largest distance.
        on_val: the share of the validation images beyond it.
        val_images: how many there are.
    """

    distance: float
    expected: float
    on_val: float
    val_images: int


def unit(features: np.ndarray) -> np.ndarray:
    """Return rows (N, D) float32 of length 1; one without any direction stays 0."""
    x = features.astype(np.float32)
    length: np.ndarray = np.linalg.norm(x, axis=1, keepdims=True)
    scaled: np.ndarray = x / np.where(length > 0, length, 1)
    return scaled


def distance(train: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return (B,) Euclidean distance of each row to its ``NEIGHBOUR``-th nearest training row (the farthest, of
    fewer).
    """
    k = min(NEIGHBOUR, len(train))
    # Of unit vectors; rounding can push twins a little below 0. A row of zeros is at a right angle to all.
    squared = 2 - 2 * np.partition(features @ train.T, len(train) - k, axis=1)[:, len(train) - k]
    found: np.ndarray = np.sqrt(squared.clip(min=0))
    return found
