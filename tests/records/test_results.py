"""The record of stored predictions, held by a golden file; and predictions that no score can be computed from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ddtl.config.load import load
from ddtl.evaluation import record
from ddtl.records import predictions as prediction_table
from ddtl.utils.errors import UserError

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
STORED = GOLDEN / "run" / "predictions.csv"


def rounded(value: Any) -> Any:
    """Floats to nine digits: the last ones are another processor's."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("threshold", ["0.5", "youden"])
def test_the_record_of_stored_predictions(threshold: str) -> None:
    config = load([f"evaluation.threshold={threshold}"]).evaluation
    table = prediction_table.read(STORED)
    learnt = record.choose_on_validation(table.of("val"), config)
    found = record.setting(learnt, config, "patient")
    found |= {split: record.of_split(table.of(split), learnt, config) for split in ("val", "test")}
    path = GOLDEN / f"record-{threshold}.json"
    if os.environ.get("DDTL_RENEW_GOLDEN"):
        path.write_text(json.dumps(rounded(found), indent=1) + "\n", encoding="utf-8")
    assert rounded(found) == json.loads(path.read_text(encoding="utf-8"))


def with_cell(column: str, text: str) -> str:
    lines = STORED.read_text(encoding="utf-8").splitlines()
    at = lines[0].split(",").index(column)
    cells = lines[2].split(",")
    lines[2] = ",".join([*cells[:at], text, *cells[at + 1 :]])
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it contains no row"),
        (STORED.read_text(encoding="utf-8").splitlines()[0], "it contains no row"),
        (STORED.read_text(encoding="utf-8").replace("sample_id", "name", 1), "sample_id"),
        (with_cell("label", "else"), "is damaged"),
    ],
)
def test_damaged_predictions_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as found:
        prediction_table.read(path)
    assert str(path) in str(found.value)
    assert "Delete it and repeat the command" in str(found.value)


def test_a_logit_that_is_no_number_and_an_image_that_stands_twice(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    logit = next(name for name in STORED.read_text(encoding="utf-8").split("\n")[0].split(",") if "logit_" in name)
    path.write_text(with_cell(logit, "nan"), encoding="utf-8")
    with pytest.raises(UserError, match="are not finite numbers"):
        prediction_table.read(path)
    lines = STORED.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines, lines[1]]), encoding="utf-8")
    with pytest.raises(UserError, match="is in it more than once"):
        prediction_table.read(path)
