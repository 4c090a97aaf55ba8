"""The coverage simulation: its truths, its quick run, and the published table against a fresh draw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import coverage
from benchmarks.coverage_report import Row, figure, markdown
from ddtl.evaluation.coverage import measured_coverage
from ddtl.evaluation.metrics import binary_scores
from ddtl.evaluation.names import SCORES

ROOT = Path(__file__).resolve().parents[1]


def published() -> list[Row]:
    return coverage.read(coverage.TABLE)


def test_the_simulated_patients_are_those_of_the_official_test_split() -> None:
    without, with_covid = coverage.images_of_patients()
    assert (len(without), without.sum(), len(with_covid), with_covid.sum()) == (42, 105, 53, 98)
    labels, patients, _, _ = coverage.simulate((0.9, 0.3), np.random.default_rng(0))
    assert len(np.unique(patients)) == 95
    assert [len(np.unique(patients[labels == label])) for label in (0, 1)] == [42, 53]


def test_the_true_values_are_what_many_test_sets_have_on_average() -> None:
    cell = (0.90, 0.6)
    truths = coverage.true_values(cell)
    draws = [coverage.simulate(cell, np.random.default_rng(seed)) for seed in range(400)]
    labels, p = (np.concatenate([draw[i] for draw in draws]) for i in (0, 2))
    for name, value in binary_scores(labels, p, coverage.THRESHOLD).items():
        assert value == pytest.approx(truths[name], abs=0.006), name
    by_patient = [
        roc_auc_score(
            np.bincount(patients, labels) > 0, np.bincount(patients, p) / np.bincount(patients)
        )
        for labels, patients, p, _ in draws
    ]  # fmt: skip
    assert np.mean(by_patient) == pytest.approx(truths["patient_roc_auc"], abs=0.005)


def test_images_of_a_patient_and_models_are_as_alike_as_said() -> None:
    from scipy.special import ndtri

    labels, patients, p, other = (
        np.concatenate(parts)
        for parts in zip(
            *((a, b + 95 * seed, c, d) for seed in range(400)
              for a, b, c, d in [coverage.simulate((0.75, 0.3), np.random.default_rng(seed))]),
            strict=True,
        )
    )  # fmt: skip
    score = ndtri(p) - coverage._shift(0.75) * (labels - 0.5)
    next_to = patients[1:] == patients[:-1]
    assert np.corrcoef(score[1:][next_to], score[:-1][next_to])[0, 1] == pytest.approx(0.3, abs=0.03)
    assert score.std() == pytest.approx(1, abs=0.01)
    theirs = ndtri(other) - coverage._shift(0.75) * (labels - 0.5)
    assert np.corrcoef(score, theirs)[0, 1] == pytest.approx(coverage.SHARED, abs=0.02)


def test_a_quick_run_ends_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    coverage.main(["--quick", "--jobs", "1"])
    printed = capsys.readouterr().out
    result = json.loads(printed.splitlines()[-1])
    assert result["benchmark"] == "coverage"
    assert 0.5 < result["default"]["roc_auc 0.9 0.3"] <= 1
    assert "**ROC AUC by image**" in printed


def test_the_default_meets_its_goal_in_the_published_table_and_the_naive_interval_does_not() -> None:
    rows = published()
    assert len({(row.auc, row.correlation) for row in rows}) == 9
    for row in rows:
        if row.method == "default" and row.auc <= 0.9:
            assert 0.93 <= row.coverage <= 0.97, row
            assert row.draws >= 2000
        if row.method == "images as independent" and row.correlation == 0.6:
            assert row.coverage < 0.9, row


def test_the_figure_and_the_tables_show_every_method() -> None:
    rows = published()
    drawn, written = figure(rows), markdown(rows)
    for name in ("percentile", "images as independent"):
        assert name in drawn
        assert name in written
    assert (ROOT / "docs" / "images" / "coverage.svg").read_text(encoding="utf-8") == drawn
    assert written in (ROOT / "docs" / "intervals.md").read_text(encoding="utf-8")


def test_the_measured_coverage_is_that_of_the_nearest_simulated_truth() -> None:
    rows = [row for row in published() if row.method == "default"]
    for name in (*SCORES, "patient_roc_auc"):
        for auc in coverage.AUCS:
            cells = [row for row in rows if row.target == name and row.auc == auc]
            assert measured_coverage(name, cells[1].truth) == min(row.coverage for row in cells)
    assert measured_coverage("roc_auc", 0.91) == measured_coverage("roc_auc", 0.9)
    assert measured_coverage("roc_auc", 1.0) == measured_coverage("roc_auc", 0.98)
    assert measured_coverage("roc_auc", 0.6) is None
    assert measured_coverage("loss", 0.9) is None


@pytest.mark.slow
def test_a_fresh_draw_agrees_with_the_published_table() -> None:
    draws = 200
    fresh = coverage.coverage((0.9, 0.3), draws, 100, jobs=1)
    table = {(row.target, row.method): row for row in published() if (row.auc, row.correlation) == (0.9, 0.3)}
    for row in fresh:
        if row.method == "default":
            share = table[row.target, row.method].coverage
            assert abs(row.coverage - share) < 4 * np.sqrt(share * (1 - share) / draws), row
