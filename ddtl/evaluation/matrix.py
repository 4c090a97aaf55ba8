"""The cells of a study: means over seeds with intervals that hold patients and seeds, and what is lost between two."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ddtl.evaluation.answers import Answers, Method, Unit, join, unit_of
from ddtl.evaluation.intervals import Interval, intervals, multiclass_intervals
from ddtl.evaluation.names import SCORES
from ddtl.evaluation.predictions import Predictions
from ddtl.evaluation.repeated import (
    Runs,
    draw_seeds,
    fewest_clusters,
    mean,
    means,
    percentiles,
    resample_runs,
)


@dataclass(frozen=True)
class Settings:
    """Of the intervals: their level, and the bootstrap's replicates and seed."""

    level: float = 0.95
    replicates: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Mean:
    """One score over seeds. None where it is not defined.

    Attributes:
        value: the mean.
        sd: standard deviation between the runs (n - 1); None with one run.
        interval: of the mean, for other patients and other seeds; with one run for other patients alone.
    """

    value: float | None
    sd: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Measured:
    """Runs that differ in the seed alone, on one test set.

    Attributes:
        method: the runs, their images in one order.
        unit, units, images: what is resampled, how many there are, and of how many images.
        fewest: how many units the rarest class has.
        runs: their scores, and those on resamples.
        scores: means over the runs, by name.
        settings: of the intervals.
    """

    method: Method
    unit: Unit
    units: int
    images: int
    fewest: int
    runs: Runs
    scores: dict[str, Mean]
    settings: Settings

    @cached_property
    def test_set(self) -> int:
        """A number that only the same images have."""
        return _number_of(self.method.runs[0].predictions)


def measure(method: Method, settings: Settings = Settings()) -> Measured:
    """Means over the runs.

    One run has the intervals that its own record has by default. Several have those of the pigeonhole bootstrap, which
    draws patients (or groups, or images) and runs; where all runs are alike on every resample, as with perfect scores,
    those of the first run.

    Raises:
        UserError: the runs were not tested on the same images.
    """
    method = replace(method, runs=tuple(join(method.runs)))
    first = method.runs[0]
    unit, clusters = unit_of(first.predictions)
    labels = first.predictions.label
    fewest = fewest_clusters(clusters, labels)
    runs = resample_runs(method, clusters, labels, settings.replicates, settings.seed + _number_of(first.predictions))
    drawn = draw_seeds(len(method.runs), settings.replicates, (settings.seed, 0))
    alone = _of_one(first, clusters, settings)
    scores = {}
    for name, value in runs.scores.items():
        points = [point[name] for point in runs.points]
        found = percentiles(means(runs.tables[name], drawn), value, fewest, settings.level)
        alike = len(points) == 1 or (value is not None and np.ptp(runs.tables[name], axis=0).max() == 0)
        scores[name] = Mean(value, _sd(points), alone[name] if alike else found)
    return Measured(method, unit, len(np.unique(clusters)), len(labels), fewest, runs, scores, settings)


@dataclass(frozen=True)
class Drop:
    """What one score loses from one test set to another. None where it is not defined."""

    value: float | None
    interval: Interval | None


def drop(home: Measured, away: Measured, *, same_runs: bool) -> dict[str, Drop]:
    """Every score at home less that away, with an interval for other patients and other seeds.

    Two test sets are resampled independently of each other (the draws of the same images are the same). Where patients
    stand in both, as in two splits of one dataset, that makes the interval rather too wide.

    Args:
        home, away: with the same settings.
        same_runs: the runs of both are the same networks in the same order, so that a seed is drawn for both at once.
            Otherwise seeds are drawn independently.

    Single runs on different test sets have the interval of Zou and Donner (2008, Stat Med 27:1693), from that of each.
    """
    settings = home.settings
    assert settings == away.settings, "drawn alike"
    count = len(home.method.runs)
    assert not same_runs or count == len(away.method.runs), "the same runs"
    one = draw_seeds(count, settings.replicates, (settings.seed, 0))
    other = one if same_runs else draw_seeds(len(away.method.runs), settings.replicates, (settings.seed, 1))
    single = count == len(away.method.runs) == 1 and home.test_set != away.test_set
    found = {}
    for name in SCORES:
        a, b = home.scores[name], away.scores[name]
        value = None if a.value is None or b.value is None else a.value - b.value
        if single:
            found[name] = Drop(value, _of_independent(a, b))
        else:
            apart = means(home.runs.tables[name], one) - means(away.runs.tables[name], other)
            found[name] = Drop(value, percentiles(apart, value, min(home.fewest, away.fewest), settings.level))
    return found


def pooled(folds: Sequence[Answers], name: str) -> Answers:
    """The out-of-fold predictions of one cross-validation as those of one test set.

    Every image is called by the threshold of its own fold. Probabilities of different networks are ranked together: the
    ROC AUC counts shifts between folds against them (Airola et al. 2011, Comput Stat Data Anal 55:1828).

    Args:
        folds: whose test images are those of no other fold.
        name: of the whole.
    """
    tables = [fold.predictions for fold in folds]
    whole = tables[0]
    for table in tables[1:]:
        assert table.classes == whole.classes, "folds of one dataset"
        whole = whole.and_then(table)
    assert len(np.unique(whole.sample_id)) == len(whole), "an image is in the test set of one fold"
    thresholds = np.concatenate([np.broadcast_to(fold.threshold, len(fold.predictions)) for fold in folds])
    return Answers(name, folds[0].images, whole, thresholds)


def _of_one(run: Answers, clusters: np.ndarray, settings: Settings) -> dict[str, Interval | None]:
    labels, level = run.predictions.label, settings.level
    if run.binary:
        return intervals(labels, run.p, clusters, run.threshold, level=level)
    return multiclass_intervals(labels, run.predictions.probabilities, clusters, level=level)


def _of_independent(a: Mean, b: Mean) -> Interval | None:
    """Of a - b, from the limits of either."""
    if a.value is None or b.value is None or a.interval is None or b.interval is None:
        return None
    value = a.value - b.value
    low = value - math.hypot(a.value - a.interval.low, b.interval.high - b.value)
    high = value + math.hypot(a.interval.high - a.value, b.value - b.interval.low)
    return Interval(low, high, "mover")


def _sd(points: Sequence[float | None]) -> float | None:
    return None if len(points) < 2 or mean(points) is None else float(np.std(np.array(points, dtype=float), ddof=1))


def _number_of(predictions: Predictions) -> int:
    """The draws of a test set are its own, so that two are drawn independently."""
    return zlib.crc32("\n".join(sorted(predictions.sample_id.tolist())).encode())
