"""``Run.predict`` on arrays and tables: what the command predicts of files with the same pixels."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import ddtl
from ddtl.api.images import read_images
from ddtl.commands import cli
from ddtl.inference.inputs import find
from tests.support.runs import run as train

Array = np.ndarray


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ddtl.Run:
    return ddtl.Run(train(tmp_path_factory.mktemp("images"), "trainer.max_epochs=1").folder)


def smooth(seed: int, shape: tuple[int, ...], most: int) -> Array:
    """An image of many grey levels, not as square as the network wants it."""
    waves = np.random.default_rng(seed).random(shape)
    waves[..., ::2] *= 0.5
    return np.rint(waves * most)


PIXELS: dict[str, Array] = {
    "gray": smooth(0, (90, 70), 255).astype(np.uint8),
    "colour": smooth(1, (64, 80, 3), 255).astype(np.uint8),
    "deep": smooth(2, (70, 70), 65535).astype(np.uint16),
    "deep colour": smooth(3, (50, 60, 3), 65535).astype(np.uint16),
    "reversed": smooth(4, (90, 70), 255).astype(np.uint8)[::-1, ::-1],
    "other byte order": smooth(5, (70, 70), 65535).astype(">u2"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same pixels as PNG files, written by another library where they are colours of 16 bits."""
    folder, found = tmp_path_factory.mktemp("files"), {}
    for name, pixels in PIXELS.items():
        found[name] = folder / f"{name}.png"
        if name == "deep colour":
            assert cv2.imwrite(str(found[name]), pixels[..., ::-1])  # it takes blue first
        else:
            Image.fromarray(np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))).save(found[name])
    return found


def test_arrays_are_predicted_as_the_command_predicts_the_same_pixels(
    run: ddtl.Run, files: dict[str, Path], tmp_path: Path
) -> None:
    assert cli.main(["predict", str(run.path), *map(str, files.values()), f"output={tmp_path / 'out'}"]) == 0
    with (tmp_path / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        known = list(csv.DictReader(file))
    table = run.predict(list(PIXELS.values()))
    assert list(table["file"]) == [f"array {i}" for i in range(len(PIXELS))]
    assert [Path(row["file"]).stem for row in known] == list(PIXELS)
    for column in ("logit_COVID", "logit_non-COVID", "probability_COVID", "distance"):
        theirs = [float(row[column]) for row in known]
        np.testing.assert_allclose(table[column], theirs, rtol=0, atol=1e-6, err_msg=column)
    assert table["logit_COVID"].nunique() == len(PIXELS)
    assert not table.attrs["skipped"]


def test_one_array_and_several_are_the_same(run: ddtl.Run) -> None:
    one = run.predict(PIXELS["gray"])
    several = run.predict(PIXELS["colour"], [PIXELS["gray"]])
    assert one["logit_COVID"][0] == pytest.approx(several["logit_COVID"][1], abs=1e-5)


def test_a_blank_array_is_skipped_by_its_number(run: ddtl.Run) -> None:
    too_large = np.broadcast_to(np.arange(100, dtype=np.uint8), (20_000, 100)).repeat(150, axis=1)
    table = run.predict([PIXELS["gray"], too_large])
    assert list(table["file"]) == ["array 0"]
    assert [part["file"] for part in table.attrs["skipped"]] == ["array 1"]


def test_a_table_names_files_and_their_patients(run: ddtl.Run, files: dict[str, Path]) -> None:
    frame = pd.DataFrame({"path": list(files.values()), "patient_id": [7, 7, 8, 8, None, 8]})
    images = run.predict(frame)
    assert list(images["file"]) == [str(path) for path in files.values()]
    assert [None if pd.isna(one) else one for one in images["patient_id"]] == ["7", "7", "8", "8", None, "8"]
    patients = run.predict(frame, unit="patient").set_index("patient_id")
    assert patients["pictures"].to_dict() == {"7": 2, "8": 3}
    mean = images[images["patient_id"] == "7"]["probability_COVID"].mean()
    assert patients.loc["7", "score_COVID"] == pytest.approx(mean, abs=1e-12)
    (warning,) = images.attrs["warnings"]
    assert warning.startswith("1 of 6 images name no patient (patient_id)")
    named = run.predict(frame.assign(patient_id=range(6)))
    without = run.predict(frame[["path"]].astype(str))
    assert named.attrs["warnings"] == without.attrs["warnings"] == []
    np.testing.assert_array_equal(without["logit_COVID"], images["logit_COVID"])
    assert without["patient_id"].isna().all()


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        ([], {}, "needs images"),
        ([[]], {}, "needs images"),
        ([pd.DataFrame({"path": []})], {}, "needs images"),
        ([PIXELS["gray"].astype(float)], {}, r"array 0: is float64 of shape 90 × 70.*uint8 or uint16"),
        ([np.zeros((3, 4, 4, 4), np.uint8)], {}, r"3 × 4 × 4 × 4.*a list of them"),
        ([np.zeros((4, 4, 4), np.uint8)], {}, "array 0"),
        ([np.zeros((0, 4), np.uint8)], {}, "array 0"),
        ([np.ones((), np.uint8)], {}, "of shape a number"),
        ([PIXELS["gray"], "a.png"], {}, "not both at once"),
        ([PIXELS["gray"]], {"patients": "folder"}, "an array is in no folder"),
        ([Image.new("L", (4, 4))], {}, r"no Image.*numpy\.asarray"),
        ([pd.DataFrame({"file": ["a.png"]})], {}, r"no column path.*rename"),
        ([pd.DataFrame({"path": ["a.png", None]})], {}, "row 1 of the DataFrame has no path"),
        ([pd.DataFrame({"path": ["a", "a"], "patient_id": [1, 2]})], {}, "a: is in the DataFrame for two patients"),
        ([pd.DataFrame({"path": ["a"], "patient_id": [1]})], {"patients": "folder"}, "names the patients already"),
        ([pd.DataFrame({"path": ["a"]}), "b.png"], {}, "one DataFrame"),
        ([pd.DataFrame({"path": ["a", "b", "a"]})], {}, "a: is in the DataFrame twice"),
        ([np.ma.masked_equal(PIXELS["gray"], 0)], {}, "masked array"),
        ([PIXELS["gray"]], {"unit": "patient"}, "no image names its patient"),
        (["nowhere.png"], {}, "there is no such file"),
        ([PIXELS["gray"]], {"unit": "patients"}, "neither 'image' nor 'patient'"),
    ],
)
def test_what_is_no_image_is_refused(run: ddtl.Run, given: list[Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ddtl.UserError, match=f"(?s){message}"):
        run.predict(*given, **settings)


def test_a_file_under_two_names_of_two_patients_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "other.png").symlink_to(files["gray"])
    whose = {str(files["gray"]): "1", str(tmp_path / "other.png"): "2"}
    with pytest.raises(ddtl.UserError, match="is named for two patients"):
        find(list(whose), by_folder=False, progress=lambda done, total: None, patients=whose)


def test_a_patient_s_number_stays_a_number_and_a_name_a_name() -> None:
    frame = pd.DataFrame({"path": ["a", "b", "c", "d"], "patient_id": [1.0, "P 2", float("nan"), 2.5]})
    assert read_images([frame], "").patients == {"a": "1", "b": "P 2", "c": "", "d": "2.5"}
