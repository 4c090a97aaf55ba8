"""How weak a shortcut the probes can still find with the patients of a test set: what "nothing found" is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ddtl.audits.probes import SHUFFLES, Protocol, is_found
from ddtl.evaluation.intervals.clusters import Clusters
from ddtl.evaluation.intervals.delong import components
from ddtl.evaluation.intervals.influence import spread
from ddtl.evaluation.intervals.robust import auc_limits

POWER = 0.8  # the share of test sets in which a shortcut must be found to count as one that would have been found
EXAMPLE = 0.9  # a strong shortcut, whose share is stated too

_DRAWS, _IMAGES_DRAWN = 500, 1_000_000  # simulated test sets, and fewer where they have more images than this together
_AUCS = tuple(round(0.01 * percent, 2) for percent in range(56, 101))
_PERFECT = 50.0  # a shift in standard deviations that separates the classes in every draw


@dataclass(frozen=True)
class Power:
    """How often the probes find a shortcut of a stated ROC AUC.

    Attributes:
        protocol: how the probes are scored, as in ``probes.Probe``.
        groups: the scored patients or groups of each class.
        power: the share of test sets that ``least_auc`` is about.
        least_auc: the least ROC AUC, in steps of 0.01, that is found in this share; None where a perfect one is not.
        example_auc, example_found: a ROC AUC, and the share of test sets in which it is found.
    """

    protocol: Protocol
    groups: tuple[int, ...]
    power: float
    least_auc: float | None
    example_auc: float
    example_found: float


def power(protocol: Protocol, labels: np.ndarray, groups: np.ndarray, *, seed: int = 0) -> Power:
    """Return what the probes' rule finds in simulated test sets with these patients and images.

    The rule is that of the probes (``probes.is_found``) with its own interval and as many shuffles. A shortcut is a
    score that is normally distributed in each class and that all images of a patient share; with shuffled labels the
    score gives no information. The ROC AUC is that of the fitted probe for other patients: what it lost because there
    were few images to train on is not in the power.

    Args:
        protocol: how the probes are scored.
        labels: (N,) classes 0 to K - 1 of the scored images.
        groups: (N,) whose image each is.
        seed: of the simulation.
    """
    found = Simulated(labels, groups, seed)
    low, high = 0, len(_AUCS)  # the least that is found is at or above low, and below or at high
    while low < high:
        middle = (low + high) // 2
        if found.share(_AUCS[middle]) >= POWER:
            high = middle
        else:
            low = middle + 1
    codes = np.unique(groups, return_inverse=True)[1]
    counts = tuple(len(np.unique(codes[labels == label])) for label in range(int(labels.max()) + 1))
    least = _AUCS[low] if low < len(_AUCS) else None
    return Power(protocol, counts, POWER, least, EXAMPLE, found.share(EXAMPLE))


class Simulated:
    """Test sets drawn once; shortcuts of any strength are planted in the same draws."""

    def __init__(self, labels: np.ndarray, groups: np.ndarray, seed: int) -> None:
        self._classes = [1] if labels.max() == 1 else range(int(labels.max()) + 1)
        self._of_class = [Clusters((labels == k).astype(int), groups) for k in self._classes]
        self._random = np.random.default_rng(seed)
        codes = self._of_class[0].codes
        self._codes, patients = codes, int(codes.max()) + 1
        draws = int(np.clip(_IMAGES_DRAWN // len(labels), 50, _DRAWS))
        self._noise = self._random.normal(size=(draws, patients, len(self._of_class)))
        images = np.array([np.bincount(codes[labels == k], minlength=patients) for k in range(int(labels.max()) + 1)])
        self._shuffled = [self._highest_shuffle(images) for _ in range(draws)]

    def share(self, auc: float) -> float:
        """Return the share of the test sets in which a shortcut of this ROC AUC is found."""
        from scipy.stats import norm

        shift = _PERFECT if auc == 1 else np.sqrt(2) * norm.ppf(auc)
        pairs = zip(self._noise, self._shuffled, strict=True)
        return float(np.mean([self._found(noise, shift, high) for noise, high in pairs]))

    def _found(self, noise: np.ndarray, shift: float, highest_shuffle: float) -> bool:
        parts = [
            components(of.labels, noise[self._codes, k] + shift * of.labels) for k, of in enumerate(self._of_class)
        ]
        auc = float(np.mean([part.auc for part in parts]))
        if not is_found(auc, auc, highest_shuffle):
            return False  # the interval costs most of the time
        lows = []
        for part, of in zip(parts, self._of_class, strict=True):
            positive = of.labels == 1
            moved = np.empty(len(positive))
            moved[positive] = (part.of_positives - part.auc) / positive.sum()
            moved[~positive] = (part.of_negatives - part.auc) / (~positive).sum()
            lows.append(auc_limits(part, spread(moved, of), of, 0.95)[0])
        return is_found(auc, float(np.mean(lows)), highest_shuffle)

    def _highest_shuffle(self, images: np.ndarray) -> float:
        """Return the highest ROC AUC of the control, in which a group has the label that most of its images have.

        Args:
            images: (K, groups) of each class.
        """
        counts, label = images.sum(axis=0), images.argmax(axis=0)
        order = self._random.random((SHUFFLES, len(counts))).argsort(axis=1)
        aucs = []
        for k in self._classes:
            positive = np.where(label == k, counts, 0)[order]
            negative = np.where(label == k, 0, counts)[order]
            below = negative.cumsum(axis=1) - negative
            aucs.append((positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1)))
        return float(np.mean(aucs, axis=0).max())
