"""Files that are whole or not there, and lines that survive a crash."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from ddtl.errors import UserError
from ddtl.files import append_line, read_lines, write_csv, write_json, write_text


def test_writing_replaces_as_a_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "né")
    assert path.read_text(encoding="utf-8") == "né"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    (tmp_path / ".a.json.partial").symlink_to("/dev/full")  # what is written there meets a full disk
    with pytest.raises(OSError, match="No space") as raised:
        write_json(path, {"a": 2})
    assert raised.value.errno == errno.ENOSPC
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


def test_what_a_crash_left_beside_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    (tmp_path / ".a.txt.partial").write_text("a part of something long")
    write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


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
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: is damaged"):
        read_lines(path)
