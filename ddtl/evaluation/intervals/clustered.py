"""Intervals of any statistic of weighted images, with whole clusters drawn, or excluded in turn."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from ddtl.evaluation.intervals.clusters import MIN_CLUSTERS, Design, fewest_clusters
from ddtl.evaluation.intervals.interval import logit_limits
from ddtl.evaluation.intervals.resampling import cluster_codes, jackknife, resample
from ddtl.evaluation.metrics import Replicates

Limits = tuple[float, float]

MAX_UNDEFINED = 0.05  # of the replicates: where more have no value, the others are a biased choice
_ROUNDING = 1e-12  # a standard error, or a range, that is nothing but rounding


class Clustered:
    """Estimates of a statistic, and their intervals; replicates are computed when first requested.

    Of a ``case_control`` test set clusters are drawn, and excluded, class by class; of a ``cohort`` all together.

    Attributes:
        estimates: the statistic of all images, by name; NaN where it is not defined.
        independent: whether every image is a cluster of its own.
    """

    def __init__(
        self,
        statistic: Callable[[np.ndarray], Replicates],
        labels: np.ndarray,
        clusters: np.ndarray,
        level: float,
        replicates: int,
        seed: int,
        design: Design = "case_control",
    ) -> None:
        """``statistic`` takes weights (B, N) and gives (B,) values by name."""
        self._statistic, self._clusters = statistic, clusters
        self._strata = None if design == "cohort" else labels
        self._level, self._replicates, self._seed = level, replicates, seed
        self.estimates = {name: float(value[0]) for name, value in statistic(np.ones((1, len(labels)))).items()}
        codes = cluster_codes(clusters)
        self.independent = len(np.unique(codes)) == len(codes)
        self._fewest = fewest_clusters(codes, labels)

    def is_defined_without_each(self, name: str) -> bool:
        """Return whether there is a value, and at least three clusters of each class."""
        return bool(np.isfinite(self.estimates[name])) and self._fewest >= MIN_CLUSTERS

    def varies(self, name: str) -> bool:
        """Return whether any cluster moves the score; also where one cannot be excluded, so that nobody knows."""
        influences = self._influences(name)
        return influences is None or any(np.abs(part).max() > _ROUNDING for part in influences)

    def percentile(self, name: str) -> Limits | None:
        """Return the quantiles of the replicates; None where they are all alike, or too many are not defined."""
        return self._quantiles(name, self._tails)

    def bca(self, name: str) -> Limits | None:
        """Return the interval of :meth:`percentile`, corrected for bias and skewness (BCa; Efron, 1987, JASA 82:171).

        With clusters drawn class by class the acceleration is that of several samples (Davison and Hinkley, 1997,
        Bootstrap Methods and their Application, chapter 5).
        """
        from scipy.special import ndtr, ndtri

        known, influences = self._values(name), self._influences(name)
        if known is None or influences is None:
            return None
        estimate = self.estimates[name]
        below = (np.mean(known < estimate) + np.mean(known <= estimate)) / 2
        bias = ndtri(np.clip(below, 1 / (2 * len(known)), 1 - 1 / (2 * len(known))))
        cubes = sum(float((part**3).sum()) / len(part) ** 3 for part in influences)
        squares = sum(float((part**2).sum()) / len(part) ** 2 for part in influences)
        acceleration = cubes / (6 * squares**1.5) if squares else 0.0
        shifted = bias + ndtri(self._tails)
        return self._quantiles(name, ndtr(bias + shifted / (1 - acceleration * shifted)))

    def logit(self, name: str, bounds: Limits) -> Limits | None:
        """Return estimate and jackknife standard error on the logit scale, by Student's t, for a score between
        ``bounds``.

        Between -1 and 1 that is Fisher's z. None where nothing varies.
        """
        low, high = bounds
        share = (self.estimates[name] - low) / (high - low)
        spread = self._spread(name)
        if spread is None or not 0 < share < 1:
            return None
        error, t = spread
        limits = logit_limits(share, error / (high - low), t)
        return low + (high - low) * limits[0], low + (high - low) * limits[1]

    @property
    def _tails(self) -> np.ndarray:
        return np.array([(1 - self._level) / 2, (1 + self._level) / 2])

    @cached_property
    def _draws(self) -> Replicates:
        return resample(self._statistic, self._clusters, self._strata, self._replicates, self._seed)

    @cached_property
    def _jackknife(self) -> list[Replicates]:
        return jackknife(self._statistic, self._clusters, self._strata)

    def _values(self, name: str) -> np.ndarray | None:
        if not self.is_defined_without_each(name):
            return None
        values = self._draws[name]
        known = values[~np.isnan(values)]
        enough = len(known) >= (1 - MAX_UNDEFINED) * len(values)
        return known if enough and np.ptp(known) > _ROUNDING else None

    def _quantiles(self, name: str, shares: np.ndarray) -> Limits | None:
        known = self._values(name)
        if known is None:
            return None
        low, high = np.quantile(known, shares)
        return float(low), float(high)

    def _influences(self, name: str) -> list[np.ndarray] | None:
        """Return what each cluster moves the score by, times the clusters of its class; None where one cannot be
        excluded.
        """
        tables = [table[name] for table in self._jackknife]
        if np.isnan(np.concatenate(tables)).any():
            return None
        return [(len(values) - 1) * (values.mean() - values) for values in tables]

    def _spread(self, name: str) -> tuple[float, float] | None:
        """Return jackknife standard error and the quantile of t, with Satterthwaite's degrees of freedom over the
        classes.
        """
        from scipy.special import stdtrit

        influences = self._influences(name) if self.is_defined_without_each(name) else None
        if influences is None:
            return None
        variances = [float(part @ part) / (len(part) * (len(part) - 1)) for part in influences]
        total = sum(variances)
        if not self.varies(name):
            return None
        freedom = total**2 / sum(v**2 / (len(part) - 1) for v, part in zip(variances, influences, strict=True))
        return float(np.sqrt(total)), float(stdtrit(freedom, (1 + self._level) / 2))
