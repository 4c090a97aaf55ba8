"""Notes and tags: a file of their own that one command writes, that is read with care, and that no run depends on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ddtl.commands import cli
from ddtl.dashboard.index import FolderRow, Index
from ddtl.records import notes, views
from ddtl.utils.errors import UserError
from ddtl.utils.reading import Unreadable
from tests.support import records, study_records
from tests.support.runs import ROOT

MARKUP = "<img src=x onerror=alert(1)> [red]x[/red] & \"quotes\" 'too'"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    records.write(tmp_path / "runs" / "covid19ct" / "one")
    records.write(tmp_path / "runs" / "covid19ct" / "two", records.table(seed=1))
    return tmp_path / "runs"


def runs(root: Path, *words: str) -> int:
    return cli.main(["runs", *words, f"paths.runs_dir={root}"])


def row(root: Path, name: str = "one") -> FolderRow:
    return next(row for row in Index(root).rows() if row.name == name)


def test_a_note_and_tags_are_shown_and_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs(root, "note", "one", f"  lr=0.1 was\n too high; {MARKUP} ") == 0
    assert runs(root, "tag", "one", "baseline", "#paper/fig-2", "baseline") == 0
    assert row(root).user_note == f"lr=0.1 was too high; {MARKUP}"
    assert row(root).tags == ("baseline", "paper/fig-2")
    capsys.readouterr()
    assert runs(root, "list", "#baseline") == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2
    assert shown[0].split("\t")[-2:] == ["tags", "user_note"]
    assert shown[1].split("\t")[-2:] == ["#baseline #paper/fig-2", f"lr=0.1 was too high; {MARKUP}"]
    assert runs(root, "show", "one") == 0
    assert "baseline paper/fig-2" in " ".join(capsys.readouterr().out.split())
    assert runs(root, "untag", "one", "baseline") == 0
    assert runs(root, "note", "one", "") == 0
    assert (row(root).tags, row(root).user_note) == (("paper/fig-2",), "")
    assert runs(root, "untag", "one", "paper/fig-2") == 0
    assert not (root / "covid19ct" / "one" / "notes.json").exists()


def test_the_text_of_a_note_is_no_setting(root: Path) -> None:
    for text in ("yes=true", "--help me", "older_than=3", "x=1 is better"):
        assert runs(root, "note", "one", text) == 0
        assert row(root).user_note == text


def test_a_name_that_is_whole_is_no_part_of_others(root: Path) -> None:
    records.write(root / "covid19ct" / "one-more", records.table(seed=2))
    assert runs(root, "note", "one", "this one") == 0
    assert [row(root, name).user_note for name in ("one", "one-more")] == ["this one", ""]
    with pytest.raises(UserError, match="2 runs are called so"):
        runs(root, "note", "on", "which?")


def test_a_cached_row_sees_a_new_note(root: Path) -> None:
    study_records.cross_dataset(root)
    index = Index(root)
    index.rows()
    for name in ("covid19ct/one", "studies/cross_dataset"):
        assert runs(root, "note", name, "seen") == 0
        found = {row.name: row.user_note for row in index.rows()}
        assert found[name.rpartition("/")[2]] == "seen"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("note", "one"), 'ddtl runs note RUN "TEXT"'),
        (("note", "one", "two", "words"), 'ddtl runs note RUN "TEXT"'),
        (("note", "one", "x" * 2001), "at most 2,000"),
        (("note", "one", "x" * 10_000_000), "10,000,000 characters"),
        (("note", "one", "bell\x07"), "control characters"),
        (("note", "one", "\x1b[31mred"), "control characters"),
        (("note", "one", "turned \u202e round"), "control characters"),
        (("note", "one", "half \udc80"), "control characters"),
        (("note", "nowhere", "x"), "there is no such run"),
        (("tag", "one"), "ddtl runs tag RUN TAG"),
        (("tag", "one", "two words"), "is not a tag"),
        (("tag", "one", "<b>"), "is not a tag"),
        (("tag", "one", "x" * 41), "is not a tag"),
        (("tag", "one", *(f"t{i}" for i in range(21))), "at most 20 tags"),
        (("untag", "one", "never"), "has no tag never"),
        (("tagg", "one", "x"), "Did you mean tag?"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(root: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError) as error:
        runs(root, *words)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300
    assert not (root / "covid19ct" / "one" / "notes.json").exists()


HOSTILE = {
    "ten megabytes": ('{"note": "' + "x" * 10_000_000 + '", "tags": []}', "is too large"),
    "a long note": (json.dumps({"note": "x" * 2001, "tags": []}), "note should be at most 2,000 characters long"),
    "no object": ("[]", "no JSON object"),
    "torn": ('{"note": "secret wor', "is damaged"),
    "a number": ('{"note": 1, "tags": []}', "note should be text"),
    "tags of another type": ('{"note": "", "tags": [1]}', "should be text"),
    "a thousand tags": (json.dumps({"note": "", "tags": ["t"] * 1000}), "should have 20 or fewer entries"),
    "deep": ('{"note": "", "tags": ' + "[" * 1000 + "]" * 1000 + "}", "is nested deeper"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_damaged_file_costs_its_own_cell(root: Path, name: str) -> None:
    text, said = HOSTILE[name]
    path = root / "covid19ct" / "one" / "notes.json"
    path.write_text(text)
    found = row(root)
    assert (found.state, found.user_note, found.tags) == ("finished", "", ())
    assert found.score is not None
    assert said in found.note
    assert "secret" not in found.note
    for words in (("note", "one", "new"), ("tag", "one", "new")):
        with pytest.raises(UserError, match="Delete it: rm "):
            runs(root, *words)
    assert path.read_text() == text


def test_control_characters_in_the_file_are_escaped(root: Path) -> None:
    (root / "covid19ct" / "one" / "notes.json").write_text(
        json.dumps({"note": "a\x1b[31m\u202eb\nc", "tags": ["x\x07"]})
    )
    assert row(root).user_note == "a\\x1b[31m\\u202eb\\nc"
    assert row(root).tags == ("x\\x07",)


def test_nothing_is_read_or_written_through_a_link(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"note": "secret", "tags": []}')
    path = root / "covid19ct" / "one" / "notes.json"
    path.symlink_to(secret)
    assert (row(root).user_note, "is a link" in row(root).note) == ("", True)
    with pytest.raises(Unreadable, match="is a link"):
        runs(root, "note", "one", "mine")
    assert secret.read_text() == '{"note": "secret", "tags": []}'
    path.unlink()
    notes.write(path.parent, notes.Notes("mine"))
    assert path.is_file()
    path.unlink()
    os.mkfifo(path)
    assert "is not a regular file" in row(root).note


def test_two_commands_at_once_lose_no_tag(root: Path) -> None:
    command = [sys.executable, "-m", "ddtl", "runs", "tag", "one", f"paths.runs_dir={root}"]
    started = [subprocess.Popen([*command, f"t{i}"], stderr=subprocess.DEVNULL) for i in range(4)]
    assert [process.wait(300) for process in started] == [0] * 4
    assert sorted(row(root).tags) == ["t0", "t1", "t2", "t3"]


def test_a_view_has_a_name_and_can_be_deleted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        runs(root, "view", "best of all", "http://127.0.0.1:8780/#filter=a+%23b&sort=-score&run=covid19ct%2Fone") == 0
    )
    assert runs(root, "view", MARKUP[:40], "kind=run") == 0
    kept = {"best of all": "filter=a+%23b&sort=-score&run=covid19ct%2Fone", MARKUP[:40]: "kind=run"}
    assert views.read(root) == kept
    capsys.readouterr()
    assert runs(root, "view") == 0
    assert capsys.readouterr().out.splitlines()[0] == "best of all\t#filter=a+%23b&sort=-score&run=covid19ct%2Fone"
    assert runs(root, "view", "best of all", "#state=failed") == 0
    assert views.read(root)["best of all"] == "state=failed"
    assert runs(root, "view", "best of all", "") == runs(root, "view", MARKUP[:40], "") == 0
    assert not (root / "views.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a",), "takes a name and an address"),
        (("a", "#x=1"), "#x=1: is not the address of a view"),
        (("a", "http://127.0.0.1:8780/"), "is not the address of a view"),
        (("a", "filter=" + "x" * 4000), "is not the address of a view"),
        (("a" * 61, "kind=run"), "1 to 60 printable characters"),
        (("a\x1b", "kind=run"), "1 to 60 printable characters"),
        (("", "kind=run"), "1 to 60 printable characters"),
        (("a", ""), "there is no such view. There are none."),
        (("a", "kind=run", "b"), "takes a name and an address"),
    ],
)
def test_what_is_no_view_is_refused(root: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        runs(root, "view", *words)
    assert not (root / "views.json").exists()


@pytest.mark.parametrize("text", ["{", '{"views": {"a": 3}}', '{"views": {"": "kind=run"}}', "[1]"])
def test_a_damaged_file_of_views_is_named_and_left(root: Path, text: str) -> None:
    (root / "views.json").write_text(text)
    with pytest.raises(Unreadable, match="Delete it: rm "):
        runs(root, "view", "a", "kind=run")
    assert (root / "views.json").read_text() == text
    (root / "views.json").unlink()
    (root / "views.json").symlink_to(root / "elsewhere.json")
    with pytest.raises(Unreadable, match="is a link"):
        runs(root, "view", "a", "kind=run")


def test_fifty_views_are_kept(root: Path) -> None:
    views.write(root, {f"view {number}": "kind=run" for number in range(50)})
    assert runs(root, "view", "view 3", "kind=sweep") == 0
    with pytest.raises(UserError, match="50 views are kept at most"):
        runs(root, "view", "one more", "kind=run")


def test_every_key_of_the_address_is_known() -> None:
    script = (ROOT / "ddtl/dashboard/static/dashboard.js").read_text()
    written = script[script.index("function address()") : script.index("function remember()")]
    keys = set(re.findall(r"found\.(?:set|append)\(\"(\w+)\"", written))
    keys |= set(re.findall(r"(\w+): view\.", written)) | {"log", "robust"}
    assert keys == set(views.KEYS)
