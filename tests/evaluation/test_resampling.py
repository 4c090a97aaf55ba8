"""Whole clusters are drawn, and every replicate's scores are those of scikit-learn with its weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn import metrics

from ddtl.evaluation.intervals import resampling
from ddtl.evaluation.intervals.resampling import cluster_weights, jackknife, resample, strata
from ddtl.evaluation.metrics import binary_scores, multiclass_scores, weighted_multiclass, weighted_scores
from ddtl.schema.scores import SCORES

FEW = settings(max_examples=40, deadline=None)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """(labels, probabilities with ties, weights of one replicate, threshold); each class has a weight."""
    n = draw(st.integers(4, 40))
    labels = np.array([0, 1, *draw(st.lists(st.integers(0, 1), min_size=n - 2, max_size=n - 2))])
    p = np.array(draw(st.lists(st.integers(0, 16), min_size=n, max_size=n))) / 16
    weights = np.array([1, 1, *draw(st.lists(st.integers(0, 3), min_size=n - 2, max_size=n - 2))])
    return labels, p, weights, (draw(st.integers(0, 15)) + 0.5) / 16


@FEW
@given(cases())
def test_weighted_scores_are_those_of_scikit_learn(case: tuple[np.ndarray, np.ndarray, np.ndarray, float]) -> None:
    labels, p, weights, threshold = case
    called = (p >= threshold).astype(int)
    theirs = {
        "roc_auc": metrics.roc_auc_score(labels, p, sample_weight=weights),
        "average_precision": metrics.average_precision_score(labels, p, sample_weight=weights),
        "accuracy": metrics.accuracy_score(labels, called, sample_weight=weights),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, called, sample_weight=weights),
        "sensitivity": metrics.recall_score(labels, called, sample_weight=weights),
        "specificity": metrics.recall_score(labels, called, sample_weight=weights, pos_label=0),
        "precision": metrics.precision_score(labels, called, sample_weight=weights, zero_division=np.nan),
        "f1": metrics.f1_score(labels, called, sample_weight=weights),
        "mcc": metrics.matthews_corrcoef(labels, called, sample_weight=weights),
        "brier": metrics.brier_score_loss(labels, p, sample_weight=weights),
    }
    if len(np.unique(called[weights > 0])) < 2:
        theirs["mcc"] = np.nan
    ours = weighted_scores(labels, p, weights[None], threshold)
    assert tuple(ours) == SCORES
    for name, value in theirs.items():
        assert ours[name][0] == pytest.approx(value, abs=1e-12, nan_ok=True), name


@FEW
@given(cases())
def test_a_weight_is_a_number_of_copies(case: tuple[np.ndarray, np.ndarray, np.ndarray, float]) -> None:
    labels, p, weights, threshold = case
    copies = np.repeat(np.arange(len(p)), weights)
    plain = binary_scores(labels[copies], p[copies], threshold)
    ours = weighted_scores(labels, p, np.stack([weights, 0 * weights, 2 * weights]), threshold)
    for name, value in plain.items():
        expected = np.nan if value is None else value
        assert ours[name][[0, 2]] == pytest.approx([expected, expected], abs=1e-12, nan_ok=True), name
        assert np.isnan(ours[name][1]), name


def test_weighted_multiclass_scores_are_the_plain_ones_of_the_copies() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(3, size=60)
    probabilities = random.dirichlet([1, 1, 1], 60)
    weights = np.stack([np.ones(60, int), random.integers(4, size=60), (labels < 2).astype(int)])
    ours = weighted_multiclass(labels, probabilities, weights)
    for row, replicate in enumerate(weights):
        copies = np.repeat(np.arange(60), replicate)
        plain, _ = multiclass_scores(labels[copies], probabilities[copies])
        for name, value in plain.items():
            assert ours[name][row] == pytest.approx(np.nan if value is None else value, abs=1e-12, nan_ok=True), name


def test_clusters_are_drawn_whole_and_as_many_as_there_are() -> None:
    clusters = np.array(["b", "a", "b", "c", "a", "b"])
    weights = cluster_weights(clusters, 500, seed=1)
    assert weights.shape == (500, 6)
    for one, other in ((0, 2), (0, 5), (1, 4)):
        assert (weights[:, one] == weights[:, other]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert len(np.unique(weights, axis=0)) == 10  # multisets of 3 out of 3


def test_a_cluster_is_drawn_as_often_as_the_multinomial_law_says() -> None:
    drawn = cluster_weights(np.arange(20), 4000, seed=2)
    assert drawn.mean(axis=0) == pytest.approx(np.ones(20), abs=5 / np.sqrt(4000))
    assert drawn.var(axis=0) == pytest.approx(np.full(20, 0.95), abs=0.15)


def test_with_labels_each_class_keeps_its_number_of_clusters() -> None:
    clusters = np.array([0, 0, 1, 2, 3, 3, 4])
    labels = np.array([1, 1, 1, 1, 0, 0, 0])
    first = [0, 2, 3, 4, 6]  # an image of each cluster
    weights = cluster_weights(clusters, 200, seed=0, labels=labels)[:, first]
    assert (weights[:, :3].sum(axis=1) == 3).all()
    assert (weights[:, 3:].sum(axis=1) == 2).all()
    assert [group.tolist() for group in strata(clusters, labels)] == [[3, 4], [0, 1, 2]]


def test_a_cluster_of_two_classes_ends_the_drawing_by_class() -> None:
    clusters, labels = np.array([0, 0, 1, 2]), np.array([0, 1, 0, 1])
    assert [group.tolist() for group in strata(clusters, labels)] == [[0, 1, 2]]


def test_blocks_change_neither_draws_nor_jackknife(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    clusters = random.integers(30, size=80)
    labels, p = clusters % 2, random.random(80)

    def everything() -> list[np.ndarray]:
        def statistic(weights: np.ndarray) -> resampling.Replicates:
            return weighted_scores(labels, p, weights, 0.5)

        left_out = jackknife(statistic, clusters, labels)
        draws = resample(statistic, clusters, labels, 50, 3)
        return [cluster_weights(clusters, 50, 3, labels), *draws.values(), *(t["roc_auc"] for t in left_out)]

    whole = everything()
    monkeypatch.setattr(resampling, "_CELLS", 7 * 80)
    for one, other in zip(whole, everything(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_fewer_replicates_are_the_first_of_more() -> None:
    clusters = np.arange(11) % 5
    np.testing.assert_array_equal(cluster_weights(clusters, 7, 9), cluster_weights(clusters, 100, 9)[:7])
    assert (cluster_weights(clusters, 100, 9) != cluster_weights(clusters, 100, 8)).any()


def test_the_jackknife_leaves_each_cluster_out_once_and_many_by_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    clusters = np.array([3, 3, 5, 7, 7, 7])

    def members(weights: np.ndarray) -> resampling.Replicates:
        return {"rest": weights @ (2 ** np.arange(6))}

    (table,) = jackknife(members, clusters, None)
    assert sorted(table["rest"]) == sorted([63 - 3, 63 - 4, 63 - 56])
    monkeypatch.setattr(resampling, "_MOST_LEFT_OUT", 2)
    (grouped,) = jackknife(members, clusters, None)
    assert len(grouped["rest"]) == 2
    assert grouped["rest"].sum() == 63  # together the two groups are everyone
