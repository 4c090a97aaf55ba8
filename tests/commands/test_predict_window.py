"""A run on Hounsfield units: new files go through the window that its own images went through."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddtl.commands import cli
from ddtl.records import predictions as prediction_table
from tests.project.test_robust_data import hounsfield
from tests.support import ct_slices
from tests.support.robust import png, write


@pytest.fixture(scope="module")
def windowed_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The images' folder, and a run on them with another window than the lungs' usual one."""
    here = tmp_path_factory.mktemp("units")
    window = "dataset.window={center: -400, width: 1200, slope: 1, intercept: -1024}"
    words = hounsfield(here, window, "trainer.max_epochs=1", f"paths.runs_dir={here}/runs")
    assert cli.main(["train", *words]) == 0
    (results,) = here.glob("runs/mine/*/results.json")
    return here / "images", results.parent


def predict(run: Path, to: Path, *files: Path) -> tuple[int, list[dict[str, str]], dict[str, Any]]:
    code = cli.main(["predict", str(run), *map(str, files), f"output={to}"])
    with (to / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return code, list(csv.DictReader(file)), json.loads((to / "predictions.json").read_text())


def logits_of(run: Path, name: str) -> list[float]:
    table = prediction_table.read(run / "predictions.csv")
    return table.logits[table.sample_id.tolist().index(name)].tolist()


def test_16_bit_files_are_predicted_as_the_run_did(windowed_run: tuple[Path, Path], tmp_path: Path) -> None:
    images, run = windowed_run
    names = prediction_table.read(run / "predictions.csv").sample_id.tolist()
    code, rows, found = predict(run, tmp_path / "out", *(images / name for name in names))
    assert (code, found["skipped"]) == (0, [])
    assert all("the run trained on" in said["warning"] for said in found["warnings"])  # the validation images
    for name, row in zip(names, rows, strict=True):
        assert [float(row["logit_normal"]), float(row["logit_covid"])] == pytest.approx(logits_of(run, name), abs=1e-4)


def test_dicom_slices_go_through_the_runs_window(windowed_run: tuple[Path, Path], tmp_path: Path) -> None:
    """The same Hounsfield units as a 16-bit PNG and as DICOM give the same answer."""
    _images, run = windowed_run
    name = prediction_table.read(run / "predictions.csv").sample_id.tolist()[0]
    label, i = name.split("/")[0], int(name[-5])
    units = (np.linspace(-1000, 400, 24 * 24).reshape(24, 24) + 10 * i + (label == "normal")).round()
    ct_slices.write(tmp_path / "slice.dcm", units)
    _, (row,), _ = predict(run, tmp_path / "out", tmp_path / "slice.dcm")
    assert [float(row["logit_normal"]), float(row["logit_covid"])] == pytest.approx(logits_of(run, name), abs=1e-4)


def test_8_bit_files_are_taken_as_they_are_and_that_is_said(windowed_run: tuple[Path, Path], tmp_path: Path) -> None:
    _, run = windowed_run
    write(tmp_path / "a.png", png(np.arange(576, dtype=np.uint16).reshape(24, 24).astype(np.uint8)))
    code, rows, found = predict(run, tmp_path / "out", tmp_path / "a.png")
    assert (code, len(rows)) == (0, 1)
    assert "contains 8-bit grey levels, which are taken as they are" in found["warnings"][0]["warning"]


def test_16_bit_values_without_the_runs_window_are_left_out(
    windowed_run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run on 8-bit images: what 16-bit Hounsfield units mean to it is not known."""
    images, run = windowed_run
    other = tmp_path / "run"
    shutil.copytree(run, other)
    config = (other / "config.yaml").read_text()
    start = config.index("  window:")
    end = config.index("  sources", start)
    (other / "config.yaml").write_text(config[:start] + "  window: null\n" + config[end:])
    code, rows, found = predict(other, tmp_path / "out", images / "covid" / "P00.png", images / "normal" / "P10.png")
    assert (code, rows) == (1, [])
    assert "it stores 16-bit values from 24 to 1424" in found["skipped"][0]["reason"]
