"""Duplicates: planted copies are found with their transform, other slices of a patient not; real pairs as labelled."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image, ImageEnhance

from ddtl.audits.alignment import Fit, align
from ddtl.audits.duplicates import clusters, leaks
from ddtl.audits.fingerprints import decode
from ddtl.audits.pairs import Pair, find
from ddtl.data.datasets import covid19ct, sarscov2ct
from ddtl.data.download.published import published_manifest
from ddtl.data.images.perceptual_hash import TRANSFORMS, difference_hash, orientation_hashes, turned, words
from ddtl.data.manifest import Manifest, Sample
from ddtl.data.phantom import dataset

LABELS = Path(__file__).resolve().parents[1] / "support" / "sarscov2ct_pairs.csv"

COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller.png": lambda image: image.resize((96, 96), Image.Resampling.BICUBIC),
    "larger.png": lambda image: image.resize((300, 260), Image.Resampling.BICUBIC),
    "brighter.png": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "less contrast.png": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "cropped.png": lambda image: image.crop((6, 4, image.width - 5, image.height - 6)),
    "cropped on a side.png": lambda image: image.crop((0, 0, image.width - 9, image.height)),
    "in colour.png": lambda image: image.convert("RGB"),
    "again.jpg": lambda image: image,
    **{
        f"{name}.png": lambda image, name=name: Image.fromarray(np.ascontiguousarray(turned(np.asarray(image), name)))
        for name in TRANSFORMS[1:]
    },
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    spec = dataset.PhantomSpec(n_patients=30, slices_per_patient=4, size=160, seed=3)
    return dataset.build_manifest(spec, tmp_path_factory.mktemp("phantom"))


def manifest_of(name: str, samples: list[Sample], classes: tuple[str, ...] = ("a", "b")) -> Manifest:
    return Manifest(name, classes, tuple(samples), "none")


def key(pair: Pair) -> frozenset[tuple[str, str]]:
    return frozenset((pair.first, pair.second))


def test_slices_of_one_patient_are_no_duplicates(clean: Manifest) -> None:
    assert find([clean]) == []


def test_planted_copies_are_found_with_what_was_done_to_them(clean: Manifest, tmp_path: Path) -> None:
    planted = {}
    for number, (name, change) in enumerate(COPIES.items()):
        original = clean.samples[7 * number]
        with Image.open(original.path) as image:
            change(image.convert("L")).save(tmp_path / name, quality=60)
        planted[name] = original
    copies = manifest_of("copies", [Sample(name, tmp_path / name, 0) for name in COPIES])
    found = {pair.first[1]: pair for pair in find([clean, copies])}
    assert {name: pair.second for name, pair in found.items()} == {
        name: ("phantom", original.sample_id) for name, original in planted.items()
    }
    for name, pair in found.items():
        done = Path(name).stem
        # The copy is the first of the pair; what turned the original into it turns the second into the first.
        assert pair.transform == (done if done in TRANSFORMS else "none"), name
        assert pair.kind == ("same pixels" if name == "in colour.png" else "near"), name
        assert pair.similarity >= 0.935


def test_equal_files_and_equal_pixels(clean: Manifest, tmp_path: Path) -> None:
    original = clean.samples[0]
    with Image.open(original.path) as image:
        image.save(tmp_path / "pixels.bmp")
    for name in ("b.png", "c.png", "d.png"):
        (tmp_path / name).write_bytes(original.path.read_bytes())
    names = ("b.png", "c.png", "d.png", "pixels.bmp")
    pairs = find([manifest_of("copies", [Sample(name, tmp_path / name, 0) for name in names])])
    first = ("copies", "b.png")
    assert [(pair.first, pair.second[1], pair.kind) for pair in pairs] == [
        (first, "c.png", "same file"),
        (first, "d.png", "same file"),
        (first, "pixels.bmp", "same pixels"),
    ]
    assert clusters(pairs) == [frozenset(("copies", name) for name in names)]


def test_even_and_damaged_images_are_passed_over(tmp_path: Path) -> None:
    for level in range(5):
        Image.new("L", (40 + level, 40), 10 * level).save(tmp_path / f"{level}.png")
    (tmp_path / "5.png").write_bytes(b"")
    manifest = manifest_of("toy", [Sample(f"{i}.png", tmp_path / f"{i}.png", 0) for i in range(6)])
    pictures = decode([manifest])
    assert dict(pictures.bad) == {("toy", "5.png"): "is empty (0 bytes)"}
    assert [file.width for file in pictures.files] == [40, 41, 42, 43, 44]
    assert find([manifest], fingerprints=pictures) == []


def test_nothing_but_damaged_images(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    assert find([manifest_of("toy", [Sample("x.png", tmp_path / "x.png", 0)])]) == []


def length(data: bytes, gray: Image.Image) -> tuple[int, tuple[int, int]]:
    return len(data), gray.size


@pytest.mark.slow
def test_two_processes_decode_as_one_does(clean: Manifest) -> None:
    told: list[tuple[int, int]] = []
    one = decode([clean], processes=1, measure=length)
    two = decode([clean], lambda done, total: told.append((done, total)), processes=2, measure=length)
    assert told == [(i + 1, 120) for i in range(120)]
    assert (one.keys, one.files, one.measured) == (two.keys, two.files, two.measured)
    for name in ("hashes", "trimmed", "thumbnails"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert one.measured[0] == (clean.samples[0].path.stat().st_size, (160, 160))


def test_the_hash_of_a_turned_image_is_known_from_the_upright_one(clean: Manifest) -> None:
    with Image.open(clean.samples[5].path) as image:
        gray = image.convert("L")
    hashes = orientation_hashes(gray)
    assert hashes[0].tolist() == list(words(difference_hash(gray)))
    for row, name in zip(hashes, TRANSFORMS, strict=True):
        image = Image.fromarray(np.ascontiguousarray(turned(np.asarray(gray), name)))
        again = np.array(words(difference_hash(image)), dtype=np.uint64)
        # Pillow rounds to whole gray levels after each axis, which may turn the bits of equal neighbours.
        assert np.bitwise_count(row ^ again).sum() <= 6, name


@given(st.floats(0.9, 1.1), st.floats(0.9, 1.1), st.floats(-0.05, 0.05), st.floats(-0.05, 0.05))
def test_a_known_fit_is_found(x_scale: float, y_scale: float, x_offset: float, y_offset: float) -> None:
    def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        waves = np.sin(3 * x + 1) + np.cos(4 * y) + np.sin(5 * x * y + 2 * x) + np.cos(2 * (x + y) ** 2)
        return (100 + 25 * waves).clip(0, 255).astype(np.uint8)

    centres = (2 * np.arange(64) + 1) / 64 - 1
    x, y = centres[None], centres[:, None]
    fit = align(scene(x_scale * x + x_offset, y_scale * y + y_offset), scene(x, y))
    assert fit is not None
    assert (fit.x_scale, fit.x_offset, fit.y_scale, fit.y_offset) == pytest.approx(
        (x_scale, x_offset, y_scale, y_offset), abs=0.01
    )


def test_equal_images_fit_as_they_are(clean: Manifest) -> None:
    pictures = decode([clean])
    fit = align(pictures.thumbnails[0], pictures.thumbnails[0])
    assert fit is not None
    assert astuple(fit) == pytest.approx(astuple(Fit()), abs=1e-6)


def pair(first: str, second: str) -> Pair:
    """``dataset/sample`` twice."""
    a, b = (tuple(name.split("/")) for name in sorted((first, second)))
    return Pair(a, b, "near", "none", 3, 0.99)  # type: ignore[arg-type]


def test_what_duplicates_break() -> None:
    def sample(name: str, label: int, split: str | None, patient: str | None = None) -> Sample:
        return Sample(name, Path(name), label, patient, split=split)

    one = manifest_of(
        "one",
        [
            sample("a", 0, "train", "p"), sample("b", 0, "test", "p"), sample("c", 1, "test"),
            sample("d", 0, "val", "q"), sample("e", 0, None, "p"), sample("f", 0, "test", "q"),
            sample("g", 0, "test", "r"), sample("h", 0, "test"),
        ],
    )  # fmt: skip
    two = replace(manifest_of("two", [sample("z", 0, "train")]), classes=("b", "a"))
    three = manifest_of("three", [sample("y", 0, "test")], ("other", "b"))
    across = pair("one/a", "one/b")
    conflict = pair("one/b", "one/c")
    unsplit = pair("one/a", "one/e")
    tests = pair("one/g", "one/h")
    other_name = pair("one/d", "two/z")  # class a there, b here, whatever their numbers
    unknown = pair("one/d", "three/y")
    found = leaks([across, conflict, unsplit, tests, other_name, unknown], [one, two, three])
    assert found.across_splits == (across,)
    assert found.across_labels == (conflict, other_name)
    assert found.across_datasets == (other_name, unknown)
    assert found.patients == {"one": {"p": ("train", "test"), "q": ("val", "test")}, "two": {}, "three": {}}
    assert found.test_images == {"one": 2, "two": 0, "three": 0}  # b directly, c through b; g and h are both test
    assert found.tests == {"one": 5, "two": 0, "three": 1}


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=30))
def test_clusters_are_connected_components(edges: list[tuple[int, int]]) -> None:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = [edge for edge in edges if edge[0] != edge[1]]
    found = clusters([pair(f"d/{a:02}", f"d/{b:02}") for a, b in edges])
    a, b = np.array(edges, dtype=int).reshape(-1, 2).T
    _, labels = connected_components(coo_array((np.ones(len(a)), (a, b)), shape=(13, 13)), directed=False)
    members = [frozenset(("d", f"{i:02}") for i in np.flatnonzero(labels == label)) for label in set(labels)]
    assert set(found) == {group for group in members if len(group) > 1}
    assert [len(group) for group in found] == sorted(map(len, found), reverse=True)


@pytest.mark.realdata
@pytest.mark.slow
def test_pairs_of_the_real_datasets(real_data: Path) -> None:
    manifests = [published_manifest(covid19ct.ORIGIN, real_data), published_manifest(sarscov2ct.ORIGIN, real_data)]
    pairs = find(manifests)
    found = {key(pair) for pair in pairs}
    conflicts = {tuple(name for _, name in sorted(key(pair))) for pair in leaks(pairs, manifests).across_labels}
    assert conflicts == {
        ("CT_COVID/kjr-21-e24-p5-29.png", "CT_NonCOVID/71%0.jpg"),
        ("CT_COVID/kjr-21-e24-p5-31.png", "CT_NonCOVID/71%1.jpg"),
    }
    assert {tuple(name for _, name in sorted(key(pair))) for pair in pairs if pair.kind == "same file"} == {
        ("COVID/Covid (128).png", "COVID/Covid (129).png"),
        ("COVID/Covid (134).png", "COVID/Covid (135).png"),
    }
    sarscov = [pair for pair in pairs if pair.first[0] == pair.second[0] == "sarscov2ct"]
    assert sum(pair.kind == "near" for pair in sarscov) >= 200
    with LABELS.open(newline="") as file:
        labelled = list(csv.DictReader(file))
    label = {frozenset((("sarscov2ct", r["first"]), ("sarscov2ct", r["second"]))): r["label"] for r in labelled}
    judged = [label[pair] for pair in found & label.keys()]
    assert len(judged) >= 95
    assert judged.count("same") / len(judged) >= 0.95
    same = [pair for pair, shown in label.items() if shown == "same"]
    assert sum(pair in found for pair in same) / len(same) >= 0.85
