"""Files that are whole or not there, and lines that survive a crash."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import pytest

from ddtl.utils.errors import UserError
from ddtl.utils.files import append_line, folder_in, remove, temporary_path, write_csv, write_json, write_text
from ddtl.utils.reading import read_lines


def test_writing_replaces_as_a_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "né")
    assert path.read_text(encoding="utf-8") == "né"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space") as raised:
            write_json(path, {"a": 2})
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(path))
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
    write_json(path, {"a": 3})
    assert json.loads(path.read_text()) == {"a": 3}


def test_a_failure_in_the_middle_of_the_rows_leaves_the_old_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, ["x"], [[1]])
    with pytest.raises(ZeroDivisionError):
        write_csv(path, ["x"], ([1 / (2 - i)] for i in range(4)))
    assert path.read_text() == "x\n1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_crash_left_beside_goes_after_a_day(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    left, young, others = (temporary_path(one) for one in (path, path, tmp_path / "b.txt"))
    for each in (left, young, others):
        each.write_text("a part of something long")
    for each in (left, others):
        os.utime(each, (0, time.time() - 86500))
    write_text(path, "new")
    assert path.read_text() == "new"
    assert set(tmp_path.iterdir()) == {path, young, others}


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    path = run / "a.txt"
    path.symlink_to(outside)
    (run / ".a.txt.partial").symlink_to(outside)
    write_text(path, "new")  # takes the link's place
    assert path.read_text() == "new"
    assert not path.is_symlink()
    lines = run / "a.jsonl"
    lines.symlink_to(outside)
    with pytest.raises(OSError, match="is a link"):
        append_line(lines, {"a": 1})
    assert outside.read_text() == "mine"


def test_folders_within_a_run_are_no_links(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    assert folder_in(tmp_path / "run", "a", "b").is_dir()
    (tmp_path / "run" / "export").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "run" / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "run" / "file").write_text("")
    for names in (("export",), ("export", "inner"), ("gone",), ("file",), ("file", "inner")):
        with pytest.raises(UserError, match=r"is a (link|file)"):
            folder_in(tmp_path / "run", *names)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_removing_a_link_leaves_what_is_behind_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name in ("link", "nothing"):
        remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "a").exists()
    remove(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_holds_numbers_only(tmp_path: Path, value: float) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": [value]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_line(path, {"a": value})
    assert not path.exists()


LINES: list[dict[str, object]] = [{"look": 1, "run": "a"}, {"look": 2, "run": "größe 研究"}]


@pytest.mark.parametrize("cut", range(1, len(json.dumps(LINES[1], ensure_ascii=False).encode()) + 1))
def test_a_line_cut_off_by_a_crash_is_not_glued_to_the_next(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.jsonl"
    for line in LINES:
        append_line(path, line)
    path.write_bytes(path.read_bytes()[:-cut])  # 1: all but its line break was written
    kept = LINES if cut == 1 else LINES[:1]
    assert read_lines(path) == kept
    append_line(path, {"look": 3})
    assert read_lines(path) == [*kept, {"look": 3}]
    assert path.read_bytes().count(b"\n") == len(kept) + 1


def test_a_first_line_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"loo')
    assert read_lines(path) == []
    append_line(path, {"look": 1})
    assert path.read_text() == '{"look": 1}\n'


def test_no_file_and_an_empty_one_hold_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert read_lines(path) == []
    path.touch()
    assert read_lines(path) == []


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"look": 1}\n{"lo\n{"look": 3}\n')
    with pytest.raises(UserError, match=r"a\.jsonl: line 2 is damaged"):
        read_lines(path)
