"""DICOM slices: gray levels against pydicom's own and known pictures, series in order, and what is no CT slice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, strategies as st
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_rescale, apply_windowing

from ddtl.data.images import dicom
from ddtl.data.images.image_file import BadImageError
from ddtl.data.images.levels import windowed
from ddtl.data.phantom.render import PhantomSpec, render_slice
from ddtl.inference.inputs import decode, find
from ddtl.utils.errors import UserError
from tests.support import ct_slices

CORONAL = [1, 0, 0, 0, 0, -1]


def find_in(*paths: Path) -> Any:
    return find([str(path) for path in paths], by_folder=False, progress=lambda done, total: None)


@pytest.fixture(scope="module")
def lung() -> np.ndarray:
    """A phantom's slice, air around it at -1000 HU as a scanner has it."""
    image, _, _ = render_slice(PhantomSpec(n_patients=1, size=64), "a", 0, 0)
    return np.maximum(image, 60).astype(np.uint8)


def test_pydicoms_own_ct_slice_comes_out_as_pydicom_windows_it() -> None:
    path = Path(str(get_testdata_file("CT_small.dcm")))
    ds = pydicom.dcmread(path)
    ds.WindowCenter, ds.WindowWidth = dicom.LEVEL, dicom.WIDTH
    low, high = -(2**15) - 1024, 2**15 - 1 - 1024  # the range that pydicom windows into: that of the stored values
    theirs = (apply_windowing(apply_rescale(ds.pixel_array, ds), ds) - low) / (high - low)
    ours = np.asarray(dicom.decode_slice(path))
    assert len(np.unique(ours)) > 100, "the window spreads the values"
    np.testing.assert_allclose(ours, 255 * theirs, atol=0.5 + 1e-6)


@pytest.mark.parametrize("inverted", ["", "tag", "stored", "window"])
@pytest.mark.parametrize(
    "how",
    [
        {"slope": 1, "intercept": -1500, "bits": 12},
        {"slope": 1, "intercept": -1024, "signed": True},
        {"slope": 0.5, "intercept": -1400, "bits": 16},
        {"slope": -0.25, "intercept": 1000},
    ],
)
def test_an_image_comes_back_however_a_file_holds_it(
    tmp_path: Path, lung: np.ndarray, how: dict[str, Any], inverted: str
) -> None:
    path = ct_slices.write(tmp_path / "slice", ct_slices.hounsfield(lung), inverted=inverted, **how)
    found = np.asarray(dicom.decode_slice(path)).astype(int)
    assert np.abs(found - lung).max() <= 1


@given(st.lists(st.floats(-3000, 3000), min_size=2, max_size=20))
def test_a_denser_place_is_never_darker(values: list[float]) -> None:
    gray = windowed(np.sort(values), dicom.LEVEL, dicom.WIDTH)
    assert (np.diff(gray.astype(int)) >= 0).all()


def test_the_window_ends_where_it_says() -> None:
    gray = windowed(np.array([-np.inf, -1350, -1344, -600.5, 144, 149, 3000]), dicom.LEVEL, dicom.WIDTH)
    assert gray.tolist() == [0, 0, 1, 128, 254, 255, 255]


def test_what_lies_outside_of_the_field_of_view_is_black(tmp_path: Path) -> None:
    values = np.zeros((8, 8))
    values[0] = 2000
    path = ct_slices.write(tmp_path / "slice", values, PixelPaddingValue=2000 + 1024)
    found = np.asarray(dicom.decode_slice(path))
    assert (found[0] == 0).all()
    assert (found[1:] > 200).all()


def test_the_slices_of_a_series_come_in_order_whatever_their_names(tmp_path: Path) -> None:
    heights = {"IM3": -10.0, "IM1": 25.0, "IM2": 5.0}
    for name, height in heights.items():
        ct_slices.write(tmp_path / name, np.zeros((4, 4)), ImagePositionPatient=[1, 2, height])
    ct_slices.write(tmp_path / "IM2b", np.zeros((4, 4)), SeriesInstanceUID="1.9", InstanceNumber=7)
    found = find_in(tmp_path)
    assert [picture.path.name for picture in found.files] == ["IM3", "IM2", "IM1", "IM2b"]
    assert [picture.slice.position for picture in found.files] == [-10, 5, 25, 0]
    assert {picture.patient for picture in found.files} == {"P1"}


def test_without_positions_the_slices_numbers_order_them(tmp_path: Path) -> None:
    for name, number in {"a": 10, "b": 9, "c": 2}.items():
        ct_slices.write(tmp_path / name, np.zeros((4, 4)), ImagePositionPatient=None, InstanceNumber=number)
    assert [picture.path.name for picture in find_in(tmp_path).files] == ["c", "b", "a"]


def test_who_has_no_patient_id_goes_by_study_or_series(tmp_path: Path) -> None:
    ct_slices.write(tmp_path / "a", np.zeros((4, 4)), PatientID="")
    ct_slices.write(tmp_path / "b", np.zeros((4, 4)), PatientID=None, StudyInstanceUID=None)
    found = find_in(tmp_path / "a", tmp_path / "b")
    assert sorted(picture.patient for picture in found.files) == sorted(["1.2.3", ct_slices.SERIES])


def test_a_slice_is_resized_as_training_images_are(tmp_path: Path, lung: np.ndarray) -> None:
    path = ct_slices.write(tmp_path / "slice", ct_slices.hounsfield(lung), slope=0.5, intercept=-1400)
    (picture,) = find_in(path).files
    assert decode(picture, 32, None, print).shape == (32, 32)
    assert np.abs(decode(picture, 64, None, print).astype(int) - lung).max() <= 1


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Modality": "MR"}, "is of modality MR, not CT"),
        ({"Modality": None}, "is of modality unknown, not CT"),
        ({"NumberOfFrames": 3}, "contains 3 frames"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "is in colour"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "is a localizer"),
        ({"RescaleIntercept": None}, "not Hounsfield units"),
        ({"ImageOrientationPatient": CORONAL}, "is not an axial slice"),
        ({"Rows": None}, r"without an image \(CT Image Storage\)"),
    ],
)
def test_what_is_no_ct_slice_is_named(tmp_path: Path, tags: dict[str, Any], reason: str) -> None:
    path = ct_slices.write(tmp_path / "slice", np.zeros((4, 4)), **tags)
    with pytest.raises(BadImageError, match=reason):
        dicom.read_slice(path)
    with pytest.raises(BadImageError, match=reason):
        dicom.decode_slice(path)


def test_pydicoms_other_files_are_named() -> None:
    found = find_in(Path(str(get_testdata_file("MR_small.dcm"))))
    assert not found.files
    assert "modality MR" in found.bad[0].reason
    with pytest.raises(UserError, match="is a DICOMDIR"):
        find_in(Path(str(get_testdata_file("DICOMDIR"))))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = ct_slices.write(tmp_path / "whole", np.zeros((16, 16))).read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-100])
    (tmp_path / "text.dcm").write_text("no slice at all, though it is called one")
    (tmp_path / "empty.dcm").write_bytes(b"")
    with pytest.raises(BadImageError, match="is cut off or damaged"):
        dicom.decode_slice(tmp_path / "cut")
    for name in ("text.dcm", "empty.dcm"):
        with pytest.raises(BadImageError, match=r"is not a DICOM file|is cut off or damaged"):
            dicom.read_slice(tmp_path / name)
