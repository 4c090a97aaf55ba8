"""The phantom: the same pictures everywhere, lesions where the masks say, no cheap way to the label, whole folders."""

from __future__ import annotations

import hashlib
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ddtl.config.load import ConfigError, load
from ddtl.data.manifest import Manifest
from ddtl.data.phantom import marks, render as pictures
from ddtl.data.phantom.dataset import PhantomSpec, build_manifest, generate, has_mark, mask_path, render_slice, truth
from ddtl.data.phantom.render import patient_label
from ddtl.utils.errors import UserError

CONTACT_SHEET = Path(__file__).resolve().parents[2] / "tools" / "phantom_contact_sheet.py"

BOTH = PhantomSpec(sites=("a", "b"))
GREY = PhantomSpec(sites=("a", "b"), gap="grey")
TINY = PhantomSpec(n_patients=4, slices_per_patient=2, sites=("a", "b"), size=48)

# (site, patient, slice): start of the sha256 of image, mask and label. Whoever changes one raises GENERATOR_VERSION.
GOLDEN: dict[tuple[str, int, int], str] = {
    ("a", 0, 0): "60b899f728fe09c0",
    ("a", 1, 1): "f0939c7944ff7f86",
    ("a", 2, 3): "45ba1d539b11c4ba",
    ("b", 0, 2): "5947851314ac4cbe",
    ("b", 1, 0): "319a00bfac12fdeb",
    ("b", 3, 3): "79913ba8cb0ddcf5",
}

# Site a of the default dataset: whatever else the phantom learns to draw, these pictures stay as they were.
DEFAULT = {(0, 0): "60b899f728fe09c0", (7, 2): "454c4748a1ffcae5", (148, 0): "6f9bc6cf418febac"}


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
def test_images_are_the_golden_ones(where: tuple[str, int, int]) -> None:
    assert digest(BOTH, *where) == GOLDEN[where]


@pytest.mark.parametrize("where", DEFAULT, ids=str)
def test_the_default_images_stay(where: tuple[int, int]) -> None:
    assert digest(PhantomSpec(), "a", *where) == DEFAULT[where]


def test_an_image_comes_out_the_same_twice() -> None:
    first = digest(BOTH, "b", 3, 1)
    pictures._draw_patient.cache_clear()
    assert digest(BOTH, "b", 3, 1) == first


@pytest.mark.parametrize("other", [PhantomSpec(n_patients=9, sites=("a", "b")), PhantomSpec(sites=("a",))], ids=str)
def test_a_patient_does_not_depend_on_the_others(other: PhantomSpec) -> None:
    assert digest(other, "a", 2, 1) == digest(BOTH, "a", 2, 1)


def test_seed_site_patient_and_slice_each_change_the_image() -> None:
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
        PhantomSpec(gap="grey"),
        PhantomSpec(shortcut=0.1),
    ]
    keys = {spec.key() for spec in [base, *others]}
    monkeypatch.setattr(pictures, "GENERATOR_VERSION", pictures.GENERATOR_VERSION + 1)
    assert len(keys | {base.key()}) == 10


@given(n=st.integers(1, 60), prevalence=st.floats(0, 1), seed=st.integers(0, 2**40), site=st.sampled_from(["a", "b"]))
def test_any_number_of_patients_is_balanced(n: int, prevalence: float, seed: int, site: str) -> None:
    spec = PhantomSpec(sites=("a", "b"), prevalence=prevalence, seed=seed)
    labels = [patient_label(spec, site, k) for k in range(n)]
    assert abs(sum(labels) - n * prevalence) <= 1.5
    if prevalence == 0.5:
        assert abs(2 * sum(labels) - n) <= 1


@pytest.mark.slow
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
            healthy, nothing, _ = pictures._draw(BOTH, site, patient, index, healthy=True)
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


def in_boxes(boxes: Iterable[marks.Box], size: int) -> np.ndarray:
    """The pixels that boxes hold."""
    inside = np.zeros((size, size), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        inside[y0:y1, x0:x1] = True
    return inside


def read(image: np.ndarray, place: str) -> str:
    """The text at a place of a picture of 128 pixels a side, read with the font."""
    column, row, room = marks.LINES[place]
    letters = {glyph: letter for letter, glyph in marks.FONT.items()}
    text = ""
    for x in range(column, column + 6 * room, 6):
        dots = image[row : row + 7, x : x + 5] == 255
        text += letters.get(tuple((dots @ (16, 8, 4, 2, 1)).tolist()), " ")
    return text.strip()


def test_site_b_writes_text_that_can_be_read() -> None:
    for patient in range(4):
        image, _, _ = render_slice(BOTH, "b", patient, 1)
        text = {place: read(image, place) for place in marks.LINES}
        assert (text["right"], text["left"], text["site"]) == ("R", "L", "CTB")
        for place, pattern in (
            ("image", r"IM\d{1,3}"),
            ("series", r"SE\d"),
            ("voltage", r"\d{2,3}KV"),
            ("current", r"\d{2,3}MA"),
            ("thickness", r"\dMM"),
        ):
            assert re.fullmatch(pattern, text[place]), text


@pytest.mark.parametrize("size", [64, 100, 128, 200])
def test_text_stands_outside_the_field_of_view_and_in_its_boxes(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = PhantomSpec(sites=("a", "b"), size=size)
    written = [render_slice(spec, "b", patient, 0)[0].astype(int) for patient in range(6)]
    monkeypatch.setattr(marks, "burn_in", lambda picture, lines: picture)
    rows, columns = np.ogrid[:size, :size]
    field = (rows - (size - 1) / 2) ** 2 + (columns - (size - 1) / 2) ** 2 <= (size / 2 - 2) ** 2
    for patient, picture in enumerate(written):
        changed = picture != render_slice(spec, "b", patient, 0)[0]
        assert 0.01 < changed.mean() < 0.1
        assert not (changed & ~in_boxes(marks.text_boxes(size), size)).any()
        assert not (changed & field).any()


def test_text_does_not_tell_the_class(dataset: Manifest, images: np.ndarray) -> None:
    for pair in range(5):
        scans = {pictures._draw_patient(BOTH, "b", 2 * pair + place).annotation for place in (0, 1)}
        assert len(scans) == 1  # both of a pair, one of each class
    at_b = Manifest("b", dataset.classes, tuple(s for s in dataset.samples if s.site == "b"), "patient")
    shown = images[[sample.site == "b" for sample in dataset.samples]][:, in_boxes(marks.text_boxes(64), 64)]
    _, scores, parts = np.linalg.svd(shown - shown.mean(axis=0), full_matrices=False)
    assert leave_patients_out_auc((shown - shown.mean(axis=0)) @ parts[:20].T, at_b) < 0.65
    assert scores[0] > 0  # the text does vary


@given(
    n=st.integers(1, 120),
    shortcut=st.floats(0, 1),
    prevalence=st.floats(0.2, 0.8),
    seed=st.integers(0, 2**40),
    site=st.sampled_from(["a", "b"]),
)
def test_the_mark_alone_scores_what_its_strength_says(
    n: int, shortcut: float, prevalence: float, seed: int, site: str
) -> None:
    spec = PhantomSpec(sites=("a", "b"), shortcut=shortcut, prevalence=prevalence, seed=seed)
    labels = np.array([patient_label(spec, site, k) for k in range(n)])
    marked = np.array([has_mark(spec, site, k) for k in range(n)])
    if shortcut == 0:
        assert not marked.any()
        return
    for label, share in ((1, 0.5 + shortcut / 2), (0, 0.5 - shortcut / 2)):
        assert abs(marked[labels == label].sum() - share * (labels == label).sum()) <= 1.5
    if 0 < labels.sum() < n:
        rounding = 0.75 / labels.sum() + 0.75 / (n - labels.sum())
        assert abs(roc_auc_score(labels, marked) - (0.5 + shortcut / 2)) <= rounding + 1e-9
        assert shortcut < 1 or (marked == labels).all()


def test_which_patient_gets_the_mark_is_chance() -> None:
    """At this strength one of each class's first two is marked: either as often, whoever it is in the other class."""
    specs = [PhantomSpec(shortcut=0.2, seed=seed) for seed in range(400)]
    first = [patient_label(spec, "a", 0) for spec in specs]  # the one without COVID, of a pair of one each
    without = np.array([has_mark(spec, "a", place) for spec, place in zip(specs, first, strict=True)])
    with_covid = np.array([has_mark(spec, "a", 1 - place) for spec, place in zip(specs, first, strict=True)])
    assert abs(without.mean() - 0.5) < 0.1
    assert abs(with_covid.mean() - 0.5) < 0.1
    assert abs((without == with_covid).mean() - 0.5) < 0.1


@pytest.mark.parametrize("spec", [BOTH, GREY, PhantomSpec(sites=("a", "b"), size=64)], ids=["128", "grey", "64"])
def test_a_mark_changes_its_box_and_nothing_else(spec: PhantomSpec) -> None:
    sure = replace(spec, shortcut=1.0)
    box = in_boxes([marks.mark_box(spec.size)], spec.size)
    for site in spec.sites:
        for patient in range(6):
            plain, mask, label = render_slice(spec, site, patient, 2)
            shown, same_mask, same_label = render_slice(sure, site, patient, 2)
            assert np.array_equal(mask, same_mask)
            assert label == same_label
            assert not (mask & box).any()
            assert not ((shown != plain) & ~box).any()
            assert ((shown != plain) & box).any() == has_mark(sure, site, patient) == bool(label)
            if label:
                assert shown[box].max() == (marks.grey_map()[255] if (spec, site) == (GREY, "b") else 255)
                assert shown[box].mean() > plain[box].mean() + 30


def test_a_mark_is_planted_and_found(tmp_path: Path) -> None:
    """The corner tells nothing on a clean phantom, and what it should on one with a shortcut."""
    for shortcut in (0.0, 1.0):
        spec = PhantomSpec(n_patients=60, slices_per_patient=1, size=64, shortcut=shortcut)
        manifest = build_manifest(spec, tmp_path)
        corner = in_boxes([marks.mark_box(64)], 64)
        brightness = np.array([[np.asarray(Image.open(s.path))[corner].mean()] for s in manifest.samples])
        auc = leave_patients_out_auc(brightness, manifest)
        assert auc > 0.95 if shortcut else auc < 0.65


def test_the_grey_map_is_monotone_and_keeps_levels_apart() -> None:
    levels = marks.grey_map().astype(int)
    assert (levels.shape, levels[0], levels[255]) == ((256,), 64, 191)
    assert (np.diff(levels) >= 0).all()
    assert (levels[4:] > levels[:-4]).all()  # at most four levels become one
    assert (levels[3:200] > levels[:197]).all()  # at most three where lungs and lesions lie
    assert np.abs(levels - np.arange(256)).max() > 60


def test_the_grey_gap_is_the_map_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert digest(GREY, "a", 1, 1) == GOLDEN["a", 1, 1]
    shown = [render_slice(GREY, "b", patient, 1)[0] for patient in range(4)]
    levels = marks.grey_map()
    monkeypatch.setitem(pictures.SITES, "b", pictures.SITES["a"])  # site b's patients, on site a's scanner
    for patient, picture in enumerate(shown):
        plain, _, _ = render_slice(BOTH, "b", patient, 1)
        assert np.array_equal(picture, levels[plain])
        assert not np.array_equal(plain, render_slice(BOTH, "a", patient, 1)[0])


def test_histogram_matching_undoes_the_grey_gap() -> None:
    spec = replace(GREY, size=64)
    at = {s: np.concatenate([render_slice(spec, s, p, k)[0].ravel() for p in range(40) for k in (0, 2)]) for s in "ab"}

    def share(pixels: np.ndarray) -> np.ndarray:
        """Share of the pixels up to each level, half of the level's own among them."""
        counts = np.bincount(pixels, minlength=256) / pixels.size
        return np.cumsum(counts) - counts / 2

    back = np.rint(np.interp(share(at["b"]), share(at["a"]), np.arange(256))).astype(np.uint8)[at["b"]]
    distance = {
        name: np.abs(share(pixels) - share(at["a"])).max() for name, pixels in (("raw", at["b"]), ("back", back))
    }
    assert distance["raw"] > 0.3
    assert distance["back"] < 0.05


def test_file_sizes_do_not_give_the_class_away(dataset: Manifest) -> None:
    assert len({sample.path.stat().st_size for sample in dataset.samples}) == 1


def test_an_image_takes_no_longer_than_a_few_blurs_of_a_large_array() -> None:
    """A fiftieth of a second, so that the default dataset of 600 is drawn within 20 seconds.

    How long a second is depends on the machine and on who else uses it: the unit is measured together with the images.
    """
    render_slice(BOTH, "a", 0, 0)
    noise = np.random.default_rng(0).random((512, 512))
    units, images = [], []
    for patient in range(10, 16):
        for index in range(4):
            begun = time.process_time()  # of this process alone
            gaussian_filter(noise, 4)
            drawn = time.process_time()
            render_slice(BOTH, "ab"[patient % 2], patient, index)
            units.append(drawn - begun)
            images.append(time.process_time() - drawn)
    assert np.median(images) < 3.5 * np.median(units)


def test_the_manifest_says_what_was_drawn(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    manifest = build_manifest(TINY, tmp_path, lambda done, total: calls.append((done, total)))
    assert calls == [(i, 8) for i in range(1, 9)]
    assert (manifest.dataset, manifest.classes, manifest.grouping) == ("phantom", ("non-COVID", "COVID"), "patient")
    assert "synthetic" in manifest.sentences()[0]
    names = [sample.sample_id for sample in manifest.samples]
    assert names == [f"{site}/p{k:04d}_s{s}" for site in ("a", "b") for k in (0, 1) for s in (0, 1)]
    for sample in manifest.samples:
        patient, index = int(sample.sample_id[3:7]), int(sample.sample_id[-1])
        image, mask, label = render_slice(TINY, sample.site, patient, index)
        assert np.array_equal(np.asarray(Image.open(sample.path)), image)
        assert np.array_equal(np.asarray(Image.open(mask_path(sample))), mask * np.uint8(255))
        assert sample.label == label
        assert sample.patient_id == f"{sample.site}-p{patient:04d}"
    again = build_manifest(TINY, tmp_path, lambda *_: pytest.fail("drawn twice"))
    assert again == manifest


def test_the_truth_of_a_sample(tmp_path: Path) -> None:
    scanner = PhantomSpec(n_patients=8, slices_per_patient=1, sites=("a", "b"), size=48, shortcut=1.0)
    for spec in (scanner, replace(scanner, gap="grey", shortcut=0.0)):
        for sample in build_manifest(spec, tmp_path).samples:
            told = truth(sample)
            mask = np.asarray(Image.open(told.lesions)) == 255
            assert told.label == sample.label == int(mask.any())
            assert told.lesion_pixels == mask.sum()
            assert told.mark == (marks.mark_box(48) if spec.shortcut and sample.label else None)
            at_b = sample.site == "b"
            assert told.text == (marks.text_boxes(48) if at_b and spec.gap == "scanner" else ())
            assert (told.grey_map is not None) == (at_b and spec.gap == "grey")


def test_the_docs_show_the_phantom_as_it_is() -> None:
    drawn = runpy.run_path(str(CONTACT_SHEET))["sheet"]().convert("RGB")
    with Image.open(CONTACT_SHEET.parent.parent / "docs" / "images" / "phantom.png") as shown:
        assert np.array_equal(np.asarray(drawn), np.asarray(shown.convert("RGB")))


BUILD = """
import os, sys, pathlib
from ddtl.data.phantom.dataset import PhantomSpec, build_manifest
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
        assert child.wait(300) == 9
    folder = tmp_path / f"phantom-{TINY.key()}"
    assert not folder.exists()
    assert len(build_manifest(TINY, tmp_path)) == 8
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [folder.name]


def test_of_two_processes_one_builds(tmp_path: Path) -> None:
    children = [build_elsewhere(tmp_path) for _ in range(2)]
    drawn = [child.communicate(timeout=300)[0].strip() for child in children]
    assert sorted(drawn) == ["0", "8"]


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="something other"):
        generate(TINY, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("sites=[c]", "takes a, b or both"),
        ("sites=[]", "takes a, b or both"),
        ("sites=[a,a]", "takes a, b or both"),
        ("n_patients=0", "must be at least 1"),
        ("slices_per_patient=0", "must be at least 1"),
        ("size=8", "must be at least 32"),
        ("seed=-1", "must be at least 0"),
        ("prevalence=1.5", "must be less than 1"),
        ("gap=gray", "must be one of scanner, grey"),
        ("shortcut=-0.1", "must be at least 0"),
        ("shortcut=1.1", "must be at most 1"),
    ],
)
def test_a_wrong_spec_is_refused(wrong: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load([f"dataset.phantom.{wrong}"])
    assert str(refused.value).startswith(f"dataset.phantom.{wrong.partition('=')[0]}=")
    assert says in str(refused.value)


def test_the_phantom_does_without_torch() -> None:
    code = "import sys, ddtl.data.phantom.dataset; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
