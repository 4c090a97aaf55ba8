"""Scores against closed forms and other libraries; the table of predictions against its file."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as tm
from hypothesis import assume, given, settings, strategies as st

from ddtl.data.manifest import Manifest, Sample
from ddtl.evaluation.metrics import binary_scores, confusion, multiclass_confusion, multiclass_scores
from ddtl.evaluation.predictions import Predictions
from ddtl.evaluation.score import score
from ddtl.records import predictions
from ddtl.schema import scores as names
from ddtl.training.joining import join

FEW = settings(max_examples=30, deadline=None)


@st.composite
def cases(draw: st.DrawFn, both: bool = False) -> tuple[np.ndarray, np.ndarray, float]:
    """(labels, probabilities, threshold); probabilities on a grid that no rounding moves, the threshold off it."""
    n = draw(st.integers(2, 40))
    labels = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    grid = draw(st.lists(st.integers(0, 64), min_size=n, max_size=n))
    if both:
        assume(0 < labels.sum() < n)
    threshold = (draw(st.integers(0, 63)) + 0.5) / 64
    return labels, np.array(grid) / 64, threshold


def close(a: float | None, b: float | None) -> bool:
    return a is b if a is None or b is None else math.isclose(a, b, abs_tol=1e-12)


def test_the_names_are_the_scores_in_their_order() -> None:
    assert tuple(binary_scores(np.array([0, 1]), np.array([0.1, 0.9]), 0.5)) == names.SCORES


def test_what_can_be_monitored_is_a_score_or_the_loss() -> None:
    assert {name.removeprefix("val/") for name in names.EPOCH_SCORES} - {"loss"} <= set(names.SCORES)


def test_scores_by_hand() -> None:
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    p = np.array([0.9, 0.8, 0.6, 0.2, 0.7, 0.4, 0.3, 0.1, 0.1, 0.0])
    tp, fn, fp, tn = 3, 1, 1, 5
    assert confusion(labels, p, 0.5) == {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
    found = binary_scores(labels, p, 0.5)
    expected = {
        "roc_auc": (6 + 6 + 5 + 3) / 24,  # negatives below 0.9, 0.8, 0.6 and 0.2
        "average_precision": (1 / 1 + 2 / 2 + 3 / 4 + 4 / 7) / 4,  # precision at the rank of each positive
        "accuracy": 0.8,
        "balanced_accuracy": (3 / 4 + 5 / 6) / 2,
        "sensitivity": 3 / 4,
        "specificity": 5 / 6,
        "precision": 3 / 4,
        "f1": 3 / 4,
        "mcc": (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)),
        "brier": (0.01 + 0.04 + 0.16 + 0.64 + 0.49 + 0.16 + 0.09 + 0.01 + 0.01 + 0.0) / 10,
    }
    assert found == pytest.approx(expected)


def test_a_probability_on_the_threshold_is_positive() -> None:
    labels, p = np.array([1, 0]), np.array([0.5, 0.5])
    assert confusion(labels, p, 0.5) == {"tp": 1, "fp": 1, "fn": 0, "tn": 0}
    assert (binary_scores(labels, p, 0.5)["sensitivity"], binary_scores(labels, p, 0.5)["specificity"]) == (1, 0)


@pytest.mark.parametrize(
    ("label", "undefined"),
    [
        (1, {"roc_auc", "average_precision", "balanced_accuracy", "specificity", "mcc"}),
        (0, {"roc_auc", "average_precision", "balanced_accuracy", "sensitivity", "mcc"}),
    ],
)
def test_one_class_leaves_scores_undefined_without_a_word(label: int, undefined: set[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = binary_scores(np.full(4, label), np.array([0.1, 0.4, 0.6, 0.9]), 0.5)
    assert {name for name, value in found.items() if value is None} == undefined


def test_one_answer_leaves_scores_undefined_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = binary_scores(np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3]), 0.5)
    assert {name for name, value in found.items() if value is None} == {"precision", "mcc"}
    assert found["f1"] == 0


@FEW
@given(cases())
def test_counts_add_up(case: tuple[np.ndarray, np.ndarray, float]) -> None:
    labels, p, threshold = case
    counts, found = confusion(labels, p, threshold), binary_scores(labels, p, threshold)
    assert sum(counts.values()) == len(labels)
    assert counts["tp"] + counts["fn"] == labels.sum()
    assert counts["tp"] + counts["fp"] == (p >= threshold).sum()
    assert found["accuracy"] == (counts["tp"] + counts["tn"]) / len(labels)
    for name, value in found.items():
        assert value is None or (-1 if name == "mcc" else 0) <= value <= 1 + 1e-12, name


@FEW
@given(cases())
def test_swapping_the_classes_swaps_sensitivity_and_specificity(case: tuple[np.ndarray, np.ndarray, float]) -> None:
    labels, p, threshold = case
    a, b = binary_scores(labels, p, threshold), binary_scores(1 - labels, 1 - p, 1 - threshold)
    assert close(a["sensitivity"], b["specificity"])
    assert close(a["specificity"], b["sensitivity"])
    for name in ("roc_auc", "accuracy", "balanced_accuracy", "mcc", "brier"):
        assert close(a[name], b[name]), name


@FEW
@given(cases(both=True), st.floats(0.1, 5))
def test_ranks_alone_decide_about_the_areas(case: tuple[np.ndarray, np.ndarray, float], power: float) -> None:
    labels, p, threshold = case
    a, b = binary_scores(labels, p, threshold), binary_scores(labels, (p + 1) ** power / 2**power, threshold)
    assert close(a["roc_auc"], b["roc_auc"])
    assert close(a["average_precision"], b["average_precision"])


@FEW
@given(cases(both=True))
def test_the_area_is_the_chance_that_a_positive_stands_above_a_negative(
    case: tuple[np.ndarray, np.ndarray, float],
) -> None:
    labels, p, threshold = case
    pairs = p[labels == 1][:, None] - p[labels == 0][None, :]
    expected = float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    assert close(binary_scores(labels, p, threshold)["roc_auc"], expected)


@FEW
@given(cases(both=True))
def test_torchmetrics_agrees(case: tuple[np.ndarray, np.ndarray, float]) -> None:
    labels, p, threshold = case
    found = binary_scores(labels, p, threshold)
    preds, target = torch.from_numpy(p), torch.from_numpy(labels)
    theirs = {
        "roc_auc": tm.binary_auroc(preds, target),
        "average_precision": tm.binary_average_precision(preds, target),
        "accuracy": tm.binary_accuracy(preds, target, threshold),
        "sensitivity": tm.binary_recall(preds, target, threshold),
        "specificity": tm.binary_specificity(preds, target, threshold),
        "precision": tm.binary_precision(preds, target, threshold),
        "f1": tm.binary_f1_score(preds, target, threshold),
        "mcc": tm.binary_matthews_corrcoef(preds, target, threshold),
    }
    for name, value in theirs.items():
        if found[name] is not None:
            assert found[name] == pytest.approx(float(value), abs=1e-6), name


NAMES = [  # by name, as a manifest keeps its rows
    " spaced ",
    "'; --",
    "0",
    "=1+1",
    "a,b",
    "per%cent",
    'quo"ted',
    "semi;colon",
    "sub/dir/1.png",
    "søren 研究.png",
]


def manifest(classes: tuple[str, ...] = ("non-COVID", "COVID")) -> Manifest:
    samples = tuple(
        Sample(
            sample_id=name,
            path=Path(name),
            label=i % len(classes),
            patient_id=f"p {name}" if i % 3 else None,
            site=f"site,{i}",
            split="test" if i % 2 else "val",
        )
        for i, name in enumerate(NAMES)
    )
    return Manifest("toy", classes, samples, "none")


def same(a: Predictions, b: Predictions) -> None:
    assert a.classes == b.classes
    for name in ("split", "sample_id", "group", "patient_id", "site", "label", "logits"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.shape == y.shape, name
        assert x.tolist() == y.tolist(), name
        assert x.dtype.kind == y.dtype.kind, name


LOGITS = st.one_of(st.floats(-1e9, 1e9, width=32), st.floats(-1e9, 1e9))  # no network gives larger ones


@FEW
@given(st.lists(st.tuples(LOGITS, LOGITS), min_size=len(NAMES), max_size=len(NAMES)))
def test_predictions_come_back_from_their_file_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, logits: list[tuple[float, float]]
) -> None:
    path = tmp_path_factory.mktemp("p") / "predictions.csv"
    table = join(manifest(), range(len(NAMES)), np.array(logits))
    predictions.write(table, path)
    found = predictions.read(path)
    same(found, table)
    assert found.logits.tobytes() == table.logits.tobytes()


@pytest.mark.parametrize("classes", [("a,b", 'c"d'), ("logit_a", "probability_a"), ("label", "split"), ("x", "y", "z")])
def test_awkward_classes(tmp_path: Path, classes: tuple[str, ...]) -> None:
    logits = np.random.default_rng(0).normal(size=(len(NAMES), len(classes)))
    table = join(manifest(classes), range(len(NAMES)), logits)
    predictions.write(table, tmp_path / "p.csv")
    same(predictions.read(tmp_path / "p.csv"), table)


def test_join_puts_rows_into_the_manifest_s_order() -> None:
    logits = np.arange(6.0).reshape(3, 2)
    table = join(manifest(), [7, 0, 3], logits)
    assert table.sample_id.tolist() == [NAMES[0], NAMES[3], NAMES[7]]
    assert table.logits.tolist() == [[2, 3], [4, 5], [0, 1]]
    assert table.patient_id.tolist() == ["", "", f"p {NAMES[7]}"]
    assert table.group.tolist() == [NAMES[0], NAMES[3], f"p {NAMES[7]}"]


@pytest.mark.parametrize(("rows", "n"), [([0, 1, 1], 3), ([0, 1], 3), ([0, 1, 2], 2)])
def test_join_takes_each_image_once_and_its_own_prediction(rows: list[int], n: int) -> None:
    with pytest.raises(AssertionError):
        join(manifest(), rows, np.zeros((n, 2)))


def test_probabilities_of_large_logits() -> None:
    table = join(manifest(), range(3), np.array([[1000.0, 0.0], [-1000.0, -1000.0], [0.0, math.log(3)]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(table.probabilities, [[1, 0], [0.5, 0.5], [0.25, 0.75]])


def test_score_counts_what_it_rests_on() -> None:
    table = join(manifest(), range(len(NAMES)), np.array([[0.0, 1.0 if i % 2 else -1.0] for i in range(len(NAMES))]))
    found: dict[str, Any] = score(table, threshold=0.5)
    assert found["roc_auc"] == 1
    assert found["confusion"] == {"tp": 5, "fp": 0, "fn": 0, "tn": 5}
    assert (found["images"], found["groups"]) == (10, 10)
    assert found["classes"] == {"non-COVID": 5, "COVID": 5}
    assert score(table.of("test"), threshold=0.5)["roc_auc"] is None  # one class


# --- more than two classes -------------------------------------------------------------------------------------------


@st.composite
def many(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """(labels, probabilities) of 3 or 4 classes, each of them with images; no two probabilities of an image alike."""
    k = draw(st.integers(3, 4))
    labels = np.array([*range(k), *draw(st.lists(st.integers(0, k - 1), min_size=4, max_size=40))])
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    return labels, rng.dirichlet(np.ones(k), size=len(labels))


def test_three_classes_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    p = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.1, 0.5, 0.4], [0.1, 0.1, 0.8], [0.5, 0.2, 0.3]])
    assert multiclass_confusion(labels, p) == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]
    found, each = multiclass_scores(labels, p)
    assert tuple(found) == names.SCORES
    expected = {
        # Class 0: 0.8 above all four others, 0.3 above three. Class 1: 0.7 above all, 0.5 above three. Class 2: 0.8
        # above all, 0.3 above all but 0.4.
        "roc_auc": (7 / 8 + 7 / 8 + 7 / 8) / 3,
        "average_precision": ((1 + 2 / 3) / 2 + (1 + 2 / 3) / 2 + (1 + 2 / 3) / 2) / 3,
        "accuracy": 4 / 6,
        "balanced_accuracy": (1 / 2 + 1 + 1 / 2) / 3,
        "sensitivity": (1 / 2 + 1 + 1 / 2) / 3,
        "specificity": (3 / 4 + 3 / 4 + 1) / 3,
        "precision": (1 / 2 + 2 / 3 + 1) / 3,
        "f1": (1 / 2 + 4 / 5 + 2 / 3) / 3,
        "mcc": (4 * 6 - 2 * (2 + 3 + 1)) / math.sqrt((36 - 4 - 9 - 1) * (36 - 3 * 4)),  # Gorodkin 2004
        "brier": (0.06 + 0.86 + 0.14 + 0.42 + 0.06 + 0.78) / 6,
    }
    assert found == pytest.approx(expected)
    assert [scores["sensitivity"] for scores in each] == [1 / 2, 1, 1 / 2]


@FEW
@given(many())
def test_scikit_learn_agrees_on_many_classes(case: tuple[np.ndarray, np.ndarray]) -> None:
    from sklearn import metrics

    labels, p = case
    called = p.argmax(axis=1)
    found, each = multiclass_scores(labels, p)
    theirs = {
        "roc_auc": metrics.roc_auc_score(labels, p, multi_class="ovr", average="macro"),
        "average_precision": metrics.average_precision_score(np.eye(p.shape[1])[labels], p, average="macro"),
        "accuracy": metrics.accuracy_score(labels, called),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, called),
        "sensitivity": metrics.recall_score(labels, called, average="macro"),
        "precision": metrics.precision_score(labels, called, average="macro", zero_division=0),
        "f1": metrics.f1_score(labels, called, average="macro"),
        "mcc": metrics.matthews_corrcoef(labels, called),
    }
    everyone_called = len(np.unique(called)) == p.shape[1]
    assert (found["precision"] is not None) == everyone_called
    for name, value in theirs.items():
        if found[name] is not None:
            assert found[name] == pytest.approx(float(value)), name
    assert (
        multiclass_confusion(labels, p) == metrics.confusion_matrix(labels, called, labels=range(p.shape[1])).tolist()
    )
    for k, scores in enumerate(each):
        tn, fp, fn, tp = metrics.confusion_matrix(labels == k, called == k, labels=[False, True]).ravel()
        assert scores["specificity"] == tn / (tn + fp)
        assert scores["sensitivity"] == tp / (tp + fn)


@FEW
@given(many(), st.randoms(use_true_random=False))
def test_the_order_of_the_classes_plays_no_part(case: tuple[np.ndarray, np.ndarray], random: Any) -> None:
    labels, p = case
    order = list(range(p.shape[1]))
    random.shuffle(order)
    new_label = np.argsort(order)
    a, _ = multiclass_scores(labels, p)
    b, _ = multiclass_scores(new_label[labels], p[:, order])
    assert all(close(a[name], b[name]) for name in names.SCORES)


@FEW
@given(cases(both=True))
def test_two_classes_taken_as_many_are_the_two_class_scores_of_both_sides(
    case: tuple[np.ndarray, np.ndarray, float],
) -> None:
    labels, p, _ = case
    assume(not np.any(p == 0.5))
    found, each = multiclass_scores(labels, np.stack([1 - p, p], axis=1))
    two = binary_scores(labels, p, 0.5)
    assert each[1] == two
    for name in ("roc_auc", "accuracy", "balanced_accuracy", "mcc"):
        assert close(found[name], two[name]), name
    brier = two["brier"]
    assert brier is not None
    assert close(found["brier"], 2 * brier)


def test_a_class_without_images_leaves_means_undefined_without_a_word() -> None:
    labels = np.array([0, 0, 1, 1])
    p = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.8, 0.1], [0.3, 0.4, 0.3]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, each = multiclass_scores(labels, p)
        one, _ = multiclass_scores(np.zeros(4, dtype=int), p)
    undefined = {name for name, value in found.items() if value is None}
    assert undefined == {
        "roc_auc", "average_precision", "balanced_accuracy", "sensitivity", "specificity", "precision", "f1"
    }  # fmt: skip
    assert found["accuracy"] == 3 / 4
    assert each[0]["roc_auc"] is not None
    assert one["mcc"] is None
    assert one["accuracy"] == 1 / 4


def test_score_of_three_classes_says_how_it_was_made() -> None:
    table = join(manifest(("x", "y", "z")), range(len(NAMES)), np.eye(3)[[i % 3 for i in range(len(NAMES))]])
    found: dict[str, Any] = score(table, threshold=0.9)
    assert set(names.SCORES) <= set(found)
    assert found["accuracy"] == found["roc_auc"] == 1
    assert (found["averaging"], found["decision"]) == ("macro one-vs-rest", "argmax")
    assert found["confusion"]["classes"] == ["x", "y", "z"]
    assert found["confusion"]["counts"] == [[4, 0, 0], [0, 3, 0], [0, 0, 3]]
    assert list(found["per_class"]) == ["x", "y", "z"]
    assert found["per_class"]["x"] == {**dict.fromkeys(names.PER_CLASS, 1.0), "images": 4}
    assert found == score(table, threshold=0.1)
    assert "averaging" not in score(join(manifest(), range(3), np.zeros((3, 2))), 0.5)
