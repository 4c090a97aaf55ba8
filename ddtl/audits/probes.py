"""Classifiers that see everything but the disease: what they score, and whether that is a shortcut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ddtl.audits import file_metadata
from ddtl.audits.shuffle import shuffle_labels
from ddtl.audits.views import VIEWS, Kind, Measurements, table
from ddtl.data.manifest import Manifest
from ddtl.evaluation.intervals import delong
from ddtl.evaluation.intervals.clusters import MIN_CLUSTERS
from ddtl.evaluation.intervals.interval import Interval
from ddtl.evaluation.intervals.intervals import intervals, multiclass_intervals
from ddtl.evaluation.intervals.resampling import cluster_codes
from ddtl.utils.progress import Progress
from ddtl.utils.threads import cores

Verdict = Literal["shortcut", "may carry disease", "nothing found", "not possible"]
Protocol = Literal["test", "held-out half"]

BOUND = 0.55  # ROC AUC that the lower end of the interval must pass: less is too weak to carry a published result
SHUFFLES = 19  # the probe must exceed them all, which has a chance of 1 in 20 where there is nothing to be found

_TREES = 300  # of the forests on pixels; those on file metadata have more, see file_facts
_TREES_SHUFFLED = 25  # a tenth of the time; with nothing to be found more trees change nothing
_RIDGE = 0.01  # inverse strength of the penalty on standardised pixels


@dataclass(frozen=True)
class Shuffled:
    """The control: the same probe, refitted with the labels of the groups shuffled.

    Attributes:
        aucs: ROC AUC of each shuffle.
        mean, low, high: their mean and their range, which should contain 0.5.
    """

    aucs: tuple[float, ...]
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Probe:
    """One classifier and what it scored.

    Attributes:
        view: what it was given; a key of ``views.VIEWS``.
        kind: ``shortcut``: nothing in the view can be the disease. ``may carry disease``: lesions change it too.
        about: the view in plain words.
        features: names of the numbers it was given.
        protocol: ``test``: trained on training and validation, scored on the test split. ``held-out half``:
            trained on half of the groups, scored on the others; so where the split has no test or tears groups.
        images, groups: how many were scored.
        roc_auc: of the positive class; the mean of each class against all others where there are more than two.
        low, high: its 95 % interval, by group.
        accuracy, accuracy_low, accuracy_high: the same of the accuracy.
        majority: accuracy of always predicting the majority class of the scored images.
        shuffled: the control.
        p_value: the share of the shuffles, the probe itself counted in, that score at least as high.
        verdict: what to make of it; see :func:`is_found`.
        why_not: why the probe was not possible, as the end of a sentence; None where it was. All scores are None then.
    """

    view: str
    kind: Kind
    about: str
    features: tuple[str, ...]
    protocol: Protocol
    images: int
    groups: int
    roc_auc: float | None = None
    low: float | None = None
    high: float | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    majority: float | None = None
    shuffled: Shuffled | None = None
    p_value: float | None = None
    verdict: Verdict = "not possible"
    why_not: str | None = None


@dataclass(frozen=True)
class _Plan:
    """Which rows to train on, and which to score."""

    protocol: Protocol
    train: np.ndarray
    score: np.ndarray


def run_probes(
    manifest: Manifest, measurements: Sequence[Measurements | None], *, seed: int = 0, progress: Progress | None = None
) -> list[Probe]:
    """Return a probe for each view of ``views.VIEWS``.

    Args:
        manifest: with splits or without.
        measurements: of each image in manifest order, from ``views.measure``; None for one that cannot be read.
        seed: of the halves and the shuffles.
        progress: called with (probes done, probes in all).
    """
    seen = [one for one in measurements if one is not None]
    labels, groups, splits = _readable(manifest, measurements)
    probes = []
    for view in VIEWS:
        probes.append(probe(view, *table(view, seen), labels, groups, splits, seed=seed))
        if progress:
            progress(len(probes), len(VIEWS))
    return probes


def scored_images(
    manifest: Manifest, measurements: Sequence[Measurements | None], *, seed: int = 0
) -> tuple[Protocol, np.ndarray, np.ndarray] | None:
    """Return the protocol of every probe, and the (N,) classes and groups of the images that each is scored on.

    Args:
        manifest, measurements, seed: as in :func:`run_probes`.

    Returns:
        None where no probe is possible.
    """
    labels, groups, splits = _readable(manifest, measurements)
    present, labels = np.unique(labels, return_inverse=True)
    plan = _plan(labels, groups, splits, seed)
    if _why_not(labels, groups, plan.score, len(present)) is not None:
        return None
    return plan.protocol, labels[plan.score], groups[plan.score]


def _readable(
    manifest: Manifest, measurements: Sequence[Measurements | None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class, group and split (empty without one) of each image that can be read."""
    samples = [sample for sample, one in zip(manifest.samples, measurements, strict=True) if one is not None]
    labels = np.array([sample.label for sample in samples], dtype=int)
    return labels, np.array([sample.group for sample in samples]), np.array([sample.split or "" for sample in samples])


def probe(
    view: str,
    names: Sequence[str],
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    splits: np.ndarray | None = None,
    *,
    seed: int = 0,
) -> Probe:
    """Return how far a classifier gets on one view.

    Args:
        view: a key of ``views.VIEWS``.
        names: of the F numbers.
        features: (N, F).
        labels: (N,) classes.
        groups: (N,) whose image it is; patients, or clusters of near-duplicates.
        splits: (N,) ``train``, ``val``, ``test`` or empty; None for no split.
        seed: of the halves and the shuffles.
    """
    present, labels = np.unique(labels, return_inverse=True)
    plan = _plan(labels, groups, splits, seed)
    rows = plan.score
    about = VIEWS[view]
    scored_images = (plan.protocol, len(rows), len(np.unique(groups[rows])))
    why_not = _why_not(labels, groups, rows, len(present))
    if why_not is not None:
        return Probe(view, about.kind, about.about, tuple(names), *scored_images, why_not=why_not)
    p = _predict(view, features, labels, plan, file_metadata.TREES if view == "file metadata" else _TREES)
    auc, found = _auc(labels[rows], p), _intervals(labels[rows], p, groups[rows])
    control = _control(view, features, labels, groups, plan, seed)
    area, share = found["roc_auc"], found["accuracy"]
    return Probe(
        view,
        about.kind,
        about.about,
        tuple(names),
        *scored_images,
        roc_auc=auc,
        low=area.low if area else None,
        high=area.high if area else None,
        accuracy=float(np.mean(_predict_classes(p) == labels[rows])),
        accuracy_low=share.low if share else None,
        accuracy_high=share.high if share else None,
        majority=float(np.bincount(labels[rows]).max() / len(rows)),
        shuffled=control,
        p_value=(1 + sum(a >= auc for a in control.aucs)) / (1 + len(control.aucs)),
        verdict=about.kind if area is not None and is_found(auc, area.low, control.high) else "nothing found",
    )


def is_found(auc: float, low: float, highest_shuffle: float) -> bool:
    """Return whether a probe exceeds every shuffle and the lower limit of its interval is above ``BOUND``."""
    return low > BOUND and auc > highest_shuffle


def _plan(labels: np.ndarray, groups: np.ndarray, splits: np.ndarray | None, seed: int) -> _Plan:
    """Return the split's own test, where there is one that tears no group; else half of the groups.

    No folds: probabilities from several classifiers cannot be pooled into one ROC curve, as each fold's own are low
    where its share of positives is high (with a planted mark of AUC 0.6 five folds scored 0.58).
    """
    if splits is not None:
        train, test = np.flatnonzero(np.isin(splits, ("train", "val"))), np.flatnonzero(splits == "test")
        if len(train) and len(test) and not np.isin(groups[test], groups[train]).any():
            return _Plan("test", train, test)
    if _fewest_groups(labels, groups) < 2:
        return _Plan("held-out half", *np.zeros((2, 0), dtype=int))
    from sklearn.model_selection import StratifiedGroupKFold

    halves = StratifiedGroupKFold(2, shuffle=True, random_state=seed).split(labels, labels, groups)
    return _Plan("held-out half", *next(iter(halves)))


def _fewest_groups(labels: np.ndarray, groups: np.ndarray) -> int:
    return min((len(np.unique(groups[labels == label])) for label in np.unique(labels)), default=0)


def _why_not(labels: np.ndarray, groups: np.ndarray, rows: np.ndarray, classes: int) -> str | None:
    if len(labels) == 0:
        return "there is no image that can be read"
    if classes < 2:
        return "all images are of one class"
    missing = len(np.unique(labels[rows])) < classes
    fewest = 0 if missing else _fewest_groups(labels[rows], groups[rows])
    if fewest < MIN_CLUSTERS:
        return f"a class has {fewest} patients or groups to score, and {MIN_CLUSTERS} are needed"
    return None


def _predict(view: str, features: np.ndarray, labels: np.ndarray, plan: _Plan, trees: int) -> np.ndarray:
    """(len(plan.score), K) probabilities."""
    train, known, score = features[plan.train], labels[plan.train], features[plan.score]
    classes = int(labels.max()) + 1
    if VIEWS[view].linear:
        return _logistic(train, known, score, classes)
    threads = min(2, cores()) if trees > _TREES_SHUFFLED else 1
    return file_metadata.forest(train, known, score, classes, trees=trees, threads=threads)


def _logistic(train: np.ndarray, labels: np.ndarray, score: np.ndarray, classes: int) -> np.ndarray:
    """Return (N, classes) probabilities from a ridge logistic regression on standardised numbers."""
    from sklearn.linear_model import LogisticRegression

    mean, spread = train.mean(axis=0), train.std(axis=0)
    spread[spread == 0] = 1
    p = np.zeros((len(score), classes))
    if len(np.unique(labels)) == 1:
        p[:, labels[0]] = 1
        return p
    model = LogisticRegression(C=_RIDGE, max_iter=1000).fit((train - mean) / spread, labels)
    p[:, model.classes_] = model.predict_proba((score - mean) / spread)
    return p


def _control(
    view: str, features: np.ndarray, labels: np.ndarray, groups: np.ndarray, plan: _Plan, seed: int
) -> Shuffled:
    """Return the probe refitted ``SHUFFLES`` times, classes swapped among the groups of what is trained on and
    scored.
    """
    rng = np.random.default_rng([seed, list(VIEWS).index(view)])
    parts = np.zeros(len(labels), dtype=int)
    parts[plan.train], parts[plan.score] = 1, 2
    aucs = []
    for _ in range(SHUFFLES):
        mixed = shuffle_labels(labels, groups, parts, rng)
        aucs.append(_auc(mixed[plan.score], _predict(view, features, mixed, plan, _TREES_SHUFFLED)))
    return Shuffled(tuple(aucs), float(np.mean(aucs)), min(aucs), max(aucs))


def _auc(labels: np.ndarray, p: np.ndarray) -> float:
    """Of the last class of two; of more, the mean of each against all others."""
    of = [1] if p.shape[1] == 2 else range(p.shape[1])
    return float(np.mean([delong.components((labels == k).astype(int), p[:, k]).auc for k in of]))


def _predict_classes(p: np.ndarray) -> np.ndarray:
    predicted: np.ndarray = (p[:, 1] >= 0.5).astype(int) if p.shape[1] == 2 else p.argmax(axis=1)
    return predicted


def _intervals(labels: np.ndarray, p: np.ndarray, groups: np.ndarray) -> dict[str, Interval | None]:
    """Of more than two classes the limits of the mean area are the means of those of each class against all others.

    They are a little too wide, as the classes' errors need not agree, and known for a perfect score, too.
    """
    clusters = cluster_codes(groups)
    if p.shape[1] == 2:
        return intervals(labels, p[:, 1], clusters, 0.5)
    each = [intervals((labels == k).astype(int), p[:, k], clusters, 0.5)["roc_auc"] for k in range(p.shape[1])]
    known = [area for area in each if area is not None]
    mean = Interval(float(np.mean([a.low for a in known])), float(np.mean([a.high for a in known])), "mean")
    return {
        "roc_auc": mean if len(known) == len(each) else None,
        "accuracy": multiclass_intervals(labels, p, clusters)["accuracy"],
    }
