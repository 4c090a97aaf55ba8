"""What each page says first, and the charts that carry it: the right words and the right numbers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddtl.config import overrides
from ddtl.evaluation import calibration
from ddtl.evaluation.comparison.comparison import compare
from ddtl.explain import sheets
from ddtl.records import small
from ddtl.reports.audit import checks, differences, findings
from ddtl.reports.audit.facts import Audited
from ddtl.reports.comparison import forest
from ddtl.reports.comparison.runs import read as compared
from ddtl.reports.html import figures, format
from ddtl.reports.html.page import Code, Figure, Fold, Forest, Notice, Table, Text
from ddtl.reports.run import answer, cases, history, report as run_report, stored, threshold
from ddtl.reports.run.stored import Stored
from ddtl.reports.sections import history as curves, reliability
from ddtl.reports.study import answer as study_answer, cells, report as study_report
from ddtl.reports.sweep import report as sweep_report
from ddtl.reports.sweep.record import Sweep
from tests.reports.test_run_page import blocks
from tests.reports.test_study_page import QUICK, learning_curve
from tests.support import audits, explained, hospital, records, study_records, sweep_records

# --- a run -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return stored.read(records.write(tmp_path_factory.mktemp("runs") / "run"))


def changed(run: Stored, interval: Mapping[str, float] | None, metadata: Mapping[str, float] | None) -> Stored:
    """The run with another interval of its ROC AUC by patient, and of its difference from file metadata."""
    record = json.loads(json.dumps(run.record))
    record["test"]["patients"]["intervals"]["roc_auc"] = interval
    if metadata is None:
        del record["baselines"]["file_facts"]
    else:
        record["baselines"]["file_facts"]["difference"] = {"roc_auc": 0.0, "interval": metadata}
    return replace(run, record=record)


@pytest.mark.parametrize(
    ("interval", "metadata", "words"),
    [
        ((0.6, 0.9), (0.1, 0.3), "better than chance, and by image better than file metadata without any pixel."),
        ((0.6, 0.9), (-0.1, 0.3), "better than chance, but by image not shown to be better than file metadata"),
        ((0.6, 0.9), (-0.3, -0.1), "better than chance, but by image worse than file metadata without any pixel."),
        ((0.4, 0.9), (-0.1, 0.3), "not shown to be better than chance, and by image not shown to be better than file"),
        ((0.5, 0.9), None, ": not shown to be better than chance."),
        ((0.1, 0.4), None, "(95 % interval 0.100 to 0.400): worse than chance."),
        (None, None, ": too few for an interval."),
    ],
)
def test_a_run_is_held_against_chance_and_file_metadata(
    run: Stored, interval: tuple[float, float] | None, metadata: tuple[float, float] | None, words: str
) -> None:
    ends = [None if pair is None else {"low": pair[0], "high": pair[1], "method": "x"} for pair in (interval, metadata)]
    found = run_report.page(changed(run, *ends)).answer
    value = run.record["test"]["patients"]["roc_auc"]
    assert found.startswith(f"On the test set of covid19ct, the ROC AUC by patient is {value:.3f}")
    assert words in found


def test_a_leaky_run_is_marked_in_its_first_sentence_and_on_its_headlines(tmp_path: Path) -> None:
    found = run_report.page(stored.read(records.write(tmp_path / "run", protocol="random", leaked_share=0.87)))
    assert found.answer.startswith("Not to be trusted, as the split is leaky: on the test set")
    assert [one.mark for one in found.headlines] == ["leaky split", "leaky split", "", ""]
    charts = [block for block in blocks(found) if isinstance(block, Forest)]
    assert len(charts) == 2
    assert all(chart.title.endswith("(leaky split: optimistic)") for chart in charts)


def test_the_strip_shows_the_numbers_of_the_record(run: Stored) -> None:
    charts = {chart.axis: chart for chart in blocks(run_report.page(run)) if isinstance(chart, Forest)}
    assert list(charts) == ["ROC AUC", "accuracy"]
    rows = {one.name: one for one in charts["ROC AUC"].estimates}
    for name, scores in {
        "this model, by patient": run.record["test"]["patients"],
        "this model, by image": run.record["test"],
        "file metadata, by image": run.record["baselines"]["file_facts"],
    }.items():
        limits = scores["intervals"]["roc_auc"]
        assert (rows[name].value, rows[name].low, rows[name].high) == (scores["roc_auc"], limits["low"], limits["high"])
        assert rows[name].text == format.with_interval(scores, "roc_auc")
    assert charts["ROC AUC"].reference == 0.5
    assert charts["accuracy"].reference == run.record["baselines"]["majority"]["accuracy"]


def test_without_a_test_set_the_majority_class_is_counted(tmp_path: Path) -> None:
    found = stored.read(records.write(tmp_path / "run", test=False))
    _, accuracy = (block for block in blocks(run_report.page(found)) if isinstance(block, Forest))
    counts = found.record["val"]["classes"].values()
    assert accuracy.reference == max(counts) / sum(counts)
    assert "On the validation set" in answer.sentence(found)


def test_the_subtitle_tells_runs_apart(run: Stored, tmp_path: Path) -> None:
    assert " · 6 epochs · 224 px · seed 0 · run" in run_report.page(run).subtitle
    assert " · 224 px · 2026-11-30 · seed 0" in run_report.page(replace(run, day="2026-11-30")).subtitle
    log = "2026-11-29T23:59:59.100+00:00 epoch 1/2   train loss 1\n2026-11-30T00:00:01.100+00:00 epoch 2/2   train\n"
    (tmp_path / "log.txt").write_text(f"{log}2026-12-24T00:00:00.000+00:00 a later word\n")
    assert small.last_epoch_on(tmp_path) == "2026-11-30"
    (tmp_path / "log.txt").write_bytes(b"\xff\x00 no log")
    assert small.last_epoch_on(tmp_path) == small.last_epoch_on(tmp_path / "nowhere") == ""


def test_a_confusion_matrix_says_of_how_many(run: Stored) -> None:
    table = next(
        block for block in blocks(run_report.page(run)) if isinstance(block, Table) and block.caption == "By patient"
    )
    c = run.record["test"]["patients"]["confusion"]
    assert [cell.text for cell in table.rows[1][1:]] == [f"{n} of {c['fn'] + c['tp']}" for n in (c["fn"], c["tp"])]  # type: ignore[union-attr]
    assert threshold._count(36, 42) == threshold.Cell("36 of 42", "(86 %)", 36 / 42)
    assert threshold._count(0, 0).note == ""


def test_a_bin_has_wilson_s_interval_and_one_patient_has_none() -> None:
    labels, p = np.array([1, 1, 1, 0, 1]), np.array([0.85, 0.86, 0.87, 0.88, 0.1])
    low, high = calibration.reliability(labels, p, clusters=np.arange(5))[1].limits or (0, 0)
    z, n, share = 1.959964, 4, 0.75  # Wilson 1927
    centre, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    assert (low, high) == pytest.approx(((centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)), rel=1e-5)
    assert calibration.reliability(labels, p, clusters=np.zeros(5))[1].limits is None


def test_no_line_runs_through_a_bin_of_few_images() -> None:
    made = [
        calibration.Bin(i / 4, (i + 1) / 4, i / 4 + 0.1, 0.5, count, (0.3, 0.6))
        for i, count in enumerate((9, reliability.FEW - 1, 9, 9))
    ]
    line, few = (
        t for t in reliability.spec({"it": made}, "x", "y")["data"] if t["name"] == "it" and t["type"] == "scatter"
    )
    assert line["y"] == [0.5, None, 0.5, 0.5]
    assert few["y"] == [None, 0.5, None, None]
    assert few["mode"] == "markers"
    assert few["marker"]["symbol"] == "circle-open"
    assert (line["error_y"]["array"][0], line["error_y"]["arrayminus"][0]) == pytest.approx((0.1, 0.2))


def test_phases_are_marked_where_they_start() -> None:
    rows = [{"epoch": epoch, "val/loss": 0.5} for epoch in range(6)]
    spec = curves.one_run(rows, ["val/loss"], "loss", 3, [(0, "probe"), (4, "all"), (9, "never reached")])
    assert [shape["x0"] for shape in spec["layout"]["shapes"]] == [4.5, 4]
    assert [note["text"] for note in spec["layout"]["annotations"]] == ["probe", "all", "epoch 4"]
    alone = curves.one_run(rows, ["val/loss"], "loss", None, [(0, "all")])
    assert alone["layout"]["shapes"] == alone["layout"]["annotations"] == []


def test_the_page_of_a_run_names_its_phases(run: Stored) -> None:
    found = history.section(run).blocks[1]
    (loss, _) = found.blocks  # type: ignore[union-attr]
    assert isinstance(loss, Figure)
    assert "probe" in [note["text"] for note in loss.spec["layout"]["annotations"]]


def test_cases_name_the_class_of_their_probability(run: Stored) -> None:
    image = {"probabilities": [0.96, 0.04], "called": "non-COVID"}
    assert cases._probability(image, run.classes, 0.5) == "P(COVID) = 0.04, "
    near = {"probabilities": [0.504, 0.496], "called": "non-COVID"}
    assert cases._probability(near, run.classes, 0.5) == "P(COVID) = 0.4960, "
    three = {"probabilities": [0.1, 0.7, 0.2], "called": "CAP"}
    assert cases._probability(three, ("normal", "CAP", "COVID"), None) == "P(CAP) = 0.70, "


def test_a_heat_map_is_clear_where_it_is_low_and_the_legend_is_of_its_colours(tmp_path: Path) -> None:
    heat = np.array([[0.0, 0.1], [0.15, 1.0]])
    tile = sheets.Tile(np.full((8, 8), 120, np.uint8), heat, None, None, "it", [])
    under = np.asarray(sheets.pair(tile, 64))[:, 64:].astype(int)
    assert (under[:16, :16] == 120).all()
    assert under[60, 60, 0] > 180 > under[60, 60, 2]
    assert (sheets.colour(0), sheets.colour(1)) == ("#000004", "#fcffa4")
    assert sheets.opacity(0.2) == 0 < sheets.opacity(0.21)
    folder = records.write(tmp_path / "run")
    explained.write(folder)
    _, legend, *_ = cases.section(stored.read(folder)).blocks
    assert f'stop-color="{sheets.colour(0.5)}"' in legend.svg  # type: ignore[union-attr]


# --- a comparison ------------------------------------------------------------------------------------------------


def test_a_claimed_difference_is_green_and_an_unclaimed_one_grey(tmp_path: Path) -> None:
    found = compared(hospital.good_and_poor(tmp_path), "test")
    result = compare(found.methods)
    (pair,) = result.pairs
    (row,) = forest.of_differences(result).estimates
    limits = pair.judged.interval
    assert limits is not None
    assert (row.value, row.low, row.high, row.tone) == (pair.judged.value, limits.low, limits.high, "good")
    doubtful = replace(result, pairs=[replace(pair, holm_p=0.2)])
    assert forest.of_differences(doubtful).estimates[0].tone == "other"
    assert [one.name for one in forest.of_methods(result).estimates] == [one.name for one in result.methods]


def test_a_square_chart_has_axes_of_one_length() -> None:
    spec = figures.square(figures.chart([], figures.share("x"), figures.share("y"), legend="outside"))
    assert spec["layout"]["yaxis"]["scaleanchor"] == "x"


# --- a study -----------------------------------------------------------------------------------------------------


def test_a_study_of_two_hospitals_says_what_is_left_of_each_score(tmp_path: Path) -> None:
    found = cells.read(study_records.cross_dataset(tmp_path), QUICK)
    said = study_answer.sentence(found)
    assert said.startswith("Trained on alpha, plain: ROC AUC by image in-domain ")
    own, other = (found.at(found.rows[0], target).measured.scores["roc_auc"] for target in ("alpha", "beta"))  # type: ignore[union-attr]
    assert (
        f"in-domain {own.value:.3f} ({own.interval.low:.3f}–{own.interval.high:.3f}), on beta {other.value:.3f} ("
        in said
    )  # type: ignore[union-attr]
    assert said.endswith("1 more row in the table.")
    page = study_report.page(found)
    assert page.answer == said
    assert all(block.stacked for block in page.sections[0].blocks if isinstance(block, Table))


def test_a_learning_curve_has_its_ends_in_words_and_chance_in_its_chart(tmp_path: Path) -> None:
    found = cells.read(learning_curve(tmp_path), QUICK)
    values = [cell.measured.scores["roc_auc"].value for cell in found.cells]  # type: ignore[union-attr]
    said = study_answer.sentence(found)
    assert f"ROC AUC by image {values[0]:.3f} (" in said
    assert f") with 5 patients and {values[2]:.3f} (" in said
    chart = next(
        block for block in blocks(study_report.page(found)) if isinstance(block, Figure) and "training" in block.title
    )
    assert next(t for t in chart.spec["data"] if t.get("name") == "chance")["y"] == [0.5, 0.5]


def test_two_protocols_are_held_against_each_other(tmp_path: Path) -> None:
    jobs = [study_records.run(tmp_path, "alpha", s, {}, 4.0, protocol="random") for s in range(2)]
    jobs += [study_records.run(tmp_path, "alpha", s, {}, 1.0, protocol="grouped") for s in range(2)]
    said = study_answer.sentence(cells.read(study_records.study(tmp_path, "paper_vs_honest", jobs), QUICK))
    assert " split by the slice, which is leaky, and " in said
    assert "with protocol grouped: " in said
    assert "The leaky split adds 0." in said


def test_a_dataset_has_one_colour_in_every_chart(tmp_path: Path) -> None:
    found = cells.read(study_records.cross_dataset(tmp_path), QUICK)
    charts = {block.title: block.spec for block in blocks(study_report.page(found)) if isinstance(block, Figure)}
    colours = {
        (chart, trace["name"]): (trace["line"]["color"], trace["line"]["dash"])
        for chart, spec in charts.items()
        for trace in spec["data"]
        if trace.get("name", "").partition(",")[0] in ("alpha", "beta") and "line" in trace
    }
    assert len(colours) > 6
    for (_, name), (colour, dash) in colours.items():
        dataset, _, method = name.partition(", ")
        assert colour == figures.SERIES[("alpha", "beta").index(dataset)], name
        assert dash == ("dash" if method == "strong" else "solid"), name


def test_a_study_without_a_score_says_so(tmp_path: Path) -> None:
    folder = study_records.study(tmp_path, "cross_dataset", [study_records.failed("alpha", 0, ["beta"], "killed")])
    assert study_answer.sentence(cells.read(folder, QUICK)) == "No run of this study has a score yet."


# --- a sweep -----------------------------------------------------------------------------------------------------


def test_a_sweep_says_first_whether_its_winner_is_better_than_the_default() -> None:
    def said(final: dict[str, Any] | None, trials: int = 60) -> str:
        return sweep_report.answer(Sweep(sweep_records.record(trials, final=final)))

    final = sweep_records.final()
    assert said(final).startswith("The winner is better than the default settings. ")
    worse = sweep_records.final(-0.031, -0.058, -0.004)
    assert said({**worse, "claimed": True}).startswith("The default settings are better than the winner. ")
    assert said({**final, "claimed": False}).startswith(
        "The winner is not shown to be better than the default settings. "
    )
    assert said({**final, "comparison": None}).startswith("The winner was not compared with the default settings")
    assert said(None).startswith("Whether the winner is better than the default settings is not known")
    assert said(None, 0) == "No trial was completed, so there is no winner."


def test_each_parameter_has_its_scores() -> None:
    found = Sweep(sweep_records.record())
    charts = {block.title: block for block in blocks(sweep_report.page(found)) if isinstance(block, Figure)}
    rate = charts["optimizer.lr"].spec
    assert rate["layout"]["xaxis"]["type"] == "log"
    at = {x: y for trace in rate["data"] for x, y in zip(trace["x"], trace["y"], strict=True)}
    for trial in found.trials:
        if trial["state"] == "complete":
            assert at[float(f"{trial['params']['optimizer.lr']:.5g}")] == float(f"{trial['values'][0]:.5g}")
    choice = charts["finetune"].spec["layout"]["xaxis"]
    assert choice["tickvals"] == list(range(len(choice["ticktext"])))
    best = {trace["name"] for trace in rate["data"]}
    assert "the best" in best


# --- an audit ----------------------------------------------------------------------------------------------------


def finding(view: str, sentence: str, **changes: Any) -> dict[str, Any]:
    return {
        "check": f"view: {view}", "severity": "note", "datasets": ["chest"], "title": f"{view}: scores, and may be so",
        "sentence": sentence, "fix": "Score better.", "details": {}, **changes,
    }  # fmt: skip


def test_findings_of_one_kind_are_one_card(tmp_path: Path) -> None:
    record = audits.record(audits.audit(tmp_path))
    record["findings"] = [
        finding("size", "ROC AUC 0.9 from this. It is no shortcut."),
        finding("text", "ROC AUC 0.8 from this. It is no shortcut."),
        finding("marks", "ROC AUC 0.7 from this.", severity="warn"),
    ]
    cards = [block for block in findings.section(Audited(record, ())).blocks if isinstance(block, Notice)]
    assert [card.title for card in cards] == ["Size and text: scores, and may be so", "Marks: scores, and may be so"]
    assert cards[0].text == "ROC AUC 0.9 from this. ROC AUC 0.8 from this. It is no shortcut."


@pytest.mark.parametrize("path", ["runs/audits/chest/exclude.csv", "my runs/a,b=$c/it's/exclude.csv", "~/肺/x.csv"])
def test_the_command_that_excludes_is_read_as_it_was_meant(tmp_path: Path, path: str) -> None:
    record = audits.record(audits.audit(tmp_path))
    record["command"] = "ddtl audit dataset=folder 'dataset.root=/my images' strict=true"
    (code,) = (b for b in findings.section(Audited(record, (), {"chest": path})).blocks if isinstance(b, Code))
    words = shlex.split(code.text)
    assert words[:4] == ["python", "train.py", "dataset=folder", "dataset.root=/my images"]
    assert overrides._key_and_value(words[4]) == ("dataset.exclude", path)
    assert not [b for b in findings.section(Audited(record, ())).blocks if isinstance(b, Code)]


def test_quantities_that_do_not_differ_are_one_line(tmp_path: Path) -> None:
    record = audits.record(audits.audit(tmp_path))
    table, fold = differences.section(Audited(record, ())).blocks
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == ["file size (bytes)"]
    assert isinstance(fold, Fold)
    assert fold.summary == "No effect: brightness"
    (shown,) = fold.blocks
    assert isinstance(shown, Table)
    assert [row[0] for row in shown.rows] == ["brightness (grey levels)"]


def test_checks_that_were_made_are_one_line(tmp_path: Path) -> None:
    record = audits.record(audits.audit(tmp_path))
    line, table, *_ = checks.section(Audited(record, ())).blocks
    made = [one["check"] for one in record["checked"] if one["done"]]
    assert line == Text(f"Checked of chest: {'; '.join(made)}.")
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == [one["check"] for one in record["checked"] if not one["done"]]
