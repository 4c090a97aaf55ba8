"""``dataset=dicom``: whose slices, which labels, which slices, what is passed over, and what is named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    EncapsulatedPDFStorage,
    SecondaryCaptureImageStorage,
    XRayRadiationDoseSRStorage,
)

from ddtl.commands import cli
from ddtl.commands.evaluate import evaluate
from ddtl.config.load import check, load
from ddtl.data.datasets import registry
from ddtl.data.datasets.volumes import dicom
from ddtl.data.images.cache import open_cache
from ddtl.data.images.decode import load_image
from ddtl.data.images.levels import CTWindow, windowed
from ddtl.data.manifest import Manifest
from ddtl.utils.errors import UserError
from tests.support import ct_slices
from tests.support.ct_series import chest, write_hospital, write_series, write_table

QUICK = (
    "model=squeezenet1_1", "model.weights=none", "finetune=full", "logger=none", "dataset.image_size=32",
    "dataset.batch_size=4", "trainer.max_epochs=1",
)  # fmt: skip


def words(root: Path, labels: Path, *more: str) -> list[str]:
    return ["dataset=dicom", f"dataset.root={root}", f"dataset.labels={labels}", *QUICK, *more]


def build(root: Path, labels: Path, *more: str) -> Manifest:
    return registry.build(load(words(root, labels, *more)))


def refusal(root: Path, labels: Path, *more: str) -> str:
    with pytest.raises(UserError) as caught:
        build(root, labels, *more)
    return str(caught.value)


def texts(manifest: Manifest) -> str:
    return "\n".join(note.in_full for note in manifest.notes)


def two(root: Path, **how: Any) -> Path:
    """A patient of each class, and the table by patient."""
    write_series(root / "a", "A", seed=1, **how)
    write_series(root / "b", "B", seed=2, ill=True, **how)
    return write_table(root.parent / "labels.csv", ("patient_id", "label"), [("A", "normal"), ("B", "covid")])


# Whose slices


def test_patients_and_series_are_those_of_the_headers(tmp_path: Path) -> None:
    """One folder has two patients' files, and one patient's files are in two folders."""
    root = tmp_path / "root"
    first = write_series(root / "x", "A", seed=1, slices=4)
    write_series(root / "y", "B", seed=2, slices=4)
    shutil.move(first[0], root / "y" / "moved.dcm")
    labels = write_table(tmp_path / "l.csv", ("patient_id", "label"), [("A", "normal"), ("B", "covid")])
    manifest = build(root, labels)
    assert manifest.grouping == "patient"
    patients = {sample.patient_id: sample.label for sample in manifest.samples}
    assert sorted(patients.values()) == [0, 1]
    assert manifest.classes == ("normal", "covid")
    moved = next(sample for sample in manifest.samples if sample.path.name == "moved.dcm")
    assert moved.label == 0
    assert moved.sample_id.endswith("/0001"), "the lowest slice of its series"
    assert len({sample.series for sample in manifest.samples}) == 2


def test_slices_are_ordered_from_the_feet_by_position(tmp_path: Path) -> None:
    labels = two(tmp_path / "root")
    manifest = build(tmp_path / "root", labels)
    by_series: dict[str | None, list[float]] = {}
    for sample in manifest.samples:
        height = float(pydicom.dcmread(sample.path).ImagePositionPatient[2])
        by_series.setdefault(sample.series, []).append(height)
    assert all(heights == [0, 5, 10, 15, 20, 25] for heights in by_series.values())


def test_ids_are_digests_and_a_key_changes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = two(tmp_path / "root")
    plain = build(tmp_path / "root", labels)
    assert all(re.fullmatch(r"P[0-9a-f]{10}/[0-9a-f]{8}/\d{4}", sample.sample_id) for sample in plain.samples)
    assert plain.samples == build(tmp_path / "root", labels).samples
    monkeypatch.setenv(dicom.KEY_VARIABLE, "secret")
    keyed = build(tmp_path / "root", labels)
    assert not {s.patient_id for s in plain.samples} & {s.patient_id for s in keyed.samples}
    assert not {s.series for s in plain.samples} & {s.series for s in keyed.samples}


def test_people_of_one_placeholder_id_are_separated_by_study(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number in range(2):
        write_series(root / str(number), "ANONYMOUS", seed=number, StudyInstanceUID=f"1.9.{number}")
    labels = write_table(tmp_path / "l.csv", ("study", "label"), [("1.9.0", "normal"), ("1.9.1", "covid")])
    manifest = build(root, labels)
    assert len({sample.patient_id for sample in manifest.samples}) == 2
    assert "1 PatientID is empty, a placeholder or of several people: their studies are taken as patients." in texts(
        manifest
    )


def test_ids_that_differ_in_spelling_alone_are_counted(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number, patient in enumerate(("P-7", "p007")):
        write_series(root / patient, patient, seed=number)
    labels = write_table(tmp_path / "l.csv", ("patient_id", "label"), [("P-7", "normal"), ("p007", "covid")])
    found = texts(build(root, labels))
    assert "2 PatientIDs differ from another one in spelling alone" in found
    assert "P-7" not in found


def test_series_without_a_uid_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number in range(2):
        write_series(root / str(number), "A", seed=number, SeriesInstanceUID=None)
    write_series(root / "b", "B", seed=5)
    labels = write_table(tmp_path / "l.csv", ("patient_id", "label"), [("A", "normal"), ("B", "covid")])
    assert len({sample.series for sample in build(root, labels).samples}) == 3


# Labels


@pytest.mark.parametrize("column", ["patient_id", "study", "series", "slice"])
def test_labels_are_given_by_any_of_the_ids(tmp_path: Path, column: str) -> None:
    root = tmp_path / "root"
    keyword = {"patient_id": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
    two(root)
    rows = set()
    for path in sorted(root.rglob("*.dcm")):
        ds = pydicom.dcmread(path)
        rows.add((getattr(ds, keyword.get(column, "SOPInstanceUID")), "covid" if ds.PatientID == "B" else "normal"))
    manifest = build(root, write_table(tmp_path / "l.csv", (column, "label"), sorted(rows)))
    assert [sum(s.label == label for s in manifest.samples) for label in (0, 1)] == [6, 6]


def test_the_finest_label_counts(tmp_path: Path) -> None:
    root = tmp_path / "root"
    two(root)
    one = pydicom.dcmread(sorted((root / "b").glob("*.dcm"))[0])
    rows = [("A", "", "normal"), ("B", "", "covid"), ("", one.SOPInstanceUID, "normal")]
    manifest = build(root, write_table(tmp_path / "l.csv", ("patient_id", "slice", "label"), rows))
    assert [sum(s.label == label for s in manifest.samples) for label in (0, 1)] == [7, 5]


def test_slices_without_a_label_and_rows_without_a_slice_are_counted(tmp_path: Path) -> None:
    root = tmp_path / "root"
    two(root)
    write_series(root / "c", "C", seed=3, slices=2)
    rows = [("A", "normal"), ("B", "covid"), ("SECRET", "covid")]
    manifest = build(root, write_table(tmp_path / "l.csv", ("patient_id", "label"), rows))
    assert len(manifest) == 12
    assert "dataset.labels has no row for 2 slices: not used." in texts(manifest)
    assert "dataset.labels: 1 row names nothing that is used (line 4)." in texts(manifest)
    assert "SECRET" not in texts(manifest)


def test_site_split_and_class_map_are_those_of_the_table(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_hospital(root, 9, slices=2)
    rows = [
        (f"MRN{n:04d}", ("CAP", "covid", "normal")[n % 3], "ulm", ("train", "val", "test")[n // 3]) for n in range(9)
    ]
    labels = write_table(tmp_path / "l.csv", ("patient_id", "label", "site", "split"), rows)
    mapped = ("dataset.class_map={CAP: non-COVID, normal: non-COVID, covid: COVID}",)
    manifest = registry.prepared(load(words(root, labels, *mapped, "dataset.protocol=official")))
    assert manifest.classes == ("non-COVID", "COVID")
    assert {sample.site for sample in manifest.samples} == {"ulm"}
    assert {split: len(manifest.rows(split)) for split in ("train", "val", "test")} == {
        "train": 6,
        "val": 6,
        "test": 6,
    }
    assert "The column split of dataset.labels is used with dataset.protocol=official alone." in texts(
        build(root, labels, *mapped)
    )


@pytest.mark.parametrize(
    ("columns", "rows", "reason"),
    [
        (("label",), [("normal",)], "has none of the columns patient_id, study, series, slice"),
        (("patient_id", "label"), [("A", "normal"), ("A", "covid")], "line 3: says something else of the patient_id"),
        (("patient_id", "label"), [("A", "normal"), ("", "covid")], "line 3: each of patient_id"),
        (("patient_id", "label"), [("A", "normal"), ("B", "")], "line 3: label is empty"),
        (("patient_id", "label"), [("A", "normal"), ("B", "normal")], "two classes are needed"),
        (("patient_id", "label"), [("X", "normal"), ("Y", "covid")], "none of its rows names one of the 12 slices"),
        (("patient_id", "label"), [("A", "normal"), ("Y", "covid")], "no slice that is used has the class 'covid'"),
        (("patient_id", "label", "split"), [("A", "normal", "x"), ("B", "covid", "")], "line 2: the split is none of"),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    tmp_path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]], reason: str
) -> None:
    two(tmp_path / "root")
    assert reason in refusal(tmp_path / "root", write_table(tmp_path / "l.csv", columns, rows))


# Windows and slices


def test_a_slice_is_its_hounsfield_units_through_the_window(tmp_path: Path) -> None:
    labels = two(tmp_path / "root")
    for window, (center, width) in {
        "lung": (-600, 1500), "mediastinum": (40, 400), "{center: 50, width: 350}": (50, 350),
    }.items():  # fmt: skip
        manifest = build(tmp_path / "root", labels, f"dataset.window={window}")
        assert {sample.window for sample in manifest.samples} == {CTWindow(center, width)}
        sample = manifest.samples[0]
        ds = pydicom.dcmread(sample.path)
        grey = windowed(ds.pixel_array.astype(float) * ds.RescaleSlope + ds.RescaleIntercept, center, width)
        assert np.array_equal(load_image(sample.path, 64, sample.window), grey)


def test_a_spacing_shows_the_same_millimetres_of_every_slice(tmp_path: Path) -> None:
    """A pixel of the network covers 2 mm whatever the file's spacing; what is beyond the slice is black."""
    ramp = np.tile(np.arange(64.0) * 10 - 1000, (64, 1))
    for spacing in (0.5, 1.0):
        path = ct_slices.write(tmp_path / f"{spacing}.dcm", ramp, PixelSpacing=[spacing, spacing])
        image = load_image(path, 32, CTWindow(-600, 1500, extent=64.0))
        covered = round(64 * spacing / 2)
        assert (image[:, : max(0, (32 - covered) // 2 - 1)] == 0).all()
        assert (image[16] > 0).sum() in range(covered - 1, covered + 3)
    bare = ct_slices.write(tmp_path / "bare.dcm", ramp)
    with pytest.raises(
        UserError, match=r"has no PixelSpacing, which dataset\.spacing needs\. Set dataset\.spacing=null"
    ):
        load_image(bare, 32, CTWindow(-600, 1500, extent=64.0))


@pytest.mark.parametrize(
    ("setting", "places"),
    [
        (("dataset.slices=all",), range(1, 10)),
        (("dataset.slices=middle",), (4, 5, 6)),
        (("dataset.slices=[2,4,99]",), (2, 4)),
        (("dataset.slice_step=3",), (2, 5, 8)),
        (("dataset.slices=middle", "dataset.slice_step=3"), (5,)),
        (("dataset.slices=lung",), (3, 4, 5, 6, 7)),
        (("dataset.slices=lung", "dataset.slice_step=2"), (4, 6)),
    ],
)
def test_slices_are_chosen_by_their_place(tmp_path: Path, setting: tuple[str, ...], places: Sequence[int]) -> None:
    labels = two(tmp_path / "root", slices=9, size=96)
    manifest = build(tmp_path / "root", labels, *setting)
    for patient in {sample.patient_id for sample in manifest.samples}:
        found = [int(s.sample_id.rpartition("/")[2]) for s in manifest.samples if s.patient_id == patient]
        assert found == list(places)


def test_numbers_that_no_series_has_are_refused(tmp_path: Path) -> None:
    labels = two(tmp_path / "root")
    assert "no series has a labelled slice of such a number" in refusal(
        tmp_path / "root", labels, "dataset.slices=[70]"
    )


def test_window_and_slices_are_part_of_the_content_that_is_cached(tmp_path: Path) -> None:
    labels = two(tmp_path / "root")
    folders = set()
    for more in ((), ("dataset.window=mediastinum",), ("dataset.spacing=2",), ("dataset.slices=middle",)):
        manifest = build(tmp_path / "root", labels, *more)
        folders.add(open_cache(manifest, size=32, root=tmp_path / "cache").folder)
    assert len(folders) == 4


# What else is among the files


def other_files(root: Path) -> None:
    """One file each of what is on a medium besides slices."""
    values = chest(32, 0.5, False, 0)
    ct_slices.write(root / "scout.dcm", values, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    ct_slices.write(root / "screen.dcm", values, SOPClassUID=SecondaryCaptureImageStorage)
    ct_slices.write(root / "photo.dcm", values, SOPClassUID=SecondaryCaptureImageStorage, Modality="OT")
    ct_slices.write(root / "mr.dcm", values, Modality="MR")
    ct_slices.write(root / "coronal.dcm", values, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    ct_slices.write(root / "iodine.dcm", values, ImageType=["DERIVED", "PRIMARY", "IODINE"])
    for name, kind in (("dose", XRayRadiationDoseSRStorage), ("letter", EncapsulatedPDFStorage)):
        ds = ct_slices.dataset(values, SOPClassUID=kind, Modality="SR")
        for keyword in ("Rows", "Columns", "PixelData", "RescaleSlope"):
            delattr(ds, keyword)
        ds.file_meta.MediaStorageSOPClassUID = kind
        ds.save_as(root / f"{name}.dcm", enforce_file_format=True)
    (root / "notes.txt").write_text("hello")


def test_what_is_no_slice_is_passed_over_by_kind_and_counted(tmp_path: Path) -> None:
    root = tmp_path / "root"
    labels = two(root)
    other_files(root)
    manifest = build(root, labels)
    assert len(manifest) == 12
    found = texts(manifest)
    assert (
        "Files besides axial CT slices are not used: 1 dose report, 1 image of another modality, 1 localizer, "
        "1 map of another quantity, 1 object without an image, 1 reformat that is not axial and 2 secondary captures."
    ) in found
    assert "1 file under dataset.root are not DICOM: not used (1 × .txt)." in found


def test_burned_in_text_is_warned_of(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_series(root / "a", "A", seed=1, slices=3, BurnedInAnnotation="YES")
    write_series(root / "b", "B", seed=2, slices=3, BurnedInAnnotation="NO")
    labels = write_table(tmp_path / "l.csv", ("patient_id", "label"), [("A", "normal"), ("B", "covid")])
    assert "3 slices say that text is burned into the pixels (BurnedInAnnotation)" in texts(build(root, labels))


def test_a_folder_without_slices_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    labels = write_table(tmp_path / "l.csv", ("patient_id", "label"), [("A", "normal"), ("B", "covid")])
    other_files(tmp_path / "root")
    message = refusal(tmp_path / "root", labels)
    assert "contains no axial CT slice as DICOM in 9 files. Files besides axial CT slices" in message


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    root = tmp_path / "root"
    labels = two(root)
    data = sorted((root / "a").glob("*"))[0].read_bytes()
    (root / "cut.dcm").write_bytes(data[:400])
    ct_slices.write(root / "bare.dcm", chest(32, 0.5, False, 0), RescaleSlope=None)
    message = refusal(root, labels)
    assert "dicom: 2 of 14 files under" in message
    assert "bare.dcm has no RescaleSlope and RescaleIntercept" in message
    assert "Replace these files, or move them out of dataset.root." in message


# What is unusual about series


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("gap", "1 of 2 series have gaps."),
        ("orientation", "1 of 2 series mix orientations."),
        ("acquisitions", "1 of 2 series contain several acquisitions."),
        ("place", "1 of 2 series contain several slices in one place."),
        ("unplaced", "1 of 2 series contain slices without a position."),
    ],
)
def test_unusual_series_are_named(tmp_path: Path, fault: str, text: str) -> None:
    root = tmp_path / "root"
    labels = two(root)
    files = sorted((root / "b").glob("*.dcm"), key=lambda path: int(path.stem.partition("-")[2]))
    if fault == "gap":
        files[2].unlink()
    for number, path in enumerate(files):
        if not path.exists():
            continue
        ds = pydicom.dcmread(path)
        if fault == "orientation" and number == 3:
            ds.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
            ds.ImagePositionPatient = [0, 0, 15]
        if fault == "acquisitions":
            ds.AcquisitionNumber = 1 + number // 3
        if fault == "place" and number == 3:
            ds.ImagePositionPatient = [0, 0, 10]
        if fault == "unplaced" and number == 3:
            del ds.ImagePositionPatient
        ds.save_as(path)
    manifest = build(root, labels)
    (note,) = [note for note in manifest.notes if note.text == text]
    assert note.is_doubt
    ill = next(sample for sample in manifest.samples if sample.label == 1)
    assert note.names == repr(ill.sample_id.rpartition("/")[0])
    assert len(manifest) == (11 if fault == "gap" else 12)


def test_a_sound_dataset_has_no_doubt(tmp_path: Path) -> None:
    labels = write_hospital(tmp_path / "root", 4)
    assert texts(build(tmp_path / "root", labels)) == ""


def test_two_acquisitions_of_the_same_places_are_put_one_after_the_other(tmp_path: Path) -> None:
    root = tmp_path / "root"
    labels = two(root)
    for path in sorted((root / "b").glob("*.dcm")):
        ds = pydicom.dcmread(path)
        ds.AcquisitionNumber = 1
        ds.save_as(path)
        ds.AcquisitionNumber, ds.SOPInstanceUID = 2, f"{ds.SOPInstanceUID}.2"
        ds.save_as(path.with_name(f"2-{path.name}"))
    manifest = build(root, labels)
    ill = [pydicom.dcmread(sample.path) for sample in manifest.samples if sample.label == 1]
    assert [ds.AcquisitionNumber for ds in ill] == [1] * 6 + [2] * 6
    assert [ds.ImagePositionPatient[2] for ds in ill] == [0, 5, 10, 15, 20, 25] * 2


def test_a_slice_that_is_there_twice_is_used_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    labels = two(root)
    first = sorted((root / "a").glob("*.dcm"))[0]
    shutil.copy(first, root / "copy.dcm")
    manifest = build(root, labels)
    assert len(manifest) == 12
    assert "1 slice is there twice (SOPInstanceUID) and used once." in texts(manifest)


# Settings


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["dataset.root=null"], "dataset=dicom needs dataset.root=FOLDER"),
        (["dataset.labels=null"], "dataset=dicom needs dataset.labels=FILE, a CSV with the columns label and"),
        (["dataset.labels=/nowhere.csv"], "dataset.labels=/nowhere.csv: there is no such file"),
        (["dataset.window=null"], "dataset.window=null: DICOM files store Hounsfield units. Set dataset.window=lung."),
        (["dataset.window={center: 1, width: 2, slope: 2}"], "dataset.window.slope and intercept are in the headers"),
        (
            ["dataset.window=brain"],
            "dataset.window=brain: takes lung, mediastinum, bone or {center: -600, width: 1500}",
        ),
        (["dataset.slices=some"], "or one of all, middle, lung"),
        (["dataset.slices=[0]"], "dataset.slices"),
        (["dataset.slice_step=0"], "dataset.slice_step"),
        (["dataset.spacing=-1"], "dataset.spacing"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, given: list[str], reason: str) -> None:
    labels = write_table(tmp_path / "l.csv", ("patient_id", "label"), [("A", "normal")])
    with pytest.raises(UserError, match=re.escape(reason)):
        check(words(tmp_path, labels, *given))


def test_a_name_of_a_window_is_of_hounsfield_units() -> None:
    with pytest.raises(UserError, match="a name is of Hounsfield units, which only dataset=dicom and nifti know"):
        check(["dataset=folder", "dataset.root=/nowhere", "dataset.window=lung"])


def test_a_label_of_an_id_that_several_people_share_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number in range(2):
        write_series(root / str(number), "4711", seed=number, IssuerOfPatientID=f"HOSPITAL {number}")
    write_series(root / "b", "B", seed=2, ill=True)
    labels = write_table(tmp_path / "l.csv", ("patient_id", "label"), [("B", "covid"), ("4711", "normal")])
    assert "of several people as birth dates, sexes or issuers say, is in line 3" in refusal(root, labels)


def test_a_series_of_two_patients_is_warned_of(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in "AB":
        write_series(root / name, name, seed=1, ill=name == "B", SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2")
    labels = write_table(tmp_path / "l.csv", ("patient_id", "label"), [("A", "normal"), ("B", "covid")])
    assert "2 patients have a series (SeriesInstanceUID) that another one has too" in texts(build(root, labels))


def test_places_count_from_the_feet_however_slices_are_turned(tmp_path: Path) -> None:
    labels = two(tmp_path / "root", ImageOrientationPatient=[1, 0, 0, 0, -1, 0])
    manifest = build(tmp_path / "root", labels)
    lowest = [sample for sample in manifest.samples if sample.sample_id.endswith("/0001")]
    assert [float(pydicom.dcmread(sample.path).ImagePositionPatient[2]) for sample in lowest] == [0, 0]
    assert "12 slices are not stored from right to left and front to back" in texts(manifest)


def test_projections_and_links_to_nothing_are_passed_over(tmp_path: Path) -> None:
    labels = two(tmp_path / "root")
    write_series(tmp_path / "root" / "mip", "A", seed=3, slices=2, ImageType=["DERIVED", "SECONDARY", "AXIAL", "MIP"])
    (tmp_path / "root" / "dead.dcm").symlink_to("nowhere")
    manifest = build(tmp_path / "root", labels)
    assert len(manifest.samples) == 12
    assert "2 projections or subtractions" in texts(manifest)
    assert "1 × links to nothing" in texts(manifest)


# Reading by several processes


@pytest.mark.slow
def test_many_headers_are_read_by_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = two(tmp_path / "root")
    alone = build(tmp_path / "root", labels)
    monkeypatch.setattr(dicom, "_FEW", 2)
    monkeypatch.setattr(dicom, "_AT_A_TIME", 4)
    monkeypatch.setattr(dicom.threads, "cores", lambda: 2)
    seen: list[tuple[int, int]] = []
    config = load(words(tmp_path / "root", labels))
    shared = registry.build(config, lambda done, total: seen.append((done, total)))
    assert shared.samples == alone.samples
    assert seen == [(4, 12), (8, 12), (12, 12)]


# Whole runs


def hospital_words(here: Path, *more: str) -> list[str]:
    labels = write_hospital(here / "root", 12, slices=3, size=48)
    return [*words(here / "root", labels), f"paths.runs_dir={here}/runs", f"paths.cache_dir={here}/cache", *more]


@pytest.mark.slow
def test_a_run_is_trained_by_patient_and_scored_elsewhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A test set alone, of many classes that become two, is enough for an evaluation."""
    assert cli.main(["train", *hospital_words(tmp_path), "run.name=r"]) == 0
    run = tmp_path / "runs" / "dicom" / "r"
    root = tmp_path / "other"
    rows = []
    for number, label in enumerate(("CAP", "normal", "COVID")):
        write_series(root / label, label, seed=50 + number, ill=label == "COVID", slices=3)
        rows.append((label, label, "test"))
    labels = write_table(tmp_path / "o.csv", ("patient_id", "label", "split"), rows)
    given = [
        "dataset=dicom", "dataset.name=other", f"dataset.root={root}", f"dataset.labels={labels}",
        "dataset.class_map={CAP: non-COVID, normal: non-COVID}", "dataset.protocol=official",
    ]  # fmt: skip
    assert cli.main(["evaluate", str(run), *given]) == 0
    record = (run / "evaluations" / "other-official" / "results.json").read_text()
    assert "the dataset is a test set alone" in record
    assert "PatientID" not in record
    with pytest.raises(UserError, match="other has no validation images, by which to choose a threshold"):
        evaluate(run, [*given, "evaluation.refit=true"])
    for number in range(12):  # of the run's hospital, other slices of theirs
        write_series(root / f"again{number}", f"MRN{number:04d}", seed=70 + number, ill=number % 2 == 1, slices=3)
        rows.append((f"MRN{number:04d}", "COVID" if number % 2 else "normal", "test"))
    write_table(tmp_path / "o.csv", ("patient_id", "label", "split"), rows)
    assert cli.main(["evaluate", str(run), *(word.replace("=other", "=again") for word in given)]) == 0
    found = json.loads((run / "evaluations" / "again-official" / "results.json").read_text())
    split = (run / "split.csv").read_text().splitlines()[1:]
    trained = {row.split(",")[2] for row in split if row.split(",")[1] in ("train", "val")}
    said = [warning for warning in found["warnings"] if "PatientID" in warning]
    assert said == [
        f"{len(trained)} patients of the test set have a PatientID that is also in the training: of one hospital they "
        "are the same people."
    ]
    assert found["leaked_share"] == 0


def test_too_few_patients_to_train_on_are_refused(tmp_path: Path) -> None:
    labels = two(tmp_path / "root")
    with pytest.raises(UserError, match=r"class normal has 1 patients \(6 images\), too few for training"):
        registry.prepared(load(words(tmp_path / "root", labels)))


def plant(ds: pydicom.Dataset) -> None:
    """Write names into every element of text that a header can have, but for those that decide what it is."""
    kept = {"PatientID", "Modality", "PhotometricInterpretation", "ImageType", "RescaleType", "PatientSex"}
    for tag, (vr, _, _, _, keyword) in pydicom.datadict.DicomDictionary.items():
        is_text = vr in {"PN", "LO", "SH", "LT", "ST", "UT", "UC", "AE", "CS"} and keyword and keyword not in kept
        if is_text and tag >> 16 in {0x0008, 0x0010, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040}:
            setattr(ds, keyword, f"DOEJANE{tag & 0xFFFF:04X}")
    ds.PatientBirthDate = "19440101"


@pytest.mark.slow
def test_no_identifying_tag_is_in_any_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = hospital_words(tmp_path, "verbose=true")
    secrets = {b"DOEJANE", b"19440101"}
    for path in (tmp_path / "root").rglob("*.dcm"):
        ds = pydicom.dcmread(path)
        plant(ds)
        secrets |= {ds[key].value.encode() for key in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")}
        ds.save_as(path)
    ct_slices.write(
        tmp_path / "root" / "odd.dcm", chest(48, 0.5, False, 0), PatientID="DOEJANE", BurnedInAnnotation="YES"
    )
    assert cli.main(["train", *given, "run.name=r"]) == 0
    audit = [word for word in given if word.startswith(("dataset", "paths"))]
    assert cli.main(["audit", *audit]) in (0, 1)
    assert (
        cli.main(["data", "show", *given[:3], f"paths.cache_dir={tmp_path}/cache", f"output={tmp_path}/runs/s.png"])
        == 0
    )
    out, err = capfd.readouterr()
    files = [path for top in ("runs", "cache") for path in (tmp_path / top).rglob("*") if path.is_file()]
    assert len(files) > 10
    for name, content in [("out", out.encode()), ("err", err.encode()), *((str(p), p.read_bytes()) for p in files)]:
        assert not [secret for secret in secrets if secret in content], name


@pytest.mark.realdata
def test_real_series_are_read_and_too_few_to_train_on(tmp_path: Path, real_data: Path) -> None:
    """72 slices of 6 patients, JPEG Lossless; as a test set alone they are enough."""
    root = real_data / "covidctmd"
    rows = [(path.name, path.parent.name, "test") for path in sorted(root.glob("*/*"))]
    labels = write_table(tmp_path / "l.csv", ("patient_id", "label", "split"), rows)
    given = words(root, labels, "dataset.class_map={CAP: non-COVID, normal: non-COVID}")
    manifest = registry.build(load(given))
    assert manifest.classes == ("non-COVID", "COVID")
    assert [sum(s.label == label for s in manifest.samples) for label in (0, 1)] == [48, 24]
    assert len({sample.patient_id for sample in manifest.samples}) == 6
    with pytest.raises(UserError, match=r"class COVID has 2 patients \(24 images\), too few for training, validation"):
        registry.split(manifest, load(given).dataset)
    alone = registry.prepared(load([*given, "dataset.protocol=official"]), tested_only=True)
    assert len(alone.rows("test")) == 72
    cache = open_cache(alone, size=64, root=tmp_path / "cache")
    assert all(levels >= 100 for levels in cache.levels[:, 0])
    lung = registry.build(load([*given, "dataset.slices=lung"]))
    assert len(lung) == 72, "the published samples are of the lungs"
