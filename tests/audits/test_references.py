"""Series and frames of reference that are in several splits, or of several patients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ddtl.audits import findings
from ddtl.data.manifest import Manifest, Sample


def manifest(*rows: tuple[str, str, str, str]) -> Manifest:
    """Rows of (patient, split, series, frame of reference)."""
    samples = [
        Sample(f"{i}", Path(), i % 2, patient, split=split, series=series, frame_of_reference=frame)
        for i, (patient, split, series, frame) in enumerate(rows)
    ]
    return Manifest("mine", ("normal", "covid"), tuple(samples), "patient", protocol="grouped")


def test_a_series_of_each_split_and_patient_is_sound() -> None:
    sound = manifest(("a", "train", "s1", "f1"), ("a", "train", "s2", "f1"), ("b", "test", "s3", "f2"))
    assert list(findings.references(sound)) == []


def test_images_without_series_are_not_judged() -> None:
    sound = manifest(("a", "train", "s1", "f1"), ("b", "test", "s3", "f2"))
    bare = replace(sound, samples=tuple(replace(s, series=None, frame_of_reference=None) for s in sound.samples))
    assert list(findings.references(bare)) == []


@pytest.mark.parametrize(
    ("rows", "name", "uid"),
    [
        ((("a", "train", "s1", "f1"), ("b", "test", "s1", "f2")), "series", "SeriesInstanceUID"),
        ((("a", "train", "s1", "f1"), ("b", "test", "s2", "f1")), "frames of reference", "FrameOfReferenceUID"),
    ],
)
def test_one_person_under_two_ids_is_a_leak(rows: tuple[tuple[str, str, str, str], ...], name: str, uid: str) -> None:
    torn, shared = findings.references(manifest(*rows, ("c", "val", "s9", "f9")))
    assert (torn.check, torn.severity) == (f"{name} across splits", "fail")
    assert uid in torn.sentence
    assert list(torn.details.values()) == [{rows[0][2] if name == "series" else "f1": ["test", "train"]}]
    assert (shared.check, shared.severity) == (name, "warn")
    assert list(shared.details.values()) == [{rows[0][2] if name == "series" else "f1": ["a", "b"]}]


def test_two_patients_of_one_split_are_warned_of_alone() -> None:
    (found,) = findings.references(manifest(("a", "train", "s1", "f1"), ("b", "train", "s2", "f1")))
    assert found.severity == "warn"
