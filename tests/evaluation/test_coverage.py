"""The coverage simulation: what it draws, its truths, its quick run, and the published tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri

from benchmarks import coverage
from benchmarks.coverage import Corner
from benchmarks.coverage_report import figure, grid_table, read, worst, worst_table
from ddtl.evaluation.intervals.coverage import measured_coverage
from ddtl.schema.scores import SCORES

ROOT = Path(__file__).resolve().parents[2]
CORNER = Corner(0.5, 40, "tail", 0.5, 0.9, "normal", "case_control")


def test_a_test_set_is_drawn_as_its_corner_says() -> None:
    labels, patients, p = coverage.simulate(CORNER, np.random.default_rng(0), 20_000)
    counts = np.bincount(patients)
    assert (counts.min(), counts.max()) == (1, 16)
    assert (np.bincount(patients, labels) > 0).sum() == 20_000
    score = ndtri(p) - np.sqrt(2) * ndtri(0.9) * (labels - 0.5)
    neighbours = patients[1:] == patients[:-1]
    assert np.corrcoef(score[1:][neighbours], score[:-1][neighbours])[0, 1] == pytest.approx(0.5, abs=0.02)
    assert score.std() == pytest.approx(1, abs=0.02)
    cohort = [
        coverage.simulate(replace(CORNER, design="cohort", images="one"), np.random.default_rng(seed))[0].sum()
        for seed in range(300)
    ]
    assert np.var(cohort) == pytest.approx(10, rel=0.35)  # of Binomial(40, 0.5)
    one = coverage.simulate(replace(CORNER, images="informative"), np.random.default_rng(0), 20_000)
    counts, mean = np.bincount(one[1]), np.bincount(one[1], ndtri(np.clip(one[2], 1e-9, 1 - 1e-9)))
    assert np.corrcoef(counts, mean / counts)[0, 1] < -0.2


def test_the_true_values_are_the_ones_known_in_closed_form() -> None:
    truths = coverage.true_values(CORNER)
    assert truths["image", "roc_auc"] == pytest.approx(0.9, abs=0.002)
    from scipy.special import ndtr

    rate = ndtr(ndtri(0.9) / np.sqrt(2))
    for name in ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision", "f1"):
        assert truths["image", name] == pytest.approx(rate, abs=0.003), name
    assert truths["image", "mcc"] == pytest.approx(2 * rate - 1, abs=0.005)


def test_a_quick_run_ends_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    coverage.main(["--quick", "--jobs", "1"])
    printed = capsys.readouterr().out
    result = json.loads(printed.splitlines()[-1])
    assert result["benchmark"] == "coverage"
    assert 0.5 < result["lowest"] <= 1
    assert "| 10 + 10 fixed, one" in printed


def test_what_was_drawn_is_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = coverage.measure_corners(tmp_path / "drawn.jsonl", [CORNER], 10, 0, 1)
    monkeypatch.setattr(coverage, "measured", None)
    assert coverage.measure_corners(tmp_path / "drawn.jsonl", [CORNER], 10, 0, 1) == first


def test_a_corner_is_covered_by_fresh_draws() -> None:
    """60 draws leave 2.8 points: an interval that covers 80 % is told from one that covers 95."""
    for cell in coverage.measured(replace(CORNER, correlation=0.9), 60, 5, 1):
        assert cell.given == cell.draws >= 50, cell
        assert cell.coverage > 0.86, cell


def test_the_published_intervals_meet_their_goal() -> None:
    cells = read(coverage.TABLE)
    for cell in cells:
        assert cell.given == cell.draws, "no test set of the grid is refused"
        assert cell.coverage >= 0.93 - 2 * cell.error, cell
    assert np.mean([cell.coverage > 0.995 for cell in cells]) < 0.1  # as few patients and scores near 1 may have


def test_the_figure_and_the_tables_are_those_of_the_docs() -> None:
    grid, searched = read(coverage.TABLE), read(coverage.SEARCHED)
    text = (ROOT / "docs" / "intervals.md").read_text(encoding="utf-8")
    assert grid_table(grid) in text
    assert worst_table(searched) in text
    assert len(worst(searched)) >= 15
    assert (ROOT / "docs" / "images" / "coverage.svg").read_text(encoding="utf-8") == figure(searched)


def test_the_measured_coverage_is_that_of_the_nearest_test_sets() -> None:
    cells = [cell for cell in read(coverage.TABLE) if cell.corner["correlation"] == 0.5]
    (cell,) = [
        cell for cell in cells
        if (cell.unit, cell.score) == ("patient", "roc_auc") and cell.corner["images"] == "tail"
        and (cell.corner["patients"], cell.corner["prevalence"], cell.corner["auc"]) == (95, 0.5, 0.9)
        and cell.corner["design"] == "case_control" and cell.corner["scores"] == "normal"
    ]  # fmt: skip
    found = measured_coverage("roc_auc", "patient", cell.truth, 90, 44, 250)
    assert found is not None
    assert (found.share, found.patients, found.positives) == (cell.coverage, 95, 48)
    assert (
        measured_coverage("roc_auc", "patient", cell.truth, 5000, 2500, 9000) is None
    )  # of that size nothing is known
    assert measured_coverage("roc_auc", "patient", 0.3, 90, 44, 250) is None
    assert measured_coverage("loss", "patient", 0.9, 90, 44, 250) is None
    for name in SCORES:
        assert measured_coverage(name, "image", cell.truth, 90, 44, 250) or name in ("mcc", "brier"), name
