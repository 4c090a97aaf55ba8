"""A person's own images: class folders, tables, patients, folds, and what is said about mistakes in them."""

from __future__ import annotations

import csv
import json
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddtl.config.load import load
from ddtl.data.datasets import covid19ct, folder, table
from ddtl.data.download.published import published_manifest
from ddtl.data.loading.datamodule import CTDataModule
from ddtl.data.manifest import Manifest
from ddtl.data.splits.protocols import assign, describe
from ddtl.reports.run.publish import publish
from ddtl.training.train import train
from ddtl.utils.errors import UserError
from ddtl.utils.files import write_csv

QUICK = (
    "model=squeezenet1_1",
    "model.weights=none",
    "finetune=full",
    "logger=none",
    "dataset.image_size=32",
    "dataset.batch_size=4",
    "trainer.max_epochs=1",
)


def draw(path: Path, seed: int = 0) -> Path:
    """A small gray picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 10), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG")
    return path


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def from_folder(
    root: Path, classes: Sequence[str] | None = None, regex: str | None = None, patients: Path | None = None
) -> Manifest:
    return folder.build_manifest("mine", root, classes, regex, patients)


def write(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def from_table(path: Path, classes: Sequence[str] | None = None, root: Path | None = None) -> Manifest:
    return table.build_manifest("mine", path, root or path.parent, classes)


def ids(manifest: Manifest) -> list[str]:
    return [sample.sample_id for sample in manifest.samples]


def patients_of(manifest: Manifest) -> dict[str, str | None]:
    return {sample.sample_id: sample.patient_id for sample in manifest.samples}


def mistake(build: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        build(*arguments, **options)
    return str(caught.value)


# ---- class folders


def test_folders_are_classes_and_paths_are_ids(tmp_path: Path) -> None:
    root = touch(
        tmp_path, "normal/b.PNG", "normal/P2/deep/a.jpg", "covid/x y.png", "covid/søren, 研究 (1).tif", "n.txt"
    )
    manifest = from_folder(root)
    assert manifest.classes == ("normal", "covid"), "the one that is named as healthy is not the positive one"
    assert ids(manifest) == ["covid/søren, 研究 (1).tif", "covid/x y.png", "normal/P2/deep/a.jpg", "normal/b.PNG"]
    assert [sample.label for sample in manifest.samples] == [1, 1, 0, 0]
    assert [sample.path for sample in manifest.samples] == [root / name for name in ids(manifest)]
    assert (manifest.dataset, manifest.grouping, manifest.positive) == ("mine", "none", "covid")


def test_classes_choose_folders_and_their_order(tmp_path: Path) -> None:
    root = touch(tmp_path, "covid/1.png", "flu/1.png", "normal/1.png", "notes/readme.txt")
    assert from_folder(root, ["normal", "covid"]).classes == ("normal", "covid")
    three = from_folder(root, ["normal", "flu", "covid"])
    assert [(s.sample_id, s.label) for s in three.samples] == [
        ("covid/1.png", 2),
        ("flu/1.png", 1),
        ("normal/1.png", 0),
    ]


def test_the_positive_class_is_reported_where_the_names_decide_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ddtl")
    root = touch(tmp_path, "covid/1.png", "no finding/1.png")
    from_folder(root)
    assert caplog.messages == ["mine: the positive class is covid, and no finding the negative one."]
    caplog.clear()
    from_folder(root, ["no finding", "covid"])
    assert caplog.messages == []


def test_what_systems_leave_is_passed_over(tmp_path: Path) -> None:
    kept = touch(tmp_path, "a/1.png", "b/1.png")
    touch(kept, "a/.hidden.png", "a/._1.png", "a/.cache/1.png", "a/__MACOSX/1.png", "a/@eaDir/1.png", "a/Thumbs.db")
    touch(kept, ".git/1.png", "__MACOSX/1.png", "b/notes.txt")
    assert ids(from_folder(kept)) == ["a/1.png", "b/1.png"]


def test_images_beside_the_class_folders_are_noted(tmp_path: Path) -> None:
    manifest = from_folder(touch(tmp_path, "a/1.png", "b/1.png", "2.png"), ["a", "b"])
    assert manifest.doubts() == ["Next to the class folders is 1 image: not used. ('2.png')"]
    assert manifest.named() == {manifest.sentences()[0]: "'2.png'"}


def test_links_are_followed_once(tmp_path: Path) -> None:
    root, elsewhere = touch(tmp_path / "root", "a/1.png", "b/1.png"), touch(tmp_path / "elsewhere", "2.png")
    (root / "a" / "more").symlink_to(elsewhere)
    (root / "a" / "more again").symlink_to(elsewhere)
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "other class").symlink_to(root / "b")
    (elsewhere / "round").symlink_to(elsewhere)
    (root / "b" / "3.png").symlink_to(elsewhere / "2.png")
    (root / "b" / "gone.png").symlink_to(root / "nothing")
    assert ids(from_folder(root)) == ["a/1.png", "a/more/2.png", "b/1.png", "b/3.png", "b/gone.png"]


def test_ids_are_the_same_whichever_system_took_the_letters_apart(tmp_path: Path) -> None:
    composed = touch(tmp_path / "linux", "café/é.png", "b/1.png")
    apart = touch(tmp_path / "mac", "cafe\u0301/e\u0301.png", "b/1.png")
    first, second = (from_folder(root, ["b", "café"]) for root in (composed, apart))
    assert ids(first) == ids(second)
    assert first.classes == second.classes == ("b", "café")
    assert second.samples[1].path.exists()


def test_names_that_would_break_a_table_come_back_from_one(tmp_path: Path) -> None:
    root = touch(tmp_path / "images", 'a/1\n2,"3".png', "b/1;2\t3.png")
    names = ids(from_folder(root))
    write_csv(tmp_path / "p.csv", ("sample_id", "patient_id"), [(name, f"p{i}") for i, name in enumerate(names)])
    manifest = from_folder(root, patients=tmp_path / "p.csv")
    assert patients_of(manifest) == {'a/1\n2,"3".png': "p0", "b/1;2\t3.png": "p1"}


@pytest.mark.parametrize(
    ("names", "classes", "words"),
    [
        (["a/1.png", "b/x.txt", "b/y.dcm", "b/z.dcm"], None, ["b contains no image", "2 × .dcm, 1 × .txt", "put its"]),
        (
            ["a/1.png", "b/1.png", "lists/x.txt"],
            None,
            ["lists contains no image", "remove it", "dataset.classes=[a,b]"],
        ),
        (["a/1.png", "b/.1.png"], ["a", "b"], ["b contains no image", "put its images there"]),
        (["a/1.png", "b/1.png"], ["a", "bb"], ["has no folder 'bb'", "Did you mean b?", "There are a, b."]),
        (["a/1.png"], None, ["two classes or more; it has a"]),
        (["1.png", "2.png"], None, ["two classes or more; it has no folder"]),
        (["train/a/1.png", "test/a/1.png"], None, ["test, train look like splits", "dataset=table"]),
    ],
)
def test_folders_that_are_no_classes(
    tmp_path: Path, names: list[str], classes: list[str] | None, words: list[str]
) -> None:
    message = mistake(from_folder, touch(tmp_path, *names), classes)
    assert all(word in message for word in words), message


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "b/1.png")
    try:
        (root / "b" / os.fsdecode(b"\xff.png")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    assert "not UTF-8. Rename it" in mistake(from_folder, root)


# ---- patients of class folders


@pytest.mark.parametrize(
    ("regex", "patient"),
    [
        (r"P\d+", "P12"),
        (r"/P(\d+)_", "12"),
        (r"(covid|normal)/(?P<patient>P\d+)", "P12"),
        (r"^[^/]+/P\d+", "covid/P12"),
        (r"x?(y)?(P)", None),  # its first group takes part in no match
    ],
)
def test_patients_by_a_pattern(tmp_path: Path, regex: str, patient: str | None) -> None:
    root = touch(tmp_path, "covid/P12_1.png", "covid/P12_2.png", "normal/P3_1.png", "normal/yP4_1.png")
    manifest = from_folder(root, regex=regex)
    assert manifest.grouping == "patient"
    assert patients_of(manifest)["covid/P12_1.png"] == patients_of(manifest)["covid/P12_2.png"] == patient


def test_images_without_a_patient_are_noted(tmp_path: Path) -> None:
    manifest = from_folder(touch(tmp_path, "a/P1.png", "a/x.png", "b/P2.png", "b/y.png"), ["a", "b"], r"P\d")
    assert "finds no patient in 2 of 4 paths. ('a/x.png', 'b/y.png')" in manifest.doubts()[0]
    assert patients_of(manifest) == {"a/P1.png": "P1", "a/x.png": None, "b/P2.png": "P2", "b/y.png": None}
    assert describe(manifest)[0] == "2 images are without a patient id: each counts as a patient of its own"


def test_a_pattern_that_fits_nothing(tmp_path: Path) -> None:
    message = mistake(from_folder, touch(tmp_path, "a/1.png", "b/1.png"), None, r"P\d")
    assert "finds no patient in any of 2 paths, which look like 'a/1.png'" in message


def test_one_patient_in_two_classes_is_one_patient(tmp_path: Path) -> None:
    manifest = from_folder(touch(tmp_path, "a/7_1.png", "b/7_1.png", "b/8_1.png"), ["a", "b"], r"(\d+)_")
    assert len({sample.group for sample in manifest.samples}) == 2


def test_patients_by_a_table(tmp_path: Path) -> None:
    root = touch(tmp_path / "i", "a/1.png", "a/2.png", "b/3.png")
    lines = ("note;patient_id;sample_id", "x; P1 ;a/1.png", ";P1;a/2.png", ";nan;b/3.png", ";P9;c/9.png")
    manifest = from_folder(root, ["a", "b"], patients=write(tmp_path / "p.csv", *lines))
    assert patients_of(manifest) == {"a/1.png": "P1", "a/2.png": "P1", "b/3.png": None}
    assert manifest.doubts() == ["dataset.patients: 1 line is of no image and not used. ('c/9.png')"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["sample_id,patient", "a/1.png,P1"], ["lacks the column patient_id", "Did you mean patient?"]),
        (["sample_id,patient_id", "a/1.png,P1"], ["lacks 1 of 2 images: 'b/2.png'", "leave patient_id empty"]),
        (
            ["sample_id,patient_id", "1.png,P1"],
            ["lacks 2 of 2", "1 of its lines are of no image: '1.png'", "path under"],
        ),
        (["sample_id,patient_id", "a/1.png,P1", "b/2.png,P2", "a/1.png,P3"], ["line 4", "'P3'", "'P1'", "Leave one"]),
    ],
)
def test_a_table_of_patients_that_does_not_fit(tmp_path: Path, lines: list[str], words: list[str]) -> None:
    root = touch(tmp_path / "i", "a/1.png", "b/2.png")
    message = mistake(from_folder, root, patients=write(tmp_path / "p.csv", *lines))
    assert all(word in message for word in words), message


@pytest.mark.parametrize(("regex", "named"), [(None, False), (r"^\w/\d", True)])
@pytest.mark.parametrize("protocol", ["grouped", "random", "kfold"])
def test_results_say_that_patients_are_unknown(tmp_path: Path, protocol: str, regex: str | None, named: bool) -> None:
    root = touch(tmp_path, *(f"{c}/{p}{i}.png" for c in "ab" for p in range(9) for i in range(3)))
    manifest = assign(from_folder(root, regex=regex), protocol, seed=0, val_fraction=0.2, test_fraction=0.2)
    assert any("names no patients" in sentence for sentence in describe(manifest)) is not named


# ---- tables


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_and_its_optional_columns(tmp_path: Path, separator: str, encoding: str) -> None:
    touch(tmp_path, "x/2.png", "1.png", "sören, 3.png")
    lines = [
        "label,path,age,patient_id,site,split,sample_id",
        "flu,x/2.png,40,P2,ulm,val,two",
        ",,,,,,",
        f'no,"{tmp_path}/1.png",41,NaN,,,',
        '"covid","sören, 3.png",42,P3',
    ]
    csv_lines = [separator.join(f'"{c}"' if separator in c else c for c in row) for row in csv.reader(lines)]
    manifest = from_table(write(tmp_path / "t.csv", *csv_lines, encoding=encoding))
    assert manifest.classes == ("covid", "flu", "no")
    rows = [(s.sample_id, s.label, s.patient_id, s.site) for s in manifest.samples]
    assert rows == [("1.png", 2, None, "unknown"), ("sören, 3.png", 0, "P3", "unknown"), ("two", 1, "P2", "ulm")]
    assert all(sample.path.is_file() for sample in manifest.samples)
    assert (manifest.grouping, manifest.published) == ("patient", {"two": "val"})


def test_the_order_of_lines_changes_nothing(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(12)]
    touch(tmp_path, *names)
    lines = [f"{name},{i % 2}" for i, name in enumerate(names)]
    first = from_table(write(tmp_path / "a.csv", "path,label", *lines))
    second = from_table(write(tmp_path / "b.csv", "path,label", *lines[::-1]))
    assert first == second
    assert first.classes == ("0", "1")


def test_paths_start_at_the_root_and_ids_do_not_tell_where_that_is(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.png", "other/2.png")
    lines = ("path,label", "./1.png,a", f"{tmp_path}/other/2.png,b")
    manifest = from_table(write(tmp_path / "lists" / "t.csv", *lines), root=tmp_path / "images")
    assert ids(manifest) == ["../other/2.png", "1.png"]


def test_a_column_that_is_almost_known_is_noted(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png")
    manifest = from_table(
        write(tmp_path / "t.csv", "path,label,patient,slice,age", "1.png,a,P,1,3", "2.png,b,P,1,3"), ["a", "b"]
    )
    assert manifest.doubts() == [
        "The column 'patient' of the table is not read; if it is meant as patient_id, call it that."
    ]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["Path,class", "1.png,a"], ["lacks the column label", "has: Path, class"]),
        ([""], ["lacks the column path", "has: nothing"]),
        (["path,label"], ["no line but the names of its columns"]),
        (["path,label,label", "1.png,a,b"], ["the column label is there twice"]),
        (["path,label", "1.png,a,x"], ["line 2: has 3 cells under 2 columns"]),
        (["path,label", '"1.png,a', "2.png,b"], ["a quote that is not closed"]),
        (["path,label", "1.png,a"], ["two classes are needed, and the only label is 'a'"]),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, lines: list[str], words: list[str]) -> None:
    touch(tmp_path, "1.png", "2.png")
    message = mistake(from_table, write(tmp_path / "t.csv", *lines))
    assert all(word in message for word in [str(tmp_path / "t.csv"), *words]), message


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "path,label", "sören.png,a", encoding="latin-1")
    assert "is not UTF-8 text" in mistake(from_table, path)
    path.write_text("path,label", encoding="utf-16")
    assert "is not UTF-8 text" in mistake(from_table, path)


def test_all_problems_of_a_table_come_in_one_message(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png", "3.png")
    lines = [
        "path,label,split,sample_id",
        "1.png,a,train,",
        "2.png,A,tset,",
        "3.png,,val,1.png",
        ",a,,",
        "2.png,b,,1.png",
        "x\\4.png,b,,",
        "5.png,b,,",
    ]
    path = write(tmp_path / "t.csv", *lines)
    assert mistake(from_table, path, ["b", "a", "c"]).splitlines() == [
        f"{path} cannot be used as it is:",
        "  line 3: the label 'A' is not among dataset.classes=[b, a, c]. Did you mean a?",
        "  line 3: the split 'tset' is none of train, val, test",
        "  line 4: label must not be empty",
        "  line 5: path must not be empty",
        "  line 6: the sample id '1.png' is in line 2 already",
        f"  2 of 7 files are not there, first (line 7): {tmp_path}/x\\4.png (folders are divided by /, not by \\); "
        f"relative paths start at dataset.root, here {tmp_path}",
        "  no line has the label 'c' of dataset.classes",
        "Correct the table.",
    ]


def test_labels_that_are_spelled_in_two_ways_hide_no_other_problem(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png")
    path = write(tmp_path / "t.csv", "path,label", "1.png,COVID", "2.png,Covid", "3.png,normal", "4.png,")
    found = mistake(from_table, path, None).splitlines()
    assert found[0] == f"{path} cannot be used as it is:"
    assert "COVID" in found[1]
    assert found[-3] == "  line 5: label must not be empty"
    assert found[-2].startswith(f"  2 of 4 files are not there, first (line 4): {tmp_path}/3.png")


def test_only_ten_problems_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "path,label", *(f"{i}.png," for i in range(30)))
    lines = mistake(from_table, path, ["a", "b"]).splitlines()
    assert len(lines) == 13
    assert lines[-2] == "  ... and 23 more"


# ---- through the configuration


def dataset(kind: str, *overrides: str) -> list[str]:
    return [f"dataset={kind}", *QUICK, *overrides]


def images_of_patients(root: Path, n_patients: int = 8) -> Path:
    """Two classes; every patient has two images: 4 × ``n_patients`` in all."""
    for label, name in enumerate(("covid", "normal")):
        for patient in range(n_patients):
            for i in range(2):
                draw(root / name / f"P{label}{patient}_{i}.png", seed=100 * label + 10 * patient + i)
    return root


def table_of(root: Path, split_of: Callable[[int, int], str]) -> Path:
    lines = []
    for path in sorted(root.rglob("*.png")):
        label, number, i = path.parent.name, int(path.stem[2]), int(path.stem[-1])
        lines.append((path.relative_to(root).as_posix(), label, path.stem[:3], split_of(number, i)))
    write_csv(root / "t.csv", ("path", "label", "patient_id", "split"), lines)
    return root / "t.csv"


def loaded(*overrides: str) -> Manifest:
    datamodule = CTDataModule(load(list(overrides)))
    datamodule.load()
    return datamodule.manifest


def test_a_table_with_its_own_split(tmp_path: Path) -> None:
    path = table_of(images_of_patients(tmp_path), lambda number, i: ("test", "val", "train")[min(number, 2)])
    manifest = loaded(*dataset("table", f"dataset.table={path}", "dataset.protocol=official", "dataset.name=mine"))
    assert (manifest.dataset, manifest.protocol) == ("mine", "official")
    assert {s.split for s in manifest.samples if s.patient_id == "P00"} == {"test"}
    assert {split: n["images"] for split, n in manifest.counts().items()} == {"train": 24, "val": 4, "test": 4}
    assert not any("column split" in text for text in manifest.doubts())
    other = loaded(*dataset("table", f"dataset.table={path}"))
    assert any("column split is used with dataset.protocol=official alone" in text for text in other.doubts())


def test_a_patient_in_two_splits(tmp_path: Path) -> None:
    path = table_of(
        images_of_patients(tmp_path), lambda number, i: ("test", "val", "train")[min(number, 2) if i else 2]
    )
    message = mistake(loaded, *dataset("table", f"dataset.table={path}", "dataset.protocol=official"))
    assert "puts 4 of its patients into several splits; the first, 'P00', has images in train (" in message
    assert "Put all images of one into the same split, or choose dataset.protocol=grouped" in message


def test_an_official_split_without_its_column(tmp_path: Path) -> None:
    path = table_of(images_of_patients(tmp_path), lambda number, i: "")
    message = mistake(loaded, *dataset("table", f"dataset.table={path}", "dataset.protocol=official"))
    assert "a column called split" in message


def test_bad_images_are_named_before_training(tmp_path: Path) -> None:
    root = images_of_patients(tmp_path / "i")
    cut, text, huge = (root / "covid" / f"P00_{i}.png" for i in (0, 1, 2))
    cut.write_bytes(cut.read_bytes()[:90])
    text.write_text("a note")
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(1000))
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, pixels, b"IEND"))
    huge.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    runs = tmp_path / "runs"
    message = mistake(lambda: train(load(dataset("folder", f"dataset.root={root}", f"paths.runs_dir={runs}"))))
    assert "3 of 33 image files cannot be used" in message
    lines = {line.split()[0]: line for line in message.splitlines()[1:4]}
    assert "cut off or damaged" in lines[str(cut)]
    assert "contains text, not an image" in lines[str(text)]
    assert "900 megapixels, over the limit" in lines[str(huge)]
    assert not runs.exists()


@pytest.mark.parametrize(
    ("kind", "overrides", "words"),
    [
        ("folder", ["dataset.root=nowhere"], "dataset.root=nowhere: there is no such folder"),
        ("folder", [], "dataset=folder needs dataset.root=FOLDER"),
        ("table", ["dataset.table=nowhere.csv"], "dataset.table=nowhere.csv: there is no such file"),
    ],
)
def test_what_is_not_there(kind: str, overrides: list[str], words: str) -> None:
    assert words in mistake(load, dataset(kind, *overrides))


def test_a_whole_run_on_own_folders(tmp_path: Path) -> None:
    root = images_of_patients(tmp_path / "i", n_patients=10)
    asked = dataset(
        "folder",
        f"dataset.root={root}",
        "dataset.classes=[normal,covid]",
        r"dataset.patient_regex='(P\d+)_'",
        "dataset.name=mine",
        "dataset.protocol=kfold",
        "dataset.n_folds=4",
        f"paths.runs_dir={tmp_path / 'runs'}",
    )
    result, other = (train(load([*asked, f"dataset.fold={fold}"]), publish=publish) for fold in (1, 2))
    assert result.folder.parent == tmp_path / "runs" / "mine" != result.folder
    record = json.loads((result.folder / "results.json").read_text())
    assert (record["protocol"], record["fold"], record["n_folds"]) == ("kfold", 1, 4)
    assert (record["classes"], record["grouping"]) == (["normal", "covid"], "patient")
    assert record["warnings"] == [
        "fold 1 of 0 to 3: the test is one of 4 parts; only all folds together score every image"
    ]
    assert record["test_use"] == other.results["test_use"] == 1  # two folds are two test sets
    assert sorted(p.name for p in result.folder.parent.glob("test_looks_*.jsonl")) == [
        "test_looks_kfold-1-of-4.jsonl",
        "test_looks_kfold-2-of-4.jsonl",
    ]


# ---- real images


@pytest.mark.realdata
def test_the_folders_of_covid19ct(real_data: Path) -> None:
    root = real_data / "covid19ct"
    built_in = published_manifest(covid19ct.ORIGIN, real_data)
    own = from_folder(root, ["CT_NonCOVID", "CT_COVID"])
    assert {(s.sample_id, s.path, s.label) for s in own.samples} == {
        (s.sample_id, s.path, s.label) for s in built_in.samples
    }
    assert len(own) == 746
    message = mistake(from_folder, root)
    assert "Data-split contains no image" in message
    assert "dataset.classes=[CT_COVID,CT_NonCOVID]" in message


@pytest.mark.realdata
@pytest.mark.parametrize("protocol", ["official", "grouped", "kfold"])
def test_a_table_of_covid19ct_is_covid19ct(real_data: Path, tmp_path: Path, protocol: str) -> None:
    built_in = published_manifest(covid19ct.ORIGIN, real_data)
    assert built_in.published is not None
    columns = ("path", "label", "patient_id", "site", "split")
    rows = [
        (s.sample_id, built_in.classes[s.label], s.patient_id, s.site, built_in.published[s.sample_id])
        for s in built_in.samples
    ]
    write_csv(tmp_path / "t.csv", columns, rows)
    own = from_table(tmp_path / "t.csv", built_in.classes, real_data / "covid19ct")
    first, second = (assign(m, protocol, seed=0, val_fraction=0.15, test_fraction=0.25) for m in (built_in, own))
    assert first.samples == second.samples
    assert second.grouping == "patient"


def test_a_pattern_that_never_ends_is_refused_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    from ddtl.data.datasets import folder

    monkeypatch.setattr(folder, "_PATIENCE", 1.0)
    names = [f"{'a' * 60}{number}!" for number in range(3)]
    with pytest.raises(UserError, match=r"takes more than 1 seconds for 3 paths"):
        folder._searched("(a+)+$", names)
    assert folder._searched(r"(\d+)_(?P<patient>P\d+)", ["12_P7.png", "x.png", "3_P\ud8008"]) == ["P7", None, None]
    assert folder._searched(r"(P\d+)_", ["P12_1.png"]) == ["P12"]
