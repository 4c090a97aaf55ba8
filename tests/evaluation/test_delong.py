"""Variances of ROC AUCs against the papers' definitions by brute force, closed forms and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from ddtl.evaluation.intervals import delong

FEW = settings(max_examples=40, deadline=None)
Case = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def auc_variance(labels: np.ndarray, p: np.ndarray, clusters: np.ndarray | None = None) -> tuple[float, float]:
    parts = delong.components(labels, p)
    return parts.auc, delong.variance(labels, parts, clusters)[0]


def kernel(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """(m, n) psi of DeLong: 1 where the positive lies above the negative, 1/2 for ties."""
    x, y = p[labels == 1][:, None], p[labels == 0][None, :]
    return (x > y) + 0.5 * (x == y)


def by_definition(labels: np.ndarray, kernels: list[np.ndarray], clusters: np.ndarray) -> np.ndarray:
    """(models, models) covariance of the AUCs: Obuchowski (1997), equations as printed, sums over clusters."""
    of_x, of_y, everyone = clusters[labels == 1], clusters[labels == 0], np.unique(clusters)
    m, n = kernels[0].shape
    i10, i01, i = len(np.unique(of_x)), len(np.unique(of_y)), len(everyone)

    def sums(psi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        v10, v01, theta = psi.mean(axis=1), psi.mean(axis=0), psi.mean()
        x = np.array([sum(v10[of_x == c]) - sum(of_x == c) * theta for c in everyone])
        y = np.array([sum(v01[of_y == c]) - sum(of_y == c) * theta for c in everyone])
        return x, y

    found = np.empty((len(kernels), len(kernels)))
    for a, one in enumerate(kernels):
        for b, other in enumerate(kernels):
            (xa, ya), (xb, yb) = sums(one), sums(other)
            s10, s01 = i10 / ((i10 - 1) * m) * (xa @ xb), i01 / ((i01 - 1) * n) * (ya @ yb)
            s11, s11_turned = i / (i - 1) * (xa @ yb), i / (i - 1) * (ya @ xb)
            found[a, b] = s10 / m + s01 / n + s11 / (m * n) + s11_turned / (m * n)
    return found


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """(labels, p of two models with ties, clusters); each class in two clusters at least."""
    n = draw(st.integers(6, 40))
    labels = np.array([0, 1, 0, 1, *draw(st.lists(st.integers(0, 1), min_size=n - 4, max_size=n - 4))])
    clusters = np.array([0, 0, 1, 1, *draw(st.lists(st.integers(0, 8), min_size=n - 4, max_size=n - 4))])
    a, b = (np.array(draw(st.lists(st.integers(0, 20), min_size=n, max_size=n))) / 20 for _ in range(2))
    return labels, a, b, clusters


@FEW
@given(cases())
def test_the_variance_is_the_papers_by_brute_force(case: Case) -> None:
    labels, a, b, clusters = case
    kernels = [kernel(labels, a), kernel(labels, b)]
    for groups in (clusters, np.arange(len(labels))):
        expected = by_definition(labels, kernels, groups)
        auc, variance = auc_variance(labels, a, groups)
        assert auc == pytest.approx(roc_auc_score(labels, a), abs=1e-12)
        assert variance == pytest.approx(max(0, expected[0, 0]), abs=1e-10)
        error = delong.compare_paired(labels, a, b, groups).standard_error
        assert error**2 == pytest.approx(max(0, np.array([1, -1]) @ expected @ [1, -1]), abs=1e-10)


@FEW
@given(cases())
def test_with_single_images_obuchowski_is_delong(case: Case) -> None:
    labels, a, b, _ = case
    psi = kernel(labels, a)
    m, n = psi.shape
    classic = np.var(psi.mean(axis=1), ddof=1) / m + np.var(psi.mean(axis=0), ddof=1) / n
    singles = auc_variance(labels, a, np.arange(len(a)).astype(str))[1]
    assert auc_variance(labels, a)[1] == pytest.approx(classic, abs=1e-10)
    assert singles == pytest.approx(classic, abs=1e-10)  # a factor of exactly 1
    plain, clustered = delong.compare_paired(labels, a, b), delong.compare_paired(labels, a, b, np.arange(len(a)))
    assert plain.standard_error == pytest.approx(clustered.standard_error, abs=1e-12)


def test_the_paired_test_is_a_z_test_of_the_difference() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(80) % 2
    a, b = (random.normal(labels, 1.0) for _ in range(2))
    found = delong.compare_paired(labels, a, b, level=0.9)
    covariance = by_definition(labels, [kernel(labels, a), kernel(labels, b)], np.arange(80))
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    difference = roc_auc_score(labels, a) - roc_auc_score(labels, b)
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(difference) / error), abs=1e-10)
    assert [found.low, found.high] == pytest.approx(stats.norm.interval(0.9, loc=difference, scale=error), abs=1e-10)
    clustered = delong.compare_paired(labels, a, b, np.arange(80))
    assert clustered.p_value > found.p_value  # Student's t
    turned = delong.compare_paired(labels, b, a)
    assert (turned.difference, turned.low, turned.p_value) == pytest.approx(
        (-found.difference, -delong.compare_paired(labels, a, b).high, found.p_value)
    )


def test_copies_of_every_image_change_nothing() -> None:
    random = np.random.default_rng(3)
    labels, p = np.arange(40) % 2, random.random(40)
    clusters = np.arange(40)
    auc, variance = auc_variance(labels, p, clusters)
    for copies in (2, 5):
        again = auc_variance(np.tile(labels, copies), np.tile(p, copies), np.tile(clusters, copies))
        assert again == pytest.approx((auc, variance), abs=1e-12)
    assert auc_variance(np.tile(labels, 5), np.tile(p, 5))[1] < variance / 4  # copies taken for people


def test_a_constant_shift_of_one_class_reaches_the_closed_form() -> None:
    """Of exponential scores with rates 1 and r the AUC and its variance are known (Hanley and McNeil, 1982)."""
    random = np.random.default_rng(4)
    theta, m, n = 0.8, 60, 50
    labels = np.repeat([1, 0], [m, n])
    q1, q2 = theta / (2 - theta), 2 * theta**2 / (1 + theta)
    exact = (theta * (1 - theta) + (m - 1) * (q1 - theta**2) + (n - 1) * (q2 - theta**2)) / (m * n)
    scores = [np.append(random.exponential(theta / (1 - theta), m), random.exponential(1, n)) for _ in range(1500)]
    found = np.array([auc_variance(labels, p) for p in scores])
    assert found[:, 0].mean() == pytest.approx(theta, abs=0.005)
    assert found[:, 0].var() == pytest.approx(exact, rel=0.12)
    assert found[:, 1].mean() == pytest.approx(exact, rel=0.04)


def test_models_that_nothing_tells_apart_are_bounded() -> None:
    labels, clusters = np.repeat([0, 1], 20), np.repeat(np.arange(20), 2)
    p = np.random.default_rng(0).random(40)
    same = delong.compare_paired(labels, p, p**2, clusters)
    q = 1 - 0.025 ** (1 / 10)
    assert (same.difference, same.p_value, same.standard_error) == (0, 1, 0)
    assert (same.low, same.high) == pytest.approx((-q, q))
    opposite = delong.compare_paired(labels, labels * 1.0, 1.0 - labels, clusters)
    assert opposite.difference == 1
    assert opposite.p_value == pytest.approx(2 * 0.5**10)  # the sign test's, of ten pairs of patients
    assert (opposite.low, opposite.high) == pytest.approx((1 - 2 * q, 1))


def test_pairs_of_patients_are_disjoint() -> None:
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 0, 0])
    assert delong.independent_pairs(labels, np.array([0, 0, 1, 1, 2, 2, 3, 4, 5])) == 3
    assert delong.independent_pairs(labels, np.array([0, 0, 1, 1, 2, 2, 2, 1, 0])) == 1
    assert delong.independent_pairs(labels, None) == 3


def test_the_bound_of_exceptions_is_clopper_and_pearsons() -> None:
    for k in (3, 42, 500):
        interval = stats.binomtest(0, k).proportion_ci(0.95, method="exact")
        assert delong.unseen(k, 0.95) == pytest.approx(interval.high, abs=1e-12)


@pytest.mark.parametrize(
    ("labels", "p", "clusters", "words"),
    [
        ([1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4], None, "both classes"),
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], [0, 1, 2, 2], "two clusters"),
        ([0, 0, 1, 1], [0.1, np.nan, 0.3, 0.4], None, "image 1 "),
    ],
)
def test_what_has_no_variance_is_said(
    labels: list[int], p: list[float], clusters: list[int] | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        auc_variance(np.array(labels), np.array(p), None if clusters is None else np.array(clusters))
