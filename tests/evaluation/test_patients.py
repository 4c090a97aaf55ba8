"""From images to patients, against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from ddtl.evaluation.patients import Aggregation, PatientTable, WhyNot, by_patient
from ddtl.evaluation.predictions import Predictions

FEW = settings(max_examples=50, deadline=None)
AGGREGATIONS: tuple[Aggregation, ...] = ("mean", "max", "vote")


def predictions(patients: list[str], labels: list[int], p: list[float], classes: int = 2) -> Predictions:
    n = len(labels)
    x = np.clip(np.array(p, dtype=float), 1e-12, 1 - 1e-12)
    logits = np.zeros((n, classes))
    logits[:, 1] = np.log(x / (1 - x))
    names = np.array([f"image{i}" for i in range(n)], dtype=str)
    patient_id = np.array(patients, dtype=str)
    return Predictions(
        classes=tuple("abcdef"[:classes]),
        split=np.full(n, "test"),
        sample_id=names,
        group=patient_id,
        patient_id=patient_id,
        site=np.full(n, "x"),
        label=np.array(labels, dtype=np.int64),
        logits=logits,
    )


def table(found: PatientTable | WhyNot) -> PatientTable:
    assert isinstance(found, PatientTable)
    return found


THREE = predictions(["p2", "p1", "p2", "p1", "p3", "p2"], [1, 0, 1, 0, 1, 1], [0.9, 0.2, 0.3, 0.6, 0.55, 0.6])


@pytest.mark.parametrize(
    ("aggregation", "p", "threshold"),
    [("mean", [0.4, 0.6, 0.55], 0.58), ("max", [0.6, 0.9, 0.55], 0.58), ("vote", [1 / 2, 2 / 3, 0.0], 0.5)],
)
def test_three_patients_by_hand(aggregation: Aggregation, p: list[float], threshold: float) -> None:
    found = table(by_patient(THREE, aggregation, 0.58))
    assert found.patient_id.tolist() == ["p1", "p2", "p3"]
    assert found.label.tolist() == [0, 1, 1]
    assert found.images.tolist() == [2, 3, 1]
    assert found.p == pytest.approx(np.array(p))
    assert (found.threshold, found.mixed) == (threshold, 0)


def test_half_of_the_votes_are_enough() -> None:
    found = table(by_patient(predictions(["p"] * 4, [1] * 4, [0.6, 0.7, 0.1, 0.2]), "vote", 0.5))
    assert found.p[0] >= found.threshold


@FEW
@given(
    st.lists(st.tuples(st.sampled_from("ABCDE"), st.floats(0, 1)), min_size=1, max_size=30),
    st.floats(0.1, 0.9),
    st.randoms(use_true_random=False),
)
def test_every_way_is_what_a_loop_makes_of_it(
    rows: list[tuple[str, float]], threshold: float, random: np.random.Generator
) -> None:
    label = {name: int(name in "ACE") for name in "ABCDE"}
    rows = sorted(rows, key=lambda _: random.random())
    images = predictions([name for name, _ in rows], [label[name] for name, _ in rows], [p for _, p in rows])
    p = images.probabilities[:, 1]
    for aggregation in AGGREGATIONS:
        found = table(by_patient(images, aggregation, threshold))
        assert found.patient_id.tolist() == sorted({name for name, _ in rows})
        for i, name in enumerate(found.patient_id):
            own = p[images.patient_id == name]
            way = {"mean": own.mean(), "max": own.max(), "vote": (own >= threshold).mean()}
            assert found.p[i] == pytest.approx(way[aggregation])
            assert found.images[i] == len(own)
            assert found.label[i] == label[str(name)]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_patients_of_one_image_are_called_as_their_images_are(aggregation: Aggregation) -> None:
    p = [0.1, 0.3, 0.5, 0.7, 0.9]
    images = predictions(list("ABCDE"), [0, 1, 0, 1, 1], p)
    found = table(by_patient(images, aggregation, 0.6))
    assert ((found.p >= found.threshold) == (np.array(p) >= 0.6)).all()


def test_patients_with_images_of_both_classes_are_left_out_and_counted() -> None:
    found = table(
        by_patient(predictions(list("AABBBC"), [0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), "mean", 0.5)
    )
    assert found.patient_id.tolist() == ["A", "C"]
    assert found.label.tolist() == [0, 1]
    assert found.images.tolist() == [2, 1]
    assert found.p == pytest.approx(np.array([0.15, 0.6]))
    assert found.mixed == 1


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (predictions(["A", "", "B", ""], [0, 1, 0, 1], [0.5] * 4), "2 of 4 images have no patient id"),
        (predictions(["", ""], [0, 1], [0.5] * 2), "2 of 2 images have no patient id"),
        (predictions([], [], []), "there are no images"),
        (predictions(["A", "B"], [0, 2], [0.5] * 2, classes=3), "they are for two classes, and there are 3"),
        (predictions(["A", "A"], [0, 1], [0.5] * 2), "every patient has images of both classes"),
    ],
)
def test_where_there_is_no_table_the_reason_is_said(images: Predictions, reason: str) -> None:
    assert by_patient(images, "mean", 0.5) == WhyNot(reason)
