"""Intervals against scipy's bootstrap, statsmodels and exact binomial bounds; what has none, and honest extremes."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from ddtl.evaluation.intervals.clustered import Clustered
from ddtl.evaluation.intervals.clusters import Clusters
from ddtl.evaluation.intervals.influence import spread
from ddtl.evaluation.intervals.interval import DESCRIPTIONS, Interval
from ddtl.evaluation.intervals.intervals import METHODS, intervals, multiclass_intervals, paired_intervals
from ddtl.evaluation.intervals.proportions import effective_number, proportion, wilson
from ddtl.evaluation.metrics import binary_scores, multiclass_scores
from ddtl.schema.scores import SCORES


def sample(images: int = 240, patients: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(labels, p, clusters) with a patient's images alike and each class in half of the patients."""
    random = np.random.default_rng(seed)
    clusters = np.append(np.arange(patients), random.integers(patients, size=images - patients))
    labels = clusters % 2
    score = random.normal(size=patients)[clusters] + random.normal(size=images) + 1.6 * (labels - 0.5)
    return labels, stats.norm.cdf(score), clusters


def known(found: dict[str, Interval | None], name: str) -> Interval:
    interval = found[name]
    assert interval is not None
    return interval


@pytest.mark.parametrize("method", ["default", *METHODS])
def test_every_score_has_an_interval_around_it(method: str) -> None:
    labels, p, clusters = sample()
    found = intervals(labels, p, clusters, 0.5, method=method, replicates=500)
    assert tuple(found) == SCORES
    for name, value in binary_scores(labels, p, 0.5).items():
        interval = known(found, name)
        assert interval.low < value < interval.high
        assert interval.method in DESCRIPTIONS
        assert interval.low >= -1
        assert interval.high <= 1


def test_the_method_that_is_asked_for_is_the_one_that_is_named() -> None:
    labels, p, clusters = sample()

    def named(method: str, clusters: np.ndarray = clusters) -> dict[str, str]:
        found = intervals(labels, p, clusters, 0.5, method=method, replicates=200)
        return {name: known(found, name).method for name in ("roc_auc", "accuracy", "precision", "f1")}

    assert set(named("percentile").values()) == {"percentile"}
    assert set(named("bca").values()) == {"bca"}
    assert list(named("logit").values()) == ["logit-delong", "logit", "logit", "logit"]
    assert list(named("wilson").values()) == ["logit-delong", "wilson-clustered", "wilson-clustered", "logit"]
    assert list(named("default").values()) == ["score", "mid-p-joint", "mid-p-joint", "mid-p-joint"]
    assert named("wilson", np.arange(len(labels)))["precision"] == "wilson"


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_the_bootstrap_is_scipys(method: str) -> None:
    """One image a cluster: scipy draws the two classes as two samples."""
    labels, p, _ = sample(90, 90)
    order = np.argsort(labels, kind="stable")
    labels, p = labels[order], p[order]
    negatives, positives = p[labels == 0], p[labels == 1]

    def auc(y: np.ndarray, x: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.mean(x[..., :, None] > y[..., None, :], axis=(-1, -2))

    def accuracy(y: np.ndarray, x: np.ndarray, axis: int = -1) -> np.ndarray:
        return (np.sum(y < 0.5, axis=-1) + np.sum(x >= 0.5, axis=-1)) / len(p)

    ours = intervals(labels, p, np.arange(90), 0.5, method=method.lower(), replicates=9999, seed=1)
    for name, statistic in (("roc_auc", auc), ("accuracy", accuracy)):
        theirs = stats.bootstrap(
            (negatives, positives), statistic, n_resamples=9999, method=method, batch=500, rng=np.random.default_rng(2)
        )
        # A quantile of 9,999 replicates has a standard error of 0.027 standard deviations; two of them differ.
        error = 4 * np.sqrt(2) * 0.027 * theirs.standard_error
        limits = theirs.confidence_interval
        grain = 1 / len(p) if name == "accuracy" else 0
        assert known(ours, name).low == pytest.approx(limits.low, abs=error + grain), name
        assert known(ours, name).high == pytest.approx(limits.high, abs=error + grain), name


def test_the_bootstrap_of_clusters_is_scipys_of_cluster_sums() -> None:
    """Accuracy as a ratio of sums over patients, drawn in pairs (right, images)."""
    labels, p, clusters = sample()
    right = ((p >= 0.5) == labels).astype(float)
    hits, sizes = np.bincount(clusters, right), np.bincount(clusters)
    of_patient = np.arange(80) % 2

    def accuracy(i: np.ndarray, j: np.ndarray, axis: int = -1) -> np.ndarray:
        i, j = i.astype(int), j.astype(int)
        return (hits[i].sum(-1) + hits[j].sum(-1)) / (sizes[i].sum(-1) + sizes[j].sum(-1))

    samples = (np.flatnonzero(of_patient == 0), np.flatnonzero(of_patient == 1))
    for method in ("percentile", "BCa"):
        theirs = stats.bootstrap(samples, accuracy, n_resamples=9999, method=method, rng=np.random.default_rng(2))
        ours = known(intervals(labels, p, clusters, 0.5, method=method.lower(), replicates=9999), "accuracy")
        expected = tuple(theirs.confidence_interval)
        assert (ours.low, ours.high) == pytest.approx(expected, abs=4 * np.sqrt(2) * 0.027 * theirs.standard_error)


def test_wilson_is_statsmodels() -> None:
    labels, p, _ = sample(60, 60)
    called = p >= 0.5
    found = intervals(labels, p, np.arange(60), 0.5, level=0.9, method="wilson")
    for name, right in (("accuracy", called == labels), ("sensitivity", called[labels == 1])):
        expected = proportion_confint(right.sum(), len(right), alpha=0.1, method="wilson")
        interval = known(found, name)
        assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-12)
        assert interval.method == "wilson"


def test_the_effective_number_of_images_is_between_clusters_and_images() -> None:
    """Images that are copies tell as much as one; images that share nothing all count."""
    random = np.random.default_rng(0)
    hits = random.random(300) < 0.7
    everyone, clusters = np.ones(1200, int), np.repeat(np.arange(300), 4)
    copies = effective_number(proportion(np.repeat(hits, 4), everyone, clusters), 0.95)
    assert copies == pytest.approx(300, rel=0.02)
    alone = effective_number(proportion(random.random(1200) < 0.7, everyone, clusters), 0.95)
    assert 900 < alone <= 1200
    low, high = wilson(proportion(np.repeat(hits, 4), everyone, clusters), 0.95)
    assert (low, high) == pytest.approx(proportion_confint(hits.sum(), 300, method="wilson"), abs=0.002)


def test_the_interval_of_a_mean_is_students_on_the_logit_scale() -> None:
    """The jackknife variance of a mean is the sample variance over n, exactly."""
    values = np.random.default_rng(0).random(40)
    weighted_mean = Clustered(
        lambda weights: {"mean": weights @ values / weights.sum(axis=1)}, np.ones(40), np.arange(40), 0.9, 100, 0
    )
    slope = values.mean() * (1 - values.mean())
    odds = np.exp(stats.t.interval(0.9, 39, np.log(values.mean() / (1 - values.mean())), stats.sem(values) / slope))
    assert weighted_mean.logit("mean", (0, 1)) == pytest.approx(tuple(odds / (1 + odds)), abs=1e-12)
    # Between -1 and 1 it is Fisher's z, whatever the scale.
    z = stats.t.interval(0.9, 39, np.arctanh(values.mean()), stats.sem(values) / (1 - values.mean() ** 2))
    assert weighted_mean.logit("mean", (-1, 1)) == pytest.approx(tuple(np.tanh(z)), abs=1e-12)


def test_the_variances_of_two_classes_add_up_as_welch_says() -> None:
    labels = np.repeat([0, 1], [12, 30])
    values = np.random.default_rng(0).normal(size=42) * (1 + labels)
    moved = np.empty(42)
    for label, sign in ((0, -1), (1, 1)):
        mine = labels == label
        moved[mine] = sign * (values[mine] - values[mine].mean()) / mine.sum()
    found = spread(moved, Clusters(labels, np.arange(42)))
    welch = stats.ttest_ind(values[labels == 1], values[labels == 0], equal_var=False)
    assert found.variance == pytest.approx(float(welch._standard_error) ** 2, rel=1e-9)
    assert found.freedom == pytest.approx(float(welch.df), rel=0.01)


def test_replicates_keep_the_number_of_patients_of_each_class() -> None:
    labels = np.arange(20) % 2
    share = Clustered(lambda weights: {"share": weights @ labels / 20}, labels, np.arange(20), 0.95, 100, 0)
    assert share.percentile("share") is None  # the same in every replicate


def test_images_that_are_copies_change_no_interval() -> None:
    labels, p, _ = sample(60, 60)
    one = intervals(labels, p, np.arange(60), 0.5, method="logit")
    three = intervals(np.tile(labels, 3), np.tile(p, 3), np.tile(np.arange(60), 3), 0.5, method="logit")
    for name in SCORES:
        assert known(three, name).low == pytest.approx(known(one, name).low, abs=1e-9), name
        assert known(three, name).high == pytest.approx(known(one, name).high, abs=1e-9), name


def test_order_and_names_of_images_do_not_matter() -> None:
    labels, p, clusters = sample()
    order = np.random.default_rng(1).permutation(len(p))
    names = np.array([f"patient {99 - c:03d}" for c in clusters])
    one = intervals(labels, p, clusters, 0.5)
    other = intervals(labels[order], p[order], names[order], 0.5)
    for name in SCORES:
        assert known(one, name).low == pytest.approx(known(other, name).low, abs=1e-9), name


def test_wider_with_level_and_the_same_with_the_same_seed() -> None:
    labels, p, clusters = sample()
    for method in ("default", "bca"):
        narrow, wide = (intervals(labels, p, clusters, 0.5, method=method, level=level) for level in (0.8, 0.99))
        for name in SCORES:
            assert known(wide, name).low < known(narrow, name).low
            assert known(wide, name).high > known(narrow, name).high
    assert intervals(labels, p, clusters, 0.5, method="bca") == intervals(labels, p, clusters, 0.5, method="bca")
    assert intervals(labels, p, clusters, 0.5, method="bca", seed=1) != wide


def test_multiclass_scores_have_intervals() -> None:
    random = np.random.default_rng(0)
    clusters = np.append(np.arange(60), random.integers(60, size=140))
    labels = clusters % 3
    probabilities = random.dirichlet([1, 1, 1], 200) + 0.6 * np.eye(3)[labels]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    plain, _ = multiclass_scores(labels, probabilities)
    for method in ("default", "percentile", "bca", "logit", "wilson"):
        found = multiclass_intervals(labels, probabilities, clusters, method=method, replicates=300)
        for name, value in plain.items():
            assert known(found, name).low < value < known(found, name).high, (method, name)


def test_paired_intervals_are_narrower_than_those_of_two_test_sets() -> None:
    labels, p, clusters = sample()
    q = stats.norm.cdf(stats.norm.ppf(p) + np.random.default_rng(1).normal(0, 0.4, len(p)))
    single = intervals(labels, p, clusters, 0.5)
    for method in ("default", "percentile", "bca"):
        found = paired_intervals(labels, p, q, clusters, 0.5, 0.5, method=method, replicates=500)
        a, b = binary_scores(labels, p, 0.5), binary_scores(labels, q, 0.5)
        for name in SCORES:
            interval = known(found, name)
            assert interval.low <= a[name] - b[name] <= interval.high, (method, name)
            assert interval.high - interval.low < known(single, name).high - known(single, name).low, (method, name)


def test_each_model_of_a_pair_has_its_own_threshold() -> None:
    labels, p, clusters = sample()
    found = paired_intervals(labels, p, p, clusters, 0.5, 0.8)
    assert known(found, "sensitivity").low > 0  # the higher threshold calls fewer
    assert known(found, "specificity").high < 0


def test_all_scores_of_a_thousand_images_take_less_than_two_seconds() -> None:
    labels, p, clusters = sample(1000, 400)
    intervals(labels, p, clusters, 0.5, method="bca", replicates=10)  # imports
    for method in ("default", "bca"):
        started = time.process_time()
        intervals(labels, p, clusters, 0.5, method=method, replicates=2000)
        assert time.process_time() - started < 2


def test_many_patients_are_left_out_by_groups_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, p, _ = sample(3000, 3000)
    one = intervals(labels, p, np.arange(3000), 0.5, method="logit")
    monkeypatch.setattr("ddtl.evaluation.intervals.resampling._MOST_LEFT_OUT", 150)
    grouped = intervals(labels, p, np.arange(3000), 0.5, method="logit")
    for name in SCORES:
        width = known(one, name).high - known(one, name).low
        assert known(grouped, name).high - known(grouped, name).low == pytest.approx(width, rel=0.2), name
