"""Whole clusters drawn with replacement, and the scores of every such replicate at once.

A replicate is a row of weights: how often each image is in it. Scores are computed from the weights, so that no image
is ever copied and the images are sorted once for all replicates (:func:`ddtl.evaluation.metrics.weighted_scores`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ddtl.evaluation.metrics import Replicates

_CELLS = 1 << 19  # of a block of weights: a few MB, whatever the numbers of images and replicates

_MOST_LEFT_OUT = 500  # turns of a jackknife in a stratum


def cluster_codes(clusters: np.ndarray) -> np.ndarray:
    """Return (N,) 0 to C - 1 for (N,) names of any kind."""
    codes: np.ndarray = np.unique(np.asarray(clusters), return_inverse=True)[1].ravel()
    return codes


def cluster_weights(clusters: np.ndarray, n_replicates: int, seed: int, labels: np.ndarray | None = None) -> np.ndarray:
    """Return how often each image is drawn when whole clusters are drawn with replacement, as many as there are.

    Args:
        clusters: (N,) a code for each image; images of one patient share one.
        n_replicates: B.
        seed: of the draw; a prefix of the replicates is the same for every B.
        labels: (N,) classes. With them clusters are drawn class by class, so that every replicate has as many patients
            of each class as there are; not where a cluster has images of several classes.

    Returns:
        (B, N) integers.
    """
    return np.concatenate(list(_blocks(clusters, n_replicates, seed, labels)))


def strata(clusters: np.ndarray, labels: np.ndarray | None) -> list[np.ndarray]:
    """Cluster codes class by class; all in one where there are no labels, or a cluster with images of two classes."""
    codes = cluster_codes(clusters)
    everyone = [np.arange(codes.max() + 1)]
    if labels is None:
        return everyone
    by_class = [np.unique(codes[labels == label]) for label in np.unique(labels)]
    return by_class if sum(map(len, by_class)) == len(everyone[0]) else everyone


def resample(
    statistic: Callable[[np.ndarray], Replicates],
    clusters: np.ndarray,
    labels: np.ndarray | None,
    n_replicates: int,
    seed: int,
) -> Replicates:
    """``statistic`` of the weights of :func:`cluster_weights`, block by block: memory does not grow with B x N."""
    parts = [statistic(block) for block in _blocks(clusters, n_replicates, seed, labels)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def jackknife(
    statistic: Callable[[np.ndarray], Replicates], clusters: np.ndarray, labels: np.ndarray | None
) -> list[Replicates]:
    """``statistic`` with each cluster excluded in turn, a table for each of the :func:`strata`.

    More than 500 clusters are excluded by groups of them (the delete-a-group jackknife; Kott, 2001, Journal of
    Official Statistics 17:521), assigned at random.
    """
    codes = cluster_codes(clusters)
    rows = max(1, _CELLS // len(codes))
    tables = []
    for stratum in strata(clusters, labels):
        groups = min(len(stratum), _MOST_LEFT_OUT)
        group_of = np.full(codes.max() + 1, -1)
        group_of[np.random.default_rng(0).permutation(stratum)] = np.arange(len(stratum)) % groups
        group = group_of[codes]
        parts = [
            statistic((group != np.arange(start, min(start + rows, groups))[:, None]).astype(np.float64))
            for start in range(0, groups, rows)
        ]
        tables.append({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    return tables


def _blocks(clusters: np.ndarray, n_replicates: int, seed: int, labels: np.ndarray | None) -> Iterator[np.ndarray]:
    codes = cluster_codes(clusters)
    count = codes.max() + 1
    groups = strata(clusters, labels)
    # A stream of its own for each class: a block's size does not change what is drawn.
    generators = [np.random.default_rng([seed, k]) for k in range(len(groups))]
    rows = max(1, _CELLS // len(codes))
    for start in range(0, n_replicates, rows):
        block = min(rows, n_replicates - start)
        drawn = np.concatenate(
            [
                group[generator.integers(len(group), size=(block, len(group)))]
                for group, generator in zip(groups, generators, strict=True)
            ],
            axis=1,
        )
        cells = (drawn + count * np.arange(block)[:, None]).ravel()
        yield np.bincount(cells, minlength=block * count).reshape(block, count)[:, codes]
