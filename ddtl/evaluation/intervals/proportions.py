"""Intervals of a proportion of images that come in clusters, as accuracy and sensitivity are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ddtl.evaluation.intervals.resampling import cluster_codes


@dataclass(frozen=True)
class Proportion:
    """A share of hits among images.

    Attributes:
        value: hits / images.
        images, clusters: how many it rests on.
        variance: between clusters, by linearisation of the ratio (Cochran, 1977, Sampling Techniques):
            clusters / (clusters - 1) times the sum of the squared (hits - value x images) of each, over images squared.
    """

    value: float
    images: int
    clusters: int
    variance: float


def proportion(hits: np.ndarray, members: np.ndarray, clusters: np.ndarray) -> Proportion:
    """Return the share of ``hits`` (N,) among the images that are ``members`` (N,), both 0 or 1, of ``clusters``
    (N,).
    """
    chosen = members.astype(bool)
    codes = cluster_codes(clusters[chosen])
    hit = hits[chosen].astype(float)
    count = int(codes.max()) + 1
    value = float(hit.mean())
    residuals = np.bincount(codes, hit - value, count)
    spread = count / (count - 1) * float(residuals @ residuals) / len(hit) ** 2 if count > 1 else np.nan
    return Proportion(value, len(hit), count, spread)


def wilson(share: Proportion, level: float) -> tuple[float, float]:
    """Return Wilson's interval (1927, JASA 22:209); with several images a cluster, at the effective number of
    images.
    """
    from scipy.special import ndtri

    n, z = effective_number(share, level), float(ndtri((1 + level) / 2))
    centre = (share.value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(share.value * (1 - share.value) / n + z**2 / (4 * n**2)))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return 0.0 if share.value == 0 else low, 1.0 if share.value == 1 else high


def effective_number(share: Proportion, level: float) -> float:
    """Return how many independent images would tell as much as these.

    Images over the design effect, which is not taken below 1, times (z / t)² for the design effect being estimated from
    the clusters: Korn and Graubard (1998, Survey Methodology 24:193); with Wilson's interval as Dean and Pagano (2015,
    Journal of Survey Statistics and Methodology 3:484) recommend. A share of 0 or 1 shows no design effect, and
    clusters are counted in place of images.
    """
    from scipy.special import ndtri, stdtrit

    if share.images == share.clusters:
        return float(share.images)
    if share.value in (0, 1):
        return float(share.clusters)
    effect = max(1.0, share.variance / (share.value * (1 - share.value) / share.images))
    quantile = (1 + level) / 2
    return float(share.images / effect * (ndtri(quantile) / stdtrit(share.clusters - 1, quantile)) ** 2)
