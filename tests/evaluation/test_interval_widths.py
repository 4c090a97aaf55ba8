"""That the default intervals are neither too wide nor too narrow: design effects, sizes that tell, few large errors."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from ddtl.evaluation import metrics
from ddtl.evaluation.intervals import influence
from ddtl.evaluation.intervals.clusters import Clusters, Design, effective_clusters
from ddtl.evaluation.intervals.delong import components
from ddtl.evaluation.intervals.influence import influences, numeric_influences, spread
from ddtl.evaluation.intervals.rates import Rate, _covariance, _error_of_log_odds, rate, rate_limits
from ddtl.evaluation.intervals.robust import auc_limits, newcombe, ranked_wrong, robust_intervals

DESIGNS: tuple[Design, ...] = get_args(Design)


@pytest.mark.parametrize("images", [8, 20, 40, 95, 319])
def test_the_limits_of_a_rate_cover_93_percent_whatever_the_rate(images: int) -> None:
    """By summing the binomial distribution: mid-P limits cover down to 92.1 % of 95 images."""
    rates = np.linspace(0.5, 1, 301)[:-1]
    rates = rates[images * (1 - rates) >= 0.5]
    limits = np.array([Rate(hits / images, images, images, None, images).limits(0.95) for hits in range(images + 1)])
    chance = stats.binom.pmf(np.arange(images + 1)[:, None], images, rates)
    held = (limits[:, :1] <= rates) & (rates <= limits[:, 1:])
    coverage = (chance * held).sum(axis=0)
    assert coverage.min() > 0.9295
    assert coverage.mean() < 0.98


def test_clusters_whose_images_agree_are_worth_no_less_than_one_image_each() -> None:
    codes = np.repeat(np.arange(12), 5)
    found = rate((codes % 4 > 0).astype(int), codes, 0.95)
    assert found.design_effect == pytest.approx(5 * 12 / 11)  # of the variance with n - 1
    assert 11 < found.effective < 12


def test_few_clusters_with_independent_images_are_worth_more_than_their_number() -> None:
    random = np.random.default_rng(0)
    codes = np.repeat(np.arange(6), 8)
    worth = [rate((random.random(48) < 0.7).astype(int), codes, 0.95).effective for _ in range(200)]
    assert 6 < np.median(worth) < 48
    assert min(worth) > 3  # by chance all errors are of few clusters


def test_the_intervals_know_that_large_patients_are_wrong_more_often() -> None:
    """Accuracy is a ratio whose parts vary together: by the cluster jackknife, as the joint distribution has it."""
    random = np.random.default_rng(1)
    ratios = []
    for _ in range(20):
        sizes = random.choice([1, 2, 14], 160, p=[0.4, 0.4, 0.2])
        codes = np.repeat(np.arange(160), sizes)
        labels = (codes < 80).astype(int)
        wrong = random.random(160) < np.where(sizes > 10, 0.5, 0.04)
        p = np.where(wrong[codes], 1 - labels, labels) * 0.8 + 0.1
        clusters = Clusters(labels, codes)
        low, high = rate_limits((p >= 0.5).astype(int), clusters, 0.95)["accuracy"]
        ratios.append(
            (high - low) / (2 * 1.97 * spread(influences(labels, p, 0.5)["accuracy"], clusters).variance ** 0.5)
        )
    assert 0.93 < np.mean(ratios) < 1.1


def test_errors_count_by_their_size() -> None:
    assert effective_clusters(np.ones(7)) == pytest.approx(7)
    assert effective_clusters(np.array([100.0, 1, 1, 1, 0])) == pytest.approx(103**2 / 10003)
    assert effective_clusters(np.zeros(4)) == 0
    labels = np.repeat([0, 1], 30)
    order = np.append(np.linspace(0, 0.4, 30), np.linspace(0.6, 1, 30))
    order[30:40] = 0.395  # below one negative
    some = Clusters(labels, np.arange(60))
    assert ranked_wrong(components(labels, order), some) == pytest.approx(1)  # of the one negative
    order[50] = 0.1  # and one positive below most negatives: more than ten small errors together
    assert 1 < ranked_wrong(components(labels, order), some) < 3


def test_the_average_precision_leaves_room_for_negatives_that_did_not_come() -> None:
    """A cohort whose probabilities are rounded to 1: a perfect top group may have hidden a negative or two."""
    labels = np.repeat([0, 1], [40, 60])
    p = np.append(np.linspace(0, 0.6, 40), np.ones(60))
    p[-1] = 0.55
    found = robust_intervals(p, Clusters(labels, np.arange(100), "cohort"), 0.5, 0.95)["average_precision"]
    assert found.low < 60 / 62  # as two negatives in the top group would leave it
    assert found.low > 0.8


@given(seed=st.integers(0, 500), ties=st.booleans())
@settings(max_examples=25)
def test_numeric_influences_are_those_of_the_closed_forms(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(30) % 2)
    p = rng.random(30).round(1 if ties else 6)
    exact = influences(labels, p, 0.5)
    found = numeric_influences(tuple(exact), labels, p, 0.5)
    assert found.keys() == exact.keys()
    for name, values in exact.items():
        # A weight splits no tie of the ranking: what differs is the step of the differences alone.
        assert found[name] == pytest.approx(values, abs=1e-6), name


def test_a_score_without_an_interval_of_its_own_has_students(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = metrics._weighted_of_one_class

    def with_youden(*arguments: np.ndarray) -> metrics.Replicates:
        found = whole(*arguments)
        return {**found, "youden": found["sensitivity"] + found["specificity"] - 1}

    monkeypatch.setattr(metrics, "_weighted_of_one_class", with_youden)
    monkeypatch.setattr(influence, "SCORES", (*influence.SCORES, "youden"))
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    p = np.clip(labels * 0.3 + rng.random(80) * 0.7, 0, 1)
    clusters = Clusters(labels, np.arange(80))
    of_score = spread(influences(labels, p, 0.5)["youden"], clusters)
    sensitivity, specificity = (float(np.mean((p >= 0.5)[labels == k] == k)) for k in (1, 0))
    found = robust_intervals(p, clusters, 0.5, 0.95)["youden"]
    assert (found.low + found.high) / 2 == pytest.approx(sensitivity + specificity - 1)
    # Independent proportions: their variances add up (with the correction of leaving one out).
    variance = sum(rate * (1 - rate) / 39 for rate in (sensitivity, specificity))
    assert of_score.variance == pytest.approx(variance, rel=0.05)
    assert found.method == "student"


@pytest.mark.parametrize(("positives", "negatives"), [(10, 10), (144, 35), (7, 300), (2.5, 40.5)])
def test_the_variance_of_an_auc_of_one_half_is_that_of_mann_whitneys_test(positives: float, negatives: float) -> None:
    exact = (positives + negatives + 1) / (12 * positives * negatives)
    assert newcombe(0.5, positives, negatives) == pytest.approx(exact)
    for auc in (0.6, 0.9, 0.999):
        assert newcombe(auc, positives, negatives) == pytest.approx(newcombe(1 - auc, negatives, positives))


@given(seed=st.integers(0, 500), ties=st.booleans(), shift=st.sampled_from([-1.0, 0.0, 2.5]))
@settings(max_examples=25)
def test_an_auc_has_the_same_interval_with_the_classes_exchanged(seed: int, ties: bool, shift: float) -> None:
    random = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [12, 60])
    order = (random.normal(size=72) + shift * labels).round(0 if ties else 6)
    codes = np.arange(72) // 2
    found = [_auc_limits(*given) for given in ((labels, order, codes), (1 - labels, -order, codes))]
    assert found[0] == pytest.approx(found[1], abs=1e-9)


@pytest.mark.parametrize("rarer", [0, 1])
def test_an_auc_near_one_of_tied_scores_is_covered_whichever_class_is_rarer(rarer: int) -> None:
    """Scores in steps of 0.2, of 144 patients of one class and 35 of the other; one of 35 ranked high costs 0.017."""
    random = np.random.default_rng(0)
    labels = np.repeat([rarer, 1 - rarer], [35, 144])

    def scores(of: np.ndarray) -> np.ndarray:
        y = random.normal(size=len(of)) + np.sqrt(2) * stats.norm.ppf(0.975) * (of - 0.5) + 0.78 * (1 - 2 * rarer)
        return np.asarray(np.round(5 * stats.norm.cdf(y)))

    many = np.repeat([0, 1], 100_000)
    truth = components(many, scores(many)).auc
    limits = [_auc_limits(labels, scores(labels), np.arange(179)) for _ in range(600)]
    assert np.mean([low <= truth <= high for low, high in limits]) > 0.91


def _auc_limits(labels: np.ndarray, order: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    clusters, parts = Clusters(labels, codes), components(labels, order)
    moved = np.empty(len(labels))
    for label, of_images in ((1, parts.of_positives), (0, parts.of_negatives)):
        moved[labels == label] = (of_images - parts.auc) / (labels == label).sum()
    return auc_limits(parts, spread(moved, clusters), clusters, 0.95)


def test_sizes_that_vary_less_among_the_others_change_nothing() -> None:
    codes = np.append(np.repeat(np.arange(10), np.arange(1, 11)), 10 + np.arange(60))  # negatives of one image each
    labels = (codes < 10).astype(int)
    clusters = Clusters(labels, codes)
    seen = np.sqrt(_covariance(labels, clusters)[2, 2])
    assert _error_of_log_odds(clusters) < seen
    sizes = np.arange(1, 11) / 5.5
    assert seen == pytest.approx(sizes.std(ddof=1) / np.sqrt(10))


@pytest.mark.parametrize("design", DESIGNS)
def test_the_precision_of_few_patients_is_covered_where_their_sizes_vary(design: Design) -> None:
    """Nine positive patients of 167 with 1 to 16 images; before, 91 % of the intervals included the truth."""
    random = np.random.default_rng(0)
    choices = np.repeat([1, 2, 3, 5, 9, 16], [8, 5, 4, 2, 1, 1])
    held = []
    for _ in range(250):
        positives = random.binomial(167, 9 / 167) if design == "cohort" else 9
        if positives < 3:
            continue
        codes = np.repeat(np.arange(167), random.choice(choices, 167))
        labels = (codes < positives).astype(int)
        predicted = (random.random(len(codes)) < np.where(labels == 1, 0.85, 0.15)).astype(int)
        low, high = rate_limits(predicted, Clusters(labels, codes, design), 0.95)["precision"]
        held.append(low <= 9 * 0.85 / (9 * 0.85 + 158 * 0.15) <= high)
    assert np.mean(held) > 0.935
