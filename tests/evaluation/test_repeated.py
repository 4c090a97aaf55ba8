"""Means over seeds: the parts of their variance, against known ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ddtl.evaluation.comparison.paired_predictions import Method, RunPredictions
from ddtl.evaluation.comparison.repeated import (
    NOTHING,
    Influences,
    Part,
    difference,
    leave_out,
    patients,
    seeds,
    with_seeds,
)
from tests.support.hospital import Hospital, answers


def of_brier(errors: np.ndarray, sizes: np.ndarray) -> RunPredictions:
    """Images whose squared errors are known, of patients of these sizes; the Brier score is their mean."""
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    labels = clusters % 2
    p = np.where(labels == 1, 1 - np.sqrt(errors), np.sqrt(errors))
    return answers(labels, np.stack([np.log(1 - p), np.log(p)], axis=1), clusters)


def influences(method: Method, name: str) -> Influences:
    first = method.runs[0].predictions
    found = leave_out(method, first.patient_id, first.label).influences(name)
    assert found is not None
    return found


def test_the_sum_of_two_variances_has_satterthwaites_degrees_of_freedom() -> None:
    found = Part(2.0, 4.0) + Part(3.0, 9.0)
    assert found.variance == 5
    assert found.freedom == pytest.approx(25 / (4 / 4 + 9 / 9))
    assert Part(2.0, 4.0) + NOTHING == Part(2.0, 4.0)


def test_welchs_test_of_two_samples_is_the_difference_of_two_sets_of_seeds() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=5), random.normal(1, 3, size=4)
    part = with_seeds(NOTHING, seeds(a, 0.0) + seeds(b, 0.0))
    assert part.p_value(a.mean() - b.mean()) == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)


def test_the_paired_t_test_is_the_difference_of_the_same_seeds() -> None:
    random = np.random.default_rng(1)
    a, b = random.normal(size=(2, 6))
    part = with_seeds(NOTHING, seeds(a - b, 0.0))
    assert part.p_value((a - b).mean()) == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_patients_of_one_size_have_the_variance_of_their_mean() -> None:
    random = np.random.default_rng(2)
    errors = random.random(30)
    found = influences(Method("m", (of_brier(np.repeat(errors, 2), np.full(30, 2)),)), "brier")
    part = patients(found)
    strata = errors[0::2], errors[1::2]
    # A cluster that is left out also takes its weight in the mean away: (14 / 29)^2 in place of a quarter.
    assert part.variance == pytest.approx(sum(np.var(one, ddof=1) / len(one) * (14 / 29) ** 2 for one in strata))
    assert [size.tolist() for size in found.sizes] == [[2.0] * 15] * 2


def test_the_variance_of_a_mean_over_runs_is_that_of_their_mean_answers() -> None:
    random = np.random.default_rng(3)
    errors = random.random((4, 40))
    runs = tuple(of_brier(one, np.ones(40, dtype=int)) for one in errors)
    of_mean = of_brier(errors.mean(axis=0), np.ones(40, dtype=int))
    a, b = influences(Method("m", runs), "brier"), influences(Method("m", (of_mean,)), "brier")
    assert patients(a).variance == pytest.approx(patients(b).variance)
    (found,) = seeds(a.points, 0.0)
    assert found.variance == found.seen == pytest.approx(np.var(errors.mean(axis=1), ddof=1) / 4)
    assert seeds(b.points, 0.0) == []


def test_what_seeds_do_to_single_patients_is_counted_once() -> None:
    """Errors of independent runs: all that sets two runs apart is what each does to its patients."""
    random = np.random.default_rng(6)
    ratios, parts = [], []
    for _ in range(200):
        errors = random.random((5, 60))
        method = Method("m", tuple(of_brier(one, np.ones(60, dtype=int)) for one in errors))
        found = influences(method, "brier")
        ratios.append(found.shared / np.var(random.random(10000)) * 60)
        parts.append(sum(part.variance for part in seeds(found.points, found.shared)))
    assert np.mean(ratios) == pytest.approx(1, abs=0.08)
    assert np.mean(parts) < 0.6 * np.var(random.random(10000)) / 60 / 5


def test_a_pair_of_the_same_runs_does_not_differ() -> None:
    hospital = Hospital(30)
    method = Method("m", tuple(hospital.run(s) for s in (1.0, 2.5)))
    for name in ("roc_auc", "average_precision", "brier"):
        found = influences(method, name)
        assert not difference(found, found, same_runs=True).varies
        apart = difference(found, found, same_runs=False)
        assert not apart.flips.varies
        assert [part.seen for part in apart.of_seeds] == pytest.approx([np.var(found.points, ddof=1) / 2] * 2)


def test_a_score_that_a_run_lacks_has_no_influences() -> None:
    hospital = Hospital(20)
    run = hospital.run(2)
    silent = replace(run, threshold=1.1)
    first = run.predictions
    runs = leave_out(Method("m", (run, silent)), first.patient_id, first.label)
    assert runs.influences("precision") is None
    assert runs.scores["precision"] is None
    assert runs.influences("roc_auc") is not None


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_an_interval_with_seeds_covers_the_mean_of_all(count: int, spread: float) -> None:
    """Of a patients' effect with a standard deviation of 1, and seeds that differ by ``spread``."""
    random = np.random.default_rng(4)
    covered, draws = 0, 1500
    for _ in range(draws):
        points = spread * random.normal(size=count)
        between = Part(random.chisquare(30) / 30, 30.0)
        part = with_seeds(between, seeds(points, 0.0))
        covered += abs(points.mean() + random.normal()) <= part.quantile(0.975) * part.error
    assert 0.92 <= covered / draws <= 0.985


def test_what_could_be_shown_is_found_four_times_in_five() -> None:
    """Of single-image patients whose errors differ: the true power of a difference that large."""
    random = np.random.default_rng(7)
    found, beyond = [], []
    sizes = np.ones(60, dtype=int)
    for _ in range(300):
        a, b = 0.3 + 0.4 * random.random((2, 60))
        one, other = (influences(Method("m", (of_brier(errors, sizes),)), "brier") for errors in (a, b))
        chance = difference(one, other, same_runs=False)
        found.append(chance.smallest(0.95))
        beyond.append(chance.limit(1, 0.05) - float(one.points[0] - other.points[0]))
    power = float(np.mean(np.array(beyond) < np.mean(found)))
    assert 0.74 <= power <= 0.86
