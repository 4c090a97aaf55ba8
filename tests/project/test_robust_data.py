"""Class names, patient ids and files as people have them: the right value, or one line that says what to type."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ddtl.config.load import load
from ddtl.data.images.levels import Window
from ddtl.data.loading.datamodule import CTDataModule
from ddtl.utils.errors import UserError
from tests.support.robust import (
    SETTINGS,
    Case,
    folders,
    image,
    labelled,
    labels_of,
    noise,
    of_patients,
    png,
    table,
    write,
)

Check = Callable[[CTDataModule], None]
Make = Callable[[Path], Sequence[str]]
CLASSES, PATIENTS, FILES, PIXELS = "Classes", "Patients", "Files", "Pixels"


def positive(name: str, negative: str | None = None) -> Check:
    def check(data: CTDataModule) -> None:
        assert data.manifest.positive == name
        assert negative is None or data.manifest.classes[0] == negative
        assert len(data.manifest.classes) == 2

    return check


def classes_of(**wanted: str) -> Check:
    """That each folder's images have a class."""

    def check(data: CTDataModule) -> None:
        assert labels_of(data) == {name: {class_} for name, class_ in wanted.items()}

    return check


def patients(n: int) -> Check:
    def check(data: CTDataModule) -> None:
        found = {sample.patient_id for sample in data.manifest.samples} - {None}
        assert len(found) == n, found

    return check


def images(n: int) -> Check:
    def check(data: CTDataModule) -> None:
        assert len(data.manifest) == n

    return check


def _pool(more: str = "", first: str = "covid", second: str = "normal") -> Make:
    """The phantom with own folders of these names."""

    def make(here: Path) -> list[str]:
        words = folders(here, first, second)[2:]
        small = ["dataset.phantom.n_patients=12", "dataset.phantom.slices_per_patient=1", "dataset.phantom.size=32"]
        own = f"{{mine2: {{root: {here}/images{more and ', '}{more}}}}}"
        return ["dataset=pooled", "dataset.sources=[phantom:a,mine2]", f"dataset.own={own}", *small, *words]

    return make


def _pool_labels(data: CTDataModule) -> None:
    own = {
        s.sample_id.split("/")[1]: data.manifest.classes[s.label] for s in data.manifest.samples if s.site == "mine2"
    }
    assert own == {"covid": "COVID", "normal": "non-COVID"}
    assert data.manifest.positive == "COVID"


CLASS_CASES = [
    Case(
        CLASSES,
        "folders `covid/`, `normal/`",
        "`covid` is the positive class: `normal` names the negative one",
        lambda h: folders(h, "covid", "normal"),
        check=positive("covid", "normal"),
    ),
    Case(
        CLASSES,
        "folders `Healthy/`, `COVID-19/`",
        "`COVID-19` is the positive class",
        lambda h: folders(h, "Healthy", "COVID-19"),
        check=positive("COVID-19", "Healthy"),
    ),
    Case(
        CLASSES,
        "folders `CT_COVID/`, `CT_NonCOVID/`",
        "`CT_COVID` is positive: the other is its negation",
        lambda h: folders(h, "CT_COVID", "CT_NonCOVID"),
        check=positive("CT_COVID"),
    ),
    Case(
        CLASSES,
        "folders `no covid/`, `covid/`",
        "`covid` is positive",
        lambda h: folders(h, "no covid", "covid"),
        check=positive("covid"),
    ),
    Case(CLASSES, "folders `0/`, `1/`", "`1` is positive", lambda h: folders(h, "0", "1"), check=positive("1", "0")),
    Case(
        CLASSES,
        "folders `positive/`, `other/`",
        "refused: what `other` is, nobody knows",
        lambda h: folders(h, "positive", "other"),
        refused=("dataset.classes=[other,positive]",),
    ),
    Case(
        CLASSES,
        "folders `a/`, `b/`",
        "refused: which is the disease? both lines to choose from",
        lambda h: folders(h, "a", "b"),
        refused=("'dataset.classes=[a,b]'", "'dataset.classes=[b,a]'"),
    ),
    Case(
        CLASSES,
        "folders `covid/`, `nodule/`",
        "refused: `nodule` begins with no, and is not a negation of `covid`",
        lambda h: folders(h, "covid", "nodule"),
        refused=("dataset.classes=[covid,nodule]",),
    ),
    Case(
        CLASSES,
        "folders `normal/`, `healthy/`",
        "refused: both name a negative class",
        lambda h: folders(h, "normal", "healthy"),
        refused=("which of 'healthy' and 'normal' is the positive",),
    ),
    Case(
        CLASSES,
        "`a/`, `b/` with `dataset.classes=[b,a]`",
        "`a` is positive, as given",
        lambda h: [*folders(h, "a", "b"), "dataset.classes=[b,a]"],
        check=positive("a", "b"),
    ),
    Case(
        CLASSES,
        "three folders joined by `dataset.class_map`",
        "many to one; `COVID` is positive",
        lambda h: [
            *folders(h, "CAP", "covid", "normal"),
            "dataset.class_map={CAP: non-COVID, normal: non-COVID, covid: COVID}",
        ],
        check=classes_of(CAP="non-COVID", covid="COVID", normal="non-COVID"),
    ),
    Case(
        CLASSES,
        "labels `0`, `1` renamed by a map with numbers",
        "the classes that the map names",
        lambda h: [*folders(h, "0", "1"), "dataset.class_map={0: healthy, 1: COVID}"],
        check=classes_of(**{"0": "healthy", "1": "COVID"}),
    ),
    Case(
        CLASSES,
        "a map that names no folder",
        "refused with a did-you-mean",
        lambda h: [*folders(h, "covid", "normal"), "dataset.class_map={covd: COVID}"],
        refused=("has no label 'covd'", "Did you mean covid?"),
    ),
    Case(
        CLASSES,
        "a map that leaves one class",
        "refused",
        lambda h: [*folders(h, "covid", "normal"), "dataset.class_map={covid: x, normal: x}"],
        refused=("two classes or more",),
    ),
    Case(
        CLASSES,
        "pooled with `covid/`, `normal/`",
        "each label its class: matched by name, and noted",
        _pool(),
        noted=("covid as COVID", "normal as non-COVID"),
        check=_pool_labels,
    ),
    Case(
        CLASSES,
        "pooled with the classes in the other order",
        "refused: the names speak against the order",
        _pool("classes: [covid, normal]"),
        refused=("dataset.own.mine2.class_map=",),
    ),
    Case(
        CLASSES,
        "pooled with a map",
        "each label its class",
        _pool("class_map: {covid: COVID, normal: non-COVID}"),
        check=_pool_labels,
    ),
    Case(
        CLASSES,
        "labels `COVID` and `covid `, in one table",
        "refused, both named",
        lambda h: table(h, labelled("COVID", "normal", "covid")),
        refused=("'COVID'", "'covid'", "dataset.class_map="),
    ),
    Case(
        CLASSES,
        "labels `covid` and `covid` with a zero-width space",
        "refused, both named",
        lambda h: table(h, labelled("covid", "normal", "co\u200bvid")),
        refused=("one class in two spellings",),
    ),
    Case(
        CLASSES,
        "labels `0`, `0.0` and `1`",
        "refused, both named",
        lambda h: table(h, labelled("0", "0.0", "1")),
        refused=("'0'", "'0.0'", "one class in two spellings"),
    ),
    Case(
        CLASSES,
        "labels `non-COVID` and `non_covid`",
        "refused, both named",
        lambda h: table(h, labelled("non-COVID", "non_covid", "COVID")),
        refused=("'non-COVID'", "'non_covid'"),
    ),
    Case(
        CLASSES,
        "folders `Covid/`, `covid/`, `normal/`",
        "refused, both named",
        lambda h: folders(h, "Covid", "covid", "normal"),
        refused=("'Covid'", "'covid'"),
    ),
    Case(
        CLASSES,
        "the same, joined by a map",
        "one class of both folders",
        lambda h: [*folders(h, "Covid", "covid", "normal"), "dataset.class_map={Covid: covid}"],
        check=classes_of(Covid="covid", covid="covid", normal="normal"),
    ),
    Case(
        CLASSES,
        "a label `nan`",
        "refused, with the map to paste",
        lambda h: table(h, labelled("covid", "normal", "nan")),
        refused=("'nan' says that nothing is known", "class_map={'nan': NAME_OF_THE_CLASS}"),
    ),
    Case(
        CLASSES, "a label `?`", "refused", lambda h: table(h, labelled("covid", "normal", "?")), refused=("'?' says",)
    ),
    Case(
        CLASSES,
        "a label `none` and `covid`",
        "refused: no finding, or nothing known?",
        lambda h: table(h, labelled("covid", "none")),
        refused=("'none' says", "class_map={none: NAME_OF_THE_CLASS}"),
    ),
    Case(
        CLASSES,
        "a label `none`, which a map explains",
        "the class that the map says",
        lambda h: [*table(h, labelled("covid", "none")), "dataset.class_map={none: normal}"],
        check=positive("covid", "normal"),
    ),
    Case(
        CLASSES,
        "labels are file names: 24 classes of 24 images",
        "refused: too few images of a class",
        lambda h: table(h, labelled(*(f"image{i}" for i in range(24)), images=1)),
        refused=("too few",),
    ),
    Case(
        CLASSES,
        "more classes than a tenth of the images",
        "trains, and warns",
        lambda h: table(h, labelled("a", "b", "c", images=8)),
        noted=("3 classes for 24 images",),
    ),
    Case(
        CLASSES,
        "a class of one patient, split by slice",
        "trains, and warns",
        lambda h: table(
            h,
            [
                *of_patients(*(f"P{i}" for i in range(8)), labels=["normal"]),
                *of_patients(*["P9"] * 8, labels=["covid"]),
            ],
            "dataset.protocol=random",
        ),
        noted=(
            "All images of class covid are of one patient",
            "(P9)",
        ),
    ),
    Case(
        CLASSES,
        "folders `1/`, `2/`",
        "refused: which is the disease?",
        lambda h: folders(h, "1", "2"),
        refused=("'1' and '2'", "dataset.classes=["),
    ),
    Case(
        CLASSES,
        "folders `1/`, `covid/`",
        "refused: `1` names no negative class",
        lambda h: folders(h, "1", "covid"),
        refused=("is not known by the names",),
    ),
    Case(
        CLASSES,
        "folders `normal/`, `normal2/`",
        "refused: both name a negative class",
        lambda h: folders(h, "normal", "normal2"),
        refused=("is not known by the names",),
    ),
    Case(
        CLASSES,
        "pooled with `1/`, `2/` of which 2 is given as positive",
        "refused: the names do not show what 2 is",
        _pool("classes: ['1', '2']", "1", "2"),
        refused=("dataset.own.mine2.class_map=",),
    ),
    Case(
        CLASSES,
        "pooled with `no/`, `yes/`",
        "`yes` is COVID, and noted",
        _pool("classes: ['no', 'yes']", "no", "yes"),
        noted=("no as non-COVID, yes as COVID",),
    ),
    Case(
        CLASSES,
        "labels `Normal`, `covid`, `CAP` with a map of `CAP` to `normal`",
        "refused, with a map that keeps `CAP`",
        lambda h: [*table(h, labelled("Normal", "covid", "CAP")), "dataset.class_map={CAP: normal}"],
        refused=("{CAP: Normal, Normal: Normal}",),
    ),
]


def _ids(*ids: str, mode: str = "") -> Make:
    return lambda here: table(here, of_patients(*ids), *([f"dataset.patient_ids={mode}"] if mode else []))


TWENTY_FOUR = [f"{i}" for i in range(1, 13)] + [f"{i}.0" for i in range(1, 13)]
PLAIN = [f"P{i}" for i in range(1, 13)]


def _patients_file(here: Path) -> list[str]:
    words = folders(here, "covid", "normal")
    names = [f"{label}/P{k}{i:02}.png" for k, label in enumerate(("covid", "normal")) for i in range(8)]
    ids = [f"{i // 2}" if i % 2 else f"{i // 2}.0" for i in range(16)]
    (here / "p.csv").write_text(
        "sample_id,patient_id\n" + "".join(f"{n},{p}\n" for n, p in zip(names, ids, strict=True))
    )
    return [*words, f"dataset.patients={here}/p.csv"]


def _semicolons(here: Path) -> list[str]:
    words = table(here, of_patients(*PLAIN, "12", "12#0"))
    text = (here / "list.csv").read_text().replace(",", ";").replace("12#0", "12,0")
    (here / "list.csv").write_text(text)
    return words


def _same_numbers(here: Path) -> list[str]:
    for k, label in enumerate(("covid", "normal")):
        for i in range(16):
            image(here / "images" / label / f"P{i // 2}_{i % 2}.png", noise(k, i))
    return ["dataset=folder", f"dataset.root={here}/images", *SETTINGS, r"dataset.patient_regex='P(\d+)_'"]


def _regex(here: Path) -> list[str]:
    words = folders(here, "covid", "normal")
    for label in ("covid", "normal"):
        for i in range(8):
            image(here / "images" / label / f"p{i + 1}_{label}.png", noise(7, i, len(label)))
            image(here / "images" / label / f"P{i + 1:03}_{label}.png", noise(8, i, len(label)))
    return [*words, r"dataset.patient_regex='^[^/]+/([pP]\d+)'"]


PATIENT_CASES = [
    Case(
        PATIENTS,
        "ids `12` and `12.0`",
        "refused, two named, with both fixes",
        _ids(*TWENTY_FOUR),
        refused=("'1' and '1.0' look like one patient", "dataset.patient_ids=join", "dataset.patient_ids=exact"),
    ),
    Case(
        PATIENTS,
        "the same with `dataset.patient_ids=join`",
        "one patient each",
        _ids(*TWENTY_FOUR, mode="join"),
        check=patients(12),
        noted=("12 patients whose id has several spellings are joined",),
    ),
    Case(
        PATIENTS,
        "the same with `dataset.patient_ids=exact`",
        "two patients each",
        _ids(*TWENTY_FOUR, mode="exact"),
        check=patients(24),
    ),
    Case(PATIENTS, "ids `7` and `007`", "refused", _ids(*PLAIN, "7", "007"), refused=("'007' and '7'",)),
    Case(PATIENTS, "ids `P7` and `p07`", "refused", _ids(*PLAIN, "p07"), refused=("'P7' and 'p07'",)),
    Case(PATIENTS, "ids `P 7` and `P7`", "refused", _ids(*PLAIN, "P 7"), refused=("'P 7' and 'P7'",)),
    Case(
        PATIENTS, "an id with a no-break space", "refused", _ids(*PLAIN, "P\u00a07"), refused=("look like one patient",)
    ),
    Case(
        PATIENTS, "an id with full-width digits", "refused", _ids(*PLAIN, "P\uff17"), refused=("look like one patient",)
    ),
    Case(
        PATIENTS, "ids `12,0` and `12` of a table with semicolons", "refused", _semicolons, refused=("'12' and '12,0'",)
    ),
    Case(PATIENTS, "ids `P1` and `P10`", "two patients", _ids(*PLAIN), check=patients(12)),
    Case(
        PATIENTS,
        "ids `1.5` and `1.50`",
        "two patients: only `.0` is a float's",
        _ids(*PLAIN, "1.5", "1.50"),
        check=patients(14),
    ),
    Case(
        PATIENTS,
        "`unknown`, `-`, `?`, `n/a`, `NaT`, `<NA>`",
        "missing, and reported",
        _ids(*PLAIN, "unknown", "-", "?", "n/a", "NaT", "<NA>"),
        check=patients(12),
        noted=("'unknown', '-', '?' (3 images) names no patient", "6 images are without a patient id"),
    ),
    Case(
        PATIENTS,
        "`ANONYMOUS` for half of the patients",
        "missing, and reported: not one patient",
        _ids(*PLAIN, *["ANONYMOUS"] * 6),
        check=patients(12),
        noted=("'ANONYMOUS' (6 images) names no patient",),
    ),
    Case(
        PATIENTS,
        "`unknown` with `dataset.patient_ids=exact`",
        "one patient, as given",
        _ids(*PLAIN, "unknown", "unknown", mode="exact"),
        check=patients(13),
    ),
    Case(
        PATIENTS,
        "a patient `0` of a table that counts from there",
        "a patient",
        _ids(*PLAIN, "0", "0"),
        check=patients(13),
    ),
    Case(
        PATIENTS,
        "no id at all",
        "trains, and every result states it",
        lambda h: table(h, labelled("normal", "covid")),
        noted=("the dataset names no patients",),
    ),
    Case(
        PATIENTS, "`dataset.patients` with `3` and `3.0`", "refused", _patients_file, refused=("'0' and '0.0'", "p.csv")
    ),
    Case(
        PATIENTS,
        "a pattern that finds `p1` and `P001`",
        "refused",
        _regex,
        refused=("look like one patient", "patient_regex"),
    ),
    Case(
        PATIENTS,
        "ids `P-07` and `P07`, `1,000` and `1000`, `1.0E+03` and `1000`",
        "refused",
        _ids(*PLAIN, "P-07"),
        refused=("look like one patient",),
    ),
    Case(
        PATIENTS,
        "ids that a spreadsheet rounded: `1.23457E+15`",
        "refused: patients may have become one",
        _ids(*PLAIN, "1.23457E+15"),
        refused=("rounded", "as text"),
    ),
    Case(
        PATIENTS,
        "one id, `-1`, for half of the images",
        "trains, and warns",
        _ids(*PLAIN, *["-1"] * 12),
        noted=(
            "One patient has 12 images of several classes",
            "('-1')",
        ),
    ),
    Case(
        PATIENTS,
        "a pattern that finds patient and slice",
        "trains, and warns",
        lambda h: [*folders(h, "covid", "normal"), r"dataset.patient_regex='P(\d+)'"],
        noted=("finds another patient in each of the 16 images of a class",),
    ),
    Case(
        PATIENTS,
        "people of both classes with the same numbers",
        "trains, and warns",
        _same_numbers,
        noted=("8 of 8 patients have images of several classes",),
    ),
]


def _conflict(here: Path, how: str) -> list[str]:
    words = folders(here, "covid", "normal")
    source, target = here / "images/covid/P000.png", here / "images/normal/P100.png"
    target.unlink()
    {"copy": shutil.copy, "link": os.symlink, "hard link": os.link}[how](source, target)
    return words


def _both_paths(here: Path) -> list[str]:
    rows = labelled("normal", "covid")
    rows.append({"path": f"{here}/000.png", "label": "covid", "sample_id": "again"})
    return table(here, [row | {"sample_id": row.get("sample_id", f"s{i}")} for i, row in enumerate(rows)])


def _two_splits(here: Path) -> list[str]:
    splits = ["train", "train", "train", "train", "val", "val", "test", "test"] * 2
    rows = [{**row, "split": split} for row, split in zip(labelled("normal", "covid"), splits, strict=True)]
    words = table(here, rows, "dataset.protocol=official")
    shutil.copy(here / "000.png", here / "006.png")
    return words


def _two_patients(here: Path) -> list[str]:
    words = table(here, of_patients(*(f"Q{i}" for i in range(24))))
    shutil.copy(here / "000.png", here / "002.png")
    return words


def _suffixes(here: Path) -> list[str]:
    words = folders(here, "covid", "normal", images=3)
    for label in ("covid", "normal"):
        for i, suffix in enumerate((".jfif", ".jpe", ".jfif", ".jpe", ".pjpeg")):
            buffer = io.BytesIO()
            Image.fromarray(noise(9, i, len(label))).save(buffer, "JPEG", quality=95)
            write(here / "images" / label / f"x{i}{suffix}", buffer.getvalue())
        for i, suffix in enumerate((".png_", "")):
            write(here / "images" / label / f"y{i}{suffix}", png(noise(10, i, len(label))))
    write(here / "images" / "covid" / "notes.txt", b"BMI of the patients")
    write(here / "images" / "covid" / "slice.dcm", b"\0" * 128 + b"DICM")
    write(here / "images" / "normal" / "list.csv", b"a,b")
    write(here / "images" / "normal" / "Thumbs.db", b"x")
    return words


def _only_dicom(here: Path) -> list[str]:
    words = folders(here, "covid", "normal")
    for i in range(8):
        (here / "images" / "normal" / f"P1{i:02}.png").unlink()
        write(here / "images" / "normal" / f"{i}.dcm", b"\0" * 128 + b"DICM")
    return words


def _spreadsheet(here: Path) -> list[str]:
    words = table(here, labelled("normal", "covid"))
    header, *lines = (here / "list.csv").read_text().splitlines()
    assert header == "path,label"
    rows = [f'"{path}"; "{label}"' for path, label in (line.split(",") for line in lines)]
    (here / "list.csv").write_text("\r\n".join(["sep=;", "Path;Label", *rows]) + "\r\n", encoding="utf-8-sig")
    return words


def _pipe(here: Path) -> list[str]:
    words = folders(here, "covid", "normal")
    os.mkfifo(here / "images" / "covid" / "pipe.png")
    return words


def _device(here: Path) -> list[str]:
    words = folders(here, "covid", "normal")
    os.symlink("/dev/zero", here / "images" / "covid" / "zero.png")
    return words


FILE_CASES = [
    Case(
        FILES,
        "one file copied into two classes",
        "refused, both named, with what to type",
        lambda h: _conflict(h, "copy"),
        refused=("'covid/P000.png' (covid)", "'normal/P100.png' (normal)", "dataset.allow_label_conflicts=true"),
    ),
    Case(
        FILES,
        "one file linked into two classes",
        "refused",
        lambda h: _conflict(h, "link"),
        refused=("two classes with the same bytes",),
    ),
    Case(
        FILES,
        "a hard link in two classes",
        "refused",
        lambda h: _conflict(h, "hard link"),
        refused=("two classes with the same bytes",),
    ),
    Case(
        FILES,
        "the same with `dataset.allow_label_conflicts=true`",
        "trains, and warns",
        lambda h: [*_conflict(h, "copy"), "dataset.allow_label_conflicts=true"],
        noted=("1 file is in two classes with the same bytes",),
    ),
    Case(
        FILES,
        "a file by its absolute and its relative path, with two labels",
        "refused",
        _both_paths,
        refused=("'again' (covid)", "two classes"),
    ),
    Case(
        FILES,
        "a file in training and test of an official split",
        "trains, and warns",
        _two_splits,
        noted=("1 file is in two splits with the same bytes", "optimistic"),
    ),
    Case(
        FILES,
        "one file of two patients",
        "trains, and warns",
        _two_patients,
        noted=("1 file is of two patients with the same bytes",),
    ),
    Case(
        FILES,
        "images called `.jfif`, `.jpe`, `.png_` or without a suffix",
        "used: an image is known by its content",
        _suffixes,
        check=images(2 * (3 + 7)),
        noted=("3 files in the class folders are not images: not used (covid: 1 × .dcm, 1 × .txt; normal: 1 × .csv)",),
    ),
    Case(
        FILES,
        "a class folder of DICOM files alone",
        "refused, with what is in it",
        _only_dicom,
        refused=("no image", "8 × .dcm"),
    ),
    Case(
        FILES,
        "a named pipe called `.png`",
        "refused at once; nothing waits for it",
        _pipe,
        refused=("pipe.png is not a regular file",),
    ),
    Case(
        FILES,
        "a link to `/dev/zero` called `.png`",
        "refused at once",
        _device,
        refused=("zero.png is not a regular file",),
    ),
    Case(
        FILES,
        "a table that begins with `sep=;`, with `Path` and `Label` in capitals and blanks before quotes",
        "read",
        _spreadsheet,
        check=images(16),
    ),
]


def hounsfield(here: Path, *words: str, slope: float = 1, intercept: float = -1024, share: float = 1.0) -> list[str]:
    """16-bit PNGs of Hounsfield units from -1000 (air) to 400: ``slope * value + intercept``."""
    for k, label in enumerate(("covid", "normal")):
        for i in range(8):
            units = np.linspace(-1000, 400, 24 * 24).reshape(24, 24) + 10 * i + k
            values = ((units - intercept) / slope).round().astype(np.uint16)
            pixels = values if i < 8 * share else noise(k, i)
            write(here / "images" / label / f"P{k}{i}.png", png(pixels))
    return [
        "dataset=folder",
        f"dataset.root={here}/images",
        "dataset.name=mine",
        "dataset.image_size=32",
        "dataset.batch_size=2",
        "dataset.val_fraction=0.25",
        "trainer=cpu",
        "model=squeezenet1_1",
        "model.weights=none",
        "finetune=full",
        "logger=none",
        *words,
    ]


def _grey_of_units(data: CTDataModule) -> None:
    """Through the window -600 ± 750, -1000 HU is 59 and 150 HU and above 255."""
    first = data.cache[0].astype(int)
    assert data.manifest.samples[0].window == Window(-600.0, 1500.0, 1.0, -1024.0)
    assert abs(first[0, 0] - 59) <= 3
    assert first[-1, -1] == 255
    assert data.cache.levels[:, 0].min() > 150


def _tiffs(kind: str) -> Make:
    def make(here: Path) -> list[str]:
        import tifffile

        for k, label in enumerate(("covid", "normal")):
            for i in range(8):
                pixels, path = noise(k, i).astype(np.uint16) * 257, here / "images" / label / f"P{k}{i}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                values, options = {
                    "white is zero": (65535 - pixels, {"photometric": "miniswhite"}),
                    "big-endian": (pixels, {"photometric": "minisblack", "byteorder": ">"}),
                    "big-endian white is zero": (65535 - pixels, {"photometric": "miniswhite", "byteorder": ">"}),
                    "float": (pixels.astype(np.float32), {"photometric": "minisblack"}),
                    "signed": ((pixels // 64).astype(np.int16) - 1024, {"photometric": "minisblack"}),
                }[kind]
                tifffile.imwrite(path, values, **options)
        return ["dataset=folder", f"dataset.root={here}/images", *folders(here / "x", "covid", "normal")[2:]]

    return make


def _as_the_8_bit(data: CTDataModule) -> None:
    from ddtl.data.images.decode import squared

    for row, sample in enumerate(data.manifest.samples):
        k, i = int(sample.path.stem[1]), int(sample.path.stem[2:])
        assert np.array_equal(data.cache[row], squared(Image.fromarray(noise(k, i)), 32)), sample.sample_id


def _text_chunk(here: Path) -> list[str]:
    words = folders(here, "covid", "normal")
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 3_000_000)
    info.add_text("Compressed", "y" * 3_000_000, zip=True)
    Image.fromarray(noise(0, 0)).save(here / "images/covid/P000.png", pnginfo=info)
    damaged = png(noise(0, 1), (b"iCCP", b"no profile"), (b"tEXt", b"no null byte"), (b"gAMA", b""))
    write(here / "images/covid/P001.png", damaged)
    return words


def _few_levels(n: int) -> Make:
    """``n`` of 8 images of each class have four grey levels."""

    def make(here: Path) -> list[str]:
        words = folders(here, "covid", "normal")
        for k, label in enumerate(("covid", "normal")):
            for i in range(n):
                image(here / "images" / label / f"P{k}{i:02}.png", (noise(k, i) // 64) * 80)
        return words

    return make


def _one_class_crushed(here: Path) -> list[str]:
    words = folders(here, "covid", "normal")
    for i in range(5):
        image(here / "images" / "covid" / f"P0{i:02}.png", (noise(0, i) // 64) * 80)
    return words


def _one_site_crushed(here: Path) -> list[str]:
    rows = [row | {"site": "bonn" if i % 4 == 0 else "ulm"} for i, row in enumerate(labelled("normal", "covid"))]
    pixels = [(noise(i) // 64) * 80 if i % 4 == 0 else noise(i) for i in range(16)]
    return table(here, rows, pixels=pixels)


WINDOW = "dataset.window={center: -600, width: 1500, slope: 1, intercept: -1024}"

PIXEL_CASES = [
    Case(
        PIXELS,
        "16-bit PNG of Hounsfield units + 1024",
        "refused: 16-bit values from … to …, and the window to paste",
        hounsfield,
        refused=(
            "stores 16-bit values from 24 to",
            "'dataset.window={center: -600, width: 1500, slope: 1, intercept: -1024}'",
        ),
    ),
    Case(
        PIXELS,
        "the same with `dataset.window`",
        "Hounsfield units through the window, over 150 grey levels",
        lambda h: hounsfield(h, WINDOW),
        check=_grey_of_units,
    ),
    Case(
        PIXELS,
        "the same with `dataset.allow_few_grey_levels=true`",
        "trains, and warns",
        lambda h: hounsfield(h, "dataset.allow_few_grey_levels=true"),
        noted=("16 of 16 images have fewer than 32",),
    ),
    Case(
        PIXELS,
        "a window with a wrong intercept",
        "refused: the window hides nearly all values",
        lambda h: hounsfield(h, "dataset.window={center: -600, width: 1500, intercept: 5000}"),
        refused=("dataset.window hides nearly all",),
    ),
    Case(
        PIXELS,
        "a window for 8-bit images",
        "refused: they contain grey levels",
        lambda h: [*folders(h, "covid", "normal"), WINDOW],
        refused=("8-bit grey levels, and dataset.window is for values of more bits",),
    ),
    Case(
        PIXELS,
        "a window of width 0",
        "refused before any file is read",
        lambda h: hounsfield(h, "dataset.window={center: -600, width: 0}"),
        refused=("dataset.window.width=0", "more than 1"),
    ),
    Case(
        PIXELS,
        "2 of 16 images with 4 grey levels",
        "trains, and warns with their names",
        _few_levels(1),
        noted=("2 of 16 images have fewer than 32 of 256 grey levels", "'covid/P000.png'"),
    ),
    Case(
        PIXELS,
        "12 of 16 images with 4 grey levels",
        "refused",
        _few_levels(6),
        refused=("12 of 16 images", "Export the images again", "dataset.allow_few_grey_levels=true"),
    ),
    Case(
        PIXELS,
        "over half of one class with 4 grey levels",
        "refused: it would tell the class",
        _one_class_crushed,
        refused=("5 of 16 images",),
    ),
    Case(
        PIXELS,
        "all of one site with 4 grey levels",
        "refused: it would tell the hospital",
        _one_site_crushed,
        refused=("4 of 16 images",),
    ),
    Case(
        PIXELS,
        "16-bit TIFF, WhiteIsZero",
        "as the 8-bit image: white is white",
        _tiffs("white is zero"),
        check=_as_the_8_bit,
    ),
    Case(PIXELS, "16-bit TIFF, big-endian", "as the 8-bit image", _tiffs("big-endian"), check=_as_the_8_bit),
    Case(
        PIXELS,
        "16-bit TIFF, big-endian, WhiteIsZero",
        "as the 8-bit image",
        _tiffs("big-endian white is zero"),
        check=_as_the_8_bit,
    ),
    Case(
        PIXELS,
        "TIFF of floating-point values",
        "refused: no fixed white; the window would give one",
        _tiffs("float"),
        refused=("no fixed white", "dataset.window"),
    ),
    Case(
        PIXELS,
        "TIFF of signed 16-bit Hounsfield units with a window of slope 1",
        "through the window",
        lambda h: [*_tiffs("signed")(h), "dataset.window={center: -512, width: 1024}"],
        check=images(16),
    ),
    Case(
        PIXELS,
        "PNG with 3 MB of text; with a damaged colour profile",
        "used: metadata never stops pixels",
        _text_chunk,
        check=_as_the_8_bit,
    ),
]

CASES = [*CLASS_CASES, *PATIENT_CASES, *FILE_CASES, *PIXEL_CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.given[:60])
def test_what_becomes_of_it(case: Case, tmp_path: Path) -> None:
    words: Sequence[str] = [*case.make(tmp_path), f"paths.cache_dir={tmp_path}/cache"]
    if case.refused:
        with pytest.raises(UserError) as caught:
            _data(words)
        message = str(caught.value)
        assert all(text in message for text in case.refused), message
        return
    data = _data(words)
    case.check(data)
    from ddtl.data.splits import protocols as splits

    sent_on = [*splits.describe(data.manifest), *data.manifest.sentences()]
    warnings = "\n".join([*sent_on, *data.manifest.doubts()])
    assert all(text in warnings for text in case.noted), warnings
    private = {str(tmp_path), *(s.sample_id for s in data.manifest.samples)}
    private |= {s.patient_id for s in data.manifest.samples if s.patient_id and len(s.patient_id) > 2}
    assert not [name for name in private if any(name in text for text in sent_on)], "pages name no file and nobody"


def _data(words: Sequence[str]) -> CTDataModule:
    data = CTDataModule(load(words))
    data.load()
    return data
