"""The public datasets: index tables, finding files, and what is said when files are not there."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path

import pytest

from ddtl.config.load import load
from ddtl.data.datasets import covid19ct, registry, sarscov2ct
from ddtl.data.download.published import published_manifest, read_index
from ddtl.data.manifest import Manifest
from ddtl.utils.errors import UserError

BUILD_INDEX = Path(__file__).resolve().parents[2] / "tools" / "build_index.py"

Build = Callable[[Path], Manifest]
BUILDERS = [
    pytest.param(kind.ORIGIN.name, partial(published_manifest, kind.ORIGIN)) for kind in (covid19ct, sarscov2ct)
]


def make_empty_files(data_dir: Path, name: str) -> Path:
    """A folder with every file name of a dataset and no content."""
    root = data_dir / name
    for row in read_index(name):
        path = root / row.sample_id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


# ---- the index tables


def test_covid19ct_index_has_a_patient_a_site_and_a_split_for_every_image() -> None:
    rows = read_index("covid19ct")
    assert Counter(row.label for row in rows) == {1: 349, 0: 397}
    assert len({row.patient_id for row in rows if row.label == 1}) == 213
    assert len({row.patient_id for row in rows if row.label == 0}) == 171
    assert {row.patient_id for row in rows if row.label == 1}.isdisjoint(
        row.patient_id for row in rows if row.label == 0
    )
    assert Counter(row.site for row in rows) == {"preprint": 286, "journal": 63, "crawled": 202, "medpix": 195}
    assert Counter(row.split for row in rows) == {"train": 425, "val": 118, "test": 203}
    assert all(row.cluster_id is None for row in rows)


def test_covid19ct_journal_figures_are_all_in_the_official_test_part() -> None:
    assert {row.split for row in read_index("covid19ct") if row.site == "journal"} == {"test"}


def test_sarscov2ct_index_has_clusters_but_no_patients() -> None:
    rows = read_index("sarscov2ct")
    assert Counter(row.label for row in rows) == {1: 1252, 0: 1229}
    assert all(row.patient_id is None and row.split is None for row in rows)
    clusters = Counter(row.cluster_id for row in rows if row.cluster_id)
    assert Counter(clusters.values()) == {2: 58, 3: 6, 4: 2}


def test_sarscov2ct_images_with_equal_bytes_share_a_cluster() -> None:
    rows = read_index("sarscov2ct")
    times = Counter(row.sha256 for row in rows)
    twice = [row for row in rows if times[row.sha256] > 1]
    assert {row.sample_id for row in twice} == {f"COVID/Covid ({n}).png" for n in (128, 129, 134, 135)}
    for digest in {row.sha256 for row in twice}:
        clusters = {row.cluster_id for row in twice if row.sha256 == digest}
        assert len(clusters) == 1
        assert None not in clusters


@pytest.mark.parametrize("name", ["covid19ct", "sarscov2ct"])
def test_index_rows_are_sorted_unique_and_whole(name: str) -> None:
    rows = read_index(name)
    ids = [row.sample_id for row in rows]
    assert ids == sorted(set(ids))
    assert all(len(row.sha256) == 64 and row.size > 0 for row in rows)


@pytest.mark.parametrize("name", ["covid19ct", "sarscov2ct"])
def test_every_image_has_a_difference_hash_of_its_own(name: str) -> None:
    """Twins apart: images with equal bytes in sarscov2ct."""
    rows = read_index(name)
    assert all(40 < row.dhash.bit_count() < 216 for row in rows)  # no blank picture
    assert len({row.dhash for row in rows}) == len({row.sha256 for row in rows})


@pytest.mark.slow
@pytest.mark.realdata
def test_build_index_reproduces_the_shipped_tables(real_data: Path, original_index: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(BUILD_INDEX), "--data", str(real_data), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    for name in ("covid19ct.csv", "sarscov2ct.csv"):
        shipped = resources.files("ddtl.data").joinpath("index", name).read_bytes()
        assert (tmp_path / name).read_bytes() == shipped, name


# ---- the real images


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "build"), BUILDERS)
def test_every_real_image_is_found_where_the_manifest_says(name: str, build: Build, real_data: Path) -> None:
    manifest = build(real_data)
    assert manifest.dataset == name
    assert len(manifest) == len(read_index(name))
    assert all(sample.path.is_file() for sample in manifest.samples)


# ---- folders with every name


@pytest.mark.parametrize(("name", "build"), BUILDERS)
def test_manifest_of_a_complete_folder(
    name: str, build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_empty_files(tmp_path, name)
    manifest = build(tmp_path)
    assert manifest.classes == ("non-COVID", "COVID")
    assert manifest.positive == "COVID"
    assert [sample.sample_id for sample in manifest.samples] == [row.sample_id for row in read_index(name)]
    assert all(sample.path == tmp_path / name / sample.sample_id for sample in manifest.samples)
    assert all(sample.split is None for sample in manifest.samples)
    assert manifest.notes
    assert not caplog.records


def test_covid19ct_is_grouped_by_patient_and_carries_the_published_split(tmp_path: Path) -> None:
    make_empty_files(tmp_path, "covid19ct")
    manifest = published_manifest(covid19ct.ORIGIN, tmp_path)
    by_id = {sample.sample_id: sample for sample in manifest.samples}
    assert manifest.grouping == "patient"
    assert manifest.published is not None
    assert by_id["CT_COVID/kjr-21-e24-p5-29.png"].group == "COVID Patient 195"
    assert manifest.published["CT_COVID/kjr-21-e24-p5-29.png"] == "test"
    assert by_id["CT_NonCOVID/71%0.jpg"].group == "crawled_patient_71"
    assert manifest.published["CT_NonCOVID/71%0.jpg"] == "train"
    notes = manifest.with_splits({}, "official").sentences()
    assert any("kjr-21-e24-p5-29.png" in note and "71%0.jpg" in note for note in notes)


def test_sarscov2ct_is_grouped_by_near_duplicates_and_says_so(tmp_path: Path) -> None:
    make_empty_files(tmp_path, "sarscov2ct")
    manifest = published_manifest(sarscov2ct.ORIGIN, tmp_path)
    assert manifest.grouping == "near_duplicate"
    assert not manifest.published
    assert "no patients" in manifest.sentences()[0]


# ---- what goes wrong


@pytest.mark.parametrize(("name", "build"), BUILDERS)
@pytest.mark.parametrize("folders", ["none", "dataset", "classes", "file"])
def test_absent_images_are_one_error_with_the_ways_on(name: str, build: Build, folders: str, tmp_path: Path) -> None:
    root = tmp_path / name
    if folders == "dataset":
        root.mkdir()
    elif folders == "classes":
        for row in read_index(name):
            (root / row.sample_id).parent.mkdir(parents=True, exist_ok=True)
    elif folders == "file":
        root.touch()
    with pytest.raises(UserError) as caught:
        build(tmp_path)
    message = str(caught.value)
    assert str(root) in message
    for hint in (
        "paths.data_dir=", "DDTL_DATA ", f"{name}/", "https://github.com/", "commit", "dataset=phantom",
        f"`ddtl data fetch {name}`", f"`ddtl data fetch {name} from=ARCHIVE.zip`",
        "paths.data_mirror=", "DDTL_DATA_MIRROR",
    ):  # fmt: skip
        assert hint in message
    assert "itself contains" not in message


def test_sarscov2ct_error_names_the_kaggle_dataset_and_the_layout(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="plameneduardo/sarscov2-ctscan-dataset") as caught:
        published_manifest(sarscov2ct.ORIGIN, tmp_path)
    assert "sarscov2ct/COVID/ and sarscov2ct/non-COVID/" in str(caught.value)


def test_a_folder_given_one_level_too_deep_is_recognised(tmp_path: Path) -> None:
    root = make_empty_files(tmp_path, "covid19ct")
    with pytest.raises(UserError, match="itself contains CT_COVID/"):
        published_manifest(covid19ct.ORIGIN, root)


def test_missing_files_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    root = make_empty_files(tmp_path, "sarscov2ct")
    for number in (7, 70, 71, 72, 700):
        (root / "non-COVID" / f"Non-Covid ({number}).png").unlink()
    with pytest.raises(UserError) as caught:
        published_manifest(sarscov2ct.ORIGIN, tmp_path)
    message = str(caught.value)
    assert "5 of 2481 images are missing" in message
    assert "'non-COVID/Non-Covid (7).png', 'non-COVID/Non-Covid (70).png'" in message
    assert "and 2 more" in message
    assert str(root) in message


def test_a_missing_class_folder_counts_as_missing_files(tmp_path: Path) -> None:
    root = make_empty_files(tmp_path, "covid19ct")
    (root / "CT_COVID").rename(root / "elsewhere")
    with pytest.raises(UserError, match="349 of 746 images are missing"):
        published_manifest(covid19ct.ORIGIN, tmp_path)


def test_a_name_that_differs_in_case_is_missing(tmp_path: Path) -> None:
    root = make_empty_files(tmp_path, "covid19ct")
    (root / "CT_NonCOVID" / "71%0.jpg").rename(root / "CT_NonCOVID" / "71%0.JPG")
    with pytest.raises(UserError, match=r"1 of 746 images are missing .*'CT_NonCOVID/71%0\.jpg'\."):
        published_manifest(covid19ct.ORIGIN, tmp_path)


def test_extra_images_are_ignored_with_a_warning(tmp_path: Path) -> None:
    root = make_empty_files(tmp_path, "sarscov2ct")
    for name in ("Non-Covid (151).png", "zzz.jpg", "Thumbs.db", ".DS_Store"):
        (root / "non-COVID" / name).touch()
    manifest = published_manifest(sarscov2ct.ORIGIN, tmp_path)
    assert len(manifest) == 2481
    (doubt,) = manifest.doubts()
    assert "2 image files" in doubt
    assert "Non-Covid (151).png" in doubt


def test_a_class_map_renames_the_classes_of_a_public_dataset(tmp_path: Path) -> None:
    make_empty_files(tmp_path, "covid19ct")
    words = ["dataset=covid19ct", f"paths.data_dir={tmp_path}", "dataset.class_map={COVID: ill, non-COVID: well}"]
    manifest = registry.build(load(words))
    assert manifest.classes == ("well", "ill")
    assert {manifest.classes[s.label] for s in manifest.samples if s.sample_id.startswith("CT_COVID/")} == {"ill"}
