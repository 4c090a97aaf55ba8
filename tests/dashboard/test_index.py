"""The rows of a runs folder: true to the records, quick to look up again, whole where one record is broken."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ddtl.commands import cli
from ddtl.commands.runs import main
from ddtl.dashboard.index import FolderRow, Index
from ddtl.utils import console, reading
from ddtl.utils.errors import UserError
from tests.reports.test_run_page import HOSTILE
from tests.support import records, study_records


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A finished run, one that has stopped, a broken one, a study, and what is none of these."""
    root = tmp_path / "runs"
    records.write(root / "covid19ct" / "done")
    for name in ("halfway", "under_way"):
        started(root / "covid19ct" / name)
    (root / "covid19ct" / "torn").mkdir()
    (root / "covid19ct" / "torn" / "results.json").write_text('{"dataset": "covid19ct", "te')
    (root / "covid19ct" / "test_looks_grouped.jsonl").write_text("{}\n")
    (root / "covid19ct" / "notes").mkdir()
    study_records.cross_dataset(root)
    return root


def started(folder: Path, epochs: int = 2) -> None:
    """A run in its third epoch of five."""
    folder.mkdir(parents=True)
    identity = {
        "dataset.name": "covid19ct", "dataset.protocol": "official", "model.name": "resnet18", "finetune.name": "lp_ft",
        "seed": 3, "trainer.max_epochs": 5, "trainer.monitor": "val/roc_auc", "dataset.digest": "0",
    }  # fmt: skip
    (folder / "identity.json").write_text(json.dumps(identity))
    rows = [{"epoch": i, "val/roc_auc": 0.6 + i / 10, "val/loss": 1.0, "train/loss": 1.0} for i in range(epochs)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"epoch": 2, "val')


def by_name(root: Path) -> dict[str, FolderRow]:
    return {row.name: row for row in Index(root).rows()}


def test_rows_say_what_the_records_say(runs: Path) -> None:
    (runs / "covid19ct" / "under_way" / ".owner.json").write_text(
        json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
    )
    found = by_name(runs)
    done = found["done"]
    record = json.loads((runs / "covid19ct" / "done" / "results.json").read_text())
    assert (done.kind, done.state, done.split, done.by) == ("run", "finished", "test", "patient")
    assert done.score == record["test"]["patients"]["roc_auc"]
    assert done.low == record["test"]["patients"]["intervals"]["roc_auc"]["low"]
    halfway = found["halfway"]
    assert (halfway.state, halfway.epoch, halfway.epochs, halfway.best) == ("stopped", 2, 5, 0.7)
    assert (halfway.model, halfway.finetune, halfway.seed) == ("resnet18", "lp_ft", 3)
    assert found["under_way"].state == "running"
    assert (found["torn"].state, "cannot be read" in found["torn"].note) == ("broken", True)
    assert found["cross_dataset"].kind == "study"
    assert "of 12 runs" in found["cross_dataset"].note
    assert "notes" not in found


def test_only_what_has_changed_is_read_again(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index(runs)
    first = index.rows()
    read: list[Path] = []
    whole = reading.read_bytes
    monkeypatch.setattr(reading, "read_bytes", lambda path, limit: read.append(path) or whole(path, limit))
    assert index.rows() == first
    assert read == []
    with (runs / "covid19ct" / "halfway" / "metrics.jsonl").open("a") as file:
        file.write('/roc_auc": 0.9}\n')
    assert {row.name: row.epoch for row in index.rows()}["halfway"] == 3
    assert {path.parent.name for path in read} == {"halfway"}


def test_what_comes_later_is_seen(runs: Path) -> None:
    index = Index(runs)
    run = records.write(runs / "covid19ct" / "evaluated")
    assert "elsewhere" not in {row.name for row in index.rows()}
    assert "elsewhere" not in {row.name for row in index.rows()}
    for name in ("elsewhere", "again"):
        records.write(run / "evaluations" / name)
        assert name in {row.name for row in index.rows()}
    (run / "results.json").unlink()
    assert [{row.name for row in index.rows()} & {"evaluated"} for _ in range(2)] == [set()] * 2


def test_links_are_not_followed(runs: Path, tmp_path: Path) -> None:
    records.write(tmp_path / "elsewhere" / "secret")
    (runs / "covid19ct" / "link").symlink_to(tmp_path / "elsewhere" / "secret")
    (runs / "linked").symlink_to(tmp_path / "elsewhere")
    run = records.write(runs / "covid19ct" / "evaluated")
    (run / "evaluations").symlink_to(tmp_path / "elsewhere")
    assert {"link", "secret"}.isdisjoint(by_name(runs))
    (run / "evaluations").unlink()
    (run / "evaluations").mkdir()
    (run / "evaluations" / "link").symlink_to(tmp_path / "elsewhere" / "secret")
    assert {"link", "secret"}.isdisjoint(by_name(runs))
    assert "evaluated" in by_name(runs)


def test_the_index_needs_no_torch() -> None:
    program = "import sys, ddtl.dashboard.server, ddtl.commands.runs; assert not {'torch', 'numpy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_list_and_show(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", "list", "stopped", f"paths.runs_dir={runs}"]) == 0
    out = capsys.readouterr().out
    assert "halfway" in out
    assert "done" not in out
    assert cli.main(["runs", "show", "halfw", f"paths.runs_dir={runs}"]) == 0
    assert "0.6000 0.7000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("paths.run_dir=x", "Did you mean paths.runs_dir?"),
        ("foo=1", "foo=1: not a setting of `ddtl runs`"),
        ("--jsn", "--jsn: not a setting of `ddtl runs`"),
        ("older-than=1", ""),
        ("paths.runs_dir=", "paths.runs_dir=: names nothing"),
        ("paths.runs_dir=/nowhere/runs", "there is no such folder of runs"),
    ],
)
def test_a_mistyped_setting_is_no_word_to_look_for(runs: Path, word: str, says: str) -> None:
    if says:
        with pytest.raises(UserError) as error:
            main(["list", f"paths.runs_dir={runs}", word])
        assert says in str(error.value)
    else:
        assert main(["list", f"paths.runs_dir={runs}", word]) == 0


def test_a_key_that_is_given_twice_is_reported(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    main(["list", "paths.runs_dir=/nowhere", f"paths.runs_dir={runs}"])
    assert f"paths.runs_dir is given several times; the last one counts: {runs}" in caplog.text


def clean(runs: Path, *words: str) -> int:
    return cli.main(["runs", "clean", *words, f"paths.runs_dir={runs}"])


def test_nothing_is_deleted_without_asking(runs: Path) -> None:
    with pytest.raises(UserError, match="Set yes=true"):
        clean(runs, "stopped")
    assert (runs / "covid19ct" / "halfway").exists()


@pytest.mark.parametrize(("answer", "gone"), [("y\n", True), ("n\n", False), ("", False)])
def test_the_answer_decides(runs: Path, monkeypatch: pytest.MonkeyPatch, answer: str, gone: bool) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert clean(runs, "halfway") == (0 if gone else 1)
    assert (runs / "covid19ct" / "halfway").exists() != gone


def test_cleaning_takes_what_was_named_and_leaves_the_rest(runs: Path, tmp_path: Path) -> None:
    (runs / "covid19ct" / "done" / "checkpoints").mkdir()
    (runs / "covid19ct" / "done" / "checkpoints" / "last.ckpt").write_bytes(b"x" * 1000)
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "file").touch()
    (runs / "covid19ct" / "halfway" / "link").symlink_to(outside)
    (runs / "covid19ct" / "under_way" / ".owner.json").write_text(
        json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
    )
    assert clean(runs, "stopped", "broken", "checkpoints", "yes=true") == 0
    left = {path.name for path in (runs / "covid19ct").iterdir()}
    assert left == {"done", "under_way", "test_looks_grouped.jsonl", "notes"}
    assert not (runs / "covid19ct" / "done" / "checkpoints").exists()
    assert (runs / "covid19ct" / "done" / "results.json").exists()
    assert (outside / "file").exists()


def test_a_run_in_use_stays(runs: Path) -> None:
    from filelock import FileLock

    with FileLock(runs / "covid19ct" / "halfway" / ".lock"):
        assert clean(runs, "halfway", "yes=true") == 1
    assert (runs / "covid19ct" / "halfway" / "metrics.jsonl").exists()


def test_what_has_changed_lately_stays_where_asked(runs: Path) -> None:
    assert clean(runs, "stopped", "older_than=1", "yes=true") == 0
    assert (runs / "covid19ct" / "halfway").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name what to delete: stopped, failed, pruned, broken, checkpoints"),
        (("nowhere",), "there is no such run"),
        (("cross_dataset",), "deletes runs"),
        (("covid19ct",), "runs are called so"),
        (("stopped", "older_than=-1"), "older_than=-1: must be at least 0"),
    ],
)
def test_a_mistake_is_named(runs: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        clean(runs, *words)


def test_names_stand_letter_by_letter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = HOSTILE[1].replace("/", "")[:200]
    started(tmp_path / "[bold]x" / name)
    assert cli.main(["runs", "list", f"paths.runs_dir={tmp_path}"]) == 0
    assert f"[bold]x/{name}" in capsys.readouterr().out


def test_a_trial_that_the_pruner_ended_is_pruned_and_not_stopped(runs: Path) -> None:
    halfway = by_name(runs)["halfway"]
    (runs / halfway.path / "ended_early.json").write_text('{"why": "pruned"}')
    assert by_name(runs)["halfway"].state == "pruned"
    assert clean(runs, "stopped", "yes=true") == 0
    assert (runs / halfway.path).exists()
    assert clean(runs, "pruned", "yes=true") == 0
    assert not (runs / halfway.path).exists()


def test_a_run_that_broke_is_failed_and_says_by_what(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    halfway = by_name(runs)["halfway"]
    record = {"why": "failed", "reason": "the loss became nan at step 3"}
    (runs / halfway.path / "ended_early.json").write_text(json.dumps(record))
    row = by_name(runs)["halfway"]
    assert (row.state, row.note) == ("failed", "the loss became nan at step 3")
    capsys.readouterr()
    assert cli.main(["runs", "list", "failed", f"paths.runs_dir={runs}"]) == 0
    assert "the loss became nan at step 3" in capsys.readouterr().out
    assert clean(runs, "stopped", "yes=true") == 0
    assert (runs / halfway.path).exists()
    assert clean(runs, "failed", "yes=true") == 0
    assert not (runs / halfway.path).exists()


def test_a_folder_of_runs_that_this_user_may_not_read_is_a_row(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "covid19ct" and may(path, mode))
    row = by_name(runs)["covid19ct"]
    assert (row.path, row.state, row.note) == ("covid19ct", "broken", "the folder cannot be read")
    assert "halfway" not in by_name(runs)


def test_the_list_fits_a_terminal_and_names_are_whole(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "sarscov2ct/densenet121-layer_decay-s10-0123456789"
    records.write(runs / name)
    screen = io.StringIO()
    terminal = console.Screen(file=screen, force_terminal=True, width=100, highlight=False, color_system=None)
    monkeypatch.setattr(console, "out", terminal)
    assert main(["list", f"paths.runs_dir={runs}"]) == 0
    lines = screen.getvalue().splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert len([line for line in lines if line.startswith(f"{name} ")]) == 1
    assert len(lines) == len(Index(runs).rows()) + 1, "a row is on one line"


def test_for_scripts_it_is_json_or_csv(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json", f"paths.runs_dir={runs}"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["path"] for row in found} == {row.path for row in Index(runs).rows()}
    assert main(["list", "format=csv", "done", f"paths.runs_dir={runs}"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["path"] == "covid19ct/done"
    assert float(row["low"]) < float(row["score"]) < float(row["high"])
