"""The phantom: the same pictures everywhere, lesions where the masks say, no cheap way to the label, whole folders."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ddtl.data import phantom
from ddtl.data.manifest import Manifest
from ddtl.data.phantom import PhantomSpec, build_manifest, generate, mask_path, patient_label, render_slice
from ddtl.errors import UserError

BOTH = PhantomSpec(sites=("a", "b"))
TINY = PhantomSpec(n_patients=4, slices_per_patient=2, sites=("a", "b"), size=48)

# (site, patient, slice): start of the sha256 of image, mask and label. Whoever changes one raises GENERATOR_VERSION.
GOLDEN: dict[tuple[str, int, int], str] = {
    ("a", 0, 0): "60b899f728fe09c0",
    ("a", 1, 1): "f0939c7944ff7f86",
    ("a", 2, 3): "45ba1d539b11c4ba",
    ("b", 0, 2): "a029ad8692135fb4",
    ("b", 1, 0): "f1f4500bbebb49cf",
    ("b", 3, 3): "399bb70496b71c86",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Both sites at 64 px: half the default's pixels a side, which changes neither mean nor variance of a picture."""
    return build_manifest(PhantomSpec(n_patients=100, sites=("a", "b"), size=64), tmp_path_factory.mktemp("phantom"))


@pytest.fixture(scope="module")
def images(dataset: Manifest) -> np.ndarray:
    return np.stack([np.asarray(Image.open(sample.path)) for sample in dataset.samples])


def digest(spec: PhantomSpec, site: str, patient: int, index: int) -> str:
    image, mask, label = render_slice(spec, site, patient, index)
    return hashlib.sha256(image.tobytes() + mask.tobytes() + bytes([label])).hexdigest()[:16]


@pytest.mark.parametrize("where", GOLDEN, ids=str)
def test_pictures_are_the_golden_ones(where: tuple[str, int, int]) -> None:
    assert digest(BOTH, *where) == GOLDEN[where]


def test_a_picture_comes_out_the_same_twice() -> None:
    first = digest(BOTH, "b", 3, 1)
    phantom._draw_patient.cache_clear()
    assert digest(BOTH, "b", 3, 1) == first


@pytest.mark.parametrize("other", [PhantomSpec(n_patients=9, sites=("a", "b")), PhantomSpec(sites=("a",))], ids=str)
def test_a_patient_does_not_depend_on_the_others(other: PhantomSpec) -> None:
    assert digest(other, "a", 2, 1) == digest(BOTH, "a", 2, 1)


def test_seed_site_patient_and_slice_each_change_the_picture() -> None:
    reseeded = PhantomSpec(sites=("a", "b"), seed=1)
    digests = [
        digest(reseeded, "a", 0, 0),
        *(digest(BOTH, *where) for where in [("a", 0, 0), ("b", 0, 0), ("a", 1, 0), ("a", 0, 1)]),
    ]
    assert len(set(digests)) == len(digests)


def test_the_key_changes_with_every_field_and_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    base = PhantomSpec()
    others = [
        PhantomSpec(n_patients=151),
        PhantomSpec(slices_per_patient=5),
        PhantomSpec(sites=("b",)),
        PhantomSpec(size=64),
        PhantomSpec(seed=1),
        PhantomSpec(prevalence=0.4),
    ]
    keys = {spec.key() for spec in [base, *others]}
    monkeypatch.setattr(phantom, "GENERATOR_VERSION", phantom.GENERATOR_VERSION + 1)
    assert len(keys | {base.key()}) == 8


@given(n=st.integers(1, 60), prevalence=st.floats(0, 1), seed=st.integers(0, 2**40), site=st.sampled_from(["a", "b"]))
def test_any_number_of_patients_is_balanced(n: int, prevalence: float, seed: int, site: str) -> None:
    spec = PhantomSpec(sites=("a", "b"), prevalence=prevalence, seed=seed)
    labels = [patient_label(spec, site, k) for k in range(n)]
    assert abs(sum(labels) - n * prevalence) <= 1.5
    if prevalence == 0.5:
        assert abs(2 * sum(labels) - n) <= 1


def test_both_classes_are_half_of_each_site(dataset: Manifest) -> None:
    for site in ("a", "b"):
        labels = [sample.label for sample in dataset.samples if sample.site == site]
        assert len(labels) == 200
        assert sum(labels) == 100


@pytest.mark.parametrize("site", ["a", "b"])
def test_masks_are_where_the_lesions_are(site: str) -> None:
    seen = 0
    for patient in range(8):
        for index in (0, 3):
            image, mask, label = render_slice(BOTH, site, patient, index)
            healthy, nothing, _ = phantom._draw(BOTH, site, patient, index, healthy=True)
            changed = image != healthy
            assert not nothing.any()
            assert not (changed & ~mask).any()
            if label == 0:
                assert not mask.any()
                continue
            seen += 1
            assert mask.sum() >= 20
            assert changed[mask].mean() > 0.85  # the rest are vessels, over which haze is not seen
            assert np.median(healthy[mask]) < 150  # air-filled lung is dark; soft tissue is above 180
            added = image[mask].astype(float) - healthy[mask]
            assert added.mean() > 20
    assert seen == 8


def test_sites_look_different(dataset: Manifest, images: np.ndarray) -> None:
    at_b = np.array([sample.site == "b" for sample in dataset.samples])
    assert (images[at_b][:, 0, 0] == 0).all()  # outside the round field of view
    assert np.median(images[~at_b][:, 0, 0]) > 15
    grain = np.abs(np.diff(images[:, :6, 24:40].astype(float), axis=2)).mean(axis=(1, 2))  # in the air above the chest
    assert np.median(grain[at_b]) > 1.5 * np.median(grain[~at_b])


def leave_patients_out_auc(features: np.ndarray, dataset: Manifest) -> float:
    labels = np.array([sample.label for sample in dataset.samples])
    patients = [sample.group for sample in dataset.samples]
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    scores = cross_val_predict(model, features, labels, groups=patients, cv=folds, method="predict_proba")
    return float(roc_auc_score(labels, scores[:, 1]))


def test_brightness_and_contrast_do_not_give_the_class_away(dataset: Manifest, images: np.ndarray) -> None:
    pixels = images.reshape(len(images), -1).astype(float)
    assert leave_patients_out_auc(np.stack([pixels.mean(axis=1), pixels.var(axis=1)], axis=1), dataset) < 0.65


def test_file_sizes_do_not_give_the_class_away(dataset: Manifest) -> None:
    assert len({sample.path.stat().st_size for sample in dataset.samples}) == 1


def test_an_image_takes_a_thirtieth_of_a_second_at_most() -> None:
    """So that the default dataset of 600 is drawn within 20 seconds."""
    render_slice(BOTH, "a", 0, 0)
    start = time.process_time()  # of this process alone: others may be busy on the machine
    for patient in range(10, 16):
        for index in range(4):
            render_slice(BOTH, "ab"[patient % 2], patient, index)
    assert (time.process_time() - start) / 24 < 1 / 30


def test_the_manifest_says_what_was_drawn(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    manifest = build_manifest(TINY, tmp_path, lambda done, total: calls.append((done, total)))
    assert calls == [(i, 8) for i in range(1, 9)]
    assert (manifest.dataset, manifest.classes, manifest.grouping) == ("phantom", ("non-COVID", "COVID"), "patient")
    assert "synthetic" in manifest.notes[0]
    names = [sample.sample_id for sample in manifest.samples]
    assert names == [f"{site}/p{k:04d}_s{s}" for k in (0, 1) for site in ("a", "b") for s in (0, 1)]
    for sample in manifest.samples:
        patient, index = int(sample.sample_id[3:7]), int(sample.sample_id[-1])
        image, mask, label = render_slice(TINY, sample.site, patient, index)
        assert np.array_equal(np.asarray(Image.open(sample.path)), image)
        assert np.array_equal(np.asarray(Image.open(mask_path(sample))), mask * np.uint8(255))
        assert sample.label == label
        assert sample.patient_id == f"{sample.site}-p{patient:04d}"
    again = build_manifest(TINY, tmp_path, lambda *_: pytest.fail("drawn twice"))
    assert again == manifest


BUILD = """
import os, sys, pathlib
from ddtl.data.phantom import PhantomSpec, build_manifest
calls = []
def progress(done, total):
    calls.append(done)
    if done == int(sys.argv[2]):
        os._exit(9)
spec = PhantomSpec(n_patients=4, slices_per_patient=2, sites=("a", "b"), size=48)
build_manifest(spec, pathlib.Path(sys.argv[1]), progress)
print(len(calls))
"""


def build_elsewhere(root: Path, die_at: int = 0) -> subprocess.Popen[str]:
    """Another process that builds ``TINY``, prints how many images it drew, and may be killed at one of them."""
    return subprocess.Popen([sys.executable, "-c", BUILD, str(root), str(die_at)], stdout=subprocess.PIPE, text=True)


def test_what_a_killed_process_left_is_not_taken_for_the_dataset(tmp_path: Path) -> None:
    with build_elsewhere(tmp_path, die_at=5) as child:
        assert child.wait(60) == 9
    folder = tmp_path / f"phantom-{TINY.key()}"
    assert not folder.exists()
    assert len(build_manifest(TINY, tmp_path)) == 8
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [folder.name]


def test_of_two_processes_one_builds(tmp_path: Path) -> None:
    children = [build_elsewhere(tmp_path) for _ in range(2)]
    drawn = [child.communicate(timeout=60)[0].strip() for child in children]
    assert sorted(drawn) == ["0", "8"]


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="something other"):
        generate(TINY, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"sites": ("c",)}, "no site 'c'"),
        ({"sites": ()}, "sites must be named"),
        ({"sites": ("a", "a")}, "each once"),
        ({"n_patients": 0}, "n_patients"),
        ({"slices_per_patient": 0}, "slices_per_patient"),
        ({"size": 8}, "size"),
        ({"seed": -1}, "seed"),
        ({"prevalence": 1.5}, "prevalence"),
    ],
)
def test_a_wrong_spec_is_refused(wrong: dict, word: str) -> None:
    with pytest.raises(UserError, match=word):
        PhantomSpec(**wrong)


def test_the_phantom_does_without_torch() -> None:
    code = "import sys, ddtl.data.phantom; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
