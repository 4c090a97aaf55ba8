"""Cells of a study: means over seeds, what is lost elsewhere and pooled folds, against known truths."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from ddtl.evaluation.comparison.matrix import Measured, drop, measure, pool_folds
from ddtl.evaluation.comparison.paired_predictions import Method, RunPredictions
from ddtl.evaluation.intervals.interval import Interval
from ddtl.evaluation.intervals.intervals import intervals
from ddtl.evaluation.metrics import binary_scores
from ddtl.schema.scores import SCORES
from ddtl.utils.errors import UserError
from tests.support.hospital import Hospital, answers


def cell(hospital: Hospital, separations: list[float]) -> Measured:
    return measure(Method("cell", tuple(hospital.run(s, f"s{i}") for i, s in enumerate(separations))))


def area(separation: float, spread: float) -> float:
    """The mean ROC AUC of networks whose separations are normal: E Phi(X / 2)."""
    return NormalDist().cdf(separation / 2 / np.sqrt(1 + spread**2 / 4))


def only(run: RunPredictions, keep: np.ndarray, threshold: float = 0.5) -> RunPredictions:
    p = run.predictions
    columns = {name: getattr(p, name)[keep] for name in vars(p) if name != "classes"}
    return replace(run, predictions=replace(p, **columns), threshold=threshold)


def test_a_cell_is_the_mean_of_its_seeds_and_their_standard_deviation() -> None:
    found = cell(Hospital(40), [1.0, 2.0, 3.0])
    points = np.array([[run.scores()[name] for name in SCORES] for run in found.method.runs], dtype=float)
    assert [found.scores[name].value for name in SCORES] == pytest.approx(points.mean(axis=0))
    assert [found.scores[name].sd for name in SCORES] == pytest.approx(points.std(axis=0, ddof=1))
    assert (found.unit, found.units, found.images) == ("patient", 40, len(found.method.runs[0].predictions))
    assert found.fewest == 20


def test_one_run_has_the_intervals_of_its_record_and_no_standard_deviation() -> None:
    hospital = Hospital(40)
    run = hospital.run(2)
    found = measure(Method("one", (run,)))
    theirs = intervals(run.predictions.label, run.p, run.predictions.patient_id, 0.5)
    assert {name: one.interval for name, one in found.scores.items()} == theirs
    assert {one.sd for one in found.scores.values()} == {None}


def test_perfect_runs_keep_an_interval() -> None:
    found = cell(Hospital(30), [60.0, 60.0]).scores["roc_auc"]
    assert (found.value, found.sd) == (1, 0)
    assert found.interval is not None
    assert 0.5 < found.interval.low < 1 == found.interval.high


def test_a_score_that_one_run_lacks_is_no_mean() -> None:
    hospital = Hospital(30)
    nobody = hospital.run(2, threshold=1.1)
    found = measure(Method("m", (hospital.run(2), nobody))).scores["precision"]
    assert (found.value, found.sd, found.interval) == (None, None, None)


def test_runs_on_other_images_are_no_cell() -> None:
    hospital = Hospital(30)
    run = hospital.run(2)
    with pytest.raises(UserError, match="same images"):
        measure(Method("m", (run, only(run, run.predictions.label == 1))))


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.3), (5, 0.8)])
def test_the_interval_of_a_mean_covers_the_mean_of_all_seeds_and_patients(seeds: int, spread: float) -> None:
    hits, widths = 0, []
    for i in range(60):
        drawn = np.random.default_rng([1, i]).normal(2, spread, seeds)
        found = cell(Hospital(50, seed=i), drawn.tolist()).scores["roc_auc"].interval
        assert found is not None
        hits += found.low <= area(2, spread) <= found.high
        widths.append(found.high - found.low)
    assert hits >= 53
    assert np.mean(widths) < 0.35


@pytest.mark.slow
def test_a_drop_covers_what_is_lost_between_two_hospitals() -> None:
    """The same networks at home and away: a good seed is good at both."""
    hits, none = 0, 0
    for i in range(60):
        drawn = np.random.default_rng([2, i]).normal(0, 0.5, 3)
        home, away = (
            cell(Hospital(50, seed=i), (3 + drawn).tolist()),
            cell(Hospital(60, seed=900 + i), (1 + drawn).tolist()),
        )
        found = drop(home, away, same_runs=True)["roc_auc"].interval
        assert found is not None
        hits += found.low <= area(3, 0.5) - area(1, 0.5) <= found.high
        none += found.low <= 0
    assert hits >= 53
    assert none <= 7


def test_single_runs_have_the_interval_of_two_independent_scores() -> None:
    hits = 0
    for i in range(60):
        home, away = cell(Hospital(50, seed=i), [3.0]), cell(Hospital(40, seed=900 + i), [1.0])
        found = drop(home, away, same_runs=True)["roc_auc"].interval
        assert found is not None
        assert found.method == "mover"
        hits += found.low <= area(3, 0) - area(1, 0) <= found.high
    assert hits >= 53


def test_the_same_seeds_leave_the_drop_less_unsure_than_other_ones() -> None:
    spread = [0.0, 1.0, 2.0, 3.0]
    home, away = cell(Hospital(200), [s + 1 for s in spread]), cell(Hospital(200, seed=1), spread)
    widths = []
    for same in (True, False):
        found = drop(home, away, same_runs=same)["roc_auc"].interval
        assert found is not None
        widths.append(found.high - found.low)
    assert widths[0] < 0.7 * widths[1]


def test_the_same_images_are_drawn_alike_and_others_are_not() -> None:
    hospital = Hospital(50)
    run = hospital.run(2)
    home = measure(Method("a", (run, run)))
    nothing = drop(home, measure(Method("b", (run, run))), same_runs=True)["roc_auc"]
    assert (nothing.value, nothing.interval) == (0, None)  # no patient tells a run from itself
    elsewhere = replace(
        run, predictions=replace(run.predictions, sample_id=np.char.add("other", run.predictions.sample_id))
    )
    apart = drop(home, measure(Method("b", (elsewhere, elsewhere))), same_runs=True)["roc_auc"]
    assert apart.value == 0
    assert isinstance(apart.interval, Interval)
    assert apart.interval.low < -0.02 < 0.02 < apart.interval.high


def folds(hospital: Hospital, separations: list[float], thresholds: list[float]) -> list[RunPredictions]:
    """A network a fold, each asked about patients of its own."""
    return [
        only(hospital.run(s), hospital.clusters % len(separations) == k, threshold=thresholds[k])
        for k, s in enumerate(separations)
    ]


def test_pooled_folds_are_called_by_their_own_thresholds() -> None:
    parts = folds(Hospital(60), [2.0, 2.0, 2.0], [0.2, 0.5, 0.9])
    whole = pool_folds(parts, "seed 0")
    assert whole.scores()["accuracy"] == pytest.approx(np.mean(np.concatenate([part.right for part in parts])))
    labels, p = (np.concatenate([getattr(x, n) for x in xs]) for xs, n in (
        ([part.predictions for part in parts], "label"), (parts, "p")))  # fmt: skip
    assert whole.scores()["roc_auc"] == binary_scores(labels, p, 0.5)["roc_auc"]
    found = measure(Method("pooled", (whole,)))
    assert (found.units, found.scores["accuracy"].value) == (60, pytest.approx(whole.scores()["accuracy"]))


def test_the_pooled_interval_covers_and_knows_the_patients() -> None:
    hits = 0
    for i in range(60):
        whole = pool_folds(folds(Hospital(60, seed=i), [2.0] * 5, [0.5] * 5), "seed 0")
        found = measure(Method("pooled", (whole,))).scores["roc_auc"].interval
        assert found is not None
        hits += found.low <= area(2, 0) <= found.high
    assert hits >= 53


def test_seeds_of_pooled_folds_keep_their_thresholds_in_another_order() -> None:
    hospital = Hospital(40)
    parts = folds(hospital, [2.0, 2.0], [0.1, 0.9])
    there, back = pool_folds(parts, "0"), pool_folds(parts[::-1], "1")
    found = measure(Method("pooled", (there, back))).scores["accuracy"]
    assert found.value == pytest.approx(there.scores()["accuracy"])
    assert found.sd == 0


def test_an_image_of_two_folds_is_a_mistake() -> None:
    run = answers(np.arange(8) % 2, np.zeros((8, 2)), np.arange(8))
    with pytest.raises(AssertionError, match="one fold"):
        pool_folds([run, run], "twice")
