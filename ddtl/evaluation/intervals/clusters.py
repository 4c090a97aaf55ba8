"""How the images of a test set come in clusters, which are its patients where they are known."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np

from ddtl.evaluation.intervals.resampling import cluster_codes

# Whether the numbers of patients with and without the disease were fixed when the test set was collected
# (case_control), or are what came (cohort).
Design = Literal["case_control", "cohort"]

MIN_CLUSTERS = 3  # with images of a class: fewer give no information about the variation between them


def fewest_clusters(clusters: np.ndarray, labels: np.ndarray) -> int:
    """Return how many clusters the rarest class that there is has, of (N,) codes and (N,) classes."""
    return min(len(np.unique(clusters[labels == label])) for label in np.unique(labels))


def effective_clusters(amounts: np.ndarray) -> float:
    """Return how many clusters with equal parts would tell as much as these, which have (C,) parts of the images or
    errors.

    (sum k)² / sum k² (Carter, Schnepel and Steigerwald, 2017, Review of Economics and Statistics 99:698, without the
    part that only the data could tell); 0 where there is nothing.
    """
    total = float(amounts.sum())
    return total**2 / float(amounts @ amounts) if total else 0.0


class Clusters:
    """The clusters of (N,) images of two classes.

    Attributes:
        labels: (N,) 0 or 1.
        codes: (N,) 0 to C - 1, the cluster of each image.
        design: of the test set.
    """

    def __init__(self, labels: np.ndarray, clusters: np.ndarray, design: Design = "case_control") -> None:
        self.labels, self.codes, self.design = labels, cluster_codes(clusters), design

    @cached_property
    def of_class(self) -> tuple[Sizes, Sizes]:
        """The images of class 0 and of class 1."""
        return Sizes.of(self.codes[self.labels != 1]), Sizes.of(self.codes[self.labels == 1])

    @cached_property
    def all(self) -> Sizes:
        """All images."""
        return Sizes.of(self.codes)

    @cached_property
    def fewest(self) -> int:
        """How many clusters the rarer class has; of a class without images nothing is required."""
        return min(sizes.clusters for sizes in self.of_class if sizes.clusters)

    @cached_property
    def independent(self) -> bool:
        """Whether every image is a cluster of its own."""
        return self.all.clusters == len(self.codes)

    @cached_property
    def mixed(self) -> bool:
        """Whether some cluster has images of both classes."""
        return sum(sizes.clusters for sizes in self.of_class) > self.all.clusters

    @cached_property
    def strata(self) -> list[np.ndarray]:
        """(C,) masks of the clusters whose number was fixed: class by class, or all together."""
        everyone = np.ones(self.all.clusters, bool)
        if self.design == "cohort" or self.mixed or 0 in (sizes.clusters for sizes in self.of_class):
            return [everyone]
        positive = np.bincount(self.codes, self.labels == 1) > 0
        return [positive, ~positive]

    @cached_property
    def leverage(self) -> np.ndarray:
        """(N,) the share of an image's cluster in the images of its class."""
        share = np.zeros(len(self.codes))
        for label, sizes in enumerate(self.of_class):
            mine = (self.labels == 1) == label
            share[mine] = sizes.share(self.codes[mine])
        return share


class Sizes:
    """How many images the clusters of a set of images have.

    Attributes:
        images, clusters: how many there are.
        effective: :func:`effective_clusters` of their sizes.
    """

    def __init__(self, counts: np.ndarray) -> None:
        self._counts = counts.astype(float)
        self.images, self.clusters = int(counts.sum()), int((counts > 0).sum())
        self.effective = effective_clusters(self._counts)

    @classmethod
    def of(cls, codes: np.ndarray) -> Sizes:
        """Of (N,) cluster codes."""
        return cls(np.bincount(codes) if len(codes) else np.zeros(1, int))

    def share(self, codes: np.ndarray) -> np.ndarray:
        """Return (N,) the share of all images that each image's cluster has."""
        return np.asarray(self._counts[codes] / self.images)

    @property
    def deviance(self) -> float:
        """The sum over the clusters of (images / their mean - 1)²."""
        sizes = self._counts[self._counts > 0]
        return float(((sizes * self.clusters / self.images - 1) ** 2).sum())

    @property
    def freedom(self) -> float:
        """Degrees of freedom of a variance between these clusters, at least 1."""
        return max(1.0, self.effective - 1)
