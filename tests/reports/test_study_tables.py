"""A study's tables: as they were, and true to the runs that they are made of."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ddtl.evaluation.comparison.matrix import MeasurementSettings
from ddtl.records import study_folder
from ddtl.reports.html.page import Cell as Shown, Table
from ddtl.reports.study import cells, export, tables
from ddtl.reports.study.cells import Cells, Row
from ddtl.utils.errors import UserError
from tests.reports.test_run_page import HOSTILE, golden
from tests.support import study_records as made

QUICK = MeasurementSettings()


@pytest.fixture(scope="module")
def cross(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    return cells.read(made.cross_dataset(tmp_path_factory.mktemp("runs")), QUICK)


def alpha(method: str = "plain") -> Row:
    return Row("alpha", method, "official", "full", None)


def beta(method: str = "plain") -> Row:
    return Row("beta", method, "official", "full", None)


def auc(test_set: str, separation: float, seed: int) -> float:
    found = made.answers(test_set, separation, seed).scores()["roc_auc"]
    assert found is not None
    return found


def shown(table: Table) -> dict[str, list[str]]:
    """The rows as text, by their first column."""
    return {
        str(row[0]): [cell if isinstance(cell, str) else f"{cell.text} {cell.note}".strip() for cell in row[1:]]
        for row in table.rows
    }


@pytest.mark.parametrize("suffix", export.FORMATS)
def test_tables_as_they_were(cross: Cells, suffix: str) -> None:
    golden(f"study.{suffix}", export.FORMATS[suffix](tables.tables(cross)))


def test_a_cell_is_the_mean_of_its_runs(cross: Cells) -> None:
    cell = cross.at(alpha(), "alpha")
    assert cell is not None
    assert cell.measured is not None
    assert cell.measured.scores["roc_auc"].value == pytest.approx(np.mean([auc("alpha", 3.0, s) for s in range(3)]))
    assert (cell.is_in_domain, cell.seeds, cell.expected, cell.lost) == (True, (0, 1, 2), 3, ())


def test_a_drop_is_over_the_seeds_that_both_test_sets_have(cross: Cells) -> None:
    cell = cross.at(beta(), "alpha")
    assert cell is not None
    assert cell.drop is not None
    lost = [auc("beta", 3.0, seed) - auc("alpha", 0.5, seed) for seed in (0, 2)]
    assert cell.drop["roc_auc"].value == pytest.approx(np.mean(lost))
    assert cell.drop_seeds == 2


def test_what_failed_is_a_dash_with_its_reason_and_in_no_mean(cross: Cells) -> None:
    table = tables.matrix(cross, "roc_auc")
    rows = shown(table)
    assert rows["beta, strong"][0] == "–"
    assert "2 of 3 seeds" in rows["beta, plain"][0]
    assert "2 of 3 seeds" not in rows["beta, strong"][1]
    assert "beta, plain on beta, seed 1; beta, plain on alpha, seed 1: CUDA out of memory." in table.note
    assert "beta, strong on alpha, seed 0, seed 1, seed 2: no images in images." in table.note
    assert "/data" not in table.note


def test_shared_images_are_left_out_and_counted(cross: Cells) -> None:
    cell, other = cross.at(alpha(), "beta"), cross.at(beta(), "beta")
    assert cell is not None and cell.measured is not None  # noqa: PT018
    assert other is not None and other.measured is not None  # noqa: PT018
    assert cell.excluded == 2
    assert cell.measured.images == other.measured.images - 2
    assert "2 of beta for alpha" in tables.matrix(cross, "roc_auc").note


def test_controls_stand_below(cross: Cells) -> None:
    rows = shown(tables.matrix(cross, "roc_auc"))
    assert rows["file metadata, by image, of alpha"] == ["– not available", "0.620"]
    assert rows["majority class, by image, of beta"] == ["0.500", "0.500"]


def test_a_refitted_threshold_changes_calls_and_no_order(cross: Cells) -> None:
    cell = cross.at(alpha(), "beta")
    assert cell is not None and cell.measured is not None and cell.refitted is not None  # noqa: PT018
    plain, again = cell.measured.scores, cell.refitted.scores
    assert again["sensitivity"].value > plain["sensitivity"].value  # type: ignore[operator]
    assert again["roc_auc"] == plain["roc_auc"]
    whence = [row[1] for row in tables.thresholds(cross).rows if row[0] == "alpha, plain on beta"]
    assert whence == ["source validation", "refitted on target validation"]


def test_the_choice_by_validation_stands_apart_from_the_oracle(cross: Cells) -> None:
    table = tables.selection(cross, "roc_auc")
    first, second = table.rows[:2]
    assert (first[0], first[1], first[2]) == ("alpha on beta", "source validation, by image", "alpha, plain")
    assert (str(second[1])[:6], second[2]) == ("oracle", "alpha, strong")
    assert "upper bound" in table.note
    assert len(table.rows) == 2  # of the two ways from beta one has no score on alpha


def test_the_long_table_holds_every_score(cross: Cells) -> None:
    rows = list(csv.DictReader(io.StringIO(export.as_csv(export.every_score(cross)))))
    (one,) = (
        r for r in rows if (r["source"], r["method"], r["target"], r["score"], r["threshold"])
        == ("alpha", "plain", "beta", "roc_auc", "source")
    )  # fmt: skip
    cell = cross.at(alpha(), "beta")
    assert cell is not None and cell.measured is not None and cell.drop is not None  # noqa: PT018
    found = cell.measured.scores["roc_auc"]
    assert (float(one["mean"]), float(one["sd"])) == (found.value, found.sd)
    assert float(one["drop"]) == cell.drop["roc_auc"].value
    assert (one["seeds"], one["excluded"], one["in_domain"]) == ("3", "2", "false")
    (missing,) = (r for r in rows if (r["source"], r["method"], r["target"], r["score"]) == ("beta", "strong", "alpha",
                  "f1"))  # fmt: skip
    assert (missing["mean"], missing["seeds"]) == ("", "0")
    assert "no images" in missing["reason"]


def test_folds_are_pooled_and_a_seed_without_all_folds_is_not(tmp_path: Path) -> None:
    jobs = []
    for seed in range(2):
        for fold in range(3):
            job = made.run(tmp_path, "alpha", seed, {}, protocol="kfold", fold=fold)
            _keep_fold(tmp_path / str(job["run"]), fold)
            jobs.append(
                job if (seed, fold) != (1, 2) else made.failed("alpha", 1, [], "killed", protocol="kfold", fold=2)
            )
    found = cells.read(made.study(tmp_path, "kfold", jobs), QUICK)
    (cell,) = found.cells
    assert cell.measured is not None
    assert (cell.seeds, cell.expected, cell.folds) == ((0,), 2, 3)
    assert cell.measured.units == made.PATIENTS["alpha"]
    table = tables.listed(found)
    assert "alpha on alpha, seed 1, fold 2: killed" in table.note
    assert "3 folds" in table.note


def _keep_fold(folder: Path, fold: int) -> None:
    """Leave every third patient's predictions, shifted by the fold."""
    header, *lines = (folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if int(line.split(",")[2][1:]) % 3 == fold]
    (folder / "predictions.csv").write_text("\n".join([header, *kept]) + "\n", encoding="utf-8")
    results = json.loads((folder / "results.json").read_text())
    results["test"]["images"] = len(kept)
    (folder / "results.json").write_text(json.dumps(results))


def test_random_beside_official_with_the_leaked_share(tmp_path: Path) -> None:
    jobs = [
        made.run(tmp_path, "alpha", seed, {}, home, protocol=protocol)
        for seed in range(3)
        for protocol, home in (("random", 4.0), ("official", 1.0))
    ]
    found = cells.read(made.study(tmp_path, "paper_vs_honest", jobs), QUICK)
    first = tables.tables(found)[0]
    random, official = first.rows
    assert (random[1], random[4], random[5]) == ("random", "25 %", "")
    assert (official[1], official[4]) == ("official", "0 %")
    lost = official[5]
    assert isinstance(lost, Shown)
    assert lost.text == f"{np.mean([auc('alpha', 4.0, s) - auc('alpha', 1.0, s) for s in range(3)]):.3f}"
    assert lost.note


def test_a_learning_curve_has_a_row_a_number_of_patients(tmp_path: Path) -> None:
    jobs = [
        made.run(tmp_path, "alpha", seed, {}, home, patients=k)
        for seed in range(2)
        for k, home in ((0.25, 1.0), (10, 2.0), (None, 3.0))
    ]
    (table,) = tables.tables(cells.read(made.study(tmp_path, "learning_curve", jobs), QUICK))
    assert [row[0] for row in table.rows] == [
        "25 % of the patients", "10 patients", "all patients", "majority class, by image",
        "file metadata, no pixel, by image",
    ]  # fmt: skip
    assert shown(table)["majority class, by image"][0] == "0.500"


def test_a_run_that_went_on_at_the_target_loses_against_its_source(tmp_path: Path) -> None:
    plain = made.run(tmp_path, "alpha", 0, {"beta": 1.0})
    more = made.run(tmp_path, "beta", 0, {}, 2.0, patients=5)
    more["labels"]["source"] = "alpha"
    found = cells.read(made.study(tmp_path, "cross_dataset", [plain, more]), QUICK)
    cell = found.at(Row("alpha", "plain", "official", "full", 5), "beta")
    assert cell is not None and cell.drop is not None  # noqa: PT018
    assert not cell.is_in_domain
    assert cell.drop["roc_auc"].value == pytest.approx(auc("alpha", 3.0, 0) - auc("beta", 2.0, 0))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (shutil.rmtree, "no such folder"),
        (lambda folder: (folder / "results.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "predictions.csv").unlink(), "predictions.csv is missing"),
        (lambda folder: (folder / "results.json").write_text(json.dumps({"dataset": "x"})), "protocol is missing"),
    ],
)
def test_a_folder_that_is_damaged_by_now_is_a_dash(tmp_path: Path, change: object, reason: str) -> None:
    job = made.run(tmp_path, "alpha", 0, {"beta": 1.0})
    folder = made.study(tmp_path, "cross_dataset", [job])
    change(tmp_path / str(job["evaluations"][1]["folder"]))  # type: ignore[operator]
    found = cells.read(folder, QUICK)
    (external,) = (cell for cell in found.cells if not cell.is_in_domain)
    assert external.measured is None
    assert reason in external.lost[0].reason
    assert str(tmp_path) not in external.lost[0].reason
    assert export.text(tables.tables(found))


def test_no_study_and_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=study_folder.NAME):
        cells.read(tmp_path)
    (tmp_path / study_folder.NAME).write_text('{"jobs": [{}]}')
    with pytest.raises(UserError, match=r"study\.json: study is missing"):
        cells.read(tmp_path)


def test_sites_of_the_phantom_are_no_emoji() -> None:
    assert "phantom:a: 5" in export.text([Table("", ["", "x"], [["phantom:b", "1"]], "phantom:a: 5")])


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_letter_by_letter(name: str) -> None:
    table = Table(name, ["", name], [[name, Shown("0.5", name)]], name)
    assert "[bold" not in export.text([table]) or "[bold" in name
    rows = list(csv.reader(io.StringIO(export.as_csv(table))))
    assert rows[0] == ["", name]
    body = export.latex([table]).partition(r"\midrule")[2].partition(r"\bottomrule")[0]
    for letter in "&%$#_":
        assert body.replace(f"\\{letter}", "").replace(r" & ", "", 1).count(letter) == 0 or letter == "$"


def test_the_temperature_stands_beside_the_threshold_and_its_brier_score(cross: Cells) -> None:
    first, second = (row for row in tables.thresholds(cross).rows if row[0] == "alpha, plain on beta")
    assert isinstance(first[-2], Shown)
    assert isinstance(second[-2], Shown)
    assert (first[-2].text, second[-2].text) == ("1.500 ± 0.000", "3.000 ± 1.000")
    briers = []
    for seed in range(3):
        found = made.answers("beta", 1.0 + 0.3 * seed, seed).predictions
        kept = found.where(~np.isin(found.sample_id, ["beta/image0000", "beta/image0001"]))
        difference = (kept.logits[:, 1] - kept.logits[:, 0]) / (2.0 + seed)
        briers.append(np.mean((1 / (1 + np.exp(-difference)) - kept.label) ** 2))
    assert isinstance(second[-1], Shown)
    assert second[-1].text.startswith(f"{np.mean(briers):.3f} ±")


def test_a_pair_that_was_not_looked_at_is_named(tmp_path: Path) -> None:
    folder = made.cross_dataset(tmp_path)
    found = json.loads((folder / "controls.json").read_text())
    (folder / "controls.json").write_text(json.dumps({"pairs": found["pairs"][:1]}))
    note = tables.matrix(cells.read(folder, QUICK), "roc_auc").note
    assert "2 of beta for alpha" in note
    assert "could no longer be read: alpha for beta." in note
