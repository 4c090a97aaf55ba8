"""Calibration errors against other libraries; fitted corrections against planted ones."""

from __future__ import annotations

import json
import math
from dataclasses import astuple

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as tm
from hypothesis import given, settings, strategies as st
from scipy import special
from sklearn import metrics
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from ddtl.evaluation.calibration import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    By,
    Platt,
    apply_temperature,
    ece,
    fit,
    fit_platt,
    fit_temperature,
    reliability,
    summary,
    top_label,
)
from ddtl.evaluation.metrics import binary_scores

FEW = settings(max_examples=50, deadline=None)
WAYS: tuple[By, ...] = ("width", "mass")


def apply_platt(difference: np.ndarray, platt: Platt) -> np.ndarray:
    return special.expit(platt.slope * difference + platt.intercept)


def sample(n: int, classes: int = 2, temperature: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(labels, logits): labels drawn from the softmax of logits / temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, classes))
    labels = (apply_temperature(logits, temperature).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return labels, logits


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """(labels, p), with ties and often on the edges of bins."""
    n = draw(st.integers(1, 60))
    labels = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    grid = draw(st.lists(st.integers(0, 40), min_size=n, max_size=n))
    return np.array(labels), np.array(grid) / 40


# ---- reliability and calibration error


def test_reliability_by_hand() -> None:
    labels = np.array([0, 1, 0, 1, 1])
    p = np.array([0.0, 0.2, 0.3, 0.9, 1.0])
    expected = [(0.0, 0.2, 0.1, 0.5, 2), (0.2, 0.4, 0.3, 0.0, 1), (0.8, 1.0, 0.95, 1.0, 2)]
    found = reliability(labels, p, bins=5)
    assert [astuple(part)[:-1] for part in found] == [pytest.approx(row) for row in expected]
    assert all(part.limits is None for part in found)
    assert ece(labels, p, bins=5) == pytest.approx((2 * 0.4 + 0.3 + 2 * 0.05) / 5)


@pytest.mark.parametrize(("by", "strategy"), [("width", "uniform"), ("mass", "quantile")])
@FEW
@given(case=cases(), bins=st.integers(1, 12))
def test_reliability_is_that_of_scikit_learn(
    by: By, strategy: str, case: tuple[np.ndarray, np.ndarray], bins: int
) -> None:
    labels, p = case
    shares, means = calibration_curve(labels, p, n_bins=bins, strategy=strategy, pos_label=1)
    found = reliability(labels, p, bins, by)
    assert [part.mean_p for part in found] == pytest.approx(means)
    assert [part.share_positive for part in found] == pytest.approx(shares)


@pytest.mark.parametrize("by", WAYS)
@FEW
@given(case=cases(), bins=st.integers(1, 12))
def test_every_sample_is_in_the_one_bin_that_holds_its_probability(
    by: By, case: tuple[np.ndarray, np.ndarray], bins: int
) -> None:
    labels, p = case
    found = reliability(labels, p, bins, by)
    assert sum(part.count for part in found) == len(p)
    assert sum(part.count * part.share_positive for part in found) == pytest.approx(labels.sum())
    for i, part in enumerate(found):
        inside = (p > part.low) & (p <= part.high) | ((i == 0) & (p == part.low))
        assert inside.sum() == part.count > 0
        assert p[inside].mean() == pytest.approx(part.mean_p)


@pytest.mark.parametrize("n", [50, 1000])
@pytest.mark.parametrize("bins", [10, 15])
def test_equal_mass_is_equal_mass(n: int, bins: int) -> None:
    p = np.random.default_rng(n).random(n)
    counts = [part.count for part in reliability(np.zeros(n), p, bins, "mass")]
    assert len(counts) == bins
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("bins", [5, 15])
def test_ece_is_that_of_torchmetrics_on_what_it_bins(bins: int) -> None:
    """Torchmetrics bins the binary input it is given as we do; its multi-class error is that of the called class."""
    labels, logits = sample(5000, temperature=2.0)
    p = apply_temperature(logits, 1.0)[:, 1]
    theirs = tm.binary_calibration_error(torch.tensor(p), torch.tensor(labels), n_bins=bins, norm="l1")
    assert ece(labels, p, bins) == pytest.approx(float(theirs), abs=1e-6)

    labels, logits = sample(5000, classes=4, temperature=2.0)
    probabilities = apply_temperature(logits, 1.0)
    theirs = tm.multiclass_calibration_error(
        torch.tensor(probabilities), torch.tensor(labels), num_classes=4, n_bins=bins, norm="l1"
    )
    assert ece(*top_label(labels, probabilities), bins) == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("by", WAYS)
def test_ece_vanishes_where_the_probabilities_are_true_and_not_where_they_are_not(by: By) -> None:
    rng = np.random.default_rng(1)
    p = rng.random(200_000)
    labels = (rng.random(len(p)) < p).astype(int)
    assert ece(labels, p, by=by) == pytest.approx(0, abs=0.01)
    # Where every p is halved, the error is the mean of p / 2: a quarter.
    assert ece(labels, p / 2, by=by) == pytest.approx(0.25, abs=0.01)


@FEW
@given(case=cases(), bins=st.integers(1, 20))
def test_no_bins_see_an_error_below_that_of_the_mean(case: tuple[np.ndarray, np.ndarray], bins: int) -> None:
    labels, p = case
    least = abs(p.mean() - labels.mean())
    for by in WAYS:
        found = ece(labels, p, bins, by)
        assert found is not None
        assert least - 1e-12 <= found <= 1


@pytest.mark.parametrize("p", [np.array([]), np.array([0.2, math.nan]), np.array([math.inf, 0.1])])
def test_no_error_is_given_where_there_is_nothing_to_measure(p: np.ndarray) -> None:
    labels = np.ones(len(p), dtype=int)
    assert reliability(labels, p) == []
    assert ece(labels, p) is None


def test_one_class_alone_has_a_calibration_error() -> None:
    p = np.array([0.9, 0.8, 0.9])
    assert ece(np.ones(3), p, bins=1) == pytest.approx(0.4 / 3)


# ---- temperature


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("planted", [0.3, 1.0, 2.5, 8.0])
def test_a_planted_temperature_is_found(planted: float, classes: int) -> None:
    labels, logits = sample(60_000, classes, planted)
    assert fit_temperature(labels, logits) == pytest.approx(planted, rel=0.04)


def test_the_temperature_is_the_likeliest() -> None:
    labels, logits = sample(300, 3, 2.0)
    found = fit_temperature(labels, logits)
    by_temperature = {t: metrics.log_loss(labels, apply_temperature(logits, t)) for t in np.geomspace(0.05, 20, 400)}
    assert metrics.log_loss(labels, apply_temperature(logits, found)) <= min(by_temperature.values())


@FEW
@given(st.integers(0, 1000), st.floats(LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE), st.integers(2, 5))
def test_temperature_changes_neither_the_called_class_nor_the_order(seed: int, temperature: float, k: int) -> None:
    labels, logits = sample(40, k, seed=seed)
    before, after = apply_temperature(logits, 1.0), apply_temperature(logits, temperature)
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()
    assert after.sum(axis=1) == pytest.approx(np.ones(40))
    assert (np.diff(after[np.argsort(before[:, 1]), 1]) >= 0).all() or k > 2
    # Below 1 the largest logits round to a probability of 1 and tie.
    if k == 2 and temperature >= 1 and 0 < labels.sum() < 40:
        scores = [binary_scores(labels, p[:, 1], 0.5) for p in (before, after)]
        for name in ("roc_auc", "accuracy", "sensitivity", "specificity"):
            assert scores[0][name] == pytest.approx(scores[1][name]), name


@pytest.mark.parametrize("size", [0.01, 1.0, 1e4])
def test_a_faultless_validation_teaches_no_temperature(size: float) -> None:
    labels = np.array([0, 0, 1, 1])
    logits = size * np.array([[2.0, 0.0], [1.0, 0.5], [0.0, 3.0], [0.0, 0.1]])
    found = fit(labels, logits)
    assert fit_temperature(labels, logits) == LOWEST_TEMPERATURE
    assert found.temperature is None
    assert "gives no information about new images" in found.notes[0]
    assert found.platt is not None
    assert np.isfinite(found.platt).all()
    after = summary(labels, logits, found.temperature, found.platt)
    assert after is not None
    assert after["temperature"] is None


def test_logits_that_mislead_end_in_the_highest_temperature_with_a_note() -> None:
    labels, logits = sample(500)
    found = fit(1 - labels, logits)
    assert found.temperature == HIGHEST_TEMPERATURE
    assert found.platt is not None
    assert found.platt.slope < 0
    assert len(found.notes) == 2
    assert "the highest allowed" in found.notes[0]
    assert "of no use" in found.notes[1]


def test_logits_that_are_all_alike_change_nothing() -> None:
    labels = np.array([0, 1, 1, 1])
    found = fit(labels, np.zeros((4, 2)))
    assert found.temperature == 1.0
    assert found.platt is not None
    assert found.platt.slope == 0
    # Platt's targets: three of 4/5 and one of 1/3.
    assert apply_platt(np.zeros(1), found.platt) == pytest.approx((3 * 4 / 5 + 1 / 3) / 4)


# ---- Platt


def test_a_planted_line_is_found() -> None:
    rng = np.random.default_rng(3)
    difference = rng.normal(20, 5, 100_000)
    planted = Platt(0.4, -7.0)
    labels = (rng.random(len(difference)) < apply_platt(difference, planted)).astype(int)
    found = fit_platt(labels, difference)
    assert found.slope == pytest.approx(planted.slope, rel=0.03)
    assert found.intercept == pytest.approx(planted.intercept, rel=0.03)
    plain = LogisticRegression(C=1e9, tol=1e-10).fit(difference[:, None], labels)  # Platt's targets fade out with N
    assert found.slope == pytest.approx(plain.coef_[0, 0], rel=1e-3)
    assert found.intercept == pytest.approx(plain.intercept_[0], rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_platt_is_a_logistic_regression_on_weighted_copies_of_both_labels(seed: int) -> None:
    labels, logits = sample(40, seed=seed)
    difference = logits[:, 1] - logits[:, 0]
    n = labels.sum()
    target = np.where(labels == 1, (n + 1) / (n + 2), 1 / (40 - n + 2))
    copies = LogisticRegression(C=1e12, tol=1e-12, max_iter=1000).fit(
        np.tile(difference, 2)[:, None], np.repeat([1, 0], 40), np.concatenate([target, 1 - target])
    )
    expected = (copies.coef_[0, 0], copies.intercept_[0])
    assert tuple(fit_platt(labels, difference)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_platt_of_two_separated_points_in_closed_form() -> None:
    """Two points, two parameters: each gets its target exactly, 2/3 and 1/3."""
    found = fit_platt(np.array([0, 1]), np.array([-1.0, 3.0]))
    assert apply_platt(np.array([-1.0, 3.0]), found) == pytest.approx([1 / 3, 2 / 3], abs=1e-6)


@FEW
@given(st.integers(0, 1000), st.floats(-100, 100), st.integers(-9, 9))
def test_platt_does_not_depend_on_the_logits_scale_and_origin(seed: int, shift: float, power: int) -> None:
    labels, logits = sample(30, seed=seed)
    if not 0 < labels.sum() < 30:
        return
    difference = logits[:, 1] - logits[:, 0]
    moved = 10.0**power * (difference + shift)
    a = apply_platt(difference, fit_platt(labels, difference))
    b = apply_platt(moved, fit_platt(labels, moved))
    assert b == pytest.approx(a, abs=1e-5)


def test_large_logits_overflow_nowhere() -> None:
    labels, logits = np.array([0, 1, 1, 0]), 1e5 * np.array([[1.0, 0], [0, 1], [1, 0], [0.5, 0]])
    found = fit(labels, logits)
    after = summary(labels, logits, found.temperature, found.platt)
    assert after is not None
    assert all(np.isfinite([after["ece"], *after["temperature"].values(), *after["platt"].values()]))


# ---- what stands in the record


def test_correction_lowers_the_error_on_new_images() -> None:
    val, test = sample(20_000, temperature=3.0, seed=1), sample(20_000, temperature=3.0, seed=2)
    found = fit(*val)
    assert found.notes == ()
    after = summary(*test, found.temperature, found.platt)
    assert after is not None
    for name in ("ece", "ece_mass", "brier"):
        assert after["temperature"][name] < after[name], name
        assert after["platt"][name] < after[name], name
    assert after["ece"] > 0.08
    assert after["temperature"]["ece"] < 0.02
    assert after["platt"]["ece"] < 0.02


def test_the_record_of_two_classes() -> None:
    labels, logits = sample(200)
    found = fit(labels, logits)
    assert found.platt is not None
    p = apply_platt(logits[:, 1] - logits[:, 0], found.platt)
    after = summary(labels, logits, found.temperature, found.platt)
    assert after is not None
    assert set(after) == {"ece", "ece_mass", "brier", "temperature", "platt"}
    assert after["brier"] == pytest.approx(metrics.brier_score_loss(labels, apply_temperature(logits, 1)[:, 1]))
    assert after["platt"]["brier"] == pytest.approx(metrics.brier_score_loss(labels, p))
    assert after["platt"]["ece_mass"] == ece(labels, p, by="mass")
    assert json.loads(json.dumps(after)) == after
    assert json.loads(json.dumps(found.record())) == {
        "temperature": found.temperature,
        "temperature_interval": None,
        "platt": {"slope": found.platt.slope, "intercept": found.platt.intercept},
        "cross_fitted": None,
        "notes": [],
    }


def test_the_record_of_three_classes() -> None:
    labels, logits = sample(200, classes=3)
    found = fit(labels, logits)
    assert found.platt is None
    assert found.temperature is not None
    after = summary(labels, logits, found.temperature, found.platt)
    assert after is not None
    assert after["platt"] is None
    probabilities = apply_temperature(logits, 1.0)
    assert after["ece"] == ece(*top_label(labels, probabilities))
    assert after["brier"] == pytest.approx(((probabilities - np.eye(3)[labels]) ** 2).sum(axis=1).mean())


@pytest.mark.parametrize(
    ("labels", "logits", "says"),
    [
        (np.array([1, 1]), np.array([[0.0, 1.0], [1.0, 0.0]]), "2 validation image(s) are not of two classes"),
        (np.array([], dtype=int), np.zeros((0, 2)), "0 validation image(s) are not of two classes"),
        (np.array([0, 1]), np.array([[0.0, math.nan], [1.0, 0.0]]), "1 of 2 validation images have logits that are no"),
    ],
)
def test_what_cannot_be_fitted_is_none_with_the_reason(labels: np.ndarray, logits: np.ndarray, says: str) -> None:
    found = fit(labels, logits)
    assert (found.temperature, found.platt) == (None, None)
    assert says in found.notes[0]


@pytest.mark.parametrize("logits", [np.zeros((0, 2)), np.array([[math.nan, 0.0]]), np.array([[math.inf, 0.0]])])
def test_no_summary_without_numbers(logits: np.ndarray) -> None:
    assert summary(np.zeros(len(logits), dtype=int), logits, 1.0, None) is None
    nothing_fitted = summary(np.array([1]), np.array([[0.0, 1.0]]), None, None)
    assert nothing_fitted is not None
    assert nothing_fitted["temperature"] is nothing_fitted["platt"] is None
