"""Means over runs that differ in the seed alone, with the variance that comes from patients and from seeds.

A run's score is its mean over all patients and seeds, plus an effect of the patients that were drawn, one of the seed,
and one of both together. The variance of the mean over runs has two parts: between patients, from the jackknife of that
mean, and between seeds, from the runs' scores (crossed random effects; Searle, Casella and McCulloch 1992, Variance
Components, chapter 5). What is of both together is in either part: it is estimated from the runs' jackknives, and
subtracted from the seeds' part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from ddtl.evaluation.comparison.flips import Contributions, Flips
from ddtl.evaluation.comparison.paired_predictions import Method, RunPredictions
from ddtl.evaluation.intervals.clusters import Design
from ddtl.evaluation.intervals.resampling import jackknife
from ddtl.evaluation.metrics import Replicates, Scores
from ddtl.schema.scores import SCORES

# Methods of ``interval.DESCRIPTIONS``.
OVER_SEEDS, DROP, DIFFERENCE = "crossed", "drop-crossed", "sign-flip"

_IMAGES = "images"
_ROUNDING = 1e-24  # a variance that is nothing but rounding
# Scores of the images that are predicted positive, where no patient moves them because hardly any image is.
_STUCK = {"f1": (0.0,), "precision": (0.0, 1.0)}
# How often a part counts in the degrees of freedom, by its own: of a single part, and of each of two.
_COUNTS, _COUNTS_OF_TWO = {1.0: 4.0, 2.0: 1.3}, {1.0: 1.5}
_TAILS = (1e-12, 0.999)  # p-values that are distinguished


@dataclass(frozen=True)
class Part:
    """A variance and its degrees of freedom; a variance of 0 has none.

    The sum of two independent ones has the degrees of freedom of Satterthwaite (1946), Biometrics Bulletin 2:110.
    """

    variance: float
    freedom: float

    def __add__(self, other: Part) -> Part:
        total = self.variance + other.variance
        squares = sum(part.variance**2 / part.freedom for part in (self, other) if part.variance)
        return Part(total, total**2 / squares if squares else np.inf)

    @property
    def error(self) -> float:
        return float(np.sqrt(self.variance))

    def quantile(self, probability: float) -> float:
        """Of Student's t."""
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, probability))

    def p_value(self, value: float) -> float:
        """Return the two-sided p-value of a true value of 0."""
        from scipy.special import stdtr

        return float(2 * stdtr(self.freedom, -abs(value) / self.error))


NOTHING = Part(0.0, np.inf)


@dataclass(frozen=True)
class Influences:
    """What each cluster moves each run's score by.

    Attributes:
        moves: of each stratum, (R, C) the scores with all clusters minus those without one.
        sizes: of each stratum, (C,) images.
        points: (R,) the runs' scores.
    """

    moves: tuple[np.ndarray, ...]
    sizes: tuple[np.ndarray, ...]
    points: np.ndarray

    def __sub__(self, other: Influences) -> Influences:
        """Of the differences run by run."""
        moves = tuple(x - y for x, y in zip(self.moves, other.moves, strict=True))
        return Influences(moves, self.sizes, self.points - other.points)

    @property
    def mean(self) -> Influences:
        """Of the mean over the runs, as one run."""
        moves = tuple(table.mean(axis=0, keepdims=True) for table in self.moves)
        return Influences(moves, self.sizes, self.points.mean(keepdims=True))

    def run(self, number: int) -> Influences:
        """Of one of the runs alone."""
        rows = slice(number, number + 1)
        return Influences(tuple(table[rows] for table in self.moves), self.sizes, self.points[rows])

    def is_stuck(self, name: str) -> bool:
        """Return whether the score ``name`` has a value at which no cluster's influence tells how sure it is."""
        return set(self.points.tolist()) <= set(_STUCK.get(name, ())) and not patients(self).variance

    @property
    def shared(self) -> float:
        """The variance of a run's score from the effects that are of its seed and of the patients together."""
        if len(self.points) < 2:
            return 0.0
        return sum(_factor(table) * float(table.var(axis=0, ddof=1).sum()) for table in _center(self.moves))


@dataclass(frozen=True)
class Chance:
    """How far apart two means over runs are by chance, where none is better.

    Attributes:
        flips: of the patients.
        of_seeds: one part, or two that are independent; without seeds' effects empty.
    """

    flips: Flips
    of_seeds: Sequence[Seeds]

    @property
    def varies(self) -> bool:
        """Whether any cluster or seed tells the two apart."""
        return self.flips.varies or bool(self.of_seeds)

    def limit(self, side: int, tail: float) -> float:
        """Return the difference that chance reaches with a two-sided probability of ``tail``; see ``Flips.limit``."""
        half = self.flips.limit(side, tail) if self.flips.varies else 0.0
        return widen(half, self.flips.freedom, self.of_seeds, 1 - tail)

    def interval(self, value: float, level: float) -> tuple[float, float]:
        """Return the true differences that chance takes to ``value``."""
        return value - self.limit(1, 1 - level), value + self.limit(-1, 1 - level)

    def p_value(self, value: float) -> float:
        """Return the two-sided p-value of a true difference of 0: below 1 - level where the interval excludes 0."""
        if not self.of_seeds:
            return self.flips.p_value(value)
        from scipy.optimize import brentq

        side = 1 if value > 0 else -1
        low, high = _TAILS

        def beyond(log_tail: float) -> float:
            return self.limit(side, float(np.exp(log_tail))) - abs(value)

        if beyond(np.log(high)) >= 0:
            return 1.0
        return float(np.exp(brentq(beyond, np.log(low), np.log(high)))) if beyond(np.log(low)) > 0 else low

    def smallest(self, level: float, power: float = 0.8) -> float:
        """Return the true difference that a test at 1 - ``level`` finds with probability ``power``.

        By the noncentral t distribution, for what chance reaches is estimated (Cohen 1988, Statistical Power Analysis
        for the Behavioral Sciences, chapter 2).
        """
        from scipy.special import nctdtrinc

        needed = (self.limit(1, 1 - level) + self.limit(-1, 1 - level)) / 2
        part = with_seeds(Part(self.flips.error**2, self.flips.effective), self.of_seeds)
        if not np.isfinite(needed):
            return needed
        return part.error * float(nctdtrinc(min(part.freedom, 1e6), 1 - power, needed / part.error))


@dataclass(frozen=True)
class Seeds:
    """The variance of a mean over runs that comes from seeds.

    Attributes:
        variance: without what is in the patients' part already.
        seen: with it, which tells how uncertain the estimate is.
        freedom: the runs - 1.
    """

    variance: float
    seen: float
    freedom: float

    def over(self, slope: float) -> Seeds:
        """Of the same mean on a scale that is smaller there by this factor."""
        return Seeds(self.variance / slope**2, self.seen / slope**2, self.freedom)


def seeds(points: np.ndarray, shared: float) -> list[Seeds]:
    """Of the mean over (R,) runs' scores, or differences run by run; none with one run, or where seeds are alike.

    Args:
        points: of the runs.
        shared: ``Influences.shared`` of them.
    """
    runs = len(points)
    seen = float(np.var(points, ddof=1)) if runs > 1 else 0.0
    if seen <= _ROUNDING:
        return []
    return [Seeds(max(0.0, seen - shared) / runs, seen / runs, runs - 1.0)]


def with_seeds(between: Part, of_seeds: Sequence[Seeds]) -> Part:
    """Return the variance of a mean over runs: that between patients and that between seeds.

    Degrees of freedom after Satterthwaite. His are too many where a part that rests on few runs is small by chance, so
    that a part of two or three seeds counts more often in them. 95 % intervals then cover 92 to 98 % (in simulation,
    of seeds that differ up to four times as much as patients let a mean vary).

    Args:
        between: patients.
        of_seeds: none, one, or two that are independent.
    """
    counts = _COUNTS if len(of_seeds) == 1 else _COUNTS_OF_TWO
    total, counted = between.variance, between.variance
    squares = between.variance**2 / between.freedom if between.variance else 0.0
    for part in of_seeds:
        seen = part.seen * counts.get(part.freedom, 1.0)
        total += part.variance
        counted += seen
        squares += seen**2 / part.freedom
    return Part(total, counted**2 / squares if squares else np.inf)


def widen(half: float, freedom: float, of_seeds: Sequence[Seeds], level: float) -> float:
    """Return one side of an interval for other patients, with seeds as well.

    Args:
        half: of the side, for these very seeds.
        freedom: degrees of freedom of the patients' variance.
        of_seeds: as in :func:`with_seeds`.
        level: of the interval.
    """
    if not np.isfinite(half) or not of_seeds:
        return half
    one_side = Part((half / Part(1.0, freedom).quantile((1 + level) / 2)) ** 2, freedom)
    whole = with_seeds(one_side, of_seeds)
    return whole.quantile((1 + level) / 2) * whole.error


def difference(a: Influences, b: Influences, *, same_runs: bool) -> Chance:
    """Return how far apart two means over runs on the same images are by chance.

    Args:
        same_runs: run by run the seed is the same for both, and the difference is taken run by run. Otherwise the seeds
            are independent.
    """
    moves = zip((a.mean - b.mean).moves, a.sizes, strict=True)
    flips = Flips([Contributions(table[0], sizes) for table, sizes in moves])
    if same_runs:
        apart = a - b
        return Chance(flips, seeds(apart.points, apart.shared))
    return Chance(flips, seeds(a.points, a.shared) + seeds(b.points, b.shared))


def patients(influences: Influences) -> Part:
    """Return the variance between clusters of the mean over the runs, by the jackknife."""
    parts = [
        Part(variance, table.shape[1] - 1.0)
        for table in _center(influences.mean.moves)
        if table.shape[1] > 1 and (variance := _factor(table) * float(np.square(table).sum())) > _ROUNDING
    ]
    return sum(parts, NOTHING)


def _center(moves: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [table - table.mean(axis=1, keepdims=True) for table in moves]


def _factor(table: np.ndarray) -> float:
    """Return the jackknife's, for (R, C) moves."""
    return (table.shape[1] - 1) / table.shape[1]


@dataclass(frozen=True)
class Runs:
    """A method's runs on one test set.

    Attributes:
        points: each run's scores.
        left_out: of each run and stratum its scores with each cluster excluded, and the images that are left.
        images: of the test set.
    """

    points: list[Scores]
    left_out: list[list[Replicates]]
    images: int

    @property
    def scores(self) -> Scores:
        """Means over the runs; None where a run has no score."""
        return {name: mean([point[name] for point in self.points]) for name in SCORES}

    @cached_property
    def sizes(self) -> tuple[np.ndarray, ...]:
        return tuple(self.images - table[_IMAGES] for table in self.left_out[0])

    def influences(self, name: str) -> Influences | None:
        """Return the influences; None where a score is not defined for all runs, with all clusters and without any
        of them.
        """
        points = [point[name] for point in self.points]
        tables = [np.stack([one[stratum][name] for one in self.left_out]) for stratum in range(len(self.sizes))]
        if mean(points) is None or any(np.isnan(table).any() for table in tables):
            return None
        each = np.array(points, dtype=float)
        return Influences(tuple(each[:, None] - table for table in tables), self.sizes, each)


def leave_out(method: Method, clusters: np.ndarray, labels: np.ndarray, design: Design = "case_control") -> Runs:
    """Return every run with each cluster excluded in turn: of a ``case_control`` test set class by class.

    Args:
        method: its runs' images in one order.
        clusters, labels: (N,) of the images.
        design: of the test set.
    """
    fixed = labels if design == "case_control" else None
    found = [jackknife(partial(_with_images, run), clusters, fixed) for run in method.runs]
    everyone = np.ones((1, len(labels)))
    points: list[Scores] = []
    for run in method.runs:
        values = {name: float(value[0]) for name, value in run.weighted(everyone).items()}
        points.append({name: None if np.isnan(value) else value for name, value in values.items()})
    return Runs(points, found, len(labels))


def _with_images(run: RunPredictions, weights: np.ndarray) -> Replicates:
    return {**run.weighted(weights), _IMAGES: weights.sum(axis=1)}


def draw_seeds(runs: int, replicates: int, key: Sequence[int]) -> np.ndarray:
    """Return (B, max(1, R - 1)) which runs are in each resample; ``key`` seeds the draw.

    Of R runs R - 1: with R the variance of their mean would be too small by (R - 1) / R (Rao and Wu 1988, J Am Stat
    Assoc 83:231).
    """
    return np.random.default_rng(key).integers(runs, size=(replicates, max(1, runs - 1)))


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean over the runs; None where one is missing, since a mean over fewer runs would mislead."""
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found and len(found) == len(values) else None
