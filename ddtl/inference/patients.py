"""Whose slices are whose: PatientID where it names one person, else the study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from ddtl.data.patient_ids import is_missing, is_placeholder
from ddtl.inference.dicom import Slice

_ADVICE = "Put each patient's files into a folder of its own and add patients=folder to score by patient"


def patients_of(slices: Sequence[Slice]) -> tuple[list[str], list[str]]:
    """Return each slice's patient, empty where it is not known, and what is doubtful about them, a line each.

    PatientID is the patient. Where it is empty, a placeholder, or of people with different birth dates, sexes or issuers
    of the id, the study is; where that has no UID, or different people as well, the series.
    """
    patients = [""] * len(slices)
    notes: list[str] = []
    for name, members in _groups(range(len(slices)), lambda i: slices[i].patient).items():
        studies = {slices[i].study for i in members}
        differing = _differing([slices[i] for i in members])
        if is_missing(name):
            if name:
                notes.append(_note(name, "says that no id is known", members, studies))
            by = ""
        elif is_placeholder(name):
            notes.append(_note(name, "is a placeholder, which different people share", members, studies))
            by = ""
        elif differing:
            notes.append(_note(name, f"has {differing}: it is more than one person", members, studies))
            by = ""
        else:
            by = name
        for i in members:
            patients[i] = by or _by_study(i, slices)
    return patients, notes


def _by_study(i: int, slices: Sequence[Slice]) -> str:
    part = slices[i]
    if part.study and not _differing([other for other in slices if other.study == part.study]):
        return part.study
    return part.series


def _note(name: str, what: str, members: Sequence[int], studies: set[str]) -> str:
    return (
        f"PatientID {name[:60]!r} {what}: its {len(members)} files are grouped by StudyInstanceUID "
        f"({len(studies)} {'study' if len(studies) == 1 else 'studies'}). {_ADVICE}."
    )


def _groups(numbers: Sequence[int], key: Callable[[int], str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for i in numbers:
        groups[key(i)].append(i)
    return groups


def _differing(slices: Sequence[Slice]) -> str:
    """In what the people differ whose slices these are: ``2 birth dates and 2 sexes``; empty where they don't."""
    values: dict[str, set[str]] = defaultdict(set)
    for part in slices:
        for what, value in part.person:
            values[what].add(value)
    return " and ".join(f"{len(found)} {what}" for what, found in values.items() if len(found) > 1)
