"""What the dashboard shows of picked runs and of a sweep."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
import yaml

from ddtl.dashboard import panels
from ddtl.dashboard.index import FolderRow, Index
from ddtl.dashboard.server import project
from ddtl.records import run_folder
from ddtl.utils.errors import UserError
from ddtl.utils.files import write_json
from tests.dashboard.test_index import started
from tests.support import records, study_records, sweep_records


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "my project" / "runs"
    records.write(found / "covid19ct" / "one")
    records.write(found / "covid19ct" / "two", overrides=("dataset=covid19ct", "optimizer.lr=0.002", "seed=4"))
    return found


def picked(root: Path, *names: str) -> tuple[list[FolderRow], list[Path]]:
    by_name = {row.name: row for row in Index(root).rows()}
    rows = [by_name[name] for name in names]
    return rows, [root / row.path for row in rows]


def test_only_settings_that_differ_are_shown(root: Path) -> None:
    found = panels.differences(*picked(root, "one", "two"))
    values = {one["key"]: one["values"] for one in found["keys"]}
    assert values["optimizer.lr"][1] == "0.002"
    assert values["seed"] == ["0", "4"]
    assert "optimizer.weight_decay" not in values
    assert not any(key.startswith("paths.") for key in values)
    assert (len(found["names"]), found["problems"]) == (2, [])
    assert panels.differences(*picked(root, "one", "one"))["keys"] == []


def test_settings_of_a_stranger_are_text_without_folders_and_secrets(root: Path) -> None:
    path = root / "covid19ct" / "two" / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["dataset"]["root"] = "/home/someone/private/images"
    settings["model"]["weights"] = "https://me:hunter22@host/x"
    settings["<b>\x1b"] = {"key": "\x1b[31m" + "y" * 1000}
    path.write_text(yaml.safe_dump(settings))
    found = panels.differences(*picked(root, "one", "two"))
    text = json.dumps(found)
    assert "images" in text
    assert "private" not in text
    assert "hunter22" not in text
    assert "\\u001b" not in text
    assert max(len(value) for one in found["keys"] for value in one["values"]) <= 201


def test_a_run_whose_settings_cannot_be_read_is_named(root: Path) -> None:
    (root / "covid19ct" / "two" / "config.yaml").write_text("a: [")
    found = panels.differences(*picked(root, "one", "two"))
    assert len(found["problems"]) == 1
    assert found["problems"][0].startswith("two: its settings cannot be read")
    assert found["keys"] == []


def test_every_number_of_an_epoch_has_a_chart(root: Path) -> None:
    titles = [one["title"] for one in panels.curves(*picked(root, "one", "two"))]
    assert titles[:2] == ["train/loss", "val/loss"]
    assert len(titles) == len(set(titles)) > 3
    assert not {"epoch", "step"} & set(titles)
    specs = [one["spec"] for one in panels.curves(*picked(root, "one", "two"))]
    assert len({tuple(trace["name"] for trace in spec["data"]) for spec in specs}) == 1  # one legend is for all


def test_the_end_of_a_log_is_shown_without_control_characters(root: Path, tmp_path: Path) -> None:
    rows, folders = picked(root, "one", "two")
    assert "There is no log" in panels.logs(rows, folders)[0]["note"]
    (folders[0] / "log.txt").write_bytes(b"first\n" + b"epoch \x1b[31m<b>\xff\n" * 40_000 + b"last\n")
    (tmp_path / "secret").write_text("secret")
    (folders[1] / "log.txt").symlink_to(tmp_path / "secret")
    one, two = panels.logs(rows, folders)
    assert "first" not in one["text"]
    assert one["text"].endswith("last")
    assert "\\x1b[31m<b>" in one["text"]
    assert len(one["text"]) < 2**20
    assert "Only the end" in one["note"]
    assert (two["text"], "is a link" in two["note"]) == ("", True)


def sweep(root: Path, trials: int = 30, **changes: object) -> Path:
    folder = root / "sweeps" / "covid19ct-lr_unfreeze"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "sweep.json", sweep_records.record(trials, **changes))
    return folder


def test_a_sweep_has_a_chart_for_each_parameter(root: Path) -> None:
    charts = panels.sweep(sweep(root))
    titles = [one["title"] for one in charts]
    assert titles[0].startswith("Parameters and ")
    assert titles[1] == "Trial by trial"
    assert set(titles[2:]) == {
        "optimizer.lr", "finetune", "finetune.backbone_lr_ratio", "augment", "dataset.batch_size",
    }  # fmt: skip
    spec = {one["title"]: one["spec"] for one in charts}
    assert spec["optimizer.lr"]["layout"]["xaxis"]["type"] == "log"
    assert spec["finetune"]["layout"]["xaxis"]["ticktext"] == ["linear_<br>probe", "lp_<br>ft", "gradual"]
    record = json.loads((root / "sweeps" / "covid19ct-lr_unfreeze" / "sweep.json").read_text())
    complete = next(trace for trace in spec["optimizer.lr"]["data"] if trace["name"] == "complete")
    done = [trial for trial in record["trials"] if trial["state"] == "complete"]
    assert complete["y"] == pytest.approx([trial["values"][0] for trial in done], abs=1e-4)
    assert complete["x"] == pytest.approx([trial["params"]["optimizer.lr"] for trial in done], rel=1e-3)
    json.dumps(charts, allow_nan=False)


def test_a_sweep_without_a_score_has_no_chart_yet(root: Path) -> None:
    folder = sweep(root)
    record = sweep_records.record(1)
    record["trials"][0] |= {"state": "running", "values": None, "curve": []}
    write_json(folder / "sweep.json", record)
    assert panels.sweep(folder) == []
    (folder / "sweep.json").unlink()
    with pytest.raises(UserError, match=r"sweep\.json"):
        panels.sweep(folder)


def test_runs_of_sweeps_and_studies_are_their_members(root: Path) -> None:
    record = sweep_records.record(6)
    for trial, name in zip(record["trials"], ("under_way", "one", "two"), strict=False):
        trial["run"] = name
    write_json(sweep(root) / "sweep.json", record)
    started(root / "covid19ct" / "under_way")
    study_records.cross_dataset(root)
    by_path = {row.path: row for row in Index(root).rows()}
    of_sweep = by_path["sweeps/covid19ct-lr_unfreeze"]
    assert of_sweep.members[:3] == ("covid19ct/under_way", "covid19ct/one", "covid19ct/two")
    assert of_sweep.state == "stopped"
    members = by_path["studies/cross_dataset"].members
    assert members
    assert set(members) <= by_path.keys()
    owner = {"pid": os.getpid(), "host": socket.gethostname()}
    (root / "covid19ct" / "under_way" / ".owner.json").write_text(json.dumps(owner))
    assert {row.path: row.state for row in Index(root).rows()}[of_sweep.path] == "running"


@pytest.mark.parametrize(
    ("folder", "name"),
    [("/home/me/chest/runs", "chest"), ("/data/results", "results"), ("/runs", "runs"), ("/a/b\x1b/runs", "b\\x1b")],
)
def test_the_page_is_named_after_the_project(folder: str, name: str) -> None:
    assert project(Path(folder)) == name


def test_a_sweep_between_two_trials_runs_while_its_command_does(root: Path) -> None:
    record = sweep_records.record(6)
    ended = [{**trial, "state": "complete", "values": [0.5]} for trial in record["trials"]]
    folder = sweep(root)

    def state(**changes: object) -> tuple[str, str]:
        write_json(folder / "sweep.json", {**record, "trials": ended, **changes})
        row = next(row for row in Index(root).rows() if row.kind == "sweep")
        return row.state, row.note.partition(",")[0]

    assert state(total=10) == ("stopped", "6 of 10 trials")
    with run_folder.announced(folder):
        assert state(total=10) == ("running", "6 of 10 trials")
        (folder / "sweep.json").unlink()
        assert next(row.state for row in Index(root).rows() if row.kind == "sweep") == "running"
    assert state(total=10)[0] == "stopped"
    assert state(total=6) == ("finished", "6 of 6 trials")
