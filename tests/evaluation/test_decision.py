"""Net benefit and predictive values against closed forms and counted tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.special import expit

from ddtl.evaluation.decision import (
    Rates,
    decision_band,
    decision_curve,
    net_benefit_limits,
    predictive_value_limits,
    predictive_values,
)
from ddtl.evaluation.intervals.intervals import intervals
from ddtl.evaluation.intervals.proportions import proportion, wilson
from ddtl.evaluation.metrics import binary_scores
from tests.support.clustered_draws import Draw, draw, rates

FEW = settings(max_examples=50, deadline=None)


def test_net_benefit_by_hand() -> None:
    labels = np.array([1, 1, 0, 0, 0])
    p = np.array([0.9, 0.3, 0.6, 0.2, 0.1])
    low, high = decision_curve(labels, p, [0.2, 0.5])
    assert low.threshold == 0.2
    assert low.model == pytest.approx(2 / 5 - 2 / 5 * 0.25)  # 0.2 itself is called positive
    assert high.model == pytest.approx(1 / 5 - 1 / 5 * 1)
    assert low.treat_all == pytest.approx(2 / 5 - 3 / 5 * 0.25)
    assert high.treat_all == pytest.approx(2 / 5 - 3 / 5)
    assert low.treat_none == high.treat_none == 0


def test_net_benefit_of_true_probabilities_in_closed_form() -> None:
    """p uniform and true: TP/N = (1 - t²) / 2, FP/N = (1 - t)² / 2, so the net benefit is (1 - t) / 2."""
    rng = np.random.default_rng(0)
    p = rng.random(400_000)
    labels = (rng.random(len(p)) < p).astype(int)
    rows = decision_curve(labels, p, np.linspace(0, 0.9, 10))
    assert [row.model for row in rows] == pytest.approx([(1 - row.threshold) / 2 for row in rows], abs=0.005)
    for row in rows:
        assert row.model is not None
        assert row.treat_all is not None
        assert row.model >= max(row.treat_all, 0) - 0.005


@FEW
@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=40), st.floats(0, 0.99))
def test_a_model_lies_between_harm_and_perfection(rows: list[tuple[int, float]], threshold: float) -> None:
    labels, p = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    model, perfect, nobody, everyone = (
        decision_curve(labels, x, [threshold])[0].model for x in (p, labels, np.full(len(p), -1.0), np.ones(len(p)))
    )
    assert None not in (model, perfect, nobody, everyone)
    assert nobody == 0
    assert everyone == pytest.approx(decision_curve(labels, p, [threshold])[0].treat_all)
    if threshold > 0:  # at 0 the perfect answer calls everyone positive too
        assert perfect == pytest.approx(labels.mean())
        assert model <= perfect + 1e-12


def test_at_a_threshold_of_one_no_benefit_is_defined() -> None:
    row = decision_curve(np.array([0, 1]), np.array([0.2, 1.0]), [1.0])[0]
    assert (row.threshold, row.model, row.treat_all, row.treat_none) == (1.0, None, None, None)


def test_one_class_alone_has_a_net_benefit() -> None:
    assert decision_curve(np.array([1, 1]), np.array([0.9, 0.1]), [0.5])[0].model == 0.5
    assert decision_curve(np.array([0, 0]), np.array([0.9, 0.1]), [0.5])[0].model == -0.5


def test_predictive_values_by_hand() -> None:
    """The textbook case: a good test for a rare disease is mostly wrong when it is positive."""
    ppv, npv = predictive_values(0.99, 0.95, 0.01)
    assert ppv == pytest.approx(99 / (99 + 495))
    assert npv == pytest.approx(9405 / 9406)


@FEW
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4)), min_size=1, max_size=40))
def test_at_the_samples_own_prevalence_they_are_the_counted_shares(rows: list[tuple[int, int]]) -> None:
    labels, p = np.array([row[0] for row in rows]), np.array([row[1] for row in rows]) / 4
    scores, mirrored = binary_scores(labels, p, 0.4), binary_scores(1 - labels, 1 - p, 0.6)
    ppv, npv = predictive_values(scores["sensitivity"], scores["specificity"], float(labels.mean()))
    if 0 < labels.sum() < len(labels):
        assert ppv == (None if scores["precision"] is None else pytest.approx(scores["precision"]))
        assert npv == (None if mirrored["precision"] is None else pytest.approx(mirrored["precision"]))
    else:
        assert (ppv, npv) == (None, None)


@pytest.mark.parametrize(
    ("sensitivity", "specificity", "prevalence", "expected"),
    [
        (None, 0.9, 0.1, (None, None)),
        (0.9, None, 0.1, (None, None)),
        (0.0, 1.0, 0.3, (None, 0.7)),  # nobody is called positive
        (1.0, 0.0, 0.3, (0.3, None)),  # nobody is called negative
        (0.8, 0.9, 0.0, (0.0, 1.0)),
        (0.8, 0.9, 1.0, (1.0, 0.0)),
        (0.8, 1.0, 0.0, (None, 1.0)),
    ],
)
def test_predictive_values_at_the_ends(
    sensitivity: float | None, specificity: float | None, prevalence: float, expected: tuple[float | None, ...]
) -> None:
    assert predictive_values(sensitivity, specificity, prevalence) == pytest.approx(expected)


# ---- intervals


def limits_of(d: Draw, threshold: float) -> tuple[float, float, Rates]:
    """Sensitivity and specificity by image, with Wilson's limits at the effective number of images."""
    called = (expit(d.logit) >= threshold).astype(int)
    shares = proportion(called, d.labels, d.patient), proportion(1 - called, 1 - d.labels, d.patient)
    return shares[0].value, shares[1].value, Rates(*(wilson(share, 0.95) for share in shares))


@pytest.mark.parametrize(("patients", "images"), [(38, 4), (95, 1)])
def test_intervals_of_predictive_values_and_net_benefit_cover(patients: int, images: int) -> None:
    random = np.random.default_rng(0)
    true = rates(0.3)
    truth = predictive_values(*true, 0.05)
    inside = np.zeros(3)
    for _ in range(300):
        d = draw(random, patients, images)
        sensitivity, specificity, found = limits_of(d, 0.3)
        ppv, npv = predictive_value_limits(sensitivity, specificity, 0.05, found)
        (at,) = decision_curve(d.labels, expit(d.logit), [0.3])
        benefit = net_benefit_limits(at, 0.5, found, specificity)
        true_benefit = 0.5 * true[0] - 0.5 * (1 - true[1]) * 0.3 / 0.7
        for i, (limits, value) in enumerate(((ppv, truth[0]), (npv, truth[1]), (benefit, true_benefit))):
            assert limits is not None
            inside[i] += limits[0] <= value <= limits[1]
    assert (inside / 300 >= 0.91).all()


def test_limits_of_predictive_values_by_hand() -> None:
    """Where one rate is known exactly, the limits are those of the other in Bayes' theorem."""
    ppv, npv = predictive_value_limits(0.8, 0.9, 0.2, Rates((0.8, 0.8), (0.85, 0.95)))
    assert ppv == pytest.approx([predictive_values(0.8, s, 0.2)[0] for s in (0.85, 0.95)])
    assert npv == pytest.approx([predictive_values(0.8, s, 0.2)[1] for s in (0.85, 0.95)])
    ppv, npv = predictive_value_limits(0.8, 0.9, 0.2, Rates((0.7, 0.9), (0.9, 0.9)))
    assert ppv == pytest.approx([predictive_values(s, 0.9, 0.2)[0] for s in (0.7, 0.9)])
    assert npv == pytest.approx([predictive_values(s, 0.9, 0.2)[1] for s in (0.7, 0.9)])


@pytest.mark.parametrize("sensitivity", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("specificity", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("prevalence", [0.001, 0.5, 0.99])
def test_limits_hold_the_value_also_at_the_ends(sensitivity: float, specificity: float, prevalence: float) -> None:
    def around(x: float) -> tuple[float, float]:
        return max(0.0, x - 0.1), min(1.0, x + 0.1)

    values = predictive_values(sensitivity, specificity, prevalence)
    around_both = Rates(around(sensitivity), around(specificity))
    found = predictive_value_limits(sensitivity, specificity, prevalence, around_both)
    for value, limits in zip(values, found, strict=True):
        assert (value is None) == (limits is None)
        if value is not None and limits is not None:
            assert 0 <= limits[0] <= value + 1e-12
            assert value - 1e-12 <= limits[1] <= 1


def test_no_limits_without_those_of_the_rates() -> None:
    assert predictive_value_limits(0.8, 0.9, 0.2, Rates(None, (0.8, 0.95))) == (None, None)
    (at,) = decision_curve(np.array([0, 1]), np.array([0.2, 0.8]), [0.5])
    assert net_benefit_limits(at, 0.5, Rates((0.1, 1.0), None), 1.0) is None


# ---- the band of the decision curve


@pytest.mark.parametrize(("patients", "images"), [(20, 4), (95, 1)])
def test_the_band_covers_the_true_net_benefit_at_every_threshold(patients: int, images: int) -> None:
    random, draws = np.random.default_rng(2), 150
    thresholds = [0.1, 0.3, 0.6]
    true = [0.5 * s - 0.5 * (1 - c) * t / (1 - t) for t in thresholds for s, c in [rates(t)]]
    inside = np.zeros(3)
    for _ in range(draws):
        d = draw(random, patients, images)
        band = decision_band(d.labels, expit(d.logit), d.patient, thresholds, 0.95)
        assert band is not None
        inside += (band[0] <= true) & (true <= band[1])
    assert (inside / draws >= 0.95 - 2.6 * np.sqrt(0.95 * 0.05 / draws)).all()


def test_the_band_is_the_interval_of_the_record_at_the_threshold_in_use() -> None:
    d = draw(np.random.default_rng(3), 30, 2)
    p = expit(d.logit)
    given = intervals(d.labels, p, d.patient, 0.4)
    sensitivity, specificity = given["sensitivity"], given["specificity"]
    assert sensitivity is not None
    assert specificity is not None
    found = Rates((sensitivity.low, sensitivity.high), (specificity.low, specificity.high))
    (at,) = decision_curve(d.labels, p, [0.4])
    value = binary_scores(d.labels, p, 0.4)["specificity"]
    assert value is not None
    band = decision_band(d.labels, p, d.patient, [0.2, 0.4, 1.0], 0.95)
    assert band is not None
    prevalence = float(d.labels.mean())
    assert (band[0][1], band[1][1]) == pytest.approx(net_benefit_limits(at, prevalence, found, value))
    assert np.isnan([band[0][2], band[1][2]]).all()


def test_two_patients_of_a_class_have_no_band() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    assert decision_band(labels, np.linspace(0.1, 0.9, 5), np.arange(5), [0.5], 0.95) is None
    assert decision_band(np.ones(5, int), np.linspace(0.1, 0.9, 5), np.arange(5), [0.5], 0.95) is None
