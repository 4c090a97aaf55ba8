"""The page about a study: what it says of the cells, and that a browser draws it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ddtl.commands import report
from ddtl.evaluation.comparison.matrix import MeasurementSettings
from ddtl.records import predictions
from ddtl.records.study_folder import JobRecord
from ddtl.reports.html.curves import GRID, curves, roc_over_seeds
from ddtl.reports.html.page import Figure, Page
from ddtl.reports.study import calibration, cells, embeddings, report as study_report
from tests.reports.test_run_page import HOSTILE, Parsed, blocks
from tests.support import browser, study_records as made
from tests.support.hospital import Hospital

QUICK = MeasurementSettings()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = made.cross_dataset(tmp_path_factory.mktemp("runs"))
    assert report.main([str(found)]) == 0
    return found


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return study_report.page(cells.read(folder, QUICK))


def figures(page: Page) -> dict[str, Figure]:
    return {block.title: block for block in blocks(page) if isinstance(block, Figure)}


def learning_curve(runs: Path) -> Path:
    jobs = []
    for seed in range(3):
        for k, home in ((5, 0.6), (20, 1.5), (None, 3.0)):
            job = made.run(runs, "alpha", seed, {}, home, patients=k)
            _count(runs / str(job["run"]), k or 80)
            jobs.append(job)
    return made.study(runs, "learning_curve", jobs)


def _count(run: Path, patients: int) -> None:
    path = run / "results.json"
    results = json.loads(path.read_text())
    results["splits"]["train"]["groups"] = patients
    path.write_text(json.dumps(results))


def test_the_command_writes_page_and_tables(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} >= {
        "report.html", "scores.csv", "tables.txt", "tables.md", "tables.tex", "study.json",
    }  # fmt: skip
    assert "alpha, plain" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_first_thing_read_is_what_is_missing(page: Page) -> None:
    assert page.warnings[0].startswith("3 cells lack runs or all of them")
    assert [headline.label for headline in page.headlines][:2] == [
        "ROC AUC by image, alpha, plain", "ROC AUC by image, alpha, plain → beta",
    ]  # fmt: skip


def test_every_test_set_has_its_roc_curves_its_own_first(page: Page) -> None:
    spec = figures(page)["Tested on beta"].spec
    names = [trace["name"] for trace in spec["data"] if "name" in trace]
    assert names == ["chance", "beta, plain", "beta, strong", "alpha, plain", "alpha, strong"]
    assert sum(trace.get("fill") == "tonexty" for trace in spec["data"]) == 2


def test_ways_that_share_their_runs_share_their_curve(tmp_path: Path) -> None:
    plain = made.run(tmp_path, "alpha", 0, {"beta": 1.0})
    match = made.run(tmp_path, "alpha", 0, {"beta": 2.0}, method="match")
    match["run"], match["evaluations"][0] = plain["run"], plain["evaluations"][0]
    beta = made.run(tmp_path, "beta", 0, {"alpha": 1.0})
    drawn = figures(study_report.page(cells.read(made.study(tmp_path, "cross_dataset", [plain, match, beta]), QUICK)))
    at_home, away = ([t["name"] for t in drawn[f"Tested on {name}"].spec["data"] if "name" in t] for name in
                     ("alpha", "beta"))  # fmt: skip
    assert at_home == ["chance", "alpha, plain", "beta, plain"]
    assert away == ["chance", "beta, plain", "alpha, plain", "alpha, match"]


def test_probabilities_at_home_stand_beside_those_elsewhere(page: Page) -> None:
    names = [trace["name"] for trace in figures(page)["alpha, plain"].spec["data"] if trace["type"] == "scatter"]
    assert names == ["perfect", "alpha", "beta"]


def test_a_page_without_a_single_score_says_so(tmp_path: Path) -> None:
    folder = made.study(tmp_path, "cross_dataset", [made.failed("alpha", 0, ["beta"], "killed")])
    html = study_report.write(folder).read_text(encoding="utf-8")
    assert "killed" in html
    assert not Parsed(html).figures


def test_nothing_of_this_machine_stands_in_a_page(tmp_path: Path) -> None:
    job = made.run(tmp_path, "alpha", 0, {})
    job["line"] = "python train.py dataset=folder dataset.root=/home/me/clinic7731/images"
    folder = made.study(
        tmp_path, "seeds", [job, made.failed("alpha", 1, [], "/home/me/clinic7731/images/x.png is broken")]
    )
    study = json.loads((folder / "study.json").read_text())
    study["identity"] = {
        "study": "seeds",
        "dataset.root": "/home/me/clinic7731",
        "model.weights": "/home/me/clinic7731/w.st",
    }
    study["settings"] = {"own": {"third": {"root": "/home/me/clinic7731"}}}
    (folder / "study.json").write_text(json.dumps(study))
    study_report.write(folder)
    for name in ("report.html", "tables.txt", "tables.md", "tables.tex", "scores.csv"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "clinic7731" not in text
        assert str(tmp_path) not in text
    assert "w.st" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_learning_curve_is_over_the_patients_of_the_records(tmp_path: Path) -> None:
    found = cells.read(learning_curve(tmp_path), QUICK)
    spec = figures(study_report.page(found))["ROC AUC by training patients"].spec
    (line,) = (trace for trace in spec["data"] if trace.get("name") == "mean over seeds")
    assert line["x"] == [5, 20, 80]
    values = [cell.measured.scores["roc_auc"].value for cell in found.cells if cell.measured is not None]
    assert line["y"] == pytest.approx(values, abs=1e-4)


def test_a_leaky_protocol_is_said_to_be_one(tmp_path: Path) -> None:
    jobs = [
        made.run(tmp_path, "alpha", s, {}, protocol=protocol) for s in range(3) for protocol in ("random", "official")
    ]
    found = study_report.page(cells.read(made.study(tmp_path, "paper_vs_honest", jobs), QUICK))
    assert "optimistic: random." in found.warnings[0]


def test_the_mean_curve_of_one_network_is_its_curve() -> None:
    hospital = Hospital(40)
    run = hospital.run(2)
    found = roc_over_seeds(hospital.labels, [run.p], hospital.clusters)
    alone = curves(hospital.labels, run.p)
    assert found is not None
    assert alone is not None
    assert found[0] == pytest.approx(np.interp(GRID, *alone.roc), abs=1e-12)
    assert found[1] is not None
    inside = (found[1].low <= found[0]) & (found[0] <= found[1].high)
    assert inside.mean() > 0.9


def test_seeds_that_differ_widen_the_band() -> None:
    hospital = Hospital(80)
    base = hospital.run(2).p
    apart = [hospital.run(s).p for s in (0.5, 1.5, 2.5, 3.5)]
    widths = []
    for ps in ([base] * 4, apart):
        found = roc_over_seeds(hospital.labels, ps, hospital.clusters)
        assert found is not None
        assert found[1] is not None
        widths.append(float((found[1].high - found[1].low).mean()))
    assert widths[1] > 1.2 * widths[0]


def test_one_class_has_no_curve() -> None:
    assert roc_over_seeds(np.ones(4), [np.linspace(0, 1, 4)], np.arange(4)) is None


def test_reliability_is_of_all_seeds_together(page: Page, folder: Path) -> None:
    cell = next(cell for cell in cells.read(folder, QUICK).cells if len(cell.seeds) == 3)
    assert cell.measured is not None
    assert sum(part.count for part in calibration.bins(cell.measured)) == 3 * cell.measured.images


def embed(runs: Path, job: JobRecord, shift: float) -> None:
    """Features of a run's images at home and elsewhere: class on the first axis, dataset on the second."""
    for i, evaluation in enumerate(job["evaluations"]):
        folder = runs / str(evaluation["folder"])
        labels = predictions.read(folder / "predictions.csv").label
        noise = np.random.default_rng(i).normal(scale=0.1, size=(len(labels), 5))
        noise[:, 2] += 4.0 * labels
        noise[:, 4] += shift * i
        np.savez_compressed(folder / "embeddings.npz", embeddings=noise.astype(np.float16))


def test_features_show_where_the_datasets_lie(tmp_path: Path) -> None:
    job = made.run(tmp_path, "alpha", 0, {"beta": 1.0})
    embed(tmp_path, job, 9.0)
    found = cells.read(made.study(tmp_path, "cross_dataset", [job]), QUICK)
    (one,) = embeddings.read(found)
    places, shares = embeddings.principal_axes(one.features)
    assert places["beta"][:, 0].min() > places["alpha"][:, 0].max() + 7  # datasets lie farther apart than classes
    assert shares.sum() > 0.97
    alpha = places["alpha"][:, 1]
    assert abs(alpha[one.labels["alpha"] == 1].mean() - alpha[one.labels["alpha"] == 0].mean()) == pytest.approx(
        4, 0.05
    )
    spec = figures(study_report.page(found))["Features of network alpha"].spec
    assert [trace["name"] for trace in spec["data"]] == [
        "alpha: non-COVID", "alpha: COVID", "beta: non-COVID", "beta: COVID",
    ]  # fmt: skip


def test_principal_axes_are_scikit_learns() -> None:
    from sklearn.decomposition import PCA

    random = np.random.default_rng(0)
    x = random.normal(size=(60, 6)) @ random.normal(size=(6, 6))
    places, shares = embeddings.principal_axes({"a": x})
    theirs = PCA(2).fit(x)
    assert np.abs(places["a"]) == pytest.approx(np.abs(theirs.transform(x)))
    assert shares == pytest.approx(theirs.explained_variance_ratio_)


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_damaged_features_are_left_out(tmp_path: Path, damage: bytes | None) -> None:
    job = made.run(tmp_path, "alpha", 0, {"beta": 1.0})
    embed(tmp_path, job, 1.0)
    path = tmp_path / str(job["run"]) / "embeddings.npz"
    if damage is None:
        np.savez_compressed(path, embeddings=np.ones((3, 5)))
    else:
        path.write_bytes(damage)
    assert embeddings.read(cells.read(made.study(tmp_path, "cross_dataset", [job]), QUICK)) == []


@pytest.mark.parametrize("module", ["ddtl.reports.study.report", "ddtl.studies.controls"])
def test_a_report_needs_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ}).returncode == 0


# --- in a real browser -------------------------------------------------------------------------------------------


def hostile(runs: Path) -> Path:
    """A study in which everything that a user names is an attack."""
    job = made.run(runs, "alpha", 0, {"beta": 1.0})
    embed(runs, job, 1.0)
    job["labels"]["source"] = job["evaluations"][0]["target"] = HOSTILE[0]
    job["labels"]["method"], job["evaluations"][1]["target"] = "plain", HOSTILE[1]
    lost = made.failed(HOSTILE[2], 0, [HOSTILE[3]], HOSTILE[1])
    return made.study(runs, "cross_dataset", [job, lost])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "width", "dark", "charts"),
    [
        ("cross", 1200, False, 4),
        ("cross", 400, True, 4),
        ("curve", 1200, True, 2),
        ("hostile", 1200, False, 4),
    ],
)
def test_a_browser_draws_every_chart(
    tab: browser.Tab, folder: Path, tmp_path: Path, which: str, width: int, dark: bool, charts: int
) -> None:
    folder = {"cross": lambda _: folder, "curve": learning_curve, "hostile": hostile}[which](tmp_path)
    path = study_report.write(folder)
    del tab.complaints[:], tab.requests[:]
    tab.show(path, width=width, dark=dark)
    assert tab.complaints == []
    assert [address for address in tab.requests if not address.startswith("data:")] == [path.resolve().as_uri()]
    assert tab.run("document.querySelectorAll('.chart').length") == len(Parsed(path.read_text()).figures) == charts
    drawn = "[...document.querySelectorAll('.chart')].every(c => c.querySelector('.trace, .point, .bars'))"
    assert tab.run(drawn) is True
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run("typeof window.alerted") == "undefined"
