"""The report of a run: what it says, that it says it of the record, and that it is one safe file."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from ddtl.commands import report as command
from ddtl.reports.html import format
from ddtl.reports.html.curves import GRID, Curves, curves
from ddtl.reports.html.page import Cell, Figure, Fold, Page, Row, Section, Table, Text, render
from ddtl.reports.run import report as run_report, scores, sentences, stored
from ddtl.reports.sections import reproduce
from ddtl.schema.scores import SCORES, TITLES
from ddtl.utils import wording
from ddtl.utils.errors import UserError
from ddtl.utils.files import write_json
from tests.support import browser, mounts, records

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>&lt;b&gt;\"'`|*_[x](javascript:alert(3))",
    "\u202enormal\u202c 肺炎 ß {{ 7*7 }} %{x} var(--ink) $x$",
    "n" * 300,
)


class Parsed(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.figures: list[dict[str, Any]] = []
        self._in: list[str] = []
        self.feed(html)
        self.close()
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._in.append("json" if ("type", "application/json") in attrs else tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._in.pop()

    def handle_data(self, data: str) -> None:
        if not self._in:
            self.texts.append(data)
        elif self._in[-1] == "json":
            self.figures.append(json.loads(data))


def report(folder: Path) -> Parsed:
    return Parsed(run_report.render_run(stored.read(folder)))


def page(folder: Path) -> Page:
    return run_report.page(stored.read(folder))


def blocks(page_: Page) -> Iterator[Any]:
    """All blocks, those within rows and folds too."""
    for section in page_.sections:
        for block in section.blocks:
            yield block
            if isinstance(block, Row | Fold):
                yield from block.blocks


def as_text(table: Table) -> str:
    """A table in columns of letters."""
    lines = [list(table.columns), *([_text(value) for value in row] for row in table.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    text = "\n".join("  ".join(f"{word:<{w}}" for word, w in zip(line, widths, strict=True)).rstrip() for line in lines)
    return f"{table.caption}\n\n{text}\n\n{table.note}\n"


def _text(value: str | Cell) -> str:
    return value if isinstance(value, str) else f"{value.text} {value.note}".strip()


def golden(name: str, found: str) -> None:
    """Compare with a stored text; DDTL_RENEW_GOLDEN=1 stores it anew."""
    path = GOLDEN / name
    if os.environ.get("DDTL_RENEW_GOLDEN"):
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return records.write(tmp_path_factory.mktemp("runs") / "densenet121-full-s0-0123456789")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return records.write(tmp_path_factory.mktemp("three") / "run", records.table(("normal", "CAP", "COVID")))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which everything that a user names is an attack."""
    folder = tmp_path_factory.mktemp("hostile") / "run <i>&\"' name"
    weights = {"source": HOSTILE[1], "digest": "00" * 32}
    return records.write(
        folder,
        records.table(HOSTILE),
        dataset=HOSTILE[0].replace("/", "|"),
        warnings=list(HOSTILE),
        weights=weights,
        monitor="val/loss",
    )


# --- what it says ------------------------------------------------------------------------------------------------


def test_scores_table_as_it_was() -> None:
    golden("scores.txt", as_text(scores.table(stored.read(GOLDEN / "run"))))


def test_headline_is_by_patient_with_its_interval(run: Path) -> None:
    record = json.loads((run / "results.json").read_text())
    by_patient = record["test"]["patients"]
    auc, accuracy, size, protocol = page(run).headlines
    assert (auc.label, auc.value) == ("ROC AUC, test, by patient", f"{by_patient['roc_auc']:.3f}")
    low, high = (by_patient["intervals"]["roc_auc"][end] for end in ("low", "high"))
    assert auc.note == f"95 % CI {low:.3f}–{high:.3f}"
    assert accuracy.label == "Accuracy at threshold 0.41, test, by patient"
    assert accuracy.value == f"{by_patient['accuracy']:.3f}"
    assert (size.value, size.note) == ("60 patients", "120 images")
    assert (protocol.value, protocol.note) == ("official", "no patient in two splits")


def test_every_number_of_the_scores_stands_on_the_page(run: Path) -> None:
    record, text = json.loads((run / "results.json").read_text()), report(run).text
    for split in ("val", "test"):
        for one in (record[split], record[split]["patients"]):
            for name in TITLES:
                assert format.with_interval(one, name) in text, (split, name)
    for row in record["test"]["predictive_values"]:
        assert f"{row['ppv']:.3f}" in text
    for count in (*record["test"]["confusion"].values(), *record["test"]["patients"]["confusion"].values()):
        assert f" {count} " in text


def test_sections_of_a_whole_run(run: Path) -> None:
    titles = [section.title for section in page(run).sections]
    before = ["Result", "Scores", "Curves", "Threshold", "Patients", "Calibration", "Baselines", "Audit", "Schedule"]
    assert titles == [*before, "Training", "Data", "Reproduce"]
    assert "Epoch 4 had the best val/roc_auc by image (0.900)" in report(run).text


def test_without_a_test_set_validation_is_shown_and_said_to_be_optimistic(tmp_path: Path) -> None:
    found = page(records.write(tmp_path / "run", test=False))
    assert found.headlines[0].label == "ROC AUC, validation, by patient"
    assert "No test set was scored" in found.warnings[0]
    assert "Baselines" not in [section.title for section in found.sections]
    text = Parsed(render(found)).text
    assert "test, 60 patients" not in text
    assert "validation, 40 patients" in text


def test_without_patients_images_are_shown_and_the_reason(tmp_path: Path) -> None:
    folder = records.write(tmp_path / "run", records.table(named=False))
    found, text = page(folder), report(folder).text
    assert found.headlines[0].label == "ROC AUC, test, by image"
    assert found.headlines[2].note == "60 near-duplicate groups"
    assert "There are no scores by patient: 120 of 120 images have no patient id." in text
    assert "Small test set: 60 near-duplicate groups." in text
    assert "bootstrap draws of near-duplicate groups" in text


def test_three_classes(three: Path) -> None:
    text = report(three).text
    assert "Each class against all others, test" in text
    assert "There is no threshold: an image is predicted to be of the class with the highest probability." in text
    counts = json.loads((three / "results.json").read_text())["test"]["confusion"]["counts"]
    table = next(b for b in blocks(page(three)) if isinstance(b, Table) and b.caption == "By image")
    assert [[cell.text for cell in row[1:] if isinstance(cell, Cell)] for row in table.rows] == [
        [f"{n} of {sum(row)}" for n in row] for row in counts
    ]
    roc = next(b for b in blocks(page(three)) if isinstance(b, Figure) and b.title == "ROC curve")
    assert [t["name"] for t in roc.spec["data"]] == ["chance", "normal", "CAP", "COVID"]


def test_an_evaluation_on_other_data(run: Path, tmp_path: Path) -> None:
    home = tmp_path / "run"
    shutil.copytree(run, home)
    folder = home / "evaluations" / "sarscov2ct-grouped"
    trained_on = {"dataset": "covid19ct", "protocol": "official", "run": "run"}
    records.write(folder, dataset="sarscov2ct", trained_on=trained_on)
    for name in ("config.yaml", "environment.json", "metrics.jsonl"):
        (folder / name).unlink()
    found = page(folder)
    assert found.title == "densenet121 trained on covid19ct, tested on sarscov2ct"
    assert found.subtitle.endswith("· seed 0 · run run")
    assert "Training" not in [section.title for section in found.sections]
    text = report(folder).text
    assert "image_size: 224" in text  # the settings are those of the run
    assert "The command that trained the model." in text
    data = next(section for section in found.sections if section.title == "Data")
    assert [row[0] for row in data.blocks[1].rows] == ["test"]  # type: ignore[union-attr]


def test_one_class_alone_has_reasons_instead_of_numbers(tmp_path: Path) -> None:
    rows = records.table()
    keep = (rows.split == "val") | (rows.label == 0)
    columns = {name: getattr(rows, name)[keep] for name in ("split", "sample_id", "group", "patient_id", "site")}
    rows = records.Predictions(rows.classes, **columns, label=rows.label[keep], logits=rows.logits[keep])
    folder = records.write(tmp_path / "run", rows)
    text = report(folder).text
    assert "ROC AUC – needs images of every class" in text
    assert "sensitivity – no positive" in text
    assert "There are no curves: the images are all of one class." in text


def test_a_score_without_an_interval_says_why(run: Path, tmp_path: Path) -> None:
    assert "No brackets" not in scores.table(stored.read(run)).note
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    record = json.loads((folder / "results.json").read_text())
    record["test"]["intervals"]["roc_auc"] = None
    write_json(folder / "results.json", record)
    table = scores.table(stored.read(folder))
    assert table.rows[0][2] == Cell(f"{record['test']['roc_auc']:.3f}")
    assert "No brackets: too few patients" in table.note


def test_what_the_images_of_patients_are_worth_is_there_for_every_score(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    record = json.loads((folder / "results.json").read_text())
    one = {"design_effect": 2.5, "correlation": 0.75, "effective_images": record["test"]["images"] / 2.5}
    record["test"]["clustering"] = {"scores": dict.fromkeys(SCORES, one), "effective_patients": [20.0, 20.0]}
    record["val"].pop("clustering", None)
    write_json(folder / "results.json", record)
    fold = next(
        b for b in blocks(page(folder)) if isinstance(b, Fold) and b.summary == "How alike a patient's images are"
    )
    (alike,) = fold.blocks
    assert isinstance(alike, Table)
    assert [row[0] for row in alike.rows] == [TITLES[name] for name in SCORES]
    assert alike.rows[0][1:] == ["2.50", "0.75", f"{record['test']['images'] / 2.5:,.0f}"]


def test_a_paper_s_numbers_stand_beside_ours(tmp_path: Path) -> None:
    folder = records.write(tmp_path / "run", overrides=("experiment=ddtl_cov_covid19ct",))
    table = next(b for b in blocks(page(folder)) if isinstance(b, Table) and "Ibrahim" in b.caption)
    accuracy = json.loads((folder / "results.json").read_text())["test"]["accuracy"]
    assert [_text(value) for value in table.rows[0]][:2] == ["accuracy", "0.890"]
    assert _text(table.rows[0][2]).startswith(f"{accuracy:.3f} (")


def test_how_intervals_were_made_is_told_apart_where_images_and_patients_differ() -> None:
    def scores(**methods: str) -> dict[str, Any]:
        return {"intervals": {name: {"low": 0, "high": 1, "method": method} for name, method in methods.items()}}

    made = {"replicates": 2000}
    split = {**scores(roc_auc="A", accuracy="B"), "patients": scores(roc_auc="A", accuracy="C")}
    assert sentences.interval_methods({"interval": made, "test": split}) == [
        ("ROC AUC", "A"),
        ("accuracy by image", "B"),
        ("accuracy by patient", "C"),
    ]
    alone = {**scores(roc_auc="A", f1="A"), "patients": {"why_not": "they are not known"}}
    assert sentences.interval_methods({"interval": made, "val": alone}) == [("ROC AUC and F1", "A")]


# --- what it warns of --------------------------------------------------------------------------------------------


def test_warnings_come_before_the_scores_in_the_order_of_weight(run: Path, tmp_path: Path) -> None:
    folder = records.write(tmp_path / "run", look=3, warnings=["a note of the dataset"])
    found = page(folder).warnings
    assert [text[:24] for text in found] == [
        "This is test-set use num",
        "A note of the dataset.",
        "Small test set: 60 patie",
    ]
    text = report(folder).text
    assert text.index("This is test-set use number 3. This test set has been used 3 times.") < text.index(
        "Scores at threshold"
    )
    assert not any("test-set use" in warning for warning in page(run).warnings)


def test_a_leaky_split_marks_every_table_of_scores(tmp_path: Path) -> None:
    folder = records.write(tmp_path / "run", protocol="random", leaked_share=0.87)
    found = page(folder)
    assert found.caveat == (
        "Leaky split: 87 % of the test images have a patient in training or validation. Every score on this page is "
        "optimistic."
    )
    assert found.headlines[3].note == "leaky: optimistic"
    captions = [block.caption for block in blocks(found) if isinstance(block, Table)]
    marked = [caption for caption in captions if caption.endswith("(leaky split: optimistic)")]
    assert len(marked) == 3  # scores, calibration, baselines


def paired(low: float, high: float) -> dict[str, Any]:
    return {"roc_auc": (low + high) / 2, "interval": {"low": low, "high": high, "method": "difference"}}


@pytest.mark.parametrize(
    ("facts", "worry", "words"),
    [
        ({"roc_auc": 0.95}, True, "not shown to be below the model"),
        ({"roc_auc": 0.905}, True, "not shown to be below the model"),  # within the model's interval
        ({"roc_auc": 0.905, "difference": paired(0.01, 0.09)}, False, "though below the model"),
        ({"roc_auc": 0.905, "difference": paired(-0.01, 0.09)}, True, "not shown to be below the model"),
        ({"roc_auc": 0.95, "difference": paired(-0.09, -0.01)}, True, "better than the model"),
        (
            {"roc_auc": 0.7, "intervals": {"roc_auc": {"low": 0.6, "high": 0.8, "method": "logit"}}},
            False,
            "better than",
        ),
        (
            {"roc_auc": 0.55, "intervals": {"roc_auc": {"low": 0.4, "high": 0.7, "method": "logit"}}},
            False,
            "not shown to be better than chance, and below",
        ),
        (
            {"roc_auc": 0.91, "intervals": {"roc_auc": {"low": 0.49, "high": 1.0, "method": "logit"}}},
            True,
            "not shown to be better than chance, nor to be below",
        ),
        ({"why_not": "the files are gone"}, False, "The baseline of file metadata was not scored: the files are gone."),
    ],
)
def test_file_facts_beside_the_model(tmp_path: Path, facts: dict[str, Any], worry: bool, words: str) -> None:
    folder = records.write(tmp_path / "run", baselines={"majority": {"accuracy": 0.5}, "file_facts": facts})
    found = stored.read(folder)
    finding = sentences.shortcut(found.record, found.scores)
    assert finding is not None
    assert finding[0] == worry
    assert words in finding[1]
    assert any("shortcut" in warning for warning in page(folder).warnings) == worry


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threshold": 0.5, "threshold_rule": "fixed"}, "The threshold 0.5 was fixed before training"),
        ({"threshold_rule": "youden"}, "(Youden's index)."),
        ({"threshold_rule": "specificity", "threshold_target": 0.95}, "specificity on validation is at least 0.95."),
        ({"threshold_note": "the target was not reached"}, "The target was not reached."),
    ],
)
def test_where_the_threshold_came_from(changes: dict[str, Any], words: str) -> None:
    record = {"classes": ["a", "b"], "threshold": 0.41, "threshold_rule": "sensitivity", "threshold_target": 0.9}
    assert words in sentences.threshold({**record, **changes})


@pytest.mark.parametrize(
    ("at_first", "uses", "words"),
    [
        (0.3, {"test_use": 1}, "before training"),
        (0.3, {"test_use": 5, "test_uses": {"total": 5, "changed": []}}, "before training"),
        (0.3, {}, "before training"),
        (None, {"test_use": 1}, "before training"),
        (0.5, {}, "by hand, after training"),
        (0.5, {"test_use": 3, "test_uses": {"total": 3}}, "by hand, after 2 uses of this test set"),
        (
            0.3,
            {"test_use": 1, "test_uses": {"total": 2, "changed": ["evaluation.threshold: was 0.5, is 0.3"]}},
            "by hand, after 1 use of this test set",
        ),
    ],
)
def test_when_a_threshold_was_fixed(at_first: float | None, uses: dict[str, Any], words: str) -> None:
    record = {"classes": ["a", "b"], "threshold": 0.3, "threshold_rule": "fixed", **uses}
    config = {} if at_first is None else {"evaluation": {"threshold": at_first}}
    assert f"The threshold 0.3 was fixed {words} (evaluation.threshold)." in sentences.threshold(record, config)


# --- one safe file -----------------------------------------------------------------------------------------------


def test_the_page_asks_for_nothing_and_names_itself(run: Path) -> None:
    html = run_report.render_run(stored.read(run))
    found = Parsed(html)
    assert len(html.encode()) < 6_000_000
    attributes = dict(found.tags)
    assert attributes["html"] == {"lang": "en"}
    assert re.search("<title>densenet121 on covid19ct · .* · 6 epochs · 224 px · .* · ddtl run</title>", html)
    metas = [attrs for tag, attrs in found.tags if tag == "meta"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas
    policy = next(m["content"] for m in metas if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    for tag, attrs in found.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        assert "src" not in attrs, tag
        assert attrs.get("href", "#")[0] == "#", attrs
    anchors = {attrs.get("id") for tag, attrs in found.tags if tag == "section"}
    assert {str(attrs["href"])[1:] for tag, attrs in found.tags if tag == "a"} == anchors
    assert all(attrs["aria-label"] for tag, attrs in found.tags if attrs.get("class") == "chart")


def test_names_show_as_text_whatever_they_hold(hostile: Path) -> None:
    found = report(hostile)
    for name in HOSTILE:
        assert " ".join(name.split()) in found.text, name
    assert "run <i>&\"' name" in found.text
    scripts = [attrs for tag, attrs in found.tags if tag == "script"]
    assert len(scripts) == len(found.figures) + 2  # plotly.js and what draws
    assert {tag for tag, _ in found.tags}.isdisjoint({"img", "i", "b", "iframe"})
    assert not any(key.startswith("on") for _, attrs in found.tags for key in attrs)
    # Plotly takes tags in its texts for markup, so none may be in them.
    legend = [trace["name"] for figure in found.figures for trace in figure["data"]]
    assert not any("<" in name or ">" in name for name in legend)
    assert max(map(len, legend)) < 200


def test_figures_are_what_plotly_takes(run: Path, three: Path, hostile: Path) -> None:
    from plotly import graph_objects

    for folder, charts in ((run, 7), (three, 5), (hostile, 4)):
        found = report(folder).figures
        assert len(found) == charts
        for figure in found:
            graph_objects.Figure(figure)  # raises on a property or a value that it does not know


def test_no_local_path_and_no_patient_stands_on_the_page_or_in_the_methods(run: Path, tmp_path: Path) -> None:
    home = tmp_path / "somebody"
    home.mkdir()
    (home / "confidential-list.csv").write_text("path,label\n")
    (home / "start.safetensors").touch()
    overrides = (
        "dataset=table",
        f"dataset.table={home}/confidential-list.csv",
        f"paths.data_dir={home}",
        "dataset.name=mine",
    )
    folder = records.write(tmp_path / "run", overrides=(*overrides, f"model.weights={home}/start.safetensors"))
    command.write(folder)
    for name in ("report.html", "methods.md"):
        text = (folder / name).read_text(encoding="utf-8")
        for secret in ("somebody", "confidential-list", "test-patient-1", "val-patient-1", str(tmp_path)):
            assert secret not in text, (name, secret)
    assert "start.safetensors" in report(folder).text


def test_the_same_record_makes_the_same_bytes(run: Path) -> None:
    assert run_report.render_run(stored.read(run)) == run_report.render_run(stored.read(run))


def test_a_page_without_figures_carries_no_plotly() -> None:
    table = Table("counts", ["", "n"], [["a", Cell("1", "of 2", shade=0.5)]])
    html = render(Page("kind", "title", sections=[Section("One part", [table, Text("text", "good")])]))
    assert len(html) < 20_000
    assert "<script" not in html
    assert "nav" not in dict(Parsed(html).tags)


def test_reports_need_neither_torch_nor_plotly_to_be_imported() -> None:
    code = (
        "import sys, ddtl.commands.report, ddtl.reports.run.report; "
        "print(sorted({'torch', 'plotly', 'jinja2', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_thousand_images_take_seconds_not_minutes(tmp_path: Path) -> None:
    folder = records.write(tmp_path / "run", records.table(patients={"val": 100, "test": 500}))
    started = time.process_time()
    command.write(folder)
    assert time.process_time() - started < 30


# --- curves ------------------------------------------------------------------------------------------------------


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """(labels, probabilities), both classes there, with ties."""
    p = draw(st.lists(st.integers(0, 9), min_size=2, max_size=40))
    labels = [1, 0, *draw(st.lists(st.integers(0, 1), min_size=len(p) - 2, max_size=len(p) - 2))]
    return np.array(labels), np.array(p) / 9


@settings(max_examples=60, deadline=None)
@given(scored())
def test_curves_are_those_of_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    from sklearn import metrics

    labels, p = case
    found = curves(labels, p)
    assert found is not None
    x, y = found.roc
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(y, x) == pytest.approx(metrics.roc_auc_score(labels, p))
    recall, precision = found.precision_recall
    area = float(np.sum(np.diff(recall) * precision[1:]))
    assert area == pytest.approx(metrics.average_precision_score(labels, p))


def test_bands_hold_whole_patients() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    p = np.clip(0.5 * labels + rng.uniform(size=60) * 0.7, 0, 1)
    patients = np.array([f"p{i}" for i in range(60)])
    once = curves(labels, p, patients)
    twice = curves(np.repeat(labels, 2), np.repeat(p, 2), np.repeat(patients, 2))
    apart = curves(np.repeat(labels, 2), np.repeat(p, 2), np.arange(120))
    assert once is not None
    assert twice is not None
    assert apart is not None
    assert once.roc_band is not None
    assert twice.roc_band is not None
    assert apart.roc_band is not None
    # Copies of a patient's images say nothing new; taken for independent they would.
    np.testing.assert_allclose(once.roc_band.low, twice.roc_band.low)
    assert _width(apart) < 0.85 * _width(once)
    curve = np.interp(GRID, *once.roc)
    inside = (once.roc_band.low <= curve + 1e-9) & (curve <= once.roc_band.high + 1e-9)
    assert inside.mean() > 0.95


def _width(found: Curves) -> float:
    assert found.roc_band is not None
    return float(np.mean(found.roc_band.high - found.roc_band.low))


def test_long_curves_are_thinned_and_stay_the_same_to_the_eye() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, size=20_000)
    p = rng.normal(size=20_000) + labels
    found = curves(labels, p)
    assert found is not None
    from sklearn import metrics

    assert len(found.roc[0]) <= 1000
    assert np.trapezoid(found.roc[1], found.roc[0]) == pytest.approx(metrics.roc_auc_score(labels, p), abs=0.002)


def test_one_class_has_no_curves() -> None:
    assert curves(np.zeros(3, dtype=int), np.array([0.1, 0.2, 0.3])) is None


# --- numbers -----------------------------------------------------------------------------------------------------


def test_the_level_of_an_interval_is_never_rounded(run: Path, tmp_path: Path) -> None:
    made = json.loads((run / "results.json").read_text())["interval"]
    folder = records.write(tmp_path / "run", interval={**made, "level": 0.975})
    text = report(folder).text
    assert "97.5 % CI" in text
    assert "97.5 % confidence intervals" in text
    assert "98 %" not in text
    assert [format.level(share) for share in (0.9, 0.95, 0.995)] == ["90 %", "95 %", "99.5 %"]


def test_how_numbers_are_written() -> None:
    scores = {"roc_auc": 0.91249, "mcc": -0.0004, "f1": None, "intervals": {}}
    scores["intervals"] = {"roc_auc": {"low": 0.8744, "high": 0.9451}, "mcc": {"low": -0.2, "high": 0.1}, "f1": None}
    assert format.with_interval(scores, "roc_auc") == "0.912 (0.874–0.945)"
    assert format.with_interval(scores, "mcc") == "0.000 (-0.200 to 0.100)"
    assert format.with_interval(scores, "f1") == "–"
    assert format.cell(scores, "f1") == Cell("–", "no positives, none predicted")
    assert format.cell(scores, "brier") == Cell("–")
    assert [wording.percent(x) for x in (0, 0.05, 0.033, 0.0999, 0.5, 1)] == [
        "0 %",
        "5 %",
        "3.3 %",
        "10 %",
        "50 %",
        "100 %",
    ]
    assert [wording.listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


# --- the command -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["train.py", "dataset=covid19ct"], "python train.py dataset=covid19ct"),
        (["ddtl", "train", "seed=1"], "ddtl train seed=1"),
        (["__main__.py", "train"], "python -m ddtl train"),
        (["train.py", "dataset.classes=[normal,covid 19]"], "python train.py 'dataset.classes=[normal,covid 19]'"),
        (["train.py", "paths.runs_dir=/home/x", "logger=none", "run.name=mine", "seed=1"], "python train.py seed=1"),
        (["train.py", "dataset.root=/home/x/ct", "dataset.patient_regex='(P)'"],
         "python train.py dataset.root=FOLDER dataset.patient_regex=PATTERN"),
        (["train.py", r"model.weights=C:\me\w.pth"], "python train.py model.weights=w.pth"),
        (["ddtl", "evaluate", "/home/x/runs/a", "dataset=sarscov2ct"], "ddtl evaluate a dataset=sarscov2ct"),
    ],
)  # fmt: skip
def test_the_command_without_this_machine(words: list[str], shown: str) -> None:
    assert reproduce.command({"command": words}) == shown


def test_report_writes_page_and_methods(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    shutil.copytree(run, first)
    shutil.copytree(run, second)
    assert command.main([str(first), str(second)]) == 0
    for folder in (first, second):
        assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
        assert (folder / "methods.md").exists()
    assert command.main(["--help"]) == 0
    assert "report.html" in capsys.readouterr().out


def test_report_of_what_is_no_finished_run(run: Path, tmp_path: Path) -> None:
    begun, dataset = tmp_path / "begun", tmp_path / "runs"
    begun.mkdir()
    (begun / "metrics.jsonl").write_text("{}\n")
    shutil.copytree(run, dataset / "one")
    good = tmp_path / "good"
    shutil.copytree(run, good)
    with pytest.raises(UserError) as caught:
        command.main([str(tmp_path / "nowhere"), str(begun), str(dataset), str(good)])
    assert [line.partition(": ")[2][:27] for line in str(caught.value).splitlines()] == [
        "there is no such folder. Na",
        "the run is not finished, so",
        "this contains runs and is n",
    ]
    assert (good / "report.html").exists()  # the others are not let down
    with pytest.raises(UserError, match="not a setting of `ddtl report`"):
        command.main(["--open", str(good)])


def test_report_of_a_file_names_its_folder(run: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").touch()
    for file, named in ((run / "results.json", f"{run}"), (tmp_path / "note.txt", "runs/<dataset>/<run>")):
        with pytest.raises(UserError, match=r"is a file\. Name a folder: ") as caught:
            command.main([str(file)])
        assert named in str(caught.value).partition("Name a folder: ")[2]


def test_report_of_a_run_that_can_only_be_read(run: Path, tmp_path: Path) -> None:
    with mounts.mounted(tmp_path / "disk", "30m") as disk:
        shutil.copytree(run, disk / "run")
        mounts.remount(disk, "ro")
        with pytest.raises(UserError) as caught:
            command.main([str(disk / "run")])
    assert str(caught.value) == (
        f"{disk}/run: the report cannot be written there (Read-only file system). Make the folder writable, or name a "
        f"copy of it: cp -r {disk}/run ."
    )


@pytest.mark.parametrize("name", ["results.json", "predictions.csv", "config.yaml"])
def test_a_damaged_file_is_named(run: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / name).write_text("[1,\n  {", encoding="utf-8")
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        command.write(folder)


def test_a_record_without_the_newer_parts_still_has_a_page(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    record = json.loads((folder / "results.json").read_text())
    for key in ("interval", "calibration", "baselines", "threshold_rule", "threshold_target", "threshold_note"):
        del record[key]
    for split in ("val", "test"):
        for key in ("intervals", "patients", "calibration", "predictive_values"):
            del record[split][key]
    write_json(folder / "results.json", record)
    command.write(folder)
    assert f"{record['test']['roc_auc']:.3f}" in report(folder).text


# --- in a real browser -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("which", ["run", "three", "hostile"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (390, True)])
def test_a_browser_shows_it(
    tab: browser.Tab, request: pytest.FixtureRequest, which: str, width: int, dark: bool
) -> None:
    folder: Path = request.getfixturevalue(which)
    html = command.write(folder)
    del tab.complaints[:], tab.requests[:]
    tab.show(html, width=width, dark=dark)
    assert tab.complaints == []
    assert [address for address in tab.requests if not address.startswith("data:")] == [html.resolve().as_uri()]
    assert tab.run("[...document.querySelectorAll('.chart')].every(c => c.querySelector('.main-svg'))") is True
    assert tab.run("document.querySelectorAll('.chart').length") == len(report(folder).figures)
    assert tab.run("document.documentElement.scrollWidth") <= width
    too_wide = "[...document.querySelectorAll('.main-svg')].filter(s => s.getBoundingClientRect().right > innerWidth)"
    assert tab.run(f"{too_wide}.length") == 0
    ground = "getComputedStyle(document.body).backgroundColor"
    assert tab.run(ground) == ("rgb(18, 22, 27)" if dark else "rgb(255, 255, 255)")
    ink = tab.run("getComputedStyle(document.querySelector('.xtitle')).fill")
    assert ink == ("rgb(154, 165, 177)" if dark else "rgb(89, 99, 110)")


@pytest.mark.slow
def test_names_are_not_run_and_figures_show_them_letter_by_letter(tab: browser.Tab, hostile: Path) -> None:
    tab.show(command.write(hostile), width=1280)
    assert tab.run("typeof window.alerted") == "undefined"
    legend = tab.run("[...document.querySelectorAll('.legendtext')].map(t => t.textContent)")
    assert "</script><scr…rt(1)</script>" in legend  # of a long name the middle is cut
    assert tab.run("document.querySelectorAll('.legendtext a').length") == 0


@pytest.mark.slow
def test_a_chart_is_saved_in_the_colours_of_paper(tab: browser.Tab, run: Path) -> None:
    tab.show(command.write(run), width=1280, dark=True)
    tab.run("Plotly.downloadImage = (figure, options) => { window.saved = [figure, options]; }")
    tab.run("document.querySelector('figure button').click()")
    figure, options = tab.run("window.saved")
    assert options["format"] == "svg"
    assert figure["layout"]["font"]["color"] == "#1b1f24"
    assert tab.complaints == []


@pytest.mark.parametrize(
    "change",
    [
        {"calibration": None}, {"calibration": {"temperature": None, "platt": None}},
        {"calibration": {"temperature": 2.0}},
    ],
)  # fmt: skip
def test_a_calibration_that_the_record_lacks_is_left_out(tmp_path: Path, change: dict[str, Any]) -> None:
    html = render(page(records.write(tmp_path / "run", **change)))
    assert "Calibration by image" in html
    assert "Platt: slope" not in html
    assert ("temperature 2" in html) == (change["calibration"] is not None and len(change["calibration"]) == 1)


@pytest.mark.parametrize("change", [{"interval": None}])
def test_a_record_without_the_level_of_its_intervals_is_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"results\.json: interval\.level is missing\. Delete it and repeat"):
        stored.read(records.write(tmp_path / "run", **change))


def test_a_score_of_patients_that_is_not_defined_has_no_measured_coverage(tmp_path: Path) -> None:
    folder = records.write(tmp_path / "run")
    record = json.loads((folder / "results.json").read_text())
    record["test"]["patients"]["roc_auc"] = None
    (folder / "results.json").write_text(json.dumps(record))
    assert sentences.coverage(stored.read(folder)) == ""


def test_a_key_that_a_page_needs_and_config_yaml_lacks_is_one_line(tmp_path: Path) -> None:
    folder = records.write(tmp_path / "run")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("  batch_size:", "  other_size:"))
    with pytest.raises(UserError, match=r"config\.yaml: dataset\.batch_size is missing"):
        command.main([str(folder)])
