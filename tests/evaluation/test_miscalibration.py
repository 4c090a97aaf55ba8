"""Intercept and slope against statsmodels; noise floor and verdict against test sets with a known truth."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit

from benchmarks import calibration as benchmark
from ddtl.evaluation import calibration
from ddtl.evaluation.miscalibration import (
    debiased_error,
    jackknife_spread,
    noise_floors,
    patient_logits,
    recalibration_line,
)
from tests.support.clustered_draws import draw


@pytest.mark.parametrize("seed", range(4))
def test_intercept_and_slope_are_those_of_statsmodels(seed: int) -> None:
    d = draw(np.random.default_rng(seed), 40, slope=0.6)
    line = recalibration_line(d.labels, d.logit, d.patient)
    family = sm.families.Binomial()
    moved = sm.GLM(d.labels, np.ones((len(d.labels), 1)), family=family, offset=d.logit).fit()
    turned = sm.GLM(d.labels, sm.add_constant(d.logit), family=family).fit()
    assert line.intercept is not None
    assert line.slope is not None
    assert line.intercept.value == pytest.approx(moved.params[0], abs=1e-6)
    assert line.slope.value == pytest.approx(turned.params[1], abs=1e-6)


def test_the_spread_of_a_mean_is_the_jackknife_of_whole_clusters() -> None:
    """Of a linear model one Newton step is exact: the mean is computed again without each patient."""
    random = np.random.default_rng(0)
    codes = np.repeat(np.arange(9), random.integers(1, 6, 9))
    x = random.normal(size=len(codes))
    ones = np.ones(len(x))
    found = jackknife_spread(ones[:, None], x - x.mean(), ones, codes)
    assert found is not None
    without = np.array([x[codes != c].mean() for c in range(9)])
    assert found.error == pytest.approx(np.sqrt(8 / 9 * ((without - x.mean()) ** 2).sum()))
    sizes = np.bincount(codes)
    assert found.freedom == pytest.approx((sizes**2).sum() ** 2 / (sizes**4).sum() - 1)


def test_the_interval_of_single_images_is_near_that_of_statsmodels() -> None:
    d = draw(np.random.default_rng(1), 4000, 1, slope=0.8)
    line = recalibration_line(d.labels, d.logit, d.patient)
    turned = sm.GLM(d.labels, sm.add_constant(d.logit), family=sm.families.Binomial()).fit(cov_type="HC3")
    assert line.slope is not None
    assert (line.slope.low, line.slope.high) == pytest.approx(tuple(turned.conf_int()[1]), abs=2e-3)


def test_scale_and_names_change_nothing() -> None:
    d = draw(np.random.default_rng(2), 30)
    names = np.array([f"patient {c}" for c in d.patient])
    a = recalibration_line(d.labels, d.logit, d.patient)
    b = recalibration_line(d.labels, 1000 * d.logit, names)
    assert a.slope is not None
    assert b.slope is not None
    assert b.slope.value == pytest.approx(a.slope.value / 1000)
    assert b.slope.high == pytest.approx(a.slope.high / 1000)


@pytest.mark.parametrize(
    ("labels", "x", "says"),
    [
        ([1, 1, 1], [0.0, 1.0, 2.0], "both classes"),
        ([0, 0, 1, 1], [-2.0, -1.0, 1.0, 2.0], "divides the classes"),
        ([0, 0, 1, 1], [2.0, 1.0, -1.0, -2.0], "divides the classes"),
        ([0, 0, 1, 1], [-2.0, 1.0, 1.0, 2.0], "divides the classes"),
        ([0, 1, 0, 1], [0.5] * 4, "all probabilities are equal"),
        ([0, 1, 0, 1], [0.0, 1.0, 2.0, 0.5], "intervals need 3 patients"),
        ([0, 0, 0, 1, 1, 1], [-3.0, -2.0, 2.5, 1.0, 2.0, 3.0], "one patient or group alone"),
    ],
)
def test_what_is_not_defined_has_its_reason(labels: list[int], x: list[float], says: str) -> None:
    line = recalibration_line(np.array(labels), np.array(x), np.arange(len(labels)))
    assert says in str(line.why_not)
    assert line.p_value is None
    assert line.slope is None or line.slope.low is None


def test_huge_logits_that_are_wrong_end_in_a_reason() -> None:
    labels = np.array([0, 1, 0, 1, 1, 0, 1, 0])
    line = recalibration_line(labels, 1e9 * (1.0 - 2 * labels) + np.arange(8), np.arange(8))
    assert line.why_not is not None


@pytest.mark.parametrize(("patients", "images"), [(38, 4), (95, 4), (60, 1)])
@pytest.mark.parametrize("fixed", [True, False])
def test_a_calibrated_network_is_seldom_called_miscalibrated(patients: int, images: int, fixed: bool) -> None:
    """At most 5 % of draws; of 250 more than 22 would be a chance of one in a hundred."""
    random = np.random.default_rng(patients + images)
    called = 0
    for _ in range(250):
        d = draw(random, patients, images, fixed=fixed)
        p = recalibration_line(d.labels, d.logit, d.patient).p_value
        called += p is not None and p < 0.05
    assert called <= 22


def test_a_slope_of_seven_tenths_is_seen_in_most_sets_of_95_patients() -> None:
    random = np.random.default_rng(0)
    seen, inside = 0, 0
    for _ in range(150):
        d = draw(random, 95, slope=0.7)
        line = recalibration_line(d.labels, d.logit, d.patient)
        assert line.slope is not None
        assert line.slope.low is not None
        assert line.slope.high is not None
        assert line.p_value is not None
        seen += line.p_value < 0.05
        inside += line.slope.low <= 0.7 <= line.slope.high
    assert seen >= 75  # 68 % in docs/calibration.md
    assert inside >= 132


@pytest.mark.slow
@pytest.mark.parametrize(("patients", "correlation"), [(38, 0.9), (95, 0.5)])
def test_the_noise_floor_is_the_error_of_calibrated_networks(patients: int, correlation: float) -> None:
    random = np.random.default_rng(5)
    errors, means, above = [], [], 0
    for _ in range(200):
        d = draw(random, patients, correlation=correlation, fixed=False)
        found = calibration.summary(d.labels, np.column_stack([0 * d.logit, d.logit]), None, None, d.patient)
        assert found is not None
        errors.append(found["ece"])
        means.append(found["floor"]["ece"]["mean"])
        above += found["ece"] > found["floor"]["ece"]["high"]
    assert np.mean(errors) == pytest.approx(np.mean(means), rel=0.08)
    assert above <= 20


def test_the_floor_of_single_images_in_closed_form() -> None:
    """One bin, one probability: the mean absolute deviation of a binomial share."""
    n, p = 40, 0.3
    from scipy.stats import binom

    exact = float((np.abs(np.arange(n + 1) / n - p) * binom.pmf(np.arange(n + 1), n, p)).sum())
    floors = noise_floors(np.full(n, p), {"ece": np.zeros(n, dtype=int)}, np.arange(n), draws=20_000)
    assert floors["ece"]["mean"] == pytest.approx(exact, rel=0.03)
    # Five images of each patient that agree weigh as one.
    floors = noise_floors(np.full(5 * n, p), {"ece": np.zeros(5 * n, dtype=int)}, np.arange(5 * n) // 5, draws=20_000)
    assert floors["ece"]["mean"] == pytest.approx(exact, rel=0.03)


def test_debiased_error_by_hand() -> None:
    event, p = np.array([1, 1, 0, 1]), np.array([0.5, 0.5, 0.5, 0.5])
    one = np.zeros(4, dtype=int)
    # Errors .5, .5, -.5, .5: products of different ones are 0 on balance.
    assert debiased_error(event, p, one, np.arange(4)) == 0
    assert debiased_error(np.ones(4), p, one, np.arange(4)) == pytest.approx(0.5)
    assert debiased_error(np.ones(4), p, one, one) == 0  # one patient says nothing


def test_the_debiased_error_of_a_calibrated_network_is_below_its_error() -> None:
    random = np.random.default_rng(7)
    both = []
    for _ in range(100):
        d = draw(random, 95)
        found = calibration.summary(d.labels, np.column_stack([0 * d.logit, d.logit]), None, None, d.patient)
        assert found is not None
        both.append((found["ece"], found["debiased"]))
    raw, debiased = np.mean(both, axis=0)
    assert debiased < raw / 2


@pytest.mark.parametrize("aggregation", ["mean", "max"])
def test_patient_logits(aggregation: str) -> None:
    random = np.random.default_rng(0)
    patient = np.array(["b", "a", "b", "c", "a", "b"])
    x = random.normal(size=6) * 3
    p = expit(x)
    expected = [getattr(np, aggregation)(p[patient == name]) for name in "abc"]
    assert patient_logits(x, patient, aggregation) == pytest.approx(logit(expected))


def test_patient_logits_stay_finite_where_probabilities_round_to_one() -> None:
    found = patient_logits(np.array([800.0, 800.0, -900.0]), np.array([0, 0, 1]), "mean")
    assert found == pytest.approx([800, -900])


# ---- temperature and cross-fitting


def two(x: np.ndarray) -> np.ndarray:
    return np.column_stack([np.zeros(len(x)), x])


def test_the_interval_of_the_temperature_is_that_of_the_slope_without_an_intercept() -> None:
    d = draw(np.random.default_rng(0), 3000, 1, slope=0.5)
    found = calibration.fit(d.labels, two(d.logit), d.patient)
    turned = sm.GLM(d.labels, d.logit[:, None], family=sm.families.Binomial()).fit(cov_type="HC3")
    assert found.temperature == pytest.approx(1 / turned.params[0], rel=1e-4)
    assert found.temperature_limits is not None
    low, high = found.temperature_limits
    half = 1.96 * turned.bse[0] / turned.params[0]
    assert np.log([low, high]) == pytest.approx(np.log(found.temperature) + np.array([-half, half]), abs=2e-3)


@pytest.mark.slow
def test_the_interval_of_the_temperature_covers() -> None:
    random = np.random.default_rng(3)
    inside = 0
    for _ in range(120):
        d = draw(random, 40, slope=0.6)
        limits = calibration.fit(d.labels, two(d.logit), d.patient).temperature_limits
        assert limits is not None
        inside += limits[0] <= 1 / 0.6 <= limits[1]
    assert inside >= 105


def test_no_interval_at_the_ends_or_with_two_patients_of_a_class() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    assert calibration.temperature_limits(labels, two(labels - 0.5), 0.05, np.arange(6), 0.95) is None
    assert calibration.temperature_limits(labels, two(labels - 0.5), 1.0, np.array([0, 1, 2, 3, 3, 4]), 0.95) is None


def test_three_classes_have_an_interval_of_the_temperature() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (600, 3))
    labels = (calibration.apply_temperature(logits, 2.0).cumsum(axis=1) < random.random((600, 1))).sum(axis=1)
    found = calibration.fit(labels, logits, np.arange(600))
    assert found.temperature_limits is not None
    assert found.temperature_limits[0] < 2 < found.temperature_limits[1]
    assert found.cross_fitted is not None
    assert found.cross_fitted["platt"] is None
    assert found.cross_fitted["temperature"]["low"] > 0
    after = calibration.summary(labels, logits, found.temperature, None, np.arange(600))
    assert after is not None
    assert "two classes" in after["line"]["why_not"]
    assert after["ece"] > after["floor"]["ece"]["high"]
    assert after["temperature"]["ece"] <= after["temperature"]["floor"]["ece"]["high"]


def test_a_correction_that_helps_has_no_note() -> None:
    d = draw(np.random.default_rng(0), 200, slope=0.3)
    found = calibration.fit(d.labels, two(d.logit), d.patient)
    assert found.notes == ()
    assert found.cross_fitted is not None
    assert found.cross_fitted["folds"] == 5
    assert found.cross_fitted["temperature"]["low"] > 0


def test_a_correction_that_does_not_help_is_named() -> None:
    d = draw(np.random.default_rng(0), 30)
    found = calibration.fit(d.labels, two(d.logit), d.patient)
    gains = found.cross_fitted
    assert gains is not None
    said = " ".join(found.notes)
    for key, name in (("temperature", "temperature scaling"), ("platt", "Platt scaling")):
        words = "did not help on validation" if gains[key]["high"] < 0 else "is not shown to help on validation"
        assert f"{name} {words}" in said


def test_only_a_gain_that_is_surely_negative_did_not_help() -> None:
    tried = {"log_loss": 0.5, "temperature": {"value": -0.02, "low": -0.03, "high": -0.01}, "platt": None}
    (said,) = calibration._unhelpful(tried, 1.2, None)
    assert said == (
        "temperature scaling did not help on validation: fitted on other patients or groups it changes the log-loss "
        "from 0.5000 to 0.5200 (gain -0.0200, interval -0.0300 to -0.0100)"
    )
    few = {**tried, "temperature": {"value": -0.02, "low": None, "high": None}}
    assert "is not shown to help on validation" in calibration._unhelpful(few, 1.2, None)[0]


def test_cross_fitting_keeps_patients_together() -> None:
    """Copies of an image in one patient teach nothing about others: the gain is that of one image a patient."""
    d = draw(np.random.default_rng(4), 60, 1, slope=0.6)
    one = calibration.cross_fit(d.labels, two(d.logit), d.patient)
    many = calibration.cross_fit(np.repeat(d.labels, 5), two(np.repeat(d.logit, 5)), np.repeat(d.patient, 5))
    assert one is not None
    assert many is not None
    for key in ("value", "low", "high"):
        assert many["temperature"][key] == pytest.approx(one["temperature"][key], abs=1e-5)


def test_a_class_with_one_patient_is_not_cross_fitted() -> None:
    assert calibration.cross_fit(np.array([0, 0, 1, 1]), two(np.arange(4.0)), np.array([0, 1, 2, 2])) is None


def test_the_benchmark_measures() -> None:
    setting = benchmark.SETTINGS[0]
    row = benchmark.calibrated(setting, 4) | benchmark.seen(setting, 4) | benchmark.predicted(setting, 4)
    assert all(0 <= value <= 1 for value in row.values())
    assert benchmark.promised(setting, "sensitivity", 0.9, 2)["covered"] <= 1
