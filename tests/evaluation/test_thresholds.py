"""Chosen thresholds against every cut there is."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from sklearn.metrics import roc_curve

from ddtl.evaluation.metrics import confusion
from ddtl.evaluation.thresholds import Rule, choose
from ddtl.utils.errors import UserError

MANY = settings(max_examples=150, deadline=None)
TARGETS = (0.1, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """(labels, p) with both classes, ties, and at times probabilities of exactly 0 and 1 or a hair beside them."""
    n = draw(st.integers(2, 25))
    labels = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    assume(0 < labels.sum() < n)
    values = st.sampled_from([0.0, 5e-324, 0.1, 0.25, 0.3, 0.5, 0.7, 0.9, 1 - 2**-53, 1.0]) | st.floats(0, 1)
    return labels, np.array(draw(st.lists(values, min_size=n, max_size=n)))


def every_cut(labels: np.ndarray, p: np.ndarray) -> list[tuple[float, Fraction, Fraction]]:
    """(threshold, sensitivity, specificity) at each probability above 0, and just below 1 where none is called."""
    found = []
    for threshold in sorted({*p[p > 0].tolist(), math.nextafter(1, 0)} - {1.0}):
        called = p >= threshold
        sensitivity = Fraction(int((called & (labels == 1)).sum()), int((labels == 1).sum()))
        specificity = Fraction(int((~called & (labels == 0)).sum()), int((labels == 0).sum()))
        found.append((threshold, sensitivity, specificity))
    return found


def reached(labels: np.ndarray, p: np.ndarray, threshold: float) -> dict[str, float]:
    n = confusion(labels, p, threshold)
    return {"sensitivity": n["tp"] / (n["tp"] + n["fn"]), "specificity": n["tn"] / (n["tn"] + n["fp"])}


@MANY
@given(cases())
def test_youden_is_the_best_of_all_cuts(case: tuple[np.ndarray, np.ndarray]) -> None:
    labels, p = case
    found = choose(labels, p, "youden")
    assert 0 < found.value < 1
    assert found.reached == reached(labels, p, found.value)
    best = max(sensitivity + specificity for _, sensitivity, specificity in every_cut(labels, p))
    assert sum(found.reached.values()) == pytest.approx(float(best), abs=1e-12)
    assert (found.note is None) == (best > 1)


@MANY
@given(cases(), st.sampled_from(TARGETS))
def test_target_sensitivity_is_reached_at_the_least_cost(case: tuple[np.ndarray, np.ndarray], target: float) -> None:
    labels, p = case
    found = choose(labels, p, "sensitivity", target)
    assert 0 < found.value < 1
    assert found.reached == reached(labels, p, found.value)
    enough = [cut for cut in every_cut(labels, p) if float(cut[1]) >= target]
    if enough:
        highest = max(enough)
        assert (found.reached["sensitivity"], found.reached["specificity"]) == (float(highest[1]), float(highest[2]))
        assert (found.note is None) == (highest[2] > 0)
    else:
        assert "out of reach" in str(found.note)
        assert (p[labels == 1] == 0).any()


@MANY
@given(cases(), st.sampled_from(TARGETS))
def test_target_specificity_is_reached_at_the_least_cost(case: tuple[np.ndarray, np.ndarray], target: float) -> None:
    labels, p = case
    found = choose(labels, p, "specificity", target)
    assert 0 < found.value < 1
    assert found.reached == reached(labels, p, found.value)
    enough = [cut for cut in every_cut(labels, p) if float(cut[2]) >= target]
    if enough:
        lowest = min(enough)
        assert (found.reached["sensitivity"], found.reached["specificity"]) == (float(lowest[1]), float(lowest[2]))
        assert (found.note is None) == (lowest[1] > 0)
    else:
        assert "out of reach" in str(found.note)
        assert (p[labels == 0] >= 1 - 2**-53).any()  # no threshold lies between that and 1


@MANY
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1000)), min_size=2, max_size=25),
    st.sampled_from(["youden", "sensitivity", "specificity"]),
)
def test_rounding_changes_no_call(rows: list[tuple[int, int]], rule: Rule) -> None:
    labels, p = np.array([row[0] for row in rows]), np.array([row[1] for row in rows]) / 1000
    assume(0 < labels.sum() < len(labels))
    value = choose(labels, p, rule, None if rule == "youden" else 0.8).value
    for rounded in (p * (1 + 1e-12), p * (1 - 1e-12), p.astype(np.float32)):
        assert ((rounded >= value) == (p >= value)).all()


@pytest.mark.parametrize("seed", range(5))
def test_youden_is_the_top_of_scikit_learns_roc_curve(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 500)
    p = 1 / (1 + np.exp(-rng.normal(1.5 * labels, 1)))
    fpr, tpr, thresholds = roc_curve(labels, p)
    found = choose(labels, p, "youden")
    top = int((tpr - fpr).argmax())
    assert sum(found.reached.values()) - 1 == pytest.approx((tpr - fpr)[top])
    assert found.value < thresholds[top]
    assert ((p >= found.value) == (p >= thresholds[top])).all()


def test_youden_finds_where_two_normal_distributions_cross() -> None:
    """Equal spread, so the best cut is half-way between the means."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200_000)
    score = rng.normal(np.where(labels == 1, 2.0, 0.0), 1)
    value = choose(labels, 1 / (1 + np.exp(-score)), "youden").value
    assert math.log(value / (1 - value)) == pytest.approx(1.0, abs=0.1)


def test_target_sensitivity_of_a_normal_distribution() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200_000)
    score = rng.normal(np.where(labels == 1, 2.0, 0.0), 1)
    found = choose(labels, 1 / (1 + np.exp(-score)), "sensitivity", 0.95)
    assert math.log(found.value / (1 - found.value)) == pytest.approx(2 - 1.6449, abs=0.02)
    assert found.reached["specificity"] == pytest.approx(0.6388, abs=0.005)  # of a standard normal below 0.3551


def test_separated_classes_are_cut_in_the_middle_of_their_gap() -> None:
    labels, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.3, 0.8, 0.9])
    for rule, target in (("youden", None), ("sensitivity", 1.0), ("specificity", 1.0)):
        found = choose(labels, p, rule, target)
        assert found.value == pytest.approx(0.55)
        assert found.reached == {"sensitivity": 1, "specificity": 1}
        assert found.note is None


def test_of_equal_cuts_youden_takes_the_widest_gap_then_the_one_nearest_to_a_half() -> None:
    labels = np.array([0, 1, 0, 1])
    assert choose(labels, np.array([0.02, 0.4, 0.5, 0.6]), "youden").value == pytest.approx(0.21)
    assert choose(labels, np.array([0.125, 0.25, 0.75, 0.875]), "youden").value == pytest.approx(0.1875)
    assert choose(labels, np.array([0.125, 0.375, 0.5, 0.75]), "youden").value == pytest.approx(0.625)
    assert choose(labels, np.array([0.25, 0.5, 0.625, 0.875]), "youden").value == pytest.approx(0.375)


def test_nine_of_ten_reach_a_target_of_nine_tenths() -> None:
    labels = np.array([0] + [1] * 10)
    p = np.array([0.15, *np.arange(1, 11) / 10 - 0.02])
    found = choose(labels, p, "sensitivity", 0.9)
    assert found.reached == {"sensitivity": 0.9, "specificity": 1.0}
    assert found.value == pytest.approx((0.15 + 0.18) / 2)


def test_a_target_at_the_price_of_everything_is_noted() -> None:
    labels, p = np.array([1, 0, 0, 1]), np.array([0.1, 0.2, 0.3, 0.9])
    assert choose(labels, p, "sensitivity", 0.95).note == (
        "a sensitivity of 0.95 is reached only by calling every validation image positive"
    )
    assert choose(labels, p, "sensitivity", 0.5).note is None
    assert choose(1 - labels, p, "specificity", 1.0).note == (
        "a specificity of 1 is reached only by calling every validation image negative"
    )


def test_a_probability_of_exactly_zero_is_never_positive() -> None:
    found = choose(np.array([1, 1, 0]), np.array([0.0, 0.8, 0.4]), "sensitivity", 1.0)
    assert found.reached["sensitivity"] == 0.5
    assert "positive ones a probability of 0" in str(found.note)


@pytest.mark.parametrize("rule", ["youden", "sensitivity", "specificity"])
@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, 0], []])
def test_one_class_is_an_error_that_names_the_way_out(rule: Rule, labels: list[int]) -> None:
    with pytest.raises(UserError, match=rf"{rule}: of {len(labels)} .* {sum(labels)} are .*evaluation\.threshold=0\.5"):
        choose(np.array(labels), np.linspace(0.2, 0.4, len(labels)), rule, 0.9)


def test_what_is_no_number_is_an_error() -> None:
    with pytest.raises(UserError, match="1 of 3 validation images are not numbers"):
        choose(np.array([1, 0, 1]), np.array([0.1, math.nan, 0.3]), "youden")
