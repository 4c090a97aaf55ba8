"""What a finished run and several of them print."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ddtl.reports import terminal
from tests.support import records


def results(folder: Path, **changes: Any) -> tuple[dict[str, Any], Path]:
    path = records.write(folder / "runs" / "covid19ct" / "densenet121-full-s0-0123456789", **changes)
    return json.loads((path / "results.json").read_text()), path


def test_the_main_scores_have_unit_and_interval_and_the_page_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, folder = results(tmp_path)
    (folder / "report.html").touch()
    terminal.scores(found, folder, verbose=False)
    text = capsys.readouterr().out
    patients = found["test"]["patients"]
    limits = patients["intervals"]["roc_auc"]
    assert f"ROC AUC by patient {patients['roc_auc']:.3f} ({limits['low']:.3f}–{limits['high']:.3f})" in re.sub(
        " +", " ", text
    )
    assert [line.split("  ")[0] for line in text.splitlines() if re.search(r"\d\.\d{3} \(", line)][:4] == [
        "ROC AUC by patient",
        "ROC AUC by image",
        "sensitivity by patient",
        "specificity by patient",
    ]
    assert "95 % intervals; 120 images of 60 patients; threshold 0.4100" in text
    assert f"page: {folder / 'report.html'}; all scores: verbose=true" in text.replace("\n", "")
    assert "average_precision" not in text


def test_the_whole_table_is_there_where_it_is_requested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, folder = results(tmp_path)
    terminal.scores(found, folder, verbose=True)
    text = capsys.readouterr().out
    assert "average_precision" in text
    assert "all scores" not in text


def test_without_patients_and_with_three_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, folder = results(tmp_path, table_=records.table(("a", "b", "c"), named=False))
    terminal.scores(found, folder, verbose=False)
    text = capsys.readouterr().out
    assert "by patient" not in text
    assert "balanced accuracy by image" in text
    assert "threshold" not in text


def test_several_runs_end_with_a_row_for_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    def run(value: float | None) -> dict[str, Any]:
        scores = {"roc_auc": value, "intervals": {"roc_auc": {"low": 0.1, "high": 0.9}}}
        return {"test": {**scores, "roc_auc": 0.5, "patients": scores}}

    jobs = [["dataset=covid19ct", f"seed={seed}", f"finetune={way}"] for way in ("full", "lp_ft") for seed in (0, 1)]
    terminal.job_table(jobs, [run(0.6), run(0.8), run(0.7), None])
    rows = [re.sub(" +", " ", line).strip() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:3] == [
        "finetune=full 2 0.700 ± 0.141 test, by patient",
        "finetune=lp_ft 1 0.700 (0.100–0.900) test, by patient; 1 run failed",
    ]
    terminal.job_table([["seed=0"], ["seed=1"]], [run(None), run(None)])
    assert "(nothing but seeds) 2 –" in re.sub(" +", " ", capsys.readouterr().out)


def test_what_the_page_warns_of_is_marked_here_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """File metadata that tells the classes as well as the model does; and not where the model is better."""
    found, folder = results(tmp_path)
    for value, low, is_marked in ((1.0, 0.531, True), (0.62, 0.4, False)):
        metadata = found["baselines"]["file_facts"]
        metadata |= {"roc_auc": value, "intervals": {"roc_auc": {"low": low, "high": value, "method": "logit"}}}
        terminal.scores(found, folder, verbose=False)
        text = " ".join(capsys.readouterr().out.split())
        assert ("! A classifier that sees only file metadata, and no pixel," in text) == is_marked
        assert ("The dataset has a shortcut" in text) == is_marked
        assert any("shortcut" in doubt for doubt in terminal.doubts(found)) == is_marked
