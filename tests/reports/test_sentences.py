"""Sentences that pages state as claims are false as seldom as they promise: test sets with a known truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.special import expit

from benchmarks.sentences import ROWS, Row, allowed, auc_interval, calibrated, patients, promises, scores, share_false
from ddtl.evaluation.intervals.intervals import intervals

NAMES = [f"{place:02d}-{row.where}-{row.sentence[:40]}" for place, row in enumerate(ROWS)]


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_sentence_is_false_as_seldom_as_it_promises(row: Row) -> None:
    share, n = share_false(row, 2000, seed=1)
    assert share <= allowed(row, n)


@pytest.mark.slow
def test_the_stated_chance_that_a_target_is_kept_is_the_real_one_or_a_little_less() -> None:
    """It is that of a threshold at the last image that counts; the one that is set lies below that image."""
    stated, kept = promises(1000, seed=1)
    error = np.sqrt(0.25 / 1000)
    assert kept - 0.06 - 2.6 * error <= stated <= kept + 2.6 * error


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_every_sentence_can_be_drawn(row: Row) -> None:
    share, n = share_false(row, 12)
    assert 0 <= share <= 1
    assert n >= 1


def test_the_interval_of_the_draws_is_the_default_one() -> None:
    random = np.random.default_rng(0)
    labels, codes = patients(12, 3)
    for auc in (0.3, 0.5, 0.9):
        score = scores(random, labels, codes, auc)
        own = intervals(labels, expit(score), codes, 0.5)["roc_auc"]
        assert own is not None
        assert auc_interval(labels, score, codes)[1] == pytest.approx({"low": own.low, "high": own.high})


def test_the_draws_have_the_truth_that_they_are_said_to_have() -> None:
    random = np.random.default_rng(0)
    labels, codes = patients(4000, 2)
    assert auc_interval(labels, scores(random, labels, codes, 0.8), codes)[0] == pytest.approx(0.8, abs=0.01)
    for slope in (1.0, 0.5):
        labels, logits, _ = calibrated(random, 20_000, 1, slope)
        p = expit(logits * slope)
        for low, high in itertools.pairwise([0, 0.2, 0.4, 0.6, 0.8, 1]):
            inside = (p >= low) & (p < high)
            assert labels[inside].mean() == pytest.approx(p[inside].mean(), abs=0.02)
