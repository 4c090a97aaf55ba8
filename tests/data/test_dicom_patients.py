"""Ids that name nobody, and the patients that DICOM headers make."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from ddtl.data.datasets.patient_ids import is_missing, is_placeholder
from ddtl.data.datasets.volumes.dicom_patients import patients_of
from ddtl.data.images.dicom import Slice
from ddtl.inference.inputs import Found, find
from tests.support import ct_slices

MISSING = [
    "", " ", "na", "n/a", "N/A", "#N/A", "nan", "NaN", "none", "None", "null", "NULL", "unknown", "Unknown", "-", "--",
    "—", "?", "???", ".", "nat", "NaT", "<NA>", "missing", "Not available", "not  available", " n/a\u200b", "\ufeffnan",
    "\t", "*",
]  # fmt: skip
PLACEHOLDERS = [
    "ANONYMOUS", "anonymous", "Anon", "ANONYMIZED", "anonymised", "Anonymous^Patient", "0", "000000", "0-0", "NO ID",
    "TEST", "Test Patient", "DEIDENTIFIED", "de-identified", "DE_IDENTIFIED", "[REDACTED]", "REMOVED", "XXXX", "999999",
    "UNKNOWN", "NA", "None", "",
]  # fmt: skip
NAMES = [
    "12", "012", "P1", "1.0", "ANON0042", "anonymous 3", "TEST17", "9999", "0001", "X1", "nano", "Nat Smith", "Ana",
    "00A",
]  # fmt: skip


@pytest.mark.parametrize("text", MISSING)
def test_words_for_a_missing_value_are_known(text: str) -> None:
    assert is_missing(text)
    assert is_placeholder(text)


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_placeholders_are_known(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize("text", NAMES)
def test_an_id_of_ones_own_is_none(text: str) -> None:
    assert not is_missing(text)
    assert not is_placeholder(text)


@given(st.sampled_from([*MISSING, *PLACEHOLDERS, *NAMES]), st.sampled_from(["", " ", "\t", "\u200b", "\ufeff"]))
def test_case_and_blanks_around_change_nothing(text: str, noise: str) -> None:
    for spelled in (f"{noise}{text}{noise}", text.upper(), text.lower()):
        assert is_missing(spelled) == is_missing(text)
        assert is_placeholder(spelled) == is_placeholder(text)


def test_a_table_can_ask_without_torch() -> None:
    code = "import sys, ddtl.data.datasets.patient_ids; sys.exit(bool({'torch', 'pydicom'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=300).returncode == 0


def found_in(folder: Path, **how: Any) -> Found:
    return find([str(folder)], by_folder=how.get("by_folder", False), progress=lambda done, total: None)


def write(path: Path, patient: str, study: str, **tags: Any) -> None:
    ct_slices.write(path, np.zeros((4, 4)), **{"PatientID": patient, "StudyInstanceUID": study, **tags})


def test_a_placeholder_makes_no_patient_of_two_studies(tmp_path: Path) -> None:
    for name, study in (("a", "1.1"), ("b", "1.1"), ("c", "1.2")):
        write(tmp_path / name, "ANONYMOUS", study)
    found = found_in(tmp_path)
    assert [picture.patient for picture in found.files] == ["1.1", "1.1", "1.2"]
    (line,) = found.warnings
    assert line.startswith(
        "PatientID 'ANONYMOUS' is a placeholder, which different people share: its 3 files are grouped"
    )
    assert "(2 studies)" in line
    assert "patients=folder" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("tag", "values", "what"),
    [
        ("PatientBirthDate", ("19500101", "19610203"), "2 birth dates"),
        ("PatientSex", ("M", "F"), "2 sexes"),
        ("IssuerOfPatientID", ("North", "South"), "2 issuers of the id"),
    ],
)
def test_one_id_of_two_people_is_named(tmp_path: Path, tag: str, values: tuple[str, str], what: str) -> None:
    write(tmp_path / "a", "4711", "1.1", **{tag: values[0]})
    write(tmp_path / "b", "4711", "1.2", **{tag: values[1]})
    write(tmp_path / "c", "4712", "1.3", **{tag: values[1]})
    found = found_in(tmp_path)
    assert [picture.patient for picture in found.files] == ["1.1", "1.2", "4712"]
    (line,) = found.warnings
    assert f"PatientID '4711' has {what}: it is more than one person" in line
    assert values[0] not in line, "what identifies people is not repeated"


@pytest.mark.parametrize(
    "tags",
    [
        ({"PatientBirthDate": "19500101"}, {"PatientBirthDate": ""}),
        ({"PatientBirthDate": "19500101"}, {"PatientBirthDate": "1950.01.01"}),
        ({"PatientSex": "F"}, {"PatientSex": "O"}),
        ({"PatientSex": "F"}, {"PatientSex": "f"}),
        ({"PatientID": "4711 "}, {"PatientID": "4711"}),
        ({}, {}),
    ],
)
def test_one_patient_of_two_studies_stays_one(tmp_path: Path, tags: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for name, study, own in (("a", "1.1", tags[0]), ("b", "1.2", tags[1])):
        ct_slices.write(tmp_path / name, np.zeros((4, 4)), **{"PatientID": "4711", "StudyInstanceUID": study, **own})
    found = found_in(tmp_path)
    assert [picture.patient for picture in found.files] == ["4711", "4711"]
    assert found.warnings == []


def test_a_study_of_two_people_falls_back_to_the_series(tmp_path: Path) -> None:
    for name, sex in (("a", "M"), ("b", "F")):
        write(tmp_path / name, "0", "1.1", PatientSex=sex, SeriesInstanceUID=f"2.{name == 'a':d}")
    found = found_in(tmp_path)
    assert [picture.patient for picture in found.files] == ["2.1", "2.0"]


def test_the_folder_decides_where_the_user_says_so(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a", "ANONYMOUS", "1.1")
    found = found_in(tmp_path, by_folder=True)
    assert [Path(picture.patient).name for picture in found.files] == ["x", "y"]
    assert found.warnings == []


def test_equal_series_of_two_patients_are_not_interleaved(tmp_path: Path) -> None:
    for number, patient in enumerate(("p", "q", "p", "q")):
        write(tmp_path / f"{number}", patient, f"1.{patient == 'q':d}", ImagePositionPatient=[0, 0, number])
    assert [picture.patient for picture in found_in(tmp_path).files] == ["p", "p", "q", "q"]


@pytest.mark.parametrize("other", ["p12", "P12.0", "P 12", "P012"])
def test_ids_that_differ_in_spelling_alone_are_named(tmp_path: Path, other: str) -> None:
    write(tmp_path / "a", "P12", "1.1")
    write(tmp_path / "b", other, "1.2")
    (line,) = found_in(tmp_path).warnings
    assert line.startswith("PatientIDs ")
    assert "'P12'" in line
    assert f"'{other}'" in line
    assert "differ in spelling alone and are scored as 2 patients" in line
    write(tmp_path / "a", "P12", "1.1", PatientSex="F")
    write(tmp_path / "b", other, "1.2", PatientSex="M")
    assert found_in(tmp_path).warnings == []


def test_slices_that_are_there_twice_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a", "p", "1.1", ImagePositionPatient=[0, 0, 1], SOPInstanceUID="1.7")
    write(tmp_path / "b", "p", "1.1", ImagePositionPatient=[0, 0, 2], SOPInstanceUID="1.7")
    assert found_in(tmp_path).warnings == [], "one UID for all slices is a fault of anonymisation"
    (tmp_path / "a copy").write_bytes((tmp_path / "a").read_bytes())
    (line,) = found_in(tmp_path).warnings
    assert line.startswith(f"1 slices are there twice, as {tmp_path / 'a copy'} is {tmp_path / 'a'} (SOPInstanceUID)")


people = st.builds(
    Slice,
    patient=st.sampled_from(["", "A", "B", "ANON", "0"]),
    study=st.sampled_from(["", "1.1", "1.2", "1.3"]),
    series=st.sampled_from(["2.1", "2.2"]),
    instance=st.just(""),
    person=st.sampled_from([(), (("sexes", "M"),), (("sexes", "F"),), (("birth dates", "19500101"),)]),
)


@given(st.lists(people, max_size=12))
def test_no_patient_is_two_people(slices: list[Slice]) -> None:
    """Whatever the headers say, an id that is used has no two sexes; and everyone with one true id is together."""
    patients, notes = patients_of(slices)
    assert len(patients) == len(slices)
    for name in {part.patient for part in slices}:
        theirs = {patient for patient, part in zip(patients, slices, strict=True) if part.patient == name}
        sexes = {value for part in slices if part.patient == name for what, value in part.person if what == "sexes"}
        alone = name in {"A", "B"} and len(sexes) < 2
        assert (theirs == {name}) == alone
        assert any(f"'{name}'" in note for note in notes) == (not alone and name != "")
