"""Sign flips of patients' contributions: against a permutation test, and under errors that differ in kind."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ddtl.evaluation.comparison.flips import Contributions, Flips


def of(values: np.ndarray, sizes: np.ndarray) -> Flips:
    """The mean over images of what two methods differ by; ``values`` are the clusters' means."""
    return Flips([contributions(values, sizes)])


def contributions(values: np.ndarray, sizes: np.ndarray) -> Contributions:
    whole = float(values @ sizes / sizes.sum())
    left_out = (whole * sizes.sum() - values * sizes) / (sizes.sum() - sizes)
    return Contributions(whole - left_out, sizes)


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.4])
def test_the_p_value_is_that_of_a_permutation_test(shift: float) -> None:
    """Normal differences: skewness by chance moves p a little."""
    values = np.random.default_rng(3).normal(shift, 1, 40)
    values = np.concatenate([values, 2 * shift - values])  # symmetric
    found = of(values, np.ones(80)).p_value(float(values.mean()))
    theirs = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", vectorized=True, n_resamples=20000,
        random_state=np.random.default_rng(0), axis=0,
    )  # fmt: skip
    assert found == pytest.approx(theirs.pvalue, abs=0.02)


def test_a_value_beyond_the_limit_has_a_smaller_p() -> None:
    random = np.random.default_rng(1)
    flips = of(random.normal(size=30), random.integers(1, 9, 30).astype(float))
    for tail in (0.5, 0.05, 0.01, 1e-3, 1e-6):
        for side in (1, -1):
            limit = flips.limit(side, tail)
            assert flips.p_value(side * limit * 1.0001) < tail * 1.0001
            assert flips.p_value(side * limit * 0.999) >= tail * 0.999


def test_the_other_sign_has_the_other_side() -> None:
    random = np.random.default_rng(2)
    values, sizes = random.exponential(size=25) - 1, np.ones(25)
    there, back = of(values, sizes), of(-values, sizes)
    assert there.limit(1, 0.05) == pytest.approx(back.limit(-1, 0.05))
    # Large values are rare above the mean: where they are missing, chance reaches far below 0.
    assert there.limit(-1, 0.05) < there.limit(1, 0.05) or values.mean() < 0


def test_methods_that_agree_everywhere_do_not_vary() -> None:
    flips = of(np.zeros(20), np.ones(20))
    assert not flips.varies
    assert flips.error == 0


def test_one_patient_in_all_images_tells_nothing() -> None:
    sizes = np.array([400.0, *[1.0] * 9])
    flips = of(np.array([1.0, *[0.1] * 9]), sizes)
    assert flips.p_value(1.0) > 0.05


def test_equal_methods_are_seldom_told_apart() -> None:
    """At 5 %, of patients with 1 to 16 images and errors of whole patients: 3 to 5 of 100."""
    random = np.random.default_rng(4)
    claimed, draws = 0, 400
    for _ in range(draws):
        strata, value = [], 0.0
        for _ in range(2):
            sizes = np.clip((1 / random.uniform(size=30)).astype(int), 1, 16).astype(float)
            values = random.normal(size=30) + random.normal(size=30) / np.sqrt(sizes)
            part = contributions(values, sizes)
            strata.append(part)
            value += float(values @ sizes / sizes.sum())
        flips = Flips(strata)
        claimed += flips.p_value(value) < 0.05
    assert 0.005 <= claimed / draws <= 0.065


def test_three_patients_in_a_class_do_not_fail() -> None:
    flips = of(np.array([0.5, 0.2, 0.4]), np.ones(3))
    assert flips.limit(1, 0.05) > 0
    assert 0 < flips.p_value(0.37) <= 1
