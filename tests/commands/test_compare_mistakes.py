"""``ddtl compare``: every mistake and every damaged run answered in a sentence that names the fix."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ddtl.commands import compare
from ddtl.utils.errors import UserError
from tests.support.hospital import Hospital, folder, good_and_poor

FAST = "replicates=100"


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return good_and_poor(tmp_path)


def refusal(*words: object) -> str:
    with pytest.raises(UserError) as error:
        compare.main([*map(str, words), FAST])
    return str(error.value)


def mistakes(two: tuple[Path, Path], tmp_path: Path) -> dict[str, tuple[Sequence[object], Sequence[str]]]:
    a, b = two
    return {
        "one run": ([a], ["two runs or more"]),
        "twice": ([a, f"{a}/"], ["named twice"]),
        "no folder": ([a, tmp_path / "none"], ["none", "no such folder"]),
        "no run": ([a, tmp_path], [str(tmp_path)]),
        "key": ([a, b, "scor=f1"], ["scor=f1", "Did you mean score?"]),
        "flag": ([a, b, "--score"], ["--score"]),
        "score": ([a, b, "score=auc"], ["score=auc", "Did you mean roc_auc?"]),
        "level": ([a, b, "level=95"], ["level=95: must be less than 1"]),
        "no level": ([a, b, "level=nan"], ["level=nan"]),
        "replicates": ([a, b, "replicates=1e3"], ["replicates=1e3", "whole number"]),
        "split": ([a, b, "split=train"], ["split=train: must be one of test, val"]),
        "file": ([a, b, f"json={tmp_path / 'no' / 'x.json'}"], ["json=", "folder"]),
        "record": ([a, b, f"json={a / 'results.json'}"], ["json=", "a run's folder"]),
        "all at once": ([a, b, "scor=f1", "level=2"], ["scor=f1", "level=2"]),
    }


@pytest.mark.parametrize("name", mistakes((Path("a"), Path("b")), Path("c")))
def test_mistakes_are_answered(two: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    words, expected = mistakes(two, tmp_path)[name]
    with pytest.raises(UserError) as error:
        compare.main([str(word) for word in words])
    assert all(part in str(error.value) for part in expected), error.value


def cell(text: str) -> Callable[[list[str]], list[str]]:
    """Another first logit in the fifth line."""

    def write(lines: list[str]) -> list[str]:
        cells = lines[5].split(",")
        return [*lines[:5], ",".join([*cells[:6], text, *cells[7:]]), *lines[6:]]

    return write


# What happened to the lines of predictions.csv, and what the message says.
DAMAGED_TABLES: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "empty": (lambda lines: [], "predictions.csv: is damaged: it contains no row"),
    "no rows": (lambda lines: lines[:1], "predictions.csv: is damaged: it contains no row"),
    "cut in a row": (lambda lines: [*lines[:-1], lines[-1][:20]], "predictions.csv: line 212 has 4 cells"),
    "rows lost": (lambda lines: lines[:-3], "by results.json there are"),
    "nan": (cell("nan"), "are not finite numbers"),
    "inf": (cell("inf"), "are not finite numbers"),
    "word": (cell("high"), "row 5 has a logit that is not a number"),
    "twice": (lambda lines: [*lines[:-1], lines[1]], "one image is in it more than once"),
    "no text": (lambda lines: ["\0\1" * 50], "predictions.csv: is damaged"),
    "label": (lambda lines: [line.replace(",COVID,", ",else,") for line in lines], "has a label that there is not"),
    "no test": (lambda lines: [line.replace("test,", "val,") for line in lines], "contains 0 images of test"),
}


@pytest.mark.parametrize("how", DAMAGED_TABLES)
def test_damaged_predictions_are_answered(two: tuple[Path, Path], how: str) -> None:
    damage, expected = DAMAGED_TABLES[how]
    path = two[1] / "predictions.csv"
    path.write_text("".join(damage(path.read_text().splitlines(keepends=True))))
    message = refusal(*two)
    assert expected in message
    assert "poor" in message


# The file, what is in it (None: it is gone), and what the message says.
DAMAGED_FILES = {
    "no results": ("results.json", None, "there is no results.json in it"),
    "cut results": ("results.json", '{"dataset": ', "results.json: is damaged"),
    "empty results": ("results.json", "{}", "results.json: dataset is missing"),
    "poor results": ("results.json", '{"test": 1, "threshold": "high"}', "results.json: dataset is missing"),
    "no predictions": ("predictions.csv", None, "predictions.csv is missing"),
    "cut configuration": ("config.yaml", "a: [", "config.yaml"),
}


@pytest.mark.parametrize("how", DAMAGED_FILES)
def test_damaged_runs_are_answered(two: tuple[Path, Path], how: str) -> None:
    name, text, expected = DAMAGED_FILES[how]
    path = two[1] / name
    path.unlink()
    if text is not None:
        path.write_text(text)
    message = refusal(*two)
    assert expected in message
    assert "poor" in message


def test_an_unfinished_run_is_to_be_finished(two: tuple[Path, Path]) -> None:
    (two[1] / "results.json").unlink()
    (two[1] / "metrics.jsonl").write_text("{}\n")
    assert "not finished" in refusal(*two)


def test_other_test_sets_are_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    other = folder(tmp_path / "other", Hospital(20).run(1), dataset="sarscov2ct", protocol="grouped")
    assert "of sarscov2ct, protocol grouped" in refusal(two[0], other)


def test_runs_without_a_test_are_told_how_to_be_compared(tmp_path: Path) -> None:
    hospital = Hospital(40)
    run = hospital.run(2)
    run.predictions.split[:] = "val"
    message = refusal(folder(tmp_path / "first", run), folder(tmp_path / "second", run))
    assert "first has no test scores" in message
    assert "evaluation.test=true" in message
    assert "split=val" in message


def test_an_evaluation_has_no_validation(two: tuple[Path, Path]) -> None:
    assert "has no validation scores" in refusal(*two, "split=val")


def test_a_file_that_cannot_be_written_is_named(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(compare, "write_json", full)
    assert "found.json: cannot be written (No space left" in refusal(*two, f"json={tmp_path / 'found.json'}")


def test_other_images_of_the_same_names_are_refused(tmp_path: Path) -> None:
    hospital = Hospital(95)

    def write(name: str, strength: float, test: str | None, **record: str) -> Path:
        contents = {} if test is None else {"contents": {"val": "v", "test": test}}
        return folder(tmp_path / "covid19ct" / name, hospital.run(strength), {"seed": len(name)}, **contents, **record)

    one, other, same = write("one", 3.0, "a"), write("other", 1.0, "b"), write("same", 1.0, "a")
    assert "their images have the same names and other contents" in refusal(one, other)
    assert compare.main([str(one), str(same), FAST]) == 0
    # A record of an earlier version has no such key; the ledger of its test set states the contents.
    earlier, unknown = write("earlier", 2.0, None, digest="d"), write("unknown", 2.0, None, digest="e")
    (tmp_path / "covid19ct" / "test_looks_official.jsonl").write_text(
        '{"use": 1, "when": "2026-01-01T00:00:00+00:00", "run": "earlier", "checkpoint": "epoch 1", "digest": "d", '
        '"images": "b"}\n'
    )
    assert "same names and other contents" in refusal(one, earlier)
    for path in (other, unknown):
        assert compare.main([str(earlier), str(path), FAST]) == 0
