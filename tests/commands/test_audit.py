"""``ddtl audit``: its command line, its files, its exit codes, and whole audits of small datasets."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddtl.audits import audit as auditing
from ddtl.commands import cli
from ddtl.commands.audit import main, parse
from ddtl.config.load import load
from ddtl.utils.errors import UserError
from tests.support import audits

# --- the command line ------------------------------------------------------------------------------------------------


def asked(*words: str) -> list[tuple[str, str, str]]:
    return [(c.dataset.kind, c.dataset.name, c.dataset.protocol) for c in parse(words).configs]


def test_one_dataset_and_several() -> None:
    covid, sars = ("covid19ct", "covid19ct", "official"), ("sarscov2ct", "sarscov2ct", "grouped")
    assert asked("dataset=covid19ct") == asked("covid19ct") == [covid]
    assert asked("covid19ct", "sarscov2ct") == asked("dataset=covid19ct", "dataset=sarscov2ct") == [covid, sars]
    assert asked("dataset.phantom.shortcut=0.8") == [("phantom", "phantom", "grouped")]


def test_a_setting_behind_a_dataset_is_of_that_one_alone() -> None:
    before = asked("dataset.protocol=random", "covid19ct", "sarscov2ct", "dataset.protocol=kfold")
    assert [protocol for *_, protocol in before] == ["random", "kfold"]
    configs = parse(["covid19ct", "sarscov2ct", "paths.runs_dir=elsewhere"]).configs
    assert {config.paths.runs_dir for config in configs} == {"elsewhere"}


@pytest.mark.parametrize(
    ("words", "strict"), [(["phantom"], False), (["phantom", "--strict"], True), (["phantom", "strict=true"], True),
                          (["phantom", "strict=False"], False)],
)  # fmt: skip
def test_strict(words: list[str], strict: bool) -> None:
    assert parse(words).strict is strict


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dataset=covid19"], ["no such option", "Did you mean covid19ct?"]),
        (["covid19"], ["covid19: no such dataset. Did you mean covid19ct?"]),
        (["covid19ct", "trainer.max_epochs=1"], ["trainer.max_epochs=1: not a setting of an audit.", "strict"]),
        (["covid19ct", "--stric"], ["Did you mean --strict?"]),
        (["covid19ct", "strict=yes"], ["strict=yes: must be true or false"]),
        (["covid19ct", "dataset.protocoll=random"], ["dataset.protocoll=random: no such key", "dataset.protocol"]),
        (["covid19ct", "dataset.exclude=nowhere.csv"], ["there is no such file", "Set dataset.exclude"]),
        (["covid19ct", "covid19ct"], ["two datasets of this name", "dataset.name"]),
        (["covid19", "strict=2"], ["no such dataset", "strict=2: must be true or false"]),
        (["dataset=folder"], ["needs dataset.root=FOLDER"]),
    ],
)
def test_mistakes_are_named_with_the_fix(words: list[str], said: list[str]) -> None:
    with pytest.raises(UserError) as problem:
        parse(words)
    for part in said:
        assert part in str(problem.value)


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["covid19ct"], "covid19ct"),
        (["covid19ct", "sarscov2ct"], "covid19ct-sarscov2ct"),
        (["covid19ct", "dataset.protocol=random"], "covid19ct-random"),
        (["sarscov2ct", "dataset.protocol=kfold", "dataset.fold=2"], "sarscov2ct-kfold-2-of-5"),
    ],
)
def test_what_differs_has_a_folder_of_its_own(words: list[str], folder: str) -> None:
    assert parse([*words, "paths.runs_dir=r"]).folder == Path("r") / "audits" / folder


def test_phantoms_of_other_settings_do_not_overwrite_each_other() -> None:
    names = [parse([*words]).folder.name for words in (
        ["phantom"], ["phantom", "dataset.phantom.n_patients=60"], ["phantom", "dataset.phantom.n_patients=80"],
        ["phantom", "dataset.image_size=32"],
    )]  # fmt: skip
    assert names[0] == names[3] == "phantom"
    assert len(set(names)) == 3


def test_an_audit_without_some_images_does_not_overwrite_the_list_that_names_them(tmp_path: Path) -> None:
    path = tmp_path / "exclude.csv"
    path.write_text("sample_id\na.png\n")
    name = parse(["sarscov2ct", f"dataset.exclude={path}"]).folder.name
    assert name.startswith("sarscov2ct-without-")
    path.write_text("sample_id\nb.png\n")
    assert parse(["sarscov2ct", f"dataset.exclude={path}"]).folder.name != name


def test_help_and_mistakes_need_no_torch() -> None:
    code = "import sys; from ddtl.commands import cli; cli.main(['audit', '--help'])\n"
    code += "try: cli.main(['audit', 'covid19', 'x=1'])\n"
    code += "except ValueError as error: print(error)\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--strict" in done.stdout
    assert "Did you mean covid19ct?" in done.stdout


# --- files and exit codes, of audits made by hand --------------------------------------------------------------------


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The words of an audit of a small phantom; what is found is given."""
    found = audits.audit(tmp_path / "images")
    monkeypatch.setattr(auditing, "run", lambda subjects, stage: found)
    return ["dataset.phantom.n_patients=6", f"paths.runs_dir={tmp_path / 'runs'}"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_four_files(by_hand: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(by_hand) == 0
    (folder,) = (tmp_path / "runs" / "audits").glob("phantom-*")
    assert sorted(path.name for path in folder.iterdir()) == ["audit.json", "exclude.csv", "pairs.csv", "report.html"]
    record = json.loads((folder / "audit.json").read_text())
    assert record["command"].startswith("ddtl audit dataset.phantom.n_patients=6")
    assert [row["sample_id"] for row in rows(folder / "exclude.csv")] == [f"00{i}.png" for i in (0, 1, 5, 6)] + [
        "010.png"
    ]
    pairs = rows(folder / "pairs.csv")
    assert len(pairs) == record["pairs"]["total"] == 3
    assert pairs[0] == {
        "first_dataset": "chest", "first": "000.png", "first_split": "train", "first_class": "normal",
        "second_dataset": "chest", "second": "006.png", "second_split": "test", "second_class": "normal",
        "kind": "same file", "transform": "none", "distance": "0", "similarity": "1.0000", "breaks": "splits",
    }  # fmt: skip
    out = capsys.readouterr().out
    assert out.startswith("fail: chest: 1 pair of duplicates across splits")
    assert "5 images to exclude: dataset.exclude=" in out


def test_strict_makes_a_leak_the_exit_code(by_hand: list[str]) -> None:
    assert main([*by_hand, "--strict"]) == 1
    assert main([*by_hand, "strict=false"]) == 0


def test_strict_on_clean_data(monkeypatch: pytest.MonkeyPatch, by_hand: list[str], tmp_path: Path) -> None:
    clean = audits.audit(tmp_path / "clean", clean=True)
    monkeypatch.setattr(auditing, "run", lambda subjects, stage: clean)
    assert main([*by_hand, "--strict"]) == 0


def test_a_folder_that_cannot_be_written(by_hand: list[str], tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "audits").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be written .* paths.runs_dir"):
        main(by_hand)


# --- whole audits ----------------------------------------------------------------------------------------------------


def slices(seed: int) -> np.ndarray:
    """A smooth picture that no other seed repeats; uint8 (96, 96)."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8))
    return np.asarray(coarse.resize((96, 96), Image.Resampling.BICUBIC))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A table of 24 images of 12 patients in three splits: nothing is wrong with it."""
    lines = ["path,label,patient_id,split"]
    for i in range(24):
        Image.fromarray(slices(i)).save(tmp_path / f"{i:02d}.png")
        patient = i // 2
        split = ("train", "val", "test")[patient // 2 % 3]
        lines.append(f"{i:02d}.png,{('normal', 'covid')[patient % 2]},P{patient},{split}")
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def audit(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    given = ["dataset=table", "dataset.name=mine", f"dataset.table={folder / 'list.csv'}", "dataset.protocol=official"]
    code = cli.main(["audit", *given, f"paths.runs_dir={folder / 'runs'}", *words])
    return code, json.loads(next((folder / "runs" / "audits").glob("*/audit.json")).read_text())


def checks(record: dict[str, Any], *severities: str) -> list[str]:
    return [finding["check"] for finding in record["findings"] if finding["severity"] in severities]


def test_a_clean_dataset_passes_strict(own: Path) -> None:
    code, record = audit(own, "--strict")
    assert (code, checks(record, "fail"), record["pairs"]["total"]) == (0, [], 0)


@pytest.mark.slow
def test_leaks_conflicts_corrupt_images_and_torn_patients_in_one_dataset(own: Path) -> None:
    (own / "04.png").write_bytes((own / "08.png").read_bytes())  # P2 (val) = P4 (test), both normal
    Image.fromarray(slices(0)[:, ::-1]).save(own / "02.png")  # P0 normal = P1 covid, flipped, both in training
    (own / "23.png").write_bytes((own / "23.png").read_bytes()[:200])
    table = (own / "list.csv").read_text().replace("13.png,normal,P6,train", "13.png,normal,P6,test")
    (own / "list.csv").write_text(table)
    code, record = audit(own, "strict=true")
    assert code == 1
    assert checks(record, "fail") == ["duplicates across splits", "label conflicts", "patients across splits"]
    assert {"unreadable images", "split"} <= set(checks(record, "warn"))
    assert record["datasets"][0]["leaked_test_images"] == 1
    listed = {row["sample_id"] for row in rows(own / "runs" / "audits" / "mine-official" / "exclude.csv")}
    assert listed == {"04.png", "00.png", "02.png", "23.png"}


def test_the_list_that_an_audit_writes_ends_what_it_found(own: Path) -> None:
    (own / "04.png").write_bytes((own / "08.png").read_bytes())
    (own / "11.png").write_bytes(b"")
    assert audit(own, "--strict")[0] == 1
    exclude = own / "runs" / "audits" / "mine-official" / "exclude.csv"
    kept = exclude.read_bytes()
    given = ["dataset=table", "dataset.name=mine", f"dataset.table={own / 'list.csv'}", "dataset.protocol=official"]
    words = [*given, f"dataset.exclude={exclude}", f"paths.runs_dir={own / 'runs'}"]
    assert cli.main(["audit", *words, "--strict"]) == 0
    assert exclude.read_bytes() == kept
    (again,) = (own / "runs" / "audits").glob("mine-official-without-*/audit.json")
    record = json.loads(again.read_text())
    assert record["datasets"][0]["excluded"]["images"] == 2
    assert not {"duplicates across splits", "unreadable images"} & set(checks(record, "fail", "warn", "note"))


def test_the_digest_is_that_of_a_run(own: Path) -> None:
    from ddtl.data.loading.datamodule import CTDataModule

    _, record = audit(own)
    words = ["dataset=table", "dataset.name=mine", f"dataset.table={own / 'list.csv'}", "dataset.protocol=official"]
    module = CTDataModule(load([*words, "dataset.image_size=32", "dataset.batch_size=4"]))
    module.load()
    assert record["datasets"][0]["digest"] == module.digest


def test_without_patients_and_without_a_split(own: Path) -> None:
    (own / "list.csv").write_text("path,label\n" + "".join(f"{i:02d}.png,{'ab'[i == 0]}\n" for i in range(6)))
    code = cli.main(["audit", "dataset=table", f"dataset.table={own / 'list.csv'}", f"paths.runs_dir={own / 'runs'}"])
    record = json.loads((own / "runs" / "audits" / "table" / "audit.json").read_text())
    assert code == 0
    assert {"patients", "split"} <= set(checks(record, "warn"))
    undone = {one["check"]: one["why_not"] for one in record["checked"] if not one["done"]}
    assert undone["duplicates across splits"] == "the dataset has no split"


def test_a_list_that_a_shell_has_split_is_one_mistake() -> None:
    with pytest.raises(UserError) as error:
        main(["dataset=folder", "dataset.root=/tmp", "dataset.name=mine", "dataset.classes=[normal,", "covid]"])
    assert str(error.value).endswith("Quote it whole: 'dataset.classes=[normal,covid]'")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("path,label\n00.png,covid\n", "two classes are needed, and the only label is 'covid'"),
        ("path,label\n00.png,covid\n01.png,covid\n", "two classes are needed"),
        ("path,label\n", "contains no line"),
    ],
    ids=["one image", "one class", "empty"],
)
def test_a_dataset_that_cannot_be_read_is_a_mistake_with_a_clear_word(own: Path, table: str, said: str) -> None:
    (own / "list.csv").write_text(table)
    with pytest.raises(UserError, match=said):
        audit(own)


def test_all_images_corrupt(own: Path) -> None:
    for path in own.glob("*.png"):
        path.write_bytes(b"no image")
    code, record = audit(own)
    assert code == 0
    (finding,) = [f for f in record["findings"] if f["check"] == "unreadable images"]
    assert finding["title"] == "24 images cannot be read"


def test_one_class_left_by_an_exclude_list(own: Path) -> None:
    table = (own / "list.csv").read_text().splitlines()[1:]
    (own / "x.csv").write_text("sample_id\n" + "\n".join(line.split(",")[0] for line in table if "covid" in line))
    _, record = audit(own, f"dataset.exclude={own / 'x.csv'}")
    assert "classes" in checks(record, "warn")
    undone = {one["check"] for one in record["checked"] if not one["done"]}
    assert {"label conflicts", "differences between classes"} <= undone


def test_several_datasets_share_images(own: Path) -> None:
    other = own / "other"
    other.mkdir()
    for i in range(12):
        Image.fromarray(slices(100 + i)).save(other / f"{i:02d}.png")
    (other / "05.png").write_bytes((own / "07.png").read_bytes())
    lines = "".join(f"{i:02d}.png,{('normal', 'covid')[i % 2]},Q{i}\n" for i in range(12))
    (other / "list.csv").write_text("path,label,patient_id\n" + lines)
    words = ["dataset=table", "dataset.name=a", f"dataset.table={own / 'list.csv'}"]
    words += ["dataset=table", "dataset.name=b", f"dataset.table={other / 'list.csv'}"]
    assert cli.main(["audit", *words, f"paths.runs_dir={own / 'runs'}"]) == 0
    folder = own / "runs" / "audits" / "a-b"
    record = json.loads((folder / "audit.json").read_text())
    (finding,) = [f for f in record["findings"] if f["check"] == "duplicates across datasets"]
    assert finding["datasets"] == ["a", "b"]
    assert (folder / "exclude-a.csv").exists()
    assert (folder / "exclude-b.csv").exists()


# --- what it must find -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_covid19ct(real_data: Path, tmp_path: Path) -> None:
    words = ["covid19ct", "--strict", f"paths.data_dir={real_data}", f"paths.runs_dir={tmp_path}"]
    assert cli.main(["audit", *words]) == 1
    folder = tmp_path / "audits" / "covid19ct"
    conflicts = {(row["first"], row["second"]) for row in rows(folder / "pairs.csv") if "labels" in row["breaks"]}
    assert conflicts == {
        ("CT_COVID/kjr-21-e24-p5-29.png", "CT_NonCOVID/71%0.jpg"),
        ("CT_COVID/kjr-21-e24-p5-31.png", "CT_NonCOVID/71%1.jpg"),
    }
    record = json.loads((folder / "audit.json").read_text())
    facts = next(probe for probe in record["probes"] if probe["view"] == "file metadata")
    assert abs(facts["roc_auc"] - 0.942) < 0.03
    assert facts["verdict"] == "shortcut"


@pytest.mark.slow
@pytest.mark.parametrize(("shortcut", "found"), [(0.0, False), (0.8, True)])
def test_a_phantom_with_and_without_a_planted_shortcut(tmp_path: Path, shortcut: float, found: bool) -> None:
    words = ["phantom", f"dataset.phantom.shortcut={shortcut}", f"paths.runs_dir={tmp_path}", "--strict"]
    assert cli.main(["audit", *words]) == 0
    record = json.loads(next((tmp_path / "audits").glob("phantom*/audit.json")).read_text())
    assert record["pairs"]["total"] == 0
    warned = checks(record, "fail", "warn")
    assert bool([check for check in warned if check.startswith("shortcut")]) is found
    assert found or not warned
