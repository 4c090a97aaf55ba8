"""The charts of a run as Plotly figures: those of its page, with the record's numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddtl
from ddtl.reports.html import format
from ddtl.reports.html.figures import on_paper
from ddtl.reports.run import calibration, curves, stored, strip
from tests.support.runs import run as train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ddtl.Run:
    return ddtl.Run(train(tmp_path_factory.mktemp("plots"), "trainer.max_epochs=1").folder)


def traces(figure: Any) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data if trace.showlegend is not False}


def below_the_title(figure: Any) -> str:
    return re.sub(r"<br>", " ", figure.layout.title.subtitle.text)


def test_the_roc_curve_is_the_page_s_and_its_area_is_the_record_s(run: ddtl.Run) -> None:
    figure = run.plot_roc()
    found = stored.read(run.path)
    page = curves.roc_figure(found)
    assert page is not None
    for drawn, known in zip(figure.data, page.spec["data"], strict=True):
        assert (list(drawn.x), list(drawn.y)) == (known["x"], known["y"])
    for unit, scores in (("patient", run.results["test"]["patients"]), ("image", run.results["test"])):
        line = traces(figure)[f"by {unit}"]
        assert np.trapezoid(line.y, line.x) == pytest.approx(scores["roc_auc"], abs=1e-4)
    limits = run.results["test"]["patients"]["intervals"]["roc_auc"]
    assert format.interval(limits) in below_the_title(figure)
    assert "95 % of 500 bootstrap draws of patients" in below_the_title(figure)
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("1 - specificity", "sensitivity")
    bands = [trace for trace in figure.data if trace.fill == "tonexty"]
    assert len(bands) == 1


def test_the_reliability_diagram_counts_every_image_and_tells_the_errors(run: ddtl.Run) -> None:
    figure = run.plot_calibration()
    page = calibration.figure(stored.read(run.path))
    for drawn, known in zip(figure.data, page.spec["data"], strict=True):
        assert (list(drawn.x), list(drawn.y)) == (list(known["x"]), list(known["y"]))
    bars = next(trace for trace in figure.data if trace.type == "bar")
    assert sum(bars.y) == run.results["test"]["images"]
    line = run.results["test"]["calibration"]["line"]["slope"]
    assert f"{line['low']:.3f}" in below_the_title(figure)
    assert f"{line['high']:.3f}" in below_the_title(figure)
    assert figure.layout.xaxis.title.text == "predicted probability"
    assert figure.layout.yaxis.title.text == "share of positives"


def test_every_patient_is_drawn_at_the_score_of_the_record(run: ddtl.Run) -> None:
    figure = run.plot_patients()
    page = strip.figure(stored.read(run.path))
    assert page is not None
    found = run.results["test"]["patients"]
    large = [trace for trace in figure.data if trace.name.endswith("patient")]
    assert sum(len(trace.x) for trace in large) == found["patients"]
    positive = next(trace for trace in large if trace.name.startswith("COVID"))
    threshold = figure.layout.shapes[0].y0
    assert threshold == run.results["threshold"]
    hits = sum(y >= threshold for y in positive.y)
    assert hits / len(positive.y) == pytest.approx(found["sensitivity"])
    for name in ("sensitivity", "specificity"):
        assert f"{name} {format.with_interval(found, name)}" in below_the_title(figure)
    names = set(run.predictions["patient_id"])
    assert not any(f'"{name}"' in figure.to_json() for name in names)


@pytest.mark.parametrize("name", ["plot_roc", "plot_calibration", "plot_patients"])
def test_colours_are_those_of_paper(run: ddtl.Run, name: str) -> None:
    text = getattr(run, name)().to_json()
    assert "var(--" not in text
    assert "#1a5fb4" in text


def test_a_name_of_a_colour_is_replaced_only_where_a_colour_belongs() -> None:
    spec = {"data": [{"name": "var(--ink)", "line": {"color": "var(--ink)"}, "fillcolor": "var(--clear)"}]}
    assert on_paper(spec) == {
        "data": [{"name": "var(--ink)", "line": {"color": "#1b1f24"}, "fillcolor": "rgba(0, 0, 0, 0)"}]
    }


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("plot_roc", lambda patch: patch.setattr(curves, "curves", lambda *_, **__: None), "all of one class"),
        ("plot_patients", lambda patch: patch.setattr(strip, "figure", lambda _: None), "patients are not known"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    run: ddtl.Run, monkeypatch: pytest.MonkeyPatch, name: str, change: Any, message: str
) -> None:
    change(monkeypatch)
    with pytest.raises(ddtl.UserError, match=message):
        getattr(run, name)()


def test_a_folder_whose_run_is_gone_is_named(run: ddtl.Run, tmp_path: Path) -> None:
    found = ddtl.Run(run.path)
    found.path = tmp_path / "gone"
    with pytest.raises(ddtl.UserError, match="there is no such folder"):
        found.plot_roc()
