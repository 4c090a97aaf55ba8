"""More than two classes at the edges: a class without images, and results without an error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ddtl.evaluation.intervals.interval import Interval
from ddtl.evaluation.intervals.intervals import multiclass_intervals
from ddtl.evaluation.intervals.unmoved import unmoved_intervals
from ddtl.evaluation.metrics import multiclass_scores, weighted_multiclass
from ddtl.evaluation.score import score
from ddtl.records.predictions import Predictions
from ddtl.reports import terminal
from ddtl.reports.html import format
from ddtl.reports.html.page import Cell
from ddtl.schema.scores import SCORES
from ddtl.utils import console

MACRO = ("roc_auc", "average_precision", "balanced_accuracy", "sensitivity", "specificity", "precision", "f1")


def predictions(labels: np.ndarray, p: np.ndarray) -> Predictions:
    texts = {name: np.full(len(labels), "") for name in ("split", "sample_id", "site")}
    codes = np.arange(len(labels))
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(p), -1e3)
    return Predictions(("x", "y", "z"), group=codes, patient_id=codes, label=labels, logits=logits, **texts)


def drawn(rng: np.random.Generator, labels: np.ndarray, shift: float, classes: int = 3) -> np.ndarray:
    """(N, classes) probabilities."""
    score = 2 * (rng.normal(size=(len(labels), classes)) + shift * np.eye(classes)[labels])
    p = np.exp(score - score.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))


# --- a class without images ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_predicted", [False, True])
def test_no_mean_over_the_classes_where_one_has_no_image(is_predicted: bool) -> None:
    """Also where images are predicted as that class, which gives it an F1 and a precision of 0."""
    labels = np.array([0, 0, 0, 1, 1, 1])
    p = np.tile([0.1, 0.8, 0.1], (6, 1))
    p[labels == 0] = [0.8, 0.1, 0.1]
    if is_predicted:
        p[0] = [0.1, 0.1, 0.8]
    found: dict[str, Any] = score(predictions(labels, p), 0.5)
    assert {name for name in SCORES if found[name] is None} == set(MACRO)
    assert found["undefined"] == dict.fromkeys(MACRO, "no image of z")
    assert found["accuracy"] == (5 / 6 if is_predicted else 1)
    weighted = weighted_multiclass(labels, p, np.ones((1, 6)))
    assert {name for name, value in weighted.items() if np.isnan(value[0])} == set(MACRO)
    intervals = multiclass_intervals(labels, p, np.arange(6))
    assert {name for name in SCORES if intervals[name] is None} >= set(MACRO)
    assert intervals["accuracy"] is not None


def test_a_class_that_is_never_predicted_leaves_the_precision_alone_undefined() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    p = np.tile([0.1, 0.8, 0.1], (6, 1))
    p[:2] = [0.8, 0.1, 0.1]
    found = score(predictions(labels, p), 0.5)
    assert found["undefined"] == {"precision": "no image is predicted z"}
    p[:2] = [0.1, 0.8, 0.1]
    found = score(predictions(labels, p), 0.5)
    assert found["undefined"]["precision"] == "2 classes are predicted for no image"
    assert score(predictions(labels, np.eye(3)[labels]), 0.5)["undefined"] == {}


def test_the_page_and_the_terminal_say_why() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    found = score(predictions(labels, np.eye(3)[labels]), 0.5)
    assert format.cell(found, "f1") == Cell("–", "no image of z")
    older = {name: value for name, value in found.items() if name != "undefined"}
    assert format.cell(older, "roc_auc") == Cell("–", "needs images of every class")
    results = {
        "dataset": "chest", "protocol": "official", "classes": ["x", "y", "z"], "positive": None, "warnings": [],
        "test": {**found, "intervals": {}, "patients": {"why_not": "no patient"}}, "test_use": {"number": 1},
    }  # fmt: skip
    screen = Console(width=160, soft_wrap=True)
    with pytest.MonkeyPatch.context() as patch, screen.capture() as printed:
        patch.setattr(console, "out", screen)
        patch.setattr(terminal, "_rules", lambda _: None)
        terminal.score_table(results)
    assert f"(–: test has no {', '.join(MACRO)}: no image of z)" in printed.get().replace("\n", "")


# --- results without an error ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["default", "percentile", "bca", "logit", "wilson"])
@pytest.mark.parametrize("images", [1, 4])
def test_perfect_results_have_an_interval_of_every_score(method: str, images: int) -> None:
    labels = np.repeat(np.arange(36) % 3, images)
    p = 0.8 * np.eye(3)[labels] + 0.2 / 3
    found = multiclass_intervals(labels, p, np.repeat(np.arange(36), images), method=method, replicates=200)
    for name in SCORES[:-1]:
        interval = found[name]
        assert interval is not None, name
        assert interval.high == 1, name
        assert 0.5 < interval.low < 1, name
    brier = found["brier"]
    assert brier is not None
    value = multiclass_scores(labels, p)[0]["brier"]
    assert value is not None
    assert 0 <= brier.low < value + 1e-12 < brier.high < 0.5


def test_probabilities_of_one_and_zero_have_an_interval_of_the_brier_score() -> None:
    labels = np.arange(30) % 3
    brier = multiclass_intervals(labels, np.eye(3)[labels], np.arange(30))["brier"]
    assert brier is not None
    assert brier.low == 0
    assert 0.05 < brier.high < 0.5


def test_more_images_of_as_many_patients_leave_as_much_possible() -> None:
    once, often = (
        multiclass_intervals(np.repeat(np.arange(30) % 3, n), np.repeat(np.eye(3)[np.arange(30) % 3], n, axis=0),
                             np.repeat(np.arange(30), n))
        for n in (1, 5)
    )  # fmt: skip
    for name in SCORES:
        assert isinstance(once[name], Interval)
        assert once[name].low == pytest.approx(often[name].low), name  # type: ignore[union-attr]


def test_three_patients_a_class_are_the_fewest() -> None:
    for patients, known in ((3, True), (2, False)):
        labels = np.repeat(np.arange(3), patients)
        found = multiclass_intervals(labels, np.eye(3)[labels], np.arange(3 * patients))
        assert {one is not None for one in found.values()} == {known}


def test_the_least_coefficient_is_below_that_of_any_table_with_these_sensitivities() -> None:
    labels = np.repeat([0, 1, 2], [20, 30, 40])
    low = unmoved_intervals(["mcc"], labels, np.eye(3)[labels], np.arange(90), 0.95)["mcc"].low
    rng, found = np.random.default_rng(0), []
    limits = [unmoved_intervals(["sensitivity"], labels, np.eye(3)[labels], np.arange(90), 0.95)["sensitivity"].low]
    for _ in range(60):
        called = labels.copy()
        for label in range(3):
            mine = rng.permutation(np.flatnonzero(labels == label))
            wrong = mine[: int(len(mine) * (1 - limits[0]) * 0.8)]
            called[wrong] = rng.choice([k for k in range(3) if k != label], len(wrong))
        found.append(multiclass_scores(labels, np.eye(3)[called])[0]["mcc"])
    assert low < min(found)


@pytest.mark.slow
@pytest.mark.parametrize(("patients", "shift"), [(5, 3.0), (10, 4.0), (10, 2.5), (30, 3.0)])
def test_near_perfect_results_are_covered(patients: int, shift: float) -> None:
    """Three classes; where every image is right, and where one is not. 97.5 % of 95 % intervals, less chance."""
    rng, labels, draws = np.random.default_rng(1), np.arange(3 * patients) % 3, 150
    many = np.arange(60_000) % 3
    truth = multiclass_scores(many, drawn(rng, many, shift))[0]
    missed: dict[str, int] = dict.fromkeys(SCORES, 0)
    for _ in range(draws):
        for name, interval in multiclass_intervals(labels, drawn(rng, labels, shift), np.arange(len(labels))).items():
            value = truth[name]
            assert value is not None
            missed[name] += interval is None or not interval.low <= value <= interval.high
    most = 0.07 + 2.6 * np.sqrt(0.07 * 0.93 / draws)  # specificity and Matthews' coefficient miss up to 7 %
    assert {name: n for name, n in missed.items() if n > most * draws} == {}
