"""Models against each other on the same images: how far apart their scores are, and how sure that is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ddtl.evaluation.comparison import significance
from ddtl.evaluation.comparison.matrix import (
    Measured,
    MeasurementSettings,
    is_stuck,
    measure,
    of_independent,
    widest_of,
)
from ddtl.evaluation.comparison.paired_predictions import Method, Unit, join, unit_of
from ddtl.evaluation.comparison.repeated import DIFFERENCE, Chance, difference
from ddtl.evaluation.intervals import delong
from ddtl.evaluation.intervals.clusters import MIN_CLUSTERS
from ddtl.evaluation.intervals.interval import Interval
from ddtl.evaluation.intervals.intervals import paired_intervals
from ddtl.evaluation.metrics import Scores
from ddtl.schema.scores import SCORES

# The others are in records of earlier versions.
Test = Literal["sign-flip", "DeLong", "McNemar", "t", "bootstrap"]


@dataclass(frozen=True)
class Difference:
    """One score of two methods, and a's less b's with its interval. None where it is not defined."""

    a: float | None
    b: float | None
    value: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Comparison:
    """Method a against method b.

    Attributes:
        a, b: their names; ``seeds`` how many runs each has, ``paired_seeds`` whether both have the same ones by design.
        unit, units, images: what is resampled, how many there are, and of how many images.
        score: the one that is judged; ``differences`` contains all, their intervals at ``level``.
        delong_p: of the difference of the ROC AUC; ``mcnemar_p`` of the accuracy. None where ``no_tests`` says why.
            In addition to the test that decides, for readers who know them.
        p: of the difference of ``score``, by ``test``: below 1 - ``level`` where the interval excludes 0. ``holm_p`` is
            adjusted for the number of ``pairs`` compared.
        smallest: the difference of ``score`` that these images (and as many seeds) would show with a power of 80 %;
            None where the answers give no idea of it, or no difference is that large.
    """

    a: str
    b: str
    seeds: tuple[int, int]
    unit: Unit
    units: int
    images: int
    score: str
    level: float
    differences: dict[str, Difference]
    delong_p: float | None
    mcnemar_p: float | None
    no_tests: tuple[str, ...]
    p: float | None
    test: Test
    smallest: float | None
    holm_p: float | None = None
    pairs: int = 1
    paired_seeds: bool = False

    @property
    def judged(self) -> Difference:
        """The difference of the score that is judged."""
        return self.differences[self.score]


@dataclass(frozen=True)
class ScoredMethod:
    """A method's scores, means over its runs, with intervals."""

    name: str
    runs: int
    scores: Scores
    intervals: dict[str, Interval | None]


@dataclass(frozen=True)
class Result:
    """All methods and all pairs of them."""

    methods: list[ScoredMethod]
    pairs: list[Comparison]


def compare(
    methods: Sequence[Method], *, score: str = "roc_auc", level: float = 0.95, paired_seeds: bool = False
) -> Result:
    """Return every pair of methods, the p-values adjusted for their number after Holm.

    Args:
        methods: two or more.
        score: the one that is judged, of ``schema.scores.SCORES``.
        level: of the intervals.
        paired_seeds: the runs of every method have the same seeds in the same order, by design: a difference is then
            taken run by run. Otherwise the seeds of two methods are independent.

    Raises:
        UserError: the runs were not tested on the same images with the same labels and patients.
    """
    joined = iter(join([run for method in methods for run in method.runs]))
    methods = [replace(method, runs=tuple(itertools.islice(joined, len(method.runs)))) for method in methods]
    assert not paired_seeds or len({len(method.runs) for method in methods}) == 1, "the same seeds"
    measured = [measure(method, MeasurementSettings(level)) for method in methods]
    found = [_pair(a, b, score, paired_seeds) for a, b in itertools.combinations(measured, 2)]
    adjusted = significance.holm([each.p for each in found])
    return Result(
        methods=[_score(each) for each in measured],
        pairs=[replace(each, holm_p=p, pairs=len(found)) for each, p in zip(found, adjusted, strict=True)],
    )


def _score(method: Measured) -> ScoredMethod:
    scores = {name: found.value for name, found in method.scores.items()}
    intervals = {name: found.interval for name, found in method.scores.items()}
    return ScoredMethod(method.method.name, len(method.method.runs), scores, intervals)


def _pair(a: Measured, b: Measured, score: str, paired_seeds: bool) -> Comparison:
    """Return all but what depends on the other pairs."""
    chances = {name: _chance(a, b, name, paired_seeds) for name in SCORES}
    values = {name: _minus(a.scores[name].value, b.scores[name].value) for name in SCORES}
    delong_p, mcnemar_p, no_tests = _tests(a, b)
    chance, level = chances[score], a.settings.level
    return Comparison(
        a=a.method.name,
        b=b.method.name,
        seeds=(len(a.method.runs), len(b.method.runs)),
        unit=a.unit,
        units=a.units,
        images=a.images,
        score=score,
        level=level,
        differences=_differences(a, b, values, chances, paired_seeds),
        delong_p=delong_p,
        mcnemar_p=mcnemar_p,
        no_tests=no_tests,
        p=_p_value(chance, values[score]),
        test="sign-flip",
        smallest=_smallest(a, score, chance),
        paired_seeds=paired_seeds and len(a.method.runs) > 1,
    )


def _chance(a: Measured, b: Measured, name: str, paired_seeds: bool) -> Chance | None:
    """Return what chance does to a score's difference; None where it is not defined, or too few clusters tell."""
    u, v = a.runs.influences(name), b.runs.influences(name)
    if u is None or v is None or a.fewest < MIN_CLUSTERS or is_stuck(name, a, b):
        return None
    return difference(u, v, same_runs=paired_seeds)


def _p_value(chance: Chance | None, value: float | None) -> float | None:
    if chance is None or value is None:
        return None
    if not chance.varies:
        return 1.0 if value == 0 else None
    return chance.p_value(value)


def _differences(
    a: Measured, b: Measured, values: dict[str, float | None], chances: dict[str, Chance | None], paired_seeds: bool
) -> dict[str, Difference]:
    """Where no cluster and no seed tells two single runs apart, the bounds of ``paired_intervals``."""
    level, bounds = a.settings.level, _bounds(a, b)
    found = {}
    for name, value in values.items():
        chance, interval = chances[name], None
        if value is not None and is_stuck(name, a, b):
            interval = of_independent(name, a, b, paired_seeds)
        elif chance is not None and value is not None and chance.varies:
            low, high = chance.interval(value, level)
            widest = widest_of(name, binary=a.method.runs[0].binary)
            interval = Interval(max(-widest, low), min(widest, high), DIFFERENCE)
        elif chance is not None and value is not None:
            interval = bounds.get(name)
        found[name] = Difference(a.scores[name].value, b.scores[name].value, value, interval)
    return found


def _smallest(a: Measured, score: str, chance: Chance | None) -> float | None:
    if chance is None or not chance.varies:
        return None
    found = chance.smallest(a.settings.level)
    widest = widest_of(score, binary=a.method.runs[0].binary)
    return found if found < widest else None


def _bounds(a: Measured, b: Measured) -> dict[str, Interval | None]:
    first, second = a.method.runs[0], b.method.runs[0]
    if not first.binary or not len(a.method.runs) == len(b.method.runs) == 1:
        return {}
    clusters, thresholds = unit_of(first.predictions)[1], (first.threshold, second.threshold)
    return paired_intervals(
        first.predictions.label, first.p, second.p, clusters, *thresholds,
        design=first.design, level=a.settings.level, rank_a=first.rank, rank_b=second.rank,
    )  # fmt: skip


def _tests(a: Measured, b: Measured) -> tuple[float | None, float | None, tuple[str, ...]]:
    """Return DeLong's p-value, McNemar's, and a reason for each that there is not."""
    if not len(a.method.runs) == len(b.method.runs) == 1:
        return None, None, ("DeLong's and McNemar's tests are for two single runs, not for means over seeds",)
    first, second = a.method.runs[0], b.method.runs[0]
    unit, clusters = unit_of(first.predictions)
    mcnemar = significance.mcnemar(first.right, second.right, None if unit == "image" else clusters).p_value
    if not first.binary:
        return None, mcnemar, ("DeLong's test is for two classes",)
    try:
        return delong.compare_paired(first.predictions.label, first.p, second.p, clusters).p_value, mcnemar, ()
    except ValueError as reason:
        return None, mcnemar, (f"no DeLong test, as {reason}",)


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
