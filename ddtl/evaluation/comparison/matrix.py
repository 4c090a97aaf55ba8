"""The cells of a study: means over seeds with intervals for other patients and seeds, and drops between two."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ddtl.evaluation.comparison.paired_predictions import Method, RunPredictions, Unit, join, unit_of
from ddtl.evaluation.comparison.repeated import (
    DIFFERENCE,
    DROP,
    OVER_SEEDS,
    Influences,
    Runs,
    difference,
    leave_out,
    mean,
    patients,
    seeds,
    widen,
)
from ddtl.evaluation.intervals.clusters import fewest_clusters
from ddtl.evaluation.intervals.interval import Interval
from ddtl.evaluation.intervals.intervals import intervals, multiclass_intervals
from ddtl.evaluation.predictions import Predictions
from ddtl.schema.scores import RANGES, SCORES


@dataclass(frozen=True)
class MeasurementSettings:
    """Of the intervals: their level."""

    level: float = 0.95


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
        runs: their scores, and those with each unit excluded.
        scores: means over the runs, by name.
        patients: of each score the interval of the mean for other patients alone; None where there is none.
        settings: of the intervals.
    """

    method: Method
    unit: Unit
    units: int
    images: int
    fewest: int
    runs: Runs
    scores: dict[str, Mean]
    patients: dict[str, Interval | None]
    settings: MeasurementSettings

    @cached_property
    def test_set(self) -> int:
        """A number that only the same images have."""
        return _number_of(self.method.runs[0].predictions)


def measure(method: Method, settings: MeasurementSettings = MeasurementSettings()) -> Measured:
    """Return means over the runs.

    One run has the intervals that its own record has by default. The interval of several has the variance that comes
    from patients and that from seeds (``repeated``), on the logit scale. The patients' part is the mean of the runs'
    own intervals, narrowed by what the mean over runs varies less between patients than single runs do: so it keeps
    what those allow for, as bounds where every patient agrees.

    Raises:
        UserError: the runs were not tested on the same images.
    """
    method = replace(method, runs=tuple(join(method.runs)))
    first = method.runs[0]
    unit, clusters = unit_of(first.predictions)
    labels = first.predictions.label
    runs = leave_out(method, clusters, labels, first.design)
    each = [_of_one(run, clusters, settings) for run in method.runs]
    alone, scores = {}, {}
    for name, value in runs.scores.items():
        points = [point[name] for point in runs.points]
        found = [one[name] for one in each]
        influences = runs.influences(name)
        alone[name] = _of_patients(value, points, found, influences)
        interval = alone[name]
        if value is not None and interval is not None and influences is not None:
            interval = _with_seeds(value, interval, influences, limits(name, binary=first.binary), settings.level)
        scores[name] = Mean(value, _sd(points), interval)
    return Measured(
        method,
        unit,
        len(np.unique(clusters)),
        len(labels),
        fewest_clusters(clusters, labels),
        runs,
        scores,
        alone,
        settings,
    )


@dataclass(frozen=True)
class Drop:
    """What one score loses from one test set to another. None where it is not defined."""

    value: float | None
    interval: Interval | None


def drop(in_domain: Measured, external: Measured, *, same_runs: bool) -> dict[str, Drop]:
    """Return every score in-domain minus the external one, with an interval for other patients and other seeds.

    The patients of two test sets are independent of each other, and their part is from the interval of each (Zou and
    Donner 2008, Stat Med 27:1693). Where patients are in both, as in two splits of one dataset, that makes the interval
    rather too wide. On the same images the difference is taken patient by patient, as in a comparison.

    Args:
        in_domain, external: measured with the same settings.
        same_runs: the runs of both are the same networks in the same order, so that the seeds' part is that of the
            difference run by run. Otherwise seeds are independent.
    """
    assert in_domain.settings == external.settings, "measured alike"
    assert not same_runs or len(in_domain.method.runs) == len(external.method.runs), "the same runs"
    found = {}
    for name in SCORES:
        a, b = in_domain.scores[name], external.scores[name]
        value = None if a.value is None or b.value is None else a.value - b.value
        is_paired = in_domain.test_set == external.test_set and not is_stuck(name, in_domain, external)
        of = _of_same if is_paired else of_independent
        found[name] = Drop(value, None if value is None else of(name, in_domain, external, same_runs))
    return found


def is_stuck(name: str, a: Measured, b: Measured) -> bool:
    """Return whether one of two scores is where patients do not tell how sure it is, and the other one is not: their
    difference then needs the interval of each.
    """
    found = [each.runs.influences(name) for each in (a, b)]
    return sum(one is not None and one.is_stuck(name) for one in found) == 1


def pool_folds(folds: Sequence[RunPredictions], name: str) -> RunPredictions:
    """Return the out-of-fold predictions of one cross-validation as those of one test set.

    Every image is predicted at the threshold of its own fold. Probabilities of different networks are ranked together:
    the ROC AUC counts shifts between folds against them (Airola et al. 2011, Comput Stat Data Anal 55:1828).

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
    return replace(folds[0], name=name, predictions=whole, threshold=thresholds)


def limits(name: str, *, binary: bool) -> tuple[float, float]:
    """Between which a score lies."""
    return (0.0, 2.0) if name == "brier" and not binary else RANGES.get(name, (0.0, 1.0))


def widest_of(name: str, *, binary: bool) -> float:
    """Return the largest difference of two values of a score."""
    low, high = limits(name, binary=binary)
    return high - low


def _of_one(run: RunPredictions, clusters: np.ndarray, settings: MeasurementSettings) -> dict[str, Interval | None]:
    labels, level = run.predictions.label, settings.level
    if run.binary:
        return intervals(labels, run.p, clusters, run.threshold, design=run.design, level=level, rank=run.rank)
    return multiclass_intervals(labels, run.predictions.probabilities, clusters, level=level)


def _of_patients(
    value: float | None,
    points: Sequence[float | None],
    found: Sequence[Interval | None],
    influences: Influences | None,
) -> Interval | None:
    """Return the interval of a mean over these very runs, for other patients."""
    if len(found) == 1:
        return found[0]
    if value is None or any(one is None for one in found):
        return None
    narrowed = 1.0 if influences is None else _relative_error(influences)
    sides = [(p - i.low, i.high - p) for p, i in zip(points, found, strict=True) if p is not None and i is not None]
    below, above = (narrowed * float(side) for side in np.mean(sides, axis=0))
    return Interval(value - below, value + above, OVER_SEEDS)


def _relative_error(influences: Influences) -> float:
    """Return the standard error between patients of the mean over runs, as a share of that of a single run."""
    of_mean = patients(influences).variance
    of_one = float(np.mean([patients(influences.run(i)).variance for i in range(len(influences.points))]))
    return math.sqrt(min(1.0, of_mean / of_one)) if of_one > 0 else 1.0


def _with_seeds(
    value: float, found: Interval, influences: Influences, bounds: tuple[float, float], level: float
) -> Interval:
    """Return the patients' interval widened by the seeds' part, on the logit scale of a score between ``bounds``."""
    from scipy.special import expit, logit

    low, high = bounds
    share = (value - low) / (high - low)
    slope = (high - low) * share * (1 - share)
    of_seeds = [part.over(slope) for part in seeds(influences.points, influences.shared)] if 0 < share < 1 else []
    if not of_seeds:
        return found
    freedom, middle = patients(influences).freedom, float(logit(share))
    below = middle - float(logit(max(0.0, (found.low - low) / (high - low))))
    above = float(logit(min(1.0, (found.high - low) / (high - low)))) - middle
    ends = [middle - widen(below, freedom, of_seeds, level), middle + widen(above, freedom, of_seeds, level)]
    limited = [low + (high - low) * float(expit(end)) for end in ends]
    return Interval(limited[0], limited[1], OVER_SEEDS)


def of_independent(name: str, in_domain: Measured, external: Measured, same_runs: bool) -> Interval | None:
    """Return the interval of a difference as on test sets that share no patient."""
    a, b, level = in_domain.patients[name], external.patients[name], in_domain.settings.level
    x, y = in_domain.scores[name].value, external.scores[name].value
    if a is None or b is None or x is None or y is None:
        return None
    below, above = math.hypot(x - a.low, b.high - y), math.hypot(a.high - x, y - b.low)
    u, v = in_domain.runs.influences(name), external.runs.influences(name)
    if len(in_domain.method.runs) == len(external.method.runs) == 1:
        return Interval(x - y - below, x - y + above, "mover")
    if u is None or v is None:
        return None
    freedom = (patients(u) + patients(v)).freedom
    if same_runs:
        of_seeds = seeds(u.points - v.points, u.shared + v.shared)
    else:
        of_seeds = seeds(u.points, u.shared) + seeds(v.points, v.shared)
    low, high = (widen(half, freedom, of_seeds, level) for half in (below, above))
    return _within(in_domain, name, x - y - low, x - y + high, DROP)


def _of_same(name: str, in_domain: Measured, external: Measured, same_runs: bool) -> Interval | None:
    """Of the difference on the same images; None where nothing varies."""
    u, v = in_domain.runs.influences(name), external.runs.influences(name)
    if u is None or v is None:
        return None
    chance = difference(u, v, same_runs=same_runs)
    if not chance.varies:
        return None
    low, high = chance.interval(float(u.points.mean() - v.points.mean()), in_domain.settings.level)
    return _within(in_domain, name, low, high, DIFFERENCE)


def _within(measured: Measured, name: str, low: float, high: float, method: str) -> Interval:
    """Return differences of a score, no larger than they can be."""
    widest = widest_of(name, binary=measured.method.runs[0].binary)
    return Interval(max(-widest, low), min(widest, high), method)


def _sd(points: Sequence[float | None]) -> float | None:
    return None if len(points) < 2 or mean(points) is None else float(np.std(np.array(points, dtype=float), ddof=1))


def _number_of(predictions: Predictions) -> int:
    """Return the same for the same images of the same patients alone."""
    columns = (predictions.sample_id.tolist(), predictions.patient_id.tolist(), predictions.group.tolist())
    return zlib.crc32("\n".join(sorted(map("\t".join, zip(*columns, strict=True)))).encode())
