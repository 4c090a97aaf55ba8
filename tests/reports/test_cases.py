"""The run page's patients, cases and data card: true to the record, and whole where a part cannot be shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddtl.data.datasets import covid19ct
from ddtl.reports.html.page import Cell, Drawing, Figure, Photos, Table, Text
from ddtl.reports.run import cases, data_card, stored, strip
from tests.reports.test_run_page import HOSTILE, report
from tests.support import explained, records


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return records.write(tmp_path / "run")


def test_every_patient_stands_once_at_its_score_and_none_is_named(run: Path) -> None:
    found = stored.read(run)
    (figure,) = strip.section(found).blocks
    assert isinstance(figure, Figure)
    large = [trace for trace in figure.spec["data"] if trace["name"].endswith("patient")]
    places = sorted(x for trace in large for x in trace["x"])
    assert places == list(range(1, found.main["patients"] + 1))
    at = dict(pair for trace in large for pair in zip(trace["x"], trace["y"], strict=True))
    assert [at[x] for x in places] == sorted(at.values())
    c = found.main["confusion"]
    threshold = figure.spec["layout"]["shapes"][0]["y0"]
    negative, positive = large
    assert sum(y >= threshold for y in positive["y"]) == c["tp"]
    assert sum(y >= threshold for y in negative["y"]) == c["fp"]
    assert "test-patient" not in json.dumps(figure.spec)
    small = [trace for trace in figure.spec["data"] if trace["name"].endswith("image")]
    assert sum(len(trace["x"]) for trace in small) == found.scores["images"]


def test_without_patients_there_is_no_strip(tmp_path: Path) -> None:
    assert strip.section(stored.read(records.write(tmp_path / "run", records.table(named=False)))).blocks == []


def test_cases_stand_on_the_page_with_their_names_as_text(run: Path) -> None:
    assert cases.section(stored.read(run)).blocks == []
    explained.write(run)
    _, legend, table, said, *photos = cases.section(stored.read(run)).blocks
    assert isinstance(legend, Drawing)
    assert "hottest cell" in legend.caption
    assert isinstance(table, Table)
    assert table.rows[0] == ["in a lesion", Cell("0.800", "(0.700–0.900)"), "0.100", "0.300", "0.100"]
    assert isinstance(said, Text)
    assert "0.03" in said.text
    assert [(type(p), p.title) for p in photos] == [(Photos, "True positives"), (Photos, "False negatives")]  # type: ignore[union-attr]
    shown = report(run).text
    for name in HOSTILE[:3]:
        assert name in shown


@pytest.mark.parametrize("name", ["explain.json", "pictures/true_positives.webp"])
def test_what_is_missing_or_damaged_costs_the_cases_alone(run: Path, name: str) -> None:
    explained.write(run)
    path = run / "explain" / name
    path.write_text("{") if name.endswith(".json") else path.unlink()
    (block,) = cases.section(stored.read(run)).blocks
    assert isinstance(block, Text)
    assert "cannot be shown" in block.text
    assert "Scores" in report(run).text


def test_heat_maps_of_another_threshold_are_not_shown(run: Path) -> None:
    explained.write(run, threshold=0.123)
    (block,) = cases.section(stored.read(run)).blocks
    assert isinstance(block, Text)
    assert "another threshold" in block.text


def test_an_image_outside_the_folder_is_not_taken(run: Path, tmp_path: Path) -> None:
    record = explained.write(run)
    (tmp_path / "secret.webp").write_bytes(b"secret")
    record["groups"][0]["images"][0]["picture"] = "../../secret.webp"
    (run / "explain" / "explain.json").write_text(json.dumps(record))
    (block,) = cases.section(stored.read(run)).blocks
    assert isinstance(block, Text)
    assert "groups[0].images[0].picture should be a path within its folder" in block.text


def test_the_data_card_says_where_images_come_from_and_what_is_known_against_them(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    results["warnings"] = [next(note.text for note in covid19ct.ORIGIN.notes if "journals" in note.text)]
    (run / "results.json").write_text(json.dumps(results))
    found = stored.read(run)
    card, _, *notes = data_card.section(found).blocks
    assert isinstance(card, Table)
    facts = {str(row[0]): str(row[1]) for row in card.rows}
    assert facts["protocol"].startswith(found.record["protocol"])
    assert facts["images"] == f"{sum(part['images'] for part in found.parts.values()):,}"
    assert "github.com/KamalEyubov" in facts["source"]
    assert "journals are in the official test part" in str(notes[0])
    assert "different sources" not in str(notes[0]), "what applies here alone"
