"""Means over runs that differ in the seed alone, resampled over patients and seeds at once.

Both at once, as the pigeonhole bootstrap does (Owen 2007, Ann Appl Stat 1:386). Of S seeds S - 1 are drawn: with S the
variance of their mean would come out too small by (S - 1) / S (Rao and Wu 1988, J Am Stat Assoc 83:231).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddtl.evaluation.answers import Method
from ddtl.evaluation.clustered import MAX_UNDEFINED
from ddtl.evaluation.clusters import MIN_CLUSTERS
from ddtl.evaluation.intervals import Interval
from ddtl.evaluation.metrics import Scores
from ddtl.evaluation.names import SCORES
from ddtl.evaluation.resampling import Replicates, resampled


@dataclass(frozen=True)
class Runs:
    """A method's runs on one test set.

    Attributes:
        points: each run's scores.
        tables: of each score (R, B), runs by resamples of the images' clusters, the same for every run; NaN where not
            defined.
    """

    points: list[Scores]
    tables: Replicates

    @property
    def scores(self) -> Scores:
        """Means over the runs; None where a run has no score."""
        return {name: mean([point[name] for point in self.points]) for name in SCORES}


def resample_runs(method: Method, clusters: np.ndarray, labels: np.ndarray, replicates: int, seed: int) -> Runs:
    """Every run on the same resamples of clusters.

    Args:
        method: its runs' images in one order.
        clusters, labels: (N,) of the images.
        replicates, seed: of the draws.
    """
    found = [resampled(run.weighted, clusters, labels, replicates, seed) for run in method.runs]
    return Runs(
        [run.scores() for run in method.runs], {name: np.stack([one[name] for one in found]) for name in SCORES}
    )


def draw_seeds(runs: int, replicates: int, key: Sequence[int]) -> np.ndarray:
    """(B, max(1, R - 1)) which runs are in each resample; ``key`` seeds the draw."""
    return np.random.default_rng(key).integers(runs, size=(replicates, max(1, runs - 1)))


def means(table: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """(B,) means over the drawn runs of an (R, B) table."""
    return np.asarray(np.take_along_axis(table.T, drawn, axis=1).mean(axis=1))


def percentiles(replicates: np.ndarray, value: float | None, fewest: int, level: float) -> Interval | None:
    """The interval between the percentiles; None as in :func:`known`, and where all resamples are equal.

    Args:
        replicates: (B,)
        value: the score itself; without one there is no interval.
        fewest: as in :func:`known`.
        level: of the interval.
    """
    found = known(replicates, fewest)
    if value is None or found is None or np.ptp(found) == 0:
        return None
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), "percentile")


def known(replicates: np.ndarray, fewest: int) -> np.ndarray | None:
    """Those with a value; None where they are too few, or the clusters of a class are, for any interval.

    Args:
        replicates: (B,)
        fewest: how many clusters the rarest class has.
    """
    found = replicates[np.isfinite(replicates)]
    return None if len(found) < (1 - MAX_UNDEFINED) * len(replicates) or fewest < MIN_CLUSTERS else found


def fewest_clusters(clusters: np.ndarray, labels: np.ndarray) -> int:
    """How many clusters the rarest class has."""
    return min(len(np.unique(clusters[labels == label])) for label in np.unique(labels))


def mean(values: Sequence[float | None]) -> float | None:
    """None where one is missing: a mean over fewer runs than it says would be a lie."""
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found and len(found) == len(values) else None
