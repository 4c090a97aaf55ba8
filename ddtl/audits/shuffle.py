"""Labels shuffled by group: what a probe scores where there is nothing to be found."""

from __future__ import annotations

import numpy as np

from ddtl.evaluation.intervals.resampling import cluster_codes


def shuffle_labels(labels: np.ndarray, groups: np.ndarray, parts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return (N,) labels in which the groups of each part have swapped their classes at random.

    The images of a group keep one label in common, as those of a patient have, and each part keeps its number of groups
    of each class. A group with images of several classes counts as its most common one.

    Args:
        labels: (N,) 0 to K - 1.
        groups: (N,) codes or names; a group must be within one part.
        parts: (N,) codes; classes are swapped within a part: what is trained on, and what is scored.
    """
    codes = cluster_codes(groups)
    counts = np.zeros((codes.max() + 1, labels.max() + 1), dtype=int)
    np.add.at(counts, (codes, labels), 1)
    of_group = counts.argmax(axis=1)
    part_of_group = np.zeros(len(counts), dtype=int)
    part_of_group[codes] = cluster_codes(parts)
    for part in range(part_of_group.max() + 1):
        within = np.flatnonzero(part_of_group == part)
        of_group[within] = rng.permutation(of_group[within])
    result: np.ndarray = of_group[codes]
    return result
