"""By what the classes differ besides the disease: size, brightness, text and colour marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ddtl.audits.views import VIEWS, Kind, Measurements
from ddtl.data.manifest import Manifest
from ddtl.evaluation.comparison.significance import holm
from ddtl.evaluation.intervals import delong
from ddtl.evaluation.intervals.clusters import MIN_CLUSTERS, Clusters
from ddtl.evaluation.intervals.influence import influences, spread
from ddtl.evaluation.intervals.resampling import cluster_codes
from ddtl.evaluation.intervals.robust import auc_limits

_LEVEL = 0.95
# Below so many groups of a class, and how often. With 12 + 12 groups Student's t is too small far in its tails, where
# Holm looks: of twelve quantities without a difference one was called different in 8.0 % of datasets.
_PERMUTED, _PERMUTATIONS = 50, 4999
# Least size of Cliff's delta that each word stands for: Romano et al. (2006), Florida Association of Institutional
# Research; the values at which Cohen's d is 0.2, 0.5 and 0.8 in normal distributions.
_WORDS = ((0.474, "large"), (0.33, "medium"), (0.147, "small"))


@dataclass(frozen=True)
class Difference:
    """One quantity in the images of one class and in all others.

    Attributes:
        quantity: what is measured, in plain words.
        kind: ``shortcut``: lesions cannot change it. ``may carry disease``: they can.
        unit: ``pixels``, ``bytes``, ``%``, ``grey levels`` or empty.
        of_class: the class.
        others: the other class, or ``all others`` where there are several.
        median, median_others: of the images.
        mean, mean_others: of the images; of a mark that few images have the medians are both 0.
        delta: Cliff's delta, -1 to 1: how much more often an image of the class has the larger value than the smaller.
        low, high: its 95 % interval, by group; None where a class has fewer than three groups.
        p_value: two-sided, of no difference, by group; None where ``low`` is.
        p_adjusted: after Holm, over all quantities and classes of the dataset.
        size: of delta in words: ``none``, ``small``, ``medium``, ``large``; also ``none`` where p_adjusted is 0.05 or
            more, or not known.
    """

    quantity: str
    kind: Kind
    unit: str
    of_class: str
    others: str
    median: float
    median_others: float
    mean: float
    mean_others: float
    delta: float
    low: float | None
    high: float | None
    p_value: float | None
    p_adjusted: float | None
    size: str


def _number(view: str, name: str, scale: float = 1) -> Callable[[Measurements], float]:
    place = VIEWS[view].names.index(name)
    return lambda m: scale * float(m.numbers[view][place])


# Lesions change the grey levels of the whole image, and so what a compressed file of it weighs.
_QUANTITIES: tuple[tuple[str, Kind, str, Callable[[Measurements], float]], ...] = (
    ("width", "shortcut", "pixels", lambda m: m.metadata.width),
    ("height", "shortcut", "pixels", lambda m: m.metadata.height),
    ("width / height", "shortcut", "", lambda m: m.metadata.width / m.metadata.height),
    ("area outside the body", "shortcut", "%", _number("outside the body", "share of the image", 100)),
    ("white paper around the image", "shortcut", "%", _number("marks", "paper white", 100)),
    ("coloured pixels", "shortcut", "%", _number("marks", "coloured", 100)),
    ("text and arrows outside the body", "shortcut", "%", lambda m: 25 * float(m.numbers["marks"][2:].sum())),
    ("file size", "may carry disease", "bytes", lambda m: m.metadata.file_bytes),
    (
        "file bytes a pixel",
        "may carry disease",
        "",
        lambda m: m.metadata.file_bytes / (m.metadata.width * m.metadata.height),
    ),
    ("brightness", "may carry disease", "grey levels", _number("coarse statistics", "mean")),
    ("contrast", "may carry disease", "grey levels", _number("coarse statistics", "standard deviation")),
    ("sharpness", "may carry disease", "grey levels", _number("coarse statistics", "sharpness")),
)


def class_differences(manifest: Manifest, measurements: Sequence[Measurements | None]) -> list[Difference]:
    """Return every quantity by class, the largest difference first; empty where there is one class only.

    Two classes are compared once, as the positive class against the other; of more, each is against all others.

    Args:
        manifest: the dataset.
        measurements: of each image in manifest order, from ``views.measure``; None for one that cannot be read.
    """
    pairs = [(s, one) for s, one in zip(manifest.samples, measurements, strict=True) if one is not None]
    labels = np.array([sample.label for sample, _ in pairs], dtype=int)
    groups = cluster_codes(np.array([sample.group for sample, _ in pairs])) if pairs else np.array([], dtype=int)
    present = np.unique(labels)
    if len(present) < 2:
        return []
    two = len(present) == 2
    found = []
    for quantity, kind, unit, of in _QUANTITIES:
        values = np.array([of(one) for _, one in pairs])
        for label in present[1:] if two else present:
            others = manifest.classes[present[0]] if two else "all others"
            what = (quantity, kind, unit, manifest.classes[label], others)
            found.append(_difference(what, values, (labels == label) * 1, groups))
    return sorted(judge(found), key=lambda one: (one.size == "none", -abs(one.delta)))


def judge(found: Sequence[Difference]) -> list[Difference]:
    """Return the differences of a dataset with their p-values after Holm and, where that is low enough, their size."""
    adjusted = holm([one.p_value for one in found])
    return [
        replace(one, p_adjusted=p, size=_size(one.delta) if p is not None and p < 1 - _LEVEL else "none")
        for one, p in zip(found, adjusted, strict=True)
    ]


def cliffs_delta(
    values: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> tuple[float, tuple[float, float, float] | None]:
    """Return Cliff's delta (1993, Psychological Bulletin 114:494), and its 95 % interval and p-value by group.

    Delta is 2 AUC - 1 of the values, AUC being the chance that an image of class 1 has the larger one, ties by half.
    So the interval and the variance are those of a ROC AUC of clustered images (``intervals.robust``), and the test is
    Student's t with Satterthwaite's degrees of freedom, after Brunner and Munzel (2000), Biom J 42:17; with fewer than
    50 groups of a class a permutation test of whole groups.

    Args:
        values: (N,).
        labels: (N,) 0 or 1.
        groups: (N,) codes; images of one patient share one.

    Returns:
        Delta, and (low, high, p), None where a class has fewer than three groups. Where no group varies, as with
        perfect separation, they come from what so few independent pairs of groups leave possible (``delong.unseen``).
    """
    from scipy.special import stdtr

    parts = delong.components(labels, values)
    delta = 2 * parts.auc - 1
    clusters = Clusters(labels, groups)
    if clusters.fewest < MIN_CLUSTERS:
        return delta, None
    of_auc = spread(influences(labels, values, 0.5)["roc_auc"], clusters)
    error = float(np.sqrt(of_auc.variance))
    if error <= delong.ROUNDING:
        k = delong.independent_pairs(labels, groups)
        p = min(1.0, 2 * (1 + abs(delta)) ** -k)
        return delta, (*delong.around(delta, -1, 1, delong.unseen(k, _LEVEL)), p)
    low, high = auc_limits(parts, of_auc, clusters, _LEVEL)
    if clusters.fewest < _PERMUTED and not clusters.mixed:
        p = _permutation_p(values, clusters)
    else:
        p = float(2 * stdtr(of_auc.freedom, -abs(parts.auc - 0.5) / error))
    return delta, (2 * low - 1, 2 * high - 1, p)


def _permutation_p(values: np.ndarray, clusters: Clusters) -> float:
    """Return how often groups whose classes are permuted are at least as far apart; all of a group keep one class."""
    from scipy.stats import rankdata

    ranks, images = np.bincount(clusters.codes, rankdata(values)), np.bincount(clusters.codes)
    drawn = _permute((np.bincount(clusters.codes, clusters.labels) > 0).tobytes())
    positive = drawn @ images
    auc = (drawn @ ranks - positive * (positive + 1) / 2) / (positive * (len(values) - positive))
    apart = np.abs(auc - 0.5)
    return float((apart >= apart[0] - 1e-12).mean())


@lru_cache(maxsize=2)
def _permute(classes: bytes) -> np.ndarray:
    """Return (1 + permutations, groups) 0 or 1: the classes of the groups, which every quantity of a dataset shares."""
    given = np.frombuffer(classes, dtype=bool)
    orders = np.random.default_rng(0).random((_PERMUTATIONS, len(given))).argsort(axis=1)
    return np.concatenate([given[None], given[orders]]).astype(float)


def _difference(
    what: tuple[str, Kind, str, str, str], values: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> Difference:
    delta, tested = cliffs_delta(values, labels, groups)
    low, high, p = tested or (None, None, None)
    one, rest = values[labels == 1], values[labels == 0]
    medians = float(np.median(one)), float(np.median(rest))
    means = float(one.mean()), float(rest.mean())
    return Difference(*what, *medians, *means, delta, low, high, p, None, "none")


def _size(delta: float) -> str:
    return next((word for least, word in _WORDS if abs(delta) >= least), "none")
