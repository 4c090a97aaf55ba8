"""Models against each other on the same images: how far apart their scores are, and how sure that is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ddtl.evaluation import delong, significance
from ddtl.evaluation.answers import Answers, Method, Unit, join, unit_of
from ddtl.evaluation.intervals import Interval, intervals, multiclass_intervals, paired_intervals
from ddtl.evaluation.metrics import Scores
from ddtl.evaluation.names import SCORES
from ddtl.evaluation.repeated import draw_seeds, fewest_clusters, known, means, percentiles, resample_runs
from ddtl.evaluation.resampling import Replicates

Test = Literal["DeLong", "McNemar", "bootstrap"]


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
        a, b: their names; ``seeds`` how many runs each has.
        unit, units, images: what is resampled, how many there are, and of how many images.
        score: the one that is judged; ``differences`` holds all, their intervals at ``level``.
        delong_p: of the difference of the ROC AUC; ``mcnemar_p`` of the accuracy. None where ``no_tests`` says why.
        p: of the difference of ``score``, by ``test``; ``holm_p`` is adjusted for the number of ``pairs`` compared.
        smallest: the difference of ``score`` that these images would show with a power of 80 %; None where the
            answers give no idea of it.
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

    @property
    def judged(self) -> Difference:
        """The difference of the score that is judged."""
        return self.differences[self.score]


@dataclass(frozen=True)
class Scored:
    """A method's scores, means over its runs, with intervals."""

    name: str
    runs: int
    scores: Scores
    intervals: dict[str, Interval | None]


@dataclass(frozen=True)
class Result:
    """All methods and all pairs of them."""

    methods: list[Scored]
    pairs: list[Comparison]
    replicates: int


def compare(
    methods: Sequence[Method], *, score: str = "roc_auc", level: float = 0.95, replicates: int = 2000, seed: int = 0
) -> Result:
    """Every pair of methods, the p-values adjusted for their number after Holm.

    Args:
        methods: two or more.
        score: the one that is judged, of ``names.SCORES``.
        level: of the intervals.
        replicates, seed: of the bootstrap.

    Raises:
        UserError: the runs were not tested on the same images with the same labels and patients.
    """
    joined = iter(join([run for method in methods for run in method.runs]))
    methods = [replace(method, runs=tuple(itertools.islice(joined, len(method.runs)))) for method in methods]
    frame = _Frame(
        *unit_of(methods[0].runs[0].predictions), methods[0].runs[0].predictions.label, level, replicates, seed
    )
    drawn = [_resample(method, frame, number) for number, method in enumerate(methods)]
    found = [_pair(a, b, frame, score) for a, b in itertools.combinations(drawn, 2)]
    adjusted = significance.holm([each.p for each in found])
    return Result(
        methods=[_scored(each, frame) for each in drawn],
        pairs=[replace(each, holm_p=p, pairs=len(found)) for each, p in zip(found, adjusted, strict=True)],
        replicates=replicates,
    )


@dataclass(frozen=True)
class _Frame:
    """What all comparisons share: (N,) clusters and labels of the images, and how they are resampled."""

    unit: Unit
    clusters: np.ndarray
    labels: np.ndarray
    level: float
    replicates: int
    seed: int

    @property
    def fewest(self) -> int:
        return fewest_clusters(self.clusters, self.labels)

    @property
    def settings(self) -> dict[str, Any]:
        return {"level": self.level, "replicates": self.replicates, "seed": self.seed}


@dataclass(frozen=True)
class _Resampled:
    """A method's scores on the images, and on (replicates,) resamples of them, NaN where not defined."""

    method: Method
    scores: Scores
    replicates: Replicates

    @property
    def run(self) -> Answers:
        """The first one, which stands for the method where it is the only one."""
        return self.method.runs[0]

    @property
    def single(self) -> bool:
        return len(self.method.runs) == 1


def _resample(method: Method, frame: _Frame, number: int) -> _Resampled:
    """Resamples clusters, the same for every method, and the seeds of this one."""
    runs = resample_runs(method, frame.clusters, frame.labels, frame.replicates, frame.seed)
    drawn = draw_seeds(len(method.runs), frame.replicates, (frame.seed, number))
    return _Resampled(method, runs.scores, {name: means(runs.tables[name], drawn) for name in SCORES})


def _scored(method: _Resampled, frame: _Frame) -> Scored:
    """A single run with the intervals that its record has by default, several with those of the resamples."""
    run = method.run
    if not method.single:
        found = {name: _percentiles(method.replicates[name], method.scores[name], frame) for name in SCORES}
    elif run.binary:
        found = intervals(frame.labels, run.p, frame.clusters, run.threshold, **frame.settings)
    else:
        found = multiclass_intervals(frame.labels, run.predictions.probabilities, frame.clusters, **frame.settings)
    return Scored(method.method.name, len(method.method.runs), method.scores, found)


def _pair(a: _Resampled, b: _Resampled, frame: _Frame, score: str) -> Comparison:
    """All but what depends on the other pairs."""
    tests, no_tests = _tests(a, b, frame)
    judged = tests.get(score) or _bootstrap_test(a.replicates[score] - b.replicates[score], frame)
    return Comparison(
        a=a.method.name,
        b=b.method.name,
        seeds=(len(a.method.runs), len(b.method.runs)),
        unit=frame.unit,
        units=len(np.unique(frame.clusters)),
        images=len(frame.labels),
        score=score,
        level=frame.level,
        differences=_differences(a, b, frame),
        delong_p=tests["roc_auc"].p if "roc_auc" in tests else None,
        mcnemar_p=tests["accuracy"].p if "accuracy" in tests else None,
        no_tests=no_tests,
        p=judged.p,
        test=judged.name,
        smallest=significance.smallest_difference(judged.error, frame.level) if judged.error else None,
    )


def _differences(a: _Resampled, b: _Resampled, frame: _Frame) -> dict[str, Difference]:
    values = {name: _less(a.scores[name], b.scores[name]) for name in SCORES}
    if a.single and b.single and a.run.binary:
        thresholds = a.run.threshold, b.run.threshold
        found = paired_intervals(frame.labels, a.run.p, b.run.p, frame.clusters, *thresholds, **frame.settings)
    else:
        apart = {name: a.replicates[name] - b.replicates[name] for name in SCORES}
        found = {name: _percentiles(apart[name], values[name], frame) for name in SCORES}
    return {name: Difference(a.scores[name], b.scores[name], values[name], found[name]) for name in SCORES}


@dataclass(frozen=True)
class _Test:
    """A test of a score's difference: p-value and standard error, None where they are not defined."""

    name: Test
    p: float | None
    error: float | None


def _tests(a: _Resampled, b: _Resampled, frame: _Frame) -> tuple[dict[str, _Test], tuple[str, ...]]:
    """By score, the tests that were made of it, and a reason for each that was not."""
    if not (a.single and b.single):
        return {}, ("DeLong's and McNemar's tests are for two single runs; means over seeds are tested by bootstrap",)
    right = a.run.right, b.run.right
    mcnemar = significance.mcnemar(*right, None if frame.unit == "image" else frame.clusters)
    error = significance.accuracy_error(*right, frame.clusters)
    found = {"accuracy": _Test("McNemar", mcnemar.p_value, error)}
    if not a.run.binary:
        return found, ("DeLong's test is for two classes",)
    try:
        auc = delong.paired(frame.labels, a.run.p, b.run.p, frame.clusters)
    except ValueError as reason:
        return found, (f"no DeLong test, as {reason}",)
    return {**found, "roc_auc": _Test("DeLong", auc.p_value, auc.standard_error)}, ()


def _bootstrap_test(apart: np.ndarray, frame: _Frame) -> _Test:
    """Two-sided, from how many (replicates,) differences lie on either side of 0 (Davison and Hinkley 1997, 4.4)."""
    found = known(apart, frame.fewest)
    if found is None:
        return _Test("bootstrap", None, None)
    below, above = (1 + (found <= 0).sum()) / (1 + len(found)), (1 + (found >= 0).sum()) / (1 + len(found))
    return _Test("bootstrap", min(1.0, 2 * float(min(below, above))), float(found.std()))


def _percentiles(replicates: np.ndarray, value: float | None, frame: _Frame) -> Interval | None:
    return percentiles(replicates, value, frame.fewest, frame.level)


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
