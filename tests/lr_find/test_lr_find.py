"""The learning-rate range test: what curves of known optimum suggest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from ddtl.lr_find.rules import Curve, LossWatch, ramp, settings_for, smooth, suggest, valley

STEPS = 100


def descent(curvature: float, rates: np.ndarray) -> Curve:
    """Gradient descent on curvature/2 · x² from 1, which is stable below a rate of 2 / curvature."""
    x, losses, watch = 1.0, [], LossWatch(len(rates))
    ended: Any = ""
    for rate in rates:
        losses.append(curvature / 2 * x**2)
        ended = watch.ended(losses[-1])
        if ended:
            break
        x -= rate * curvature * x
    return Curve(rates[: len(losses)], np.array(losses), ended)


def v_shape(start: float, low: float, rates: np.ndarray) -> np.ndarray:
    """Level at 1 up to ``start``, then falling with the logarithm of the rate to 0.5 at ``low``, then rising."""
    x = np.log(rates)
    falling = np.interp(x, np.log([start, low]), [1.0, 0.5])
    return falling + np.maximum(0, x - math.log(low))


@pytest.mark.parametrize("curvature", [0.5, 10.0, 3000.0])
def test_a_quadratic_gets_a_rate_that_is_stable_and_not_slow(curvature):
    said = suggest(descent(curvature, ramp(1e-7, 100, 150)), 150)
    assert said.rate is not None
    assert 0.02 / curvature < said.rate < 2 / curvature


@settings(deadline=None, max_examples=30)
@given(factor=st.floats(0.01, 100))
def test_a_steeper_quadratic_gets_a_rate_as_much_smaller(factor):
    one = suggest(descent(1.0, ramp(1e-6, 100, STEPS)), STEPS)
    other = suggest(descent(factor, ramp(1e-6 / factor, 100 / factor, STEPS)), STEPS)
    assert one.rate is not None
    assert other.rate == pytest.approx(one.rate / factor, rel=1e-6)


def adam(rates: np.ndarray, seed: int) -> tuple[list[float], float]:
    """Logistic regression by Adam, which begins at 0: loss of each batch of 32 of 400, and that of all at the end."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(400, 50)) * np.geomspace(1, 0.05, 50)
    sign = np.where(rng.random(400) < 1 / (1 + np.exp(-x @ rng.normal(size=50))), 1.0, -1.0)
    w, m, v, losses, watch = np.zeros(50), np.zeros(50), np.zeros(50), [], LossWatch(len(rates))
    for t, rate in enumerate(rates, start=1):
        rows = rng.integers(0, 400, 32)
        margin = sign[rows] * (x[rows] @ w)
        losses.append(float(np.mean(np.logaddexp(0, -margin))))
        if watch.ended(losses[-1]):
            break
        gradient = -np.mean((sign[rows] * np.exp(-np.logaddexp(0, margin)))[:, None] * x[rows], axis=0)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return losses, float(np.mean(np.logaddexp(0, -sign * (x @ w))))


def test_the_suggestion_is_near_the_rate_that_a_search_finds_best():
    rates, shape = ramp(1e-7, 1, STEPS), 0.5 + 0.5 * np.cos(np.linspace(0, math.pi, 300))
    grid = np.geomspace(1e-5, 1, 16)
    for seed in range(4):
        losses, _ = adam(rates, seed)
        said = suggest(Curve(rates[: len(losses)], np.array(losses)), STEPS)
        assert said.rate is not None
        best = min(grid, key=lambda rate: adam(rate * shape, seed)[1])
        assert abs(math.log10(said.rate / best)) < 0.8


def test_the_readings_of_a_curve_drawn_by_hand():
    rates = ramp(1e-7, 1, STEPS)
    said = suggest(Curve(rates, v_shape(1e-5, 1e-2, rates)), STEPS)
    # The rise is far steeper than the fall, so smoothing moves the lowest point, towards the smaller rates.
    assert 1e-2 / 10 / 10**0.5 < said.rules["minimum / 10"] < 1e-2 / 10
    assert 1e-5 < said.rules["steep"] < 1e-2
    middle = math.sqrt(10**0.3 * 1e-5 * said.rules["minimum / 10"] * 10)  # of the fall, less its first tenth
    assert middle / 10**0.3 < said.rules["valley"] < middle * 10**0.3
    assert said.rate == said.rules["minimum / 3"] == pytest.approx(said.rules["minimum / 10"] * 10 / 3)
    assert not said.notes


def test_a_longer_level_start_changes_no_suggestion():
    long = ramp(1e-9, 1, 130)
    losses = v_shape(1e-5, 1e-2, long)
    short = slice(30, None)
    # Smoothed alike: the width of the window comes from the number of steps.
    whole, part = suggest(Curve(long, losses), STEPS), suggest(Curve(long[short], losses[short]), STEPS)
    assert whole.rules == pytest.approx(part.rules)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=40))
def test_the_valley_is_fastais(losses):
    n = len(losses)
    lengths, start, end = [1] * n, 0, 0
    for i in range(1, n):  # fastai 2.7, fastai/callback/schedule.py, ``valley``
        for j in range(i):
            if losses[i] < losses[j] and lengths[i] < lengths[j] + 1:
                lengths[i] = lengths[j] + 1
            if lengths[end] < lengths[i]:
                end = i
                start = end - lengths[end]
    sections = (end - start) / 3
    theirs = start + int(sections) + int(sections / 2)
    assert valley(np.array(losses, dtype=float)) == max(0, theirs)


def test_smoothing_keeps_a_level_and_a_straight_line_and_does_not_lag():
    def smoothed(losses: np.ndarray) -> np.ndarray:
        return smooth(Curve(ramp(1e-7, 1, STEPS), losses), STEPS)[0]

    assert smoothed(np.full(STEPS, 0.7)) == pytest.approx(np.full(STEPS, 0.7))
    line = np.linspace(1, 0.5, STEPS)
    assert smoothed(line)[30:70] == pytest.approx(line[30:70], abs=1e-4)
    dip = np.ones(STEPS)
    dip[60] = 0
    assert np.argmin(smoothed(dip)) == 60


def test_what_the_untrained_network_finds_hard_is_not_taken_for_a_loss_of_the_rate():
    rates, rng = ramp(1e-7, 1, STEPS), np.random.default_rng(2)
    hardness = rng.gamma(4, 0.25, size=STEPS)
    curve = v_shape(1e-5, 1e-2, rates)
    plain = smooth(Curve(rates, hardness * curve), STEPS)[0]
    paired, unexplained = smooth(Curve(rates, hardness * curve, untrained=hardness), STEPS)
    truth = hardness.mean() * curve
    inner = slice(0, 60)  # before the steep rise, which any window rounds off
    assert np.std((paired - truth)[inner]) < 0.25 * np.std((plain - truth)[inner])
    assert paired[:12] == pytest.approx(np.full(12, hardness.mean()), abs=1e-6)
    assert np.abs(unexplained[:12]).max() < 1e-6


def test_a_ramp_that_ran_away_does_not_hide_its_lowest_point():
    rates = ramp(1e-7, 1, STEPS)
    tame = v_shape(1e-5, 1e-2, rates)
    wild = np.where(rates > 3e-2, 1e6, tame)
    assert suggest(Curve(rates, wild, "diverged"), STEPS).rate == pytest.approx(
        suggest(Curve(rates, tame), STEPS).rate, rel=0.5
    )


@pytest.mark.parametrize("steps", [20, 100])
@pytest.mark.parametrize("paired", [False, True])
def test_noise_alone_suggests_nothing(steps, paired):
    rates, rng = ramp(1e-7, 1, steps), np.random.default_rng(0)

    def noise() -> Curve:
        hardness = rng.gamma(4, 0.2, size=steps)
        # Paired, the noise of what trains grows as it departs from what it was.
        own = 0.1 * rng.normal(size=steps) * (np.linspace(0, 1, steps) if paired else 1)
        return Curve(rates, hardness + own, untrained=hardness if paired else None)

    found = [suggest(noise(), steps).rate for _ in range(500)]
    assert sum(rate is not None for rate in found) <= 5


def test_a_fall_in_noise_is_read_near_where_it_is_without():
    rates = ramp(1e-7, 1, STEPS)
    rng = np.random.default_rng(1)
    curve = v_shape(1e-5, 1e-2, rates)
    clean = suggest(Curve(rates, curve), STEPS).rate
    found = [suggest(Curve(rates, curve + 0.08 * rng.normal(size=STEPS)), STEPS).rate for _ in range(200)]
    assert clean is not None
    assert None not in found
    off = np.abs(np.log10(np.array(found, dtype=float) / clean))
    assert np.median(off) < 0.3
    assert np.quantile(off, 0.95) < 1


@pytest.mark.parametrize(
    ("losses", "ended", "words"),
    [
        (np.full(STEPS, 0.7), "", ["no descent", "Raise lr_max"]),
        (np.linspace(0.7, 2, STEPS), "diverged", ["no descent", "Lower lr_min"]),
        (np.linspace(0.7, 0.8, STEPS), "not finite", ["no descent", "Lower lr_min"]),
        (np.array([0.7, 0.8, 90.0]), "diverged", ["diverged after 3 steps", "lower lr_min"]),
        (np.array([0.7, 0.8]), "not finite", ["no number after 2 steps", "lower lr_min"]),
    ],
)
def test_without_a_descent_nothing_is_suggested_and_it_is_said_why(losses, ended, words):
    said = suggest(Curve(ramp(1e-7, 1, STEPS)[: len(losses)], losses, ended), STEPS)
    assert said.rate is None
    assert said.rules == {}
    assert all(word in said.why_not for word in words)


def test_what_lies_at_an_end_of_the_ramp_is_noted():
    rates = ramp(1e-7, 1, STEPS)
    late = suggest(Curve(rates, v_shape(1e-3, 1e3, rates)), STEPS)
    early = suggest(Curve(rates, v_shape(1e-9, 1e-5, rates), "diverged"), STEPS)
    assert ["lr_max" in note for note in late.notes] == [True]
    assert ["lr_min" in note for note in early.notes] == [True]


def test_a_ramp_is_watched():
    def end(losses: list[float]) -> tuple[int, str]:
        watch = LossWatch(STEPS)
        return next(((i, said) for i, loss in enumerate(losses) if (said := watch.ended(loss))), (len(losses), ""))

    assert end([0.7, 0.7, math.nan, 0.7]) == (2, "not finite")
    assert end([0.7, math.inf]) == (1, "not finite")
    assert end([0.7] * 50 + [0.6, 0.9, 1.2] * 10) == (80, "")
    at, why = end([0.7] * 50 + [10.0] * 50)
    assert (50 <= at < 53, why) == (True, "diverged")
    assert end([0.01, 0.0001] * 20 + [0.015] * 20) == (60, "")  # four times the best, and still next to nothing


def test_rates_become_settings():
    assert settings_for(0.0123, 0.000456, 1.0, head_alone=False) == {
        "optimizer.lr": 0.00046, "finetune.backbone_lr_ratio": 1.0, "finetune.head_lr_ratio": 27.0,
    }  # fmt: skip
    assert settings_for(0.01, 0.001, 10.0, head_alone=False)["finetune.head_lr_ratio"] == 1.0
    assert settings_for(None, 0.001, 1.0, head_alone=False)["finetune.head_lr_ratio"] == 1.0
    assert settings_for(0.01, None, 1.0, head_alone=False) == {}
    assert settings_for(0.01, None, 1.0, head_alone=True) == {"optimizer.lr": 0.01, "finetune.head_lr_ratio": 1.0}
    assert settings_for(None, None, 1.0, head_alone=True) == {}
