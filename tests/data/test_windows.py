"""Three windows of Hounsfield units as the channels of an image: ``dataset.window=[lung,mediastinum,bone]``."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddtl.commands import cli
from ddtl.config.load import load
from ddtl.data.datasets import registry
from ddtl.data.images.cache import DecodedCache, open_cache
from ddtl.data.images.decode import decode_gray
from ddtl.data.images.harmonize import histogram, pooled_histogram
from ddtl.data.images.levels import CTWindow, windowed
from ddtl.data.loading.transforms import Augmenter
from ddtl.schema.augment import NONE, AugmentConfig
from ddtl.schema.run import WINDOWS, Config, WindowConfig
from ddtl.studies import definitions
from ddtl.training.identity import counting
from ddtl.utils.errors import UserError
from tests.support import nifti_volumes
from tests.support.ct_series import chest, write_hospital, write_table

THREE = "dataset.window=[lung,mediastinum,bone]"
NAMES = ("lung", "mediastinum", "bone")
QUICK = (
    "model=squeezenet1_1", "model.weights=none", "finetune=full", "logger=none", "dataset.image_size=32",
    "dataset.batch_size=4", "trainer.max_epochs=1", "trainer.accelerator=cpu",
)  # fmt: skip


def dicom_words(root: Path, labels: Path, *more: str) -> list[str]:
    return ["dataset=dicom", f"dataset.root={root}", f"dataset.labels={labels}", *QUICK, *more]


def opened(words: list[str], cache: Path, size: int = 32) -> DecodedCache:
    return open_cache(registry.build(load(words)), size=size, root=cache, workers=1)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("hospital")
    return folder / "root", write_hospital(folder / "root", 12, slices=2, size=40)


# --- pixels ---------------------------------------------------------------------------------------------------------


def test_each_channel_is_the_image_of_its_window_alone(hospital: tuple[Path, Path], tmp_path: Path) -> None:
    three = opened(dicom_words(*hospital, THREE), tmp_path)
    assert three.images.shape == (24, 32, 32, 3)
    singles = [opened(dicom_words(*hospital, f"dataset.window={name}"), tmp_path) for name in NAMES]
    for channel, single in enumerate(singles):
        assert single.images.shape == (24, 32, 32)
        np.testing.assert_array_equal(three.take(range(24))[..., channel], single.take(range(24)))
    assert len({single.take(range(24)).tobytes() for single in singles}) == 3
    fewest = [min(rows) for rows in zip(*(map(tuple, single.levels.tolist()) for single in singles), strict=True)]
    assert list(map(tuple, three.levels.tolist())) == fewest
    assert fewest != list(map(tuple, singles[0].levels.tolist())), "the first window is not the one with the fewest"
    assert len({three.folder, *(single.folder for single in singles)}) == 4


def test_a_channel_is_the_hounsfield_units_of_the_file(tmp_path: Path) -> None:
    """By DICOM's linear function, computed here."""
    units = np.stack([chest(32, 0.5, True, seed) for seed in range(2)])
    nifti_volumes.write(tmp_path / "root" / "a.nii", units)
    nifti_volumes.write(tmp_path / "root" / "b.nii.gz", units + 1)
    labels = write_table(tmp_path / "l.csv", ("path", "label"), [("a.nii", "normal"), ("b.nii.gz", "covid")])
    words = ["dataset=nifti", f"dataset.root={tmp_path}/root", f"dataset.labels={labels}", *QUICK, THREE]
    cache = opened(words, tmp_path / "cache")
    for channel, name in enumerate(NAMES):
        np.testing.assert_array_equal(cache[1][..., channel], windowed(units[1], *WINDOWS[name]))
        np.testing.assert_array_equal(cache[3][..., channel], windowed(units[1] + 1, *WINDOWS[name]))


@pytest.mark.parametrize("spacing", ["null", "1.5"])
def test_dicom_and_nifti_of_the_same_values_are_equal(spacing: str, tmp_path: Path) -> None:
    from tests.support.ct_series import write_series

    series = [write_series(tmp_path / "dicom" / p, p, slices=3, size=40, seed=i) for i, p in enumerate("AB")]
    import pydicom

    for patient, paths in zip("AB", series, strict=True):
        files = [pydicom.dcmread(path) for path in paths]
        units = np.stack([ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in files])
        nifti_volumes.write(tmp_path / "nifti" / f"{patient}.nii", units)
    by_patient = write_table(tmp_path / "d.csv", ("patient_id", "label"), [("A", "no"), ("B", "yes")])
    by_path = write_table(tmp_path / "n.csv", ("path", "label"), [("A.nii", "no"), ("B.nii", "yes")])
    more = (THREE, f"dataset.spacing={spacing}")
    dicom = opened(dicom_words(tmp_path / "dicom", by_patient, *more), tmp_path / "cache")
    words = ["dataset=nifti", f"dataset.root={tmp_path}/nifti", f"dataset.labels={by_path}", *QUICK, *more]
    nifti = opened(words, tmp_path / "cache")
    assert dicom.folder != nifti.folder
    assert {image.tobytes() for image in dicom.take(range(6))} == {image.tobytes() for image in nifti.take(range(6))}
    assert len({image.tobytes() for image in dicom.take(range(6))}) == 6


def test_what_makes_one_image_of_a_slice_takes_the_first_window(hospital: tuple[Path, Path], tmp_path: Path) -> None:
    """Audits and histograms."""
    sample = registry.build(load(dicom_words(*hospital, THREE))).samples[0]
    assert isinstance(sample.window, CTWindow)
    assert sample.window.others == (WINDOWS["mediastinum"], WINDOWS["bone"])
    alone = CTWindow(*WINDOWS["lung"])
    data = sample.path.read_bytes()
    assert decode_gray(data, sample.path, sample.window) == decode_gray(data, sample.path, alone)
    three = opened(dicom_words(*hospital, THREE), tmp_path)
    single = opened(dicom_words(*hospital), tmp_path)
    assert pooled_histogram(three, [0, 5]).tolist() == histogram(single.take([0, 5])).tolist()


# --- augmentation ---------------------------------------------------------------------------------------------------

STEPS: dict[str, dict[str, Any]] = {
    "none": {},
    "flip": {"horizontal_flip": 0.5},
    "affine": {"rotate_degrees": 20.0, "shift": 0.1, "scale": (0.8, 1.2)},
    "blur": {"blur": 1.0},
    "noise": {"noise": 0.1},
    "levels": {"brightness": 0.2, "contrast": 0.2},
    "gamma": {"gamma": (0.7, 1.4)},
    "erase": {"erase": 1.0},
}


@pytest.mark.parametrize("name", STEPS)
def test_channels_are_augmented_alike(name: str) -> None:
    """Each as the gray image of that channel with the same draw; three equal channels stay equal."""
    spec: AugmentConfig = NONE.model_copy(update=STEPS[name])
    side = 128  # a blur is of a share of it
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    equal = np.repeat(image[..., :1], 3, axis=2)
    colour, gray = Augmenter(spec, side), Augmenter(spec, side)
    changed = 0
    for seed in ((7, sample) for sample in range(10)):
        found = colour(image, seed)
        assert found.shape == (3, side, side)
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        for channel in range(3):
            alone = gray(np.ascontiguousarray(image[..., channel]), seed)[0]
            np.testing.assert_array_equal(found[channel], alone)
            changed += int(not np.array_equal(np.rint(alone * 255), image[..., channel]))
        same = colour(equal, seed)
        np.testing.assert_array_equal(same[0], same[1])
        np.testing.assert_array_equal(same[0], same[2])
    assert (changed == 0) == (name == "none")


# --- settings -------------------------------------------------------------------------------------------------------


def test_a_list_of_windows_is_read_and_stored_as_one(hospital: tuple[Path, Path]) -> None:
    config = load(dicom_words(*hospital, "dataset.window=[bone,{center: 50, width: 350},lung]"))
    assert config.dataset.channels == 3
    window = config.dataset.window
    assert window is not None
    assert [(one.center, one.width) for one in (window, *window.others)] == [(400, 1800), (50, 350), (-600, 1500)]
    stored = json.loads(config.model_dump_json())
    assert [one["center"] for one in stored["dataset"]["window"]] == [400, 50, -600]
    assert Config.model_validate(stored).dataset == config.dataset
    assert [one["center"] for one in counting(config)["dataset.window"]] == [400, 50, -600]


def test_a_single_window_is_stored_as_before(hospital: tuple[Path, Path]) -> None:
    config = load(dicom_words(*hospital))
    assert config.dataset.channels == 1
    assert config.model_dump(mode="json")["dataset"]["window"] == {
        "center": -600.0, "width": 1500.0, "slope": 1.0, "intercept": 0.0,
    }  # fmt: skip
    assert {key for key in counting(config) if key.startswith("dataset.window")} == {
        f"dataset.window.{key}" for key in ("center", "width", "slope", "intercept")
    }
    assert str(CTWindow(-600.0, 1500.0)) == "HU -600.0,1500.0"


ONE_OR_THREE = "takes one window or three, each of lung, mediastinum, bone or"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["dataset.window=[lung,mediastinum]"], ONE_OR_THREE),
        (["dataset.window=[lung,mediastinum,bone,lung]"], ONE_OR_THREE),
        (["dataset.window=[]"], ONE_OR_THREE),
        (["dataset.window=[lung,bone,3]"], ONE_OR_THREE),
        (["dataset.window=[lung,bone,{center: 1, width: 0}]"], ONE_OR_THREE),
        (["dataset.window=[lung,bone,brain]"], "takes lung, mediastinum, bone or {center: -600, width: 1500}"),
        (["dataset.window=[lung,bone,lung]"], "names a window twice"),
        (["dataset.window=[lung,bone,{center: 1, width: 9, slope: 2}]"], "are in the headers of DICOM files"),
        ([THREE, "model.grayscale=sum"], "Set model.grayscale=replicate."),
        ([THREE, "dataset.harmonize=clahe"], "Set dataset.harmonize=none."),
    ],
)
def test_what_is_refused(words: list[str], reason: str, hospital: tuple[Path, Path]) -> None:
    with pytest.raises(UserError) as caught:
        load(dicom_words(*hospital, *words))
    assert reason in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_images_without_hounsfield_units_have_one_window(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only dataset=dicom and nifti know; take one window"):
        load(["dataset=folder", f"dataset.root={tmp_path}", THREE])


def pool(hospital: tuple[Path, Path], *windows: str) -> list[str]:
    own = ", ".join(
        f"s{i}: {{kind: dicom, root: {hospital[0]}, labels: {hospital[1]}, window: {window}}}"
        for i, window in enumerate(windows)
    )
    names = ",".join(f"s{i}" for i in range(len(windows)))
    return ["dataset=pooled", f"dataset.sources=[{names}]", f"dataset.own={{{own}}}", "dataset.phantom=null", *QUICK]


def test_the_sources_of_a_pool_have_the_same_windows(hospital: tuple[Path, Path]) -> None:
    three = "[lung, mediastinum, bone]"
    assert load(pool(hospital, three, three)).dataset.channels == 3
    for other in ("lung", "[lung, bone, mediastinum]"):
        with pytest.raises(UserError, match="one has three windows, which are the channels of its images"):
            load(pool(hospital, three, other))
    with pytest.raises(UserError, match=r"Set model\.grayscale=replicate"):
        load([*pool(hospital, three, three), "model.grayscale=sum"])
    assert load(pool(hospital, "lung", "bone")).dataset.channels == 1


def test_a_study_passes_the_windows_on(hospital: tuple[Path, Path]) -> None:
    from ddtl.schema.run import OwnDataset

    own = OwnDataset.model_validate(
        {"kind": "dicom", "root": str(hospital[0]), "labels": str(hospital[1]), "window": list(NAMES)}
    )
    words = definitions.dataset_words("chest", {"chest": own})
    window = load([*words, "logger=none"]).dataset.window
    assert window is not None
    assert [one.center for one in window.others] == [40, 400]
    assert type(window.others[0]) is WindowConfig


# --- a run ----------------------------------------------------------------------------------------------------------


def logits_of(path: Path) -> np.ndarray:
    """(N, 2)."""
    with path.open(newline="") as file:
        return np.array([[float(row["logit_non-COVID"]), float(row["logit_COVID"])] for row in csv.DictReader(file)])


@pytest.mark.slow
def test_a_run_from_training_to_export(hospital: tuple[Path, Path], tmp_path: Path) -> None:
    places = [f"paths.runs_dir={tmp_path}/runs", f"paths.cache_dir={tmp_path}/cache"]
    words = [*dicom_words(*hospital, *places), "dataset.val_fraction=0.3", "dataset.test_fraction=0.3"]
    strong = ["augment=strong", "augment.mixup=0.4"]
    assert cli.main(["train", *words, THREE, *strong, "dataset.name=three", "run.name=r"]) == 0
    assert cli.main(["train", *words, "dataset.name=one", "run.name=r"]) == 0
    three, one = tmp_path / "runs/three/r", tmp_path / "runs/one/r"
    assert [w["center"] for w in json.loads((three / "identity.json").read_text())["dataset.window"]] == [-600, 40, 400]
    assert "(centre/width)" in (three / "methods.md").read_text()
    assert "repeated in three channels" in (one / "methods.md").read_text()

    # The same answers as the run's own, from the files alone.
    assert cli.main(["predict", str(three), str(hospital[0]), f"output={tmp_path}/out"]) == 0
    new, own = logits_of(tmp_path / "out/predictions.csv"), logits_of(three / "predictions.csv")
    distances = np.abs(own[:, None] - new[None]).max(axis=2)
    assert (len(own), len(new), len(set(distances.argmin(axis=1).tolist()))) == (16, 24, 16)
    assert distances.min(axis=1).max() < 1e-5

    # Images without Hounsfield units are refused.
    (tmp_path / "png").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(tmp_path / "png/a.png")
    cli.main(["predict", str(three), str(tmp_path / "png"), f"output={tmp_path}/out2"])
    assert "predict DICOM or NIfTI files" in (tmp_path / "out2/predictions.json").read_text()

    # Another test set.
    external = ["dataset=dicom", f"dataset.root={hospital[0]}", f"dataset.labels={hospital[1]}", "dataset.name=again"]
    assert cli.main(["evaluate", str(three), *external, THREE, *places]) == 0
    for run, more in ((three, []), (one, [THREE])):
        with pytest.raises(UserError, match=r"windows of Hounsfield units"):
            cli.main(["evaluate", str(run), *external, *more, *places])
    for window, is_other in (("lung", False), ("mediastinum", True)):
        assert cli.main(["evaluate", str(one), *external, f"dataset.window={window}", *places]) == 0
        newest = max((one / "evaluations").glob("*/results.json"), key=lambda path: path.stat().st_mtime_ns)
        said = "another window of Hounsfield units" in " ".join(json.loads(newest.read_text())["warnings"])
        assert said == is_other, window

    assert cli.main(["explain", str(three), *places[1:]]) == 0
    assert cli.main(["report", str(three)]) == 0
    assert cli.main(["export", str(three), "format=onnx", f"output={tmp_path}/onnx", *places[1:]]) == 0
    about = json.loads((tmp_path / "onnx/model.json").read_text())
    assert about["channels"][2] == {"center": 400.0, "width": 1800.0}
    assert cli.main(["audit", *words[:3], THREE, *places]) in (0, 1)
    assert cli.main(["data", "show", *words[:3], THREE, *places[1:], f"output={tmp_path}/sheet.png"]) == 0
