"""Whose slices are whose: PatientID where it names one person, else the study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ddtl.data.datasets.patient_ids import alike, is_missing, is_placeholder
from ddtl.data.images.dicom import Slice

_ADVICE = "Put each patient's files into a folder of its own and add patients=folder to score by patient"


def patients_of(slices: Sequence[Slice]) -> tuple[list[str], list[str]]:
    """Return each slice's patient, empty where it is not known, and what is doubtful about them, a line each.

    PatientID is the patient. Where it is empty, a placeholder, or of people with different birth dates, sexes or
    issuers of the id, the study is; where that has no UID, or different people as well, the series.
    """
    notes: list[str] = []
    shared = {study for study, members in _groups(slices, "study").items() if not study or _differing(members)}
    names: dict[str, bool] = {}  # whether it is the patient
    for name, members in _groups(slices, "patient").items():
        differing = _differing(members)
        why = (
            "says that no id is known" if is_missing(name)
            else "is a placeholder, which different people share" if is_placeholder(name)
            else f"has {differing}: it is more than one person" if differing
            else ""
        )  # fmt: skip
        if why and name:
            notes.append(_note(name, why, members))
        names[name] = not why
    patients = [
        part.patient if names[part.patient] else part.series if part.study in shared else part.study for part in slices
    ]
    return patients, notes + _spellings([part for part in slices if names[part.patient]])


def _spellings(slices: Sequence[Slice]) -> list[str]:
    """Return ids that may be one patient's: they differ in what programs and people spell differently alone."""
    notes = []
    for ids in alike([part.patient for part in slices]):
        if not _differing([part for part in slices if part.patient in ids]):
            notes.append(
                f"PatientIDs {ids[0][:60]!r} and {ids[1][:60]!r} differ in spelling alone and are scored as "
                f"{len(ids)} patients. {_ADVICE}."
            )
    return notes


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
