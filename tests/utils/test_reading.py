"""The guarded reader: what is no plain, bounded, well-formed file is refused by name and at once, and never quoted."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ddtl.utils import reading
from ddtl.utils.reading import (
    Unreadable,
    count_values,
    parse_json,
    parse_line,
    printable,
    read_bytes,
    read_json,
    read_lines,
    read_object,
    read_table,
    read_text,
    read_yaml,
)

SECRET = "hunter2"


def test_a_pipe_a_device_and_a_folder_are_refused_at_once(tmp_path: Path) -> None:
    pipe, zero, folder = tmp_path / "pipe", tmp_path / "zero", tmp_path / "folder"
    os.mkfifo(pipe)
    zero.symlink_to("/dev/zero")
    folder.mkdir()
    for path in (pipe, zero):
        with pytest.raises(Unreadable, match="is not a regular file"):
            read_bytes(path)
    with pytest.raises(Unreadable, match="is a folder"):
        read_bytes(folder)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "nothing")


def test_a_sparse_file_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(40 * reading.GIB)
    with pytest.raises(Unreadable, match=r"is too large \(40\.0 GiB; at most 256\.0 MiB are read\)"):
        read_json(path)


@pytest.mark.skipif(not hasattr(os, "SEEK_HOLE"), reason="this system does not say where holes are")
def test_holes_are_not_hashed(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with path.open("wb") as file:
        file.write(b"PK\3\4" * 1000)
        file.truncate(2 * reading.GIB)
    begun = time.process_time()
    with pytest.raises(Unreadable, match="is mostly holes: its content was never written"):
        reading.sha256(path, 2 * reading.GIB)
    assert time.process_time() - begun < 1
    path.write_bytes(bytes(1000))
    os.truncate(path, 50_000)
    assert reading.sha256(path, 2 * reading.GIB) == hashlib.sha256(bytes(50_000)).hexdigest()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON"),
        ("[1,", "no JSON"),
        ('{"test": {"roc_auc": NaN}}', "it contains NaN"),
        ("[-Infinity]", "it contains -Infinity"),
        ('{"test": {"roc_auc": 1e999}}', "test.roc_auc is not a finite number"),
        ('{"a": [{"b": "\\ud800"}]}', r"a\[0\].b is not Unicode text"),
        ('{"\\udfff": 1}', "contains a name that is not Unicode text"),
        ('{"pid": 99999999999999999999}', "pid is a number out of all bounds"),
        ("9" * 5000, "no JSON"),
        ("[" * 65 + "]" * 65, "nested deeper than 64 levels"),
        ("[" * 200_000 + "]" * 200_000, "nested deeper than 64 levels"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested deeper than 64 levels"),
        ("[" + "0," * 5_000_001 + "0]", "more than 5,000,000 values"),
    ],
)
def test_json_that_no_record_holds(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(Unreadable, match=why) as raised:
        read_json(path)
    assert str(raised.value).startswith(f"{path}: is damaged, ")
    assert len(str(raised.value)) < 300
    assert parse_line(text.encode()) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)  # fmt: skip


@given(JSON)
def test_what_is_written_is_read(value: Any) -> None:
    assert parse_json(json.dumps(value, allow_nan=False)) == value


@given(st.binary(max_size=60))
def test_bytes_are_a_value_or_refused(data: bytes) -> None:
    with suppress(ValueError):
        json.dumps(parse_json(data), allow_nan=False).encode()


def test_no_message_quotes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for text in (f"{SECRET}: [", f"&a {SECRET}\n*a", f"a: {SECRET}: b", f"!!python/{SECRET} x", f'"{SECRET}"'):
        path.write_text(text)
        for read in (read_yaml, read_object):
            said = ""
            try:
                read(path)
            except Unreadable as error:
                said = str(error)
            assert SECRET not in said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &x [1]\nb: *x", "aliases"),
        ("a: !!python/object/apply:os.system [id]", r"no YAML \(line 1\)"),
        ("a: [", "no YAML"),
        ("[" * 100 + "]" * 100, "deeper than 64"),
        ("a: \x00", "no YAML"),
    ],
)
def test_yaml_that_no_record_holds(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(Unreadable, match=why):
        read_yaml(path)


def test_yaml_of_a_record(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: 1\nb: {c: [x, 2.5, null, true]}\n")
    assert read_yaml(path) == {"a": 1, "b": {"c": ["x", 2.5, None, True]}}


def test_expanded_aliases_are_counted() -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
    )
    assert count_values(laughs) > 9**9
    assert count_values("a: &x [1, 2]\nb: *x\nc: d") == 11  # the map, three keys, [1, 2] twice with its list, d
    assert count_values("a: [") < 10


def test_text_is_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(Unreadable, match="not text in UTF-8"):
        read_text(path)


def test_lines_that_are_damaged_or_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n[]\n{"a": 2}')
    with pytest.raises(Unreadable, match="line 2 is damaged"):
        read_lines(path)
    monkeypatch.setattr(reading, "LINE", 20)
    path.write_text('{"a": "' + "b" * 30 + '"}\n')
    with pytest.raises(Unreadable, match="line 1 is too long"):
        read_lines(path)
    assert read_lines(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"a,b\n1\n", "line 2 has 1 cells, the header 2"),
        (b"a,b\n1,2,3\n", "line 2 has 3 cells, the header 2"),
        (b"a\n\xff\n", "not text in UTF-8"),
        (b'a\n"b\n', "no CSV"),
        (b"a\n" + b"x" * 200_000 + b"\n", "no CSV"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(Unreadable, match=why):
        list(read_table(path))


def test_a_table_with_quoted_breaks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\n"x\ny","1,2"\n')
    assert list(read_table(path)) == [{"a": "x\ny", "b": "1,2"}]


@given(st.text())
def test_printable_text_moves_no_cursor(text: str) -> None:
    shown = printable(text)
    assert all(sign.isprintable() for sign in shown)
    if text.isprintable():
        assert shown == text
