"""``ddtl predict``: the run's own predictions again, its record's rules, what is far from training, and bad files."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from ddtl.commands import cli, export
from ddtl.data.datasets import registry
from ddtl.data.images.harmonize import harmonizer_of_files
from ddtl.data.images.image_file import BadImageError
from ddtl.evaluation.patients import PatientTable, by_patient
from ddtl.evaluation.predictions import Predictions
from ddtl.inference import embeddings, inputs
from ddtl.inference.inputs import InputFile, decode_all
from ddtl.inference.ood import NEIGHBOUR, Reference, distance, unit
from ddtl.inference.output import Tables
from ddtl.inference.scores import Patients, Rule, row
from ddtl.records import predictions as prediction_table
from ddtl.utils.errors import UserError
from tests.support import ct_slices
from tests.support.runs import SMALL, config, run

PHANTOM = [word for word in SMALL if word.startswith("dataset.phantom.")]
NOWHERE = {"series": None, "far_from_training": False}  # what the tables say besides
COLUMNS = ("logit_non-COVID", "logit_COVID")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose threshold was chosen on validation, of a network that learns something in two epochs."""
    words = ("model=resnet18", "trainer.max_epochs=2", "evaluation.threshold=youden")
    return run(tmp_path_factory.mktemp("predicting"), *words).folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom's own image files, by sample id."""
    sample = registry.build(config(tmp_path_factory.mktemp("images"))).samples[0]
    return sample.path.parents[len(Path(sample.sample_id).parts) - 1]


@pytest.fixture(scope="module")
def own(trained: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's test images in one folder a patient."""
    folder = tmp_path_factory.mktemp("own")
    table = prediction_table.read(trained / "predictions.csv").of("test")
    for sample, patient in zip(table.sample_id.tolist(), table.patient_id.tolist(), strict=True):
        to = folder / patient / f"{Path(sample).stem}.png"
        to.parent.mkdir(exist_ok=True)
        shutil.copy(images / f"{sample.removesuffix('.png')}.png", to)
    return folder


def predict(trained: Path, to: Path, *words: str | Path) -> tuple[int, list[dict[str, str]], dict[str, Any]]:
    """Exit code, rows of the CSV, and the JSON."""
    code = cli.main(["predict", str(trained), *map(str, words), f"output={to}"])
    with (to / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, Any] = json.loads((to / "predictions.json").read_text(encoding="utf-8"))
    return code, rows, found


def test_the_runs_own_test_images_are_predicted_as_the_run_did(trained: Path, own: Path, tmp_path: Path) -> None:
    code, rows, found = predict(trained, tmp_path / "out", own)
    table = prediction_table.read(trained / "predictions.csv").of("test")
    record = json.loads((trained / "results.json").read_text())
    theirs = dict(zip((Path(name).stem for name in table.sample_id.tolist()), table.logits, strict=True))
    assert code == 0
    assert len(rows) == len(theirs) == len(found["pictures"])
    assert (found["precision"], found["batch_size"]) == (record["precision"], 32)
    for row_ in rows:
        logits = np.array([float(row_[name]) for name in COLUMNS])
        np.testing.assert_allclose(logits, theirs[Path(row_["file"]).stem], rtol=0, atol=1e-6)
        p = 1 / (1 + np.exp(logits[0] - logits[1]))
        assert float(row_["probability_COVID"]) == pytest.approx(p, abs=1e-12)
        assert row_["decision"] == ("COVID" if p >= record["threshold"] else "non-COVID")
        temperature = record["calibration"]["temperature"]
        if temperature:
            assert float(row_["calibrated_COVID"]) == pytest.approx(
                1 / (1 + np.exp((logits[0] - logits[1]) / temperature)), abs=1e-12
            )


def test_the_json_says_what_the_csv_says(trained: Path, own: Path, tmp_path: Path) -> None:
    _, rows, found = predict(trained, tmp_path / "out", own)
    for row_, said in zip(rows, found["pictures"], strict=True):
        assert list(row_) == list(said)
        assert float(row_["logit_COVID"]) == said["logit_COVID"]
        assert (row_["far_from_training"] == "yes") is said["far_from_training"]


def test_patients_get_the_scores_of_the_record(trained: Path, own: Path, tmp_path: Path) -> None:
    _, _, found = predict(trained, tmp_path / "out", own, "patients=folder")
    threshold = json.loads((trained / "results.json").read_text())["threshold"]
    theirs = by_patient(prediction_table.read(trained / "predictions.csv").of("test"), "mean", threshold)
    assert isinstance(theirs, PatientTable)
    ours = {Path(row_["patient_id"]).name: row_ for row_ in found["patients"]}
    assert sorted(ours) == theirs.patient_id.tolist()
    for name, p, n in zip(theirs.patient_id.tolist(), theirs.p, theirs.images, strict=True):
        assert ours[name]["score_COVID"] == pytest.approx(p, abs=1e-6)
        assert ours[name]["pictures"] == n
        assert ours[name]["decision"] == ("COVID" if p >= threshold else "non-COVID")
    with (tmp_path / "out" / "patients.csv").open(newline="") as file:
        assert [row_["patient_id"] for row_ in csv.DictReader(file)] == [
            row_["patient_id"] for row_ in found["patients"]
        ]


@pytest.mark.parametrize("aggregation", ["mean", "max", "vote"])
@given(
    logits=st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 3)), min_size=1, max_size=12),
    threshold=st.floats(0.05, 0.95),
)
def test_a_patients_score_is_that_of_the_evaluation(
    aggregation: Any, logits: list[tuple[float, int]], threshold: float
) -> None:
    rule = Rule(("no", "yes"), threshold, None, aggregation)
    patients = Patients(rule)
    for value, patient in logits:
        patients.add({**row(rule, np.array([0.0, value])), **NOWHERE, "patient_id": f"p{patient}"})
    names = np.array([f"p{patient}" for _, patient in logits])
    empty = np.full(len(logits), "")
    table = Predictions(
        ("no", "yes"), empty, np.arange(len(logits)).astype(str), names, names, empty,
        np.ones(len(logits), dtype=np.int64), np.array([[0.0, value] for value, _ in logits]),
    )  # fmt: skip
    theirs = by_patient(table, aggregation, threshold)
    assert isinstance(theirs, PatientTable)
    ours = {row_["patient_id"]: row_ for row_ in patients.rows()}
    assert {name: ours[name]["score_yes"] for name in ours} == pytest.approx(
        dict(zip(theirs.patient_id.tolist(), theirs.p.tolist(), strict=True)), abs=1e-12
    )


def test_with_three_classes_the_likeliest_is_called_and_no_patient_scored() -> None:
    rule = Rule(("a", "b", "c"), 0.5, 2.0, "mean")
    said = row(rule, np.log([0.4, 0.5, 0.1]))
    assert said["decision"] == "b"
    assert [said[f"probability_{name}"] for name in "abc"] == pytest.approx([0.4, 0.5, 0.1])
    roots = np.sqrt([0.4, 0.5, 0.1])
    assert [said[f"calibrated_{name}"] for name in "abc"] == pytest.approx((roots / roots.sum()).tolist())
    patients = Patients(rule)
    patients.add({**said, **NOWHERE, "patient_id": "p"})
    assert patients.rows() == []


def test_bad_files_are_named_and_the_others_predicted(
    trained: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = tmp_path / "scans"
    shutil.copytree(own, scans)
    good = len(list(scans.rglob("*.png")))
    (scans / "empty.png").write_bytes(b"")
    (scans / "cut.png").write_bytes(next(scans.rglob("*_s0.png")).read_bytes()[:200])
    (scans / "page.jpg").write_text("<html>not found</html>")
    (scans / "notes.txt").write_text("no picture")
    ct_slices.write(scans / "mr", np.zeros((4, 4)), Modality="MR")
    os.mkfifo(scans / "pipe.png")
    code, rows, found = predict(trained, tmp_path / "out", scans)
    assert code == 1
    assert len(rows) == good
    reasons = {Path(bad["file"]).name: bad["reason"] for bad in found["skipped"]}
    assert reasons["empty.png"] == "is empty (0 bytes)"
    assert "web page" in reasons["page.jpg"]
    assert "modality MR" in reasons["mr"]
    assert reasons["pipe.png"] == "is not a regular file"
    assert set(reasons) == {"empty.png", "cut.png", "page.jpg", "mr", "pipe.png"}
    assert "5 files were excluded" in capsys.readouterr().out


def test_images_are_known_by_content(
    trained: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = next(own.rglob("*.png"))
    names = ["a.jfif", "b.png_", "c", "d.dcm", "e.jpe"]
    for name in names:
        shutil.copy(one, tmp_path / name)
    ct_slices.write(
        tmp_path / "slice.png", ct_slices.hounsfield(np.asarray(Image.open(one).convert("L"))), intercept=-1500
    )
    for name in ("notes.txt", "more.txt", "list.csv", "Makefile"):
        (tmp_path / name).write_text("BM is how this text starts")
    code, rows, _ = predict(trained, tmp_path / "out", tmp_path)
    assert code == 0
    assert [Path(row_["file"]).name for row_ in rows] == [*names, "slice.png"]
    assert len({row_["logit_COVID"] for row_ in rows[:5]}) == 1
    shown = capsys.readouterr()
    assert "4 files in the folders are not images and were passed over (2 .txt, 1 without suffix, 1 .csv)" in " ".join(
        f"{shown.out} {shown.err}".split()
    )


def test_a_dicom_series_becomes_one_patients_score(trained: Path, own: Path, tmp_path: Path) -> None:
    picture = np.asarray(Image.open(next(own.rglob("*.png"))).convert("L"))
    for number in range(3):
        values = ct_slices.hounsfield(np.roll(picture, number, axis=1))
        corner = [0, 0, -5.0 * number]
        ct_slices.write(tmp_path / f"IM{number}", values, intercept=-1500, ImagePositionPatient=corner, PatientID="P7")
    code, rows, found = predict(trained, tmp_path / "out", *sorted(tmp_path.glob("IM*")))
    assert code == 0
    assert [float(row_["position_mm"]) for row_ in rows] == [-10, -5, 0]
    (patient,) = found["patients"]
    assert (patient["patient_id"], patient["pictures"], patient["series"]) == ("P7", 3, 1)
    mean = np.mean([float(row_["probability_COVID"]) for row_ in rows])
    assert patient["score_COVID"] == pytest.approx(mean)


@pytest.mark.realdata
def test_the_slices_of_a_hospital_are_all_predicted(
    trained: Path, real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, rows, found = predict(trained, tmp_path / "out", real_data / "covidctmd")
    assert (code, len(rows), found["skipped"], found["warnings"]) == (0, 72, [], [])
    patients = {row_["patient_id"]: row_["pictures"] for row_ in found["patients"]}
    assert patients == dict.fromkeys(["cap001", "cap002", "P001", "P002", "normal001", "normal002"], 12)
    out = capsys.readouterr().out
    assert re.search(r"72 images: .* \(of 6 patients\)", out)


def test_doubts_are_reported_once_and_recorded(
    trained: Path, own: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture = np.asarray(Image.open(next(own.rglob("*.png"))).convert("L"))
    for number in range(3):
        ds = ct_slices.dataset(ct_slices.hounsfield(picture), intercept=-1500, PatientID="ANONYMOUS")
        (tmp_path / f"IM{number}").write_bytes(ct_slices.without_meta(ds))
    with caplog.at_level("WARNING", "ddtl"):
        code, rows, found = predict(trained, tmp_path / "out", *sorted(tmp_path.glob("IM*")))
    assert (code, len(rows)) == (0, 3)
    said = [record.getMessage() for record in caplog.records]
    assert sum("ANONYMOUS" in line for line in said) == 1
    assert sum("has no transfer syntax" in line and "and 2 more files" in line for line in said) == 1
    patients, syntax = found["warnings"]
    assert patients["warning"].startswith("PatientID 'ANONYMOUS' is a placeholder")
    assert syntax["warning"] == "has no transfer syntax; read as explicit VR, little endian"
    assert [Path(name).name for name in syntax["files"]] == ["IM0", "IM1", "IM2"]
    assert [patient["patient_id"] for patient in found["patients"]] == ["1.2.3"]


def test_a_directory_of_a_disc_is_no_bad_file(trained: Path, own: Path, tmp_path: Path) -> None:
    from pydicom.data import get_testdata_file

    picture = np.asarray(Image.open(next(own.rglob("*.png"))).convert("L"))
    shutil.copy(str(get_testdata_file("DICOMDIR")), tmp_path / "DICOMDIR")
    with pytest.raises(UserError, match=r"DICOMDIR: is a DICOMDIR, .*Name the folder"):
        cli.main(["predict", str(trained), str(tmp_path / "DICOMDIR"), f"output={tmp_path / 'out'}"])
    ct_slices.write(tmp_path / "IM1", ct_slices.hounsfield(picture), intercept=-1500)
    code, rows, found = predict(trained, tmp_path / "out", tmp_path)
    assert (code, len(rows), found["skipped"]) == (0, 1, [])


def test_names_stand_in_the_tables_letter_by_letter(
    trained: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    source = next(own.rglob("*.png"))
    names = ['a,"b"\n<b>.png', "über 100%.png", "x" * 200 + ".png", "key=value.png"]
    for name in names:
        shutil.copy(source, tmp_path / name)
    odd = os.fsencode(tmp_path) + b"/not-utf8-\xff.png"
    shutil.copy(source, odd)
    code, rows, found = predict(trained, tmp_path / "out", *sorted(tmp_path.glob("*.png")))
    assert code == 0
    shown = {Path(row_["file"]).name for row_ in rows}
    # For people, control signs are shown escaped; the record keeps the name as it is.
    assert shown == {name.replace("\n", "\\n") for name in [*names, "not-utf8-\\xff.png"]}
    assert {Path(said["file"]).name for said in found["pictures"]} == {*names, "not-utf8-\\xff.png"}
    printed = capsys.readouterr()
    assert 'a,"b"\\n<b>.png' in printed.out
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "cut\nerror: forged.png").write_bytes(Path(source).read_bytes()[:200])
    assert cli.main(["predict", str(trained), str(tmp_path / "new"), f"output={tmp_path / 'more'}"]) == 1
    assert "\nerror: forged" not in capsys.readouterr().err + caplog.text
    assert "cut\\nerror: forged.png is cut off" in caplog.text


def test_a_file_named_twice_is_predicted_once(trained: Path, own: Path, tmp_path: Path) -> None:
    one = next(own.rglob("*.png"))
    (tmp_path / "link").symlink_to(own)
    _, rows, _ = predict(trained, tmp_path / "out", own, one, tmp_path / "link")
    assert len(rows) == len(list(own.rglob("*.png")))


def test_images_of_another_kind_are_far_and_the_runs_own_are_not(
    trained: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for number in range(20):
        noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"noise{number}.png")
    code, rows, _ = predict(trained, tmp_path / "out", *sorted(tmp_path.glob("noise*.png")))
    assert code == 0
    assert all(row_["far_from_training"] == "yes" for row_ in rows)
    assert "more than chance" in capsys.readouterr().out
    _, rows, found = predict(trained, tmp_path / "own", own)
    share = np.mean([row_["far_from_training"] == "yes" for row_ in rows])
    assert share < 0.25
    about = found["far_from_training"]
    assert about["false_alarms_on_validation"] <= about["false_alarms_expected"] <= 0.1


def test_the_training_images_are_looked_at_once_for_a_run(
    trained: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    one = next(own.rglob("*.png"))
    (folder / embeddings.NAME).unlink(missing_ok=True)
    _, first, _ = predict(folder, tmp_path / "first", one)
    with monkeypatch.context() as patch:
        patch.setattr(embeddings, "CTDataModule", lambda config: pytest.fail("the images were read again"))
        _, second, _ = predict(folder, tmp_path / "second", one)
    assert first[0]["distance"] == second[0]["distance"]
    (folder / embeddings.NAME).write_bytes(b"damaged")
    _, third, _ = predict(folder, tmp_path / "third", one)
    assert float(third[0]["distance"]) == pytest.approx(float(first[0]["distance"]))


def test_without_the_training_images_images_are_predicted_all_the_same(
    trained: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    (folder / embeddings.NAME).unlink(missing_ok=True)
    record = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(record | {"digest": "of other images"}))
    code, rows, found = predict(folder, tmp_path / "out", next(own.rglob("*.png")), "patients=folder")
    assert code == 0
    assert found["patients"][0]["far_from_training"] is None
    assert rows[0]["distance"] == rows[0]["far_from_training"] == ""
    assert "no longer those" in found["far_from_training"]["why_not"]
    assert not (folder / embeddings.NAME).exists()


def test_the_distance_is_that_to_the_kth_neighbour() -> None:
    rng = np.random.default_rng(0)
    train, new = unit(rng.normal(size=(50, 7))), unit(rng.normal(size=(9, 7)))
    theirs = NearestNeighbors(n_neighbors=NEIGHBOUR).fit(train).kneighbors(new)[0][:, -1]
    np.testing.assert_allclose(distance(train, new), theirs, atol=1e-5)
    few = train[: NEIGHBOUR - 3]
    np.testing.assert_allclose(
        distance(few, new), NearestNeighbors(n_neighbors=len(few)).fit(few).kneighbors(new)[0][:, -1], atol=1e-5
    )
    twins = np.repeat(train[:1], NEIGHBOUR, axis=0)
    assert distance(np.concatenate([train, twins]), train[:1])[0] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("n", "asked"), [(10, 0.05), (19, 0.05), (60, 0.05), (200, 0.1)])
def test_new_images_like_the_validation_images_are_called_far_as_often_as_said(n: int, asked: float) -> None:
    rng = np.random.default_rng(1)
    train = rng.normal(size=(100, 5)) + 2
    rates, expected = [], 0.0
    for _ in range(400):
        found = Reference.of(train, rng.normal(size=(n, 5)) + 2)
        cut = found.cut(asked)
        expected = cut.expected
        assert cut.on_val <= expected <= max(asked, 1 / (n + 1)) + 1e-12
        rates.append(float(np.mean(found.distances(rng.normal(size=(100, 5)) + 2) > cut.distance)))
    assert np.mean(rates) == pytest.approx(expected, abs=3.5 * np.std(rates) / 20)


@given(st.integers(1, 400), st.floats(0.001, 0.5))
def test_more_false_alarms_never_move_the_cut_away(n: int, asked: float) -> None:
    found = Reference(np.eye(2, dtype=np.float32), np.linspace(0.1, 1, n))
    assert found.cut(min(2 * asked, 0.99)).distance <= found.cut(asked).distance <= found.val[-1]


@settings(deadline=None, max_examples=20)
@given(n=st.integers(0, 40), ahead=st.integers(1, 7), workers=st.integers(1, 4), in_turns=st.booleans())
def test_images_are_decoded_a_few_ahead_and_come_in_order(n: int, ahead: int, workers: int, in_turns: bool) -> None:
    lock, handed_out, started = threading.Lock(), [0], [0]
    most = [0]

    def slowly(picture: InputFile, size: int, window: object, note: Any) -> np.ndarray:
        with lock:
            started[0] += 1
            most[0] = max(most[0], started[0] - handed_out[0])
        time.sleep(0.0005)
        if int(picture.path.name) % 5 == 3:
            raise BadImageError(picture.path, "is bad")
        return np.zeros((size, size), dtype=np.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "decode", slowly)
        names = []
        for one in decode_all([InputFile(Path(str(i))) for i in range(n)], 4, ahead, workers, in_turns=in_turns):
            with lock:
                handed_out[0] += 1
            names.append(int(one.file.path.name))
            assert isinstance(one.image, BadImageError) == (names[-1] % 5 == 3)
    assert names == list(range(n))
    assert most[0] <= ahead + 1, "what is decoded and not handed out yet"


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken_off() -> None:
        with Tables(tmp_path / "new" / "out", ["file"], {"note": "x"}) as tables:
            tables.add({"file": "a"})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken_off()
    assert list(tmp_path.iterdir()) == []


def test_earlier_predictions_are_replaced_only_when_asked(trained: Path, own: Path, tmp_path: Path) -> None:
    one, two = sorted(own.rglob("*.png"))[:2]
    predict(trained, tmp_path / "out", one)
    with pytest.raises(UserError, match="overwrite=true"):
        predict(trained, tmp_path / "out", two)
    _, rows, _ = predict(trained, tmp_path / "out", two, "overwrite=true")
    assert [row_["file"] for row_ in rows] == [str(two)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs images behind the run"),
        (["nowhere.png"], "nowhere.png: there is no such file or folder"),
        (["batchsize=3"], "Did you mean batch_size"),
        (["--fast"], "--fast: not a setting of `ddtl predict`"),
        (["x.png", "batch_size=0"], "batch_size=0: must be at least 1"),
        (["x.png", "false_alarms=5%"], "false_alarms=5%: must be a number"),
        (["x.png", "precision=16"], "precision=16: must be one of run, 32"),
    ],
)
def test_a_mistake_is_named(trained: Path, words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        cli.main(["predict", str(trained), *words, f"output={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_a_folder_without_an_image_is_named(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(UserError, match="no image in 1 files"):
        cli.main(["predict", str(trained), str(tmp_path), f"output={tmp_path / 'out'}"])


def test_a_mistake_is_answered_without_torch() -> None:
    code = "import sys, ddtl.commands.predict, ddtl.inference.inputs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=300).returncode == 0


@pytest.mark.parametrize(
    "method",
    [pytest.param("equalize", marks=pytest.mark.slow), pytest.param("match_image", marks=pytest.mark.slow), "match"],
)
def test_new_files_are_harmonised_as_the_runs_own(method: str, tmp_path: Path) -> None:
    words = (f"dataset.harmonize={method}", "trainer.max_epochs=1", "trainer.limit_batches=2", "trainer.precision=32")
    folder = run(tmp_path, *words).folder
    table = prediction_table.read(folder / "predictions.csv").of("test")
    paths = {sample.sample_id: sample.path for sample in registry.prepared(config(tmp_path, *words)).samples}
    code, rows, _ = predict(folder, tmp_path / "out", *(paths[name] for name in table.sample_id.tolist()[:8]))
    assert code == 0
    found = [[float(row[name]) for name in COLUMNS] for row in rows]
    np.testing.assert_allclose(found, table.logits[:8], atol=1e-4)
    results = json.loads((folder / "results.json").read_text())
    assert export.metadata(config(tmp_path, *words), results, "")["harmonize"] == method


def test_files_of_unknown_source_are_refused_where_each_source_has_its_map(tmp_path: Path) -> None:
    dataset = config(tmp_path).dataset.model_copy(update={"harmonize": "match", "kind": "pooled"})
    with pytest.raises(UserError, match=r"one map for each source.*dataset\.harmonize=match_image"):
        harmonizer_of_files(dataset, lambda: np.zeros(256, dtype=np.int64))
