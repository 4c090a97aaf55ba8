"""Whose slices are whose: PatientID where it names one person, else the study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ddtl.data.datasets.patient_ids import alike, is_missing, is_placeholder
from ddtl.data.images.dicom import Slice

_ADVICE = "Put each patient's files into a folder of its own and add patients=folder to score by patient"


@dataclass(frozen=True)
class Identified:
    """Whose slices are whose.

    Attributes:
        patients: of each slice; empty where it is not known.
        shared: each PatientID that is not one person's, and why, as a predicate.
        spellings: PatientIDs that differ in what programs and people spell differently alone.
    """

    patients: list[str]
    shared: dict[str, str]
    spellings: list[list[str]]


def identify(slices: Sequence[Slice]) -> Identified:
    """Return whose slices are whose.

    PatientID is the patient. Where it is empty, a placeholder, or of people with different birth dates, sexes or
    issuers of the id, the study is; where that has no UID, or different people as well, the series.
    """
    no_study = {study for study, members in _groups(slices, "study").items() if not study or _differing(members)}
    shared = {}
    for name, members in _groups(slices, "patient").items():
        differing = _differing(members)
        why = (
            "says that no id is known" if is_missing(name)
            else "is a placeholder, which different people share" if is_placeholder(name)
            else f"has {differing}: it is more than one person" if differing
            else ""
        )  # fmt: skip
        if why:
            shared[name] = why
    patients = [
        part.patient if part.patient not in shared else part.series if part.study in no_study else part.study
        for part in slices
    ]
    rest = [part for part in slices if part.patient not in shared]
    spellings = [
        ids
        for ids in alike([part.patient for part in rest])
        if not _differing([part for part in rest if part.patient in ids])
    ]
    return Identified(patients, shared, spellings)


def patients_of(slices: Sequence[Slice]) -> tuple[list[str], list[str]]:
    """Return each slice's patient as :func:`identify` does, and what is doubtful about them, a line each."""
    found = identify(slices)
    groups = _groups(slices, "patient") if found.shared else {}
    notes = [_note(name, why, groups[name]) for name, why in found.shared.items() if name]
    return found.patients, notes + [_same(ids) for ids in found.spellings]


def _same(ids: Sequence[str]) -> str:
    return (
        f"PatientIDs {ids[0][:60]!r} and {ids[1][:60]!r} differ in spelling alone and are scored as "
        f"{len(ids)} patients. {_ADVICE}."
    )


def _note(name: str, why: str, members: Sequence[Slice]) -> str:
    studies = len({part.study for part in members})
    return (
        f"PatientID {name[:60]!r} {why}: its {len(members)} files are grouped by StudyInstanceUID "
        f"({studies} {'study' if studies == 1 else 'studies'}). {_ADVICE}."
    )


def _groups(slices: Sequence[Slice], key: str) -> dict[str, list[Slice]]:
    groups: dict[str, list[Slice]] = defaultdict(list)
    for part in slices:
        groups[getattr(part, key)].append(part)
    return groups


def _differing(slices: Sequence[Slice]) -> str:
    """Return in what the people differ whose slices these are: ``2 birth dates and 2 sexes``; empty where they
    don't.
    """
    values: dict[str, set[str]] = defaultdict(set)
    for part in slices:
        for what, value in part.person:
            values[what].add(value)
    return " and ".join(f"{len(found)} {what}" for what, found in values.items() if len(found) > 1)
