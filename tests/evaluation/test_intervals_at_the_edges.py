"""What intervals there are at the edges: perfect scores, few patients, one class, undefined replicates, wrong input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from ddtl.evaluation.intervals.interval import Interval
from ddtl.evaluation.intervals.intervals import METHODS, intervals, paired_intervals
from ddtl.evaluation.metrics import binary_scores
from ddtl.schema.scores import SCORES
from ddtl.utils.errors import UserError
from tests.evaluation.test_intervals import known, sample


def test_a_perfect_score_leaves_possible_what_so_few_patients_do() -> None:
    labels = np.repeat([0, 1], [30, 60])
    clusters = np.repeat(np.arange(30), 3)  # 10 patients without, 20 with
    for method in METHODS:
        found = intervals(labels, 0.1 + 0.8 * labels, clusters, 0.5, method=method)
        exact = stats.binomtest(10, 10).proportion_ci(0.95, method="exact")
        assert known(found, "roc_auc") == Interval(pytest.approx(exact.low), 1.0, "clopper-pearson")
        for name, patients in (("accuracy", 30), ("sensitivity", 20), ("specificity", 10), ("precision", 20)):
            low, _ = proportion_confint(patients, patients, method="wilson")
            assert known(found, name) == Interval(pytest.approx(low), 1.0, "wilson-clustered"), name
        for name in ("balanced_accuracy", "f1", "mcc", "average_precision"):
            assert 0.4 < known(found, name).low < 0.95
            assert known(found, name).high == 1
        assert found["brier"] is None  # of probabilities that never vary nothing can be said


def test_a_perfect_score_has_an_interval_by_default() -> None:
    labels = np.repeat([0, 1], [30, 60])
    clusters = np.repeat(np.arange(30), 3)
    found = intervals(labels, 0.1 + 0.8 * labels, clusters, 0.5)
    for name in SCORES[:-1]:
        assert 0.5 < known(found, name).low < 0.95, name
        assert known(found, name).high == 1, name
    assert known(found, "sensitivity").low == pytest.approx(_limit_of_all(20))
    brier = known(found, "brier")
    assert brier.low == pytest.approx(0.01)  # of probabilities that never vary
    assert 0.03 < brier.high < 0.2  # the next patient's may


def _limit_of_all(n: int) -> float:
    """Two thirds of the probability of n hits in n are 2.5 %."""
    return float((1.5 * 0.025) ** (1 / n))


def test_the_bound_of_a_perfect_auc_holds_for_any_true_auc() -> None:
    """A true AUC below the bound separates the classes in less than 5 % of the test sets: the bound is the one side."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [12, 20])
    low = known(intervals(labels, labels * 1.0, np.arange(32), 0.5), "roc_auc").low
    shift = np.sqrt(2) * stats.norm.ppf(low - 1e-3)
    drawn = random.normal(size=(4000, 32)) + shift * labels
    assert np.mean(drawn[:, :12].max(axis=1) < drawn[:, 12:].min(axis=1)) < 0.05


def test_the_least_average_precision_is_below_that_of_any_ranking_with_the_auc() -> None:
    labels = np.repeat([0, 1], [40, 40])
    found = intervals(labels, labels * 1.0, np.arange(80), 0.5)
    auc, least = known(found, "roc_auc").low, known(found, "average_precision").low
    random = np.random.default_rng(0)
    sampled = []
    for shift, power in itertools.product(np.linspace(0.5, 4, 30), (0.3, 1, 3)):
        p = np.append(random.normal(size=4000), random.normal(shift, 1, 4000) * power)
        truth = np.repeat([0, 1], 4000)
        if roc_auc_score(truth, p) >= auc:
            sampled.append(binary_scores(truth, p, 0.5)["average_precision"])
    assert len(sampled) > 10
    assert least < min(sampled)
    assert least > 0.7


def test_calls_that_all_agree_are_bounded() -> None:
    """Everyone is called positive: sensitivity 1, specificity 0, balanced accuracy 1/2."""
    labels, p, clusters = sample()
    found = intervals(labels, 0.5 + p / 4, clusters, 0.5)
    assert known(found, "specificity").low == 0
    assert 0 < known(found, "specificity").high < 0.15
    balanced = known(found, "balanced_accuracy")
    assert balanced.low < 0.5 < balanced.high
    assert balanced.method == "mid-p-joint"
    assert found["mcc"] is None


def test_a_constant_probability_has_a_bounded_auc() -> None:
    labels, _, clusters = sample()
    interval = known(intervals(labels, np.full(len(labels), 0.3), clusters, 0.5), "roc_auc")
    assert interval.low < 0.5 < interval.high
    assert interval.high - interval.low < 0.1


def test_one_class_has_the_scores_that_it_can_have() -> None:
    labels, p, clusters = sample()
    ones = labels == 1
    found = intervals(labels[ones], p[ones], clusters[ones], 0.5)
    assert {name for name, interval in found.items() if interval} == {
        "accuracy", "sensitivity", "f1", "brier",
    } - {name for name, value in binary_scores(labels[ones], p[ones], 0.5).items() if value is None}  # fmt: skip
    assert not any(
        interval for name, interval in intervals(labels[ones], 0 * p[ones], clusters[ones], 0.5).items()
        if name in ("roc_auc", "specificity", "precision", "mcc", "average_precision", "balanced_accuracy")
    )  # fmt: skip


@pytest.mark.parametrize("method", ["default", "percentile"])
def test_too_few_patients_have_no_interval(method: str) -> None:
    labels, p, _ = sample(40, 40)
    for clusters in (np.zeros(40), labels, labels + 2 * (np.arange(40) > 36)):
        assert set(intervals(labels, p, clusters, 0.5, method=method).values()) == {None}
        assert set(paired_intervals(labels, p, 1 - p, clusters, 0.5, 0.5).values()) == {None}


def test_patients_with_images_of_both_classes_are_allowed() -> None:
    random = np.random.default_rng(5)
    clusters = random.integers(25, size=150)
    labels = random.integers(2, size=150)
    p = stats.norm.cdf(random.normal(size=25)[clusters] + random.normal(labels * 1.0))
    for method in ("default", "percentile", "bca"):
        found = intervals(labels, p, clusters, 0.7, method=method)
        for name, value in binary_scores(labels, p, 0.7).items():
            assert known(found, name).low < value < known(found, name).high


def test_a_score_that_too_many_replicates_do_not_have_has_no_interval() -> None:
    """Precision where two of forty patients are called: 13 % of the replicates call nobody."""
    labels = np.arange(40) % 2
    p = np.where(np.arange(40) < 2, 0.9, np.linspace(0.1, 0.3, 40))
    assert intervals(labels, p, np.arange(40), 0.5, method="percentile")["precision"] is None
    assert intervals(labels, p, np.arange(40), 0.5, method="percentile")["accuracy"] is not None


def test_the_same_model_twice_differs_by_what_its_patients_leave_possible() -> None:
    labels, p, clusters = sample()
    found = paired_intervals(labels, p, p, clusters, 0.5, 0.5)
    for name, patients in (("roc_auc", 40), ("accuracy", 80), ("sensitivity", 40), ("specificity", 40)):
        q = 1 - 0.025 ** (1 / patients)
        assert known(found, name) == Interval(pytest.approx(-q), pytest.approx(q), "clopper-pearson"), name
    assert found["f1"] is None


def test_a_probability_that_is_none_is_named() -> None:
    labels, p, clusters = sample()
    p[17] = np.nan
    with pytest.raises(ValueError, match=r"image 17 .* nan"):
        intervals(labels, p, clusters, 0.5)
    with pytest.raises(ValueError, match=r"image 17 .* nan"):
        paired_intervals(labels, np.zeros(len(p)), p, clusters, 0.5, 0.5)
    with pytest.raises(ValueError, match="do not match"):
        intervals(labels[1:], p, clusters, 0.5)
    with pytest.raises(UserError, match="default, percentile, bca"):
        intervals(labels, p, clusters, 0.5, method="bootstrap")
