"""Tests of a difference against their definitions, statsmodels and data in which nothing or something differs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import chi2
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from ddtl.evaluation.comparison.significance import holm, mcnemar

FEW = settings(max_examples=40, deadline=None)


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether two models are right, and the patient, of some images."""
    n = draw(st.integers(2, 40))
    right = draw(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 9)), min_size=n, max_size=n))
    a, b, clusters = zip(*right, strict=True)
    return np.array(a), np.array(b), np.array([f"p{k}" for k in clusters])


def equally_good(random: np.random.Generator, patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two models that are as good as each other, each with patients of its own that it finds hard."""
    clusters = np.repeat(np.arange(patients), 1 + random.poisson(3, patients))
    shared, of_a, of_b = random.normal(size=(3, patients))
    noise = 0.5 * random.normal(size=(2, len(clusters))) + 1.5
    return (shared + of_a)[clusters] + noise[0] > 0, (shared + of_b)[clusters] + noise[1] > 0, clusters


def test_mcnemar_by_hand() -> None:
    right_a = np.array([True] * 8 + [False] * 2 + [True, False] * 5)
    right_b = np.array([False] * 8 + [True] * 2 + [True, False] * 5)
    found = mcnemar(right_a, right_b)
    assert (found.only_a, found.only_b) == (8, 2)
    assert found.statistic == pytest.approx(36 / 10)
    assert found.p_value == pytest.approx(2 * (1 + 10 + 45) / 2**10)  # two or fewer heads of ten, both sides


@FEW
@given(answers())
def test_one_image_a_patient_is_mcnemars_exact_test(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    a, b, _ = case
    alone = mcnemar(a, b, np.arange(len(a)))
    plain = mcnemar(a, b)
    assert alone.p_value == pytest.approx(plain.p_value)
    # Obuchowski divides by K - 1 where McNemar divides by K.
    assert alone.statistic == pytest.approx(plain.statistic * (len(a) - 1) / len(a))
    table = [[(a & b).sum(), (a & ~b).sum()], [(b & ~a).sum(), (~a & ~b).sum()]]
    assert plain.p_value == pytest.approx(min(1, statsmodels_mcnemar(table, exact=True).pvalue))


@FEW
@given(answers())
def test_the_statistic_is_obuchowskis(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """As he defines it: both accuracies' variances and their covariance about the pooled accuracy."""
    a, b, clusters = case
    names, size = np.unique(clusters, return_counts=True)
    n_a, n_b = (np.array([right[clusters == name].sum() for name in names]) for right in (a, b))
    k, n, pooled = len(names), len(a), (a.mean() + b.mean()) / 2
    if k < 2 or np.all(n_a == n_b):
        assert mcnemar(a, b, clusters).statistic == 0
        return
    scale = k / (k - 1) / n**2
    var_a, var_b = (scale * ((x - size * pooled) ** 2).sum() for x in (n_a, n_b))
    covariance = scale * ((n_a - size * pooled) * (n_b - size * pooled)).sum()
    expected = (a.mean() - b.mean()) ** 2 / (var_a + var_b - 2 * covariance)
    assert mcnemar(a, b, clusters).statistic == pytest.approx(expected)


@FEW
@given(answers())
def test_the_p_value_counts_every_way_to_swap_the_models_in_whole_patients(
    case: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    a, b, clusters = case
    names = np.unique(clusters)
    d = np.array([a[clusters == name].sum() - b[clusters == name].sum() for name in names])
    sums = [abs((d * signs).sum()) for signs in itertools.product((1, -1), repeat=len(names))]
    assert mcnemar(a, b, clusters).p_value == pytest.approx(np.mean(np.array(sums) >= abs(d.sum())))


@FEW
@given(answers())
def test_swapping_the_models_changes_no_p_value(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    a, b, clusters = case
    there, back = mcnemar(a, b, clusters), mcnemar(b, a, clusters)
    assert (there.only_a, there.only_b) == (back.only_b, back.only_a)
    assert there.p_value == pytest.approx(back.p_value)


def test_models_that_answer_alike_do_not_differ() -> None:
    right = np.array([True, False, True, True])
    for clusters in (None, np.array(["p", "p", "q", "q"])):
        found = mcnemar(right, right, clusters)
        assert (found.only_a, found.only_b, found.statistic, found.p_value) == (0, 0, 0, 1)


def test_images_of_one_patient_prove_nothing() -> None:
    """Nine images that only a calls right are a find if they are of nine patients, and none if they are of one."""
    a, b = np.ones(12, dtype=bool), np.arange(12) >= 9
    assert mcnemar(a, b, np.arange(12)).p_value < 0.01
    assert mcnemar(a, b, np.arange(12) >= 9).p_value == 1


def test_only_the_clustered_test_keeps_its_level_where_patients_are_hard_or_easy() -> None:
    random = np.random.default_rng(0)
    sets = [equally_good(random, patients=95) for _ in range(400)]
    clustered = np.mean([mcnemar(a, b, clusters).p_value < 0.05 for a, b, clusters in sets])
    plain = np.mean([mcnemar(a, b).p_value < 0.05 for a, b, _ in sets])
    # 400 sets leave a standard error of 0.011 at a level of 0.05.
    assert 0.02 <= clustered <= 0.08
    assert plain > 0.15


def test_with_many_patients_the_exact_p_value_is_that_of_the_chi_square() -> None:
    random = np.random.default_rng(1)
    for _ in range(5):
        found = mcnemar(*equally_good(random, patients=1500))
        assert found.p_value == pytest.approx(chi2.sf(found.statistic, 1), abs=0.02)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([3 * 0.01, 2 * 0.03, 2 * 0.03])
    assert holm([0.2]) == [0.2]
    assert holm([0.9, 0.8]) == [1, 1]


def test_holm_is_that_of_statsmodels() -> None:
    random = np.random.default_rng(6)
    for count in (1, 2, 7, 30):
        p = random.random(count) ** 3
        assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1])


def test_a_test_that_could_not_be_made_does_not_count() -> None:
    assert holm([None, 0.01, None, 0.04]) == [None, 0.02, None, 0.04]
    assert holm([None]) == [None]
