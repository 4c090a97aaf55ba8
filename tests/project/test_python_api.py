"""What ``import ddtl`` offers: the same runs, records and tables as the commands."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

import ddtl
from ddtl.api import as_words
from ddtl.commands import cli
from ddtl.config.load import load
from ddtl.config.overrides import read
from ddtl.config.where import groups
from tests.support import fork_server
from tests.support.runs import SMALL, assert_same_run

ROOT = Path(__file__).parents[2]


def words(folder: Path) -> list[str]:
    return [
        *SMALL,
        "model=squeezenet1_1",
        "model.weights=none",
        "trainer.max_epochs=1",
        f"paths.runs_dir={folder}",
        f"paths.cache_dir={folder / 'cache'}",
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def run(folder: Path) -> ddtl.Run:
    return ddtl.train(*words(folder), seed=1)


def test_each_public_name_is_there_and_documented() -> None:
    for name in ddtl.__all__:
        assert getattr(ddtl, name).__doc__, name
        assert name in dir(ddtl)
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        ddtl.trian  # noqa: B018


def test_importing_it_imports_no_torch() -> None:
    code = "import ddtl, sys; ddtl.Run, ddtl.runs, ddtl.UserError; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_run_has_its_configuration_and_its_record(run: ddtl.Run) -> None:
    assert run.config.seed == 1
    assert run.results == json.loads((run.path / "results.json").read_text())
    assert repr(run) == f"Run({str(run.path)!r})"


def test_scores_are_those_of_the_record_with_their_limits(run: ddtl.Run) -> None:
    table = run.scores().set_index(["split", "unit", "class", "score"])
    for split in ("val", "test"):
        of_images = run.results[split]
        for unit, found in (("image", of_images), ("patient", of_images["patients"])):
            for score in ("roc_auc", "sensitivity", "brier"):
                got, limits = table.loc[split, unit, "", score], found["intervals"][score]
                assert (got["value"], got["low"], got["high"], got["method"]) == (found[score], *limits.values())
    assert len(table) == 2 * 2 * 10
    undefined = table[table["value"].isna()]
    assert undefined["low"].isna().all()


def test_predictions_are_those_of_the_run_to_the_bit(run: ddtl.Run) -> None:
    table = run.predictions
    with (run.path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(table.columns) == list(rows[0])
    assert list(table["sample_id"]) == [row["sample_id"] for row in rows]
    assert list(table["label"]) == [row["label"] for row in rows]
    for name in ("logit_COVID", "logit_non-COVID"):
        assert list(table[name]) == [float(row[name]) for row in rows]
    assert np.allclose(table["probability_COVID"], [float(row["probability_COVID"]) for row in rows], atol=5e-7)


def test_predict_gives_the_run_s_own_logits_again_and_names_what_it_skipped(run: ddtl.Run, folder: Path) -> None:
    table = run.predictions.set_index("sample_id")
    images = next(folder.glob("cache/**/images"), None) or next(Path(run.config.paths.data_dir).glob("**/images"))
    chosen = {name: next(images.rglob(f"{Path(name).name}*")) for name in table.index[:3]}
    bad = folder / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nno more")
    got = run.predict(*chosen.values(), bad)
    wanted = table.loc[list(chosen)]
    assert np.allclose(got["probability_COVID"], wanted["probability_COVID"], atol=1e-3)
    assert [Path(part["file"]).name for part in got.attrs["skipped"]] == ["bad.png"]
    assert len(run.predict(*chosen.values(), unit="patient", patients="folder")) >= 1


def test_predict_without_images_or_with_an_output_is_refused(run: ddtl.Run) -> None:
    with pytest.raises(ddtl.UserError, match="needs images"):
        run.predict()
    with pytest.raises(ddtl.UserError, match="output=FOLDER"):
        run.predict("a.png", output="here")
    with pytest.raises(ddtl.UserError, match="batchsize"):
        run.predict("a.png", batchsize=3)


def test_a_run_is_found_by_its_folder_and_by_a_part_of_its_name(run: ddtl.Run, folder: Path) -> None:
    assert ddtl.load(run.path).path == run.path
    assert ddtl.load(run.path.name[:20], folder).path == run.path
    with pytest.raises(ddtl.UserError, match="there is no such run"):
        ddtl.load("nothing", folder)
    with pytest.raises(ddtl.UserError, match="is not the folder of a finished run"):
        ddtl.load(folder)


@pytest.mark.slow
def test_evaluate_takes_a_run_or_its_name_and_an_evaluation_is_opened_as_such(run: ddtl.Run, folder: Path) -> None:
    by_name = ddtl.evaluate(str(run.path), **{"evaluation.threshold": "youden"})
    assert (by_name.path, by_name.results["threshold_rule"]) == (run.path, "youden")
    assert ddtl.evaluate(run, "evaluation.threshold=0.5").results["threshold_rule"] == "fixed"
    other = ddtl.evaluate(run, *SMALL[:3], "dataset.phantom.seed=5", f"paths.runs_dir={folder}")
    opened = ddtl.load(other.path)
    assert type(opened) is ddtl.Scored
    assert opened.results == other.results
    assert "ROC AUC" in opened.plot_roc().layout.title.subtitle.text
    with pytest.raises(ddtl.UserError, match="is not a run"):
        ddtl.evaluate(other.path)


def test_evaluating_again_changes_the_record_and_another_dataset_has_its_own(run: ddtl.Run) -> None:
    again = run.evaluate(**{"evaluation.threshold": "youden"})
    assert isinstance(again, ddtl.Run)
    assert again.results["threshold_rule"] == "youden"
    assert ddtl.load(run.path).results == again.results
    run.evaluate("evaluation.threshold=0.5")


def test_compare_gives_what_the_command_writes(run: ddtl.Run, folder: Path, tmp_path: Path) -> None:
    other = ddtl.train(*words(folder), seed=1, **{"optimizer.lr": 3e-3})
    table = ddtl.compare(run, other.path, score="accuracy")
    assert cli.main(["compare", str(run.path), str(other.path), "score=accuracy", f"json={tmp_path / 'c.json'}"]) == 0
    (pair,) = json.loads((tmp_path / "c.json").read_text())["pairs"]
    for row in table.to_dict("records"):
        wanted = pair["differences"][row["score"]]
        limits = wanted["interval"] or {"low": None, "high": None}
        got = [row[key] for key in ("score_a", "score_b", "difference", "low", "high")]
        for value, known in zip(got, [wanted["a"], wanted["b"], wanted["value"], *limits.values()], strict=False):
            assert value == known or (known is None and pd.isna(value)), row
    judged = table[table["score"] == "accuracy"].iloc[0]
    assert (judged["a"], judged["b"], judged["p"]) == (pair["a"], pair["b"], pair["p"])
    assert table.attrs["claims"]
    with pytest.raises(ddtl.UserError, match="score"):
        ddtl.compare(run, other, score="acuracy")


def test_runs_are_listed(run: ddtl.Run, folder: Path, tmp_path: Path) -> None:
    table = ddtl.runs(folder)
    assert run.path.name in set(table["name"])
    assert ddtl.runs(tmp_path).empty
    assert list(ddtl.runs(tmp_path).columns) == list(table.columns)


def test_a_run_shows_as_a_table_in_a_notebook(run: ddtl.Run) -> None:
    html = run._repr_html_()
    assert "<td>ROC AUC</td>" in html
    assert run.path.name in html


def test_the_page_is_written_and_one_to_share(run: ddtl.Run) -> None:
    assert run.report().name == "report.html"
    shared = run.report(share=True)
    assert shared.exists()
    assert run.predictions["sample_id"][0] not in shared.read_text()


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"trainer.devices": 2}, "started by the command alone"),
        ({"optimizer.lrr": 1}, "optimizer.lr"),
        ({"optimizer.lr": "much"}, "optimizer.lr"),
        ({"dataset": "covid19"}, "covid19ct"),
    ],
)
def test_mistakes_are_refused_in_one_message(folder: Path, given: dict[str, Any], refused: str) -> None:
    with pytest.raises(ddtl.UserError, match=refused):
        ddtl.train(*words(folder), **given)


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=20)


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_any_text_arrives_as_it_is(text: str) -> None:
    found = read(as_words({"dataset.root": text}), groups("train"), {"dataset.root"})
    assert not found.problems
    (setting,) = found.settings
    assert str(setting.value) == text


def test_values_of_every_type_arrive_as_they_are(tmp_path: Path) -> None:
    given = {
        "optimizer.lr": 1e-5, "trainer.max_epochs": 3, "evaluation.test": False, "trainer.limit_batches": None,
        "model.head.hidden": [16, 8], "paths.runs_dir": tmp_path / "a b's", "model": "squeezenet1_1",
        "finetune": "lp_ft",
    }  # fmt: skip
    config = load(as_words(given), writes=False)
    assert (config.optimizer.lr, config.trainer.max_epochs, config.evaluation.test) == (1e-5, 3, False)
    assert config.trainer.limit_batches is None
    assert list(config.model.head.hidden) == [16, 8]
    assert config.paths.runs_dir == str(tmp_path / "a b's")
    assert (config.model.name, config.finetune.name) == ("squeezenet1_1", "lp_ft")


@pytest.mark.slow
def test_training_from_python_equals_that_of_the_command_to_the_byte(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    typed = [sys.executable, str(ROOT / "train.py"), *words(tmp_path / "command")]
    fork_server.run(typed, check=True, capture_output=True, env=environment)
    code = f"import ddtl; ddtl.train(*{words(tmp_path / 'python')!r})"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)
    (command,), (python,) = ((tmp_path / name).glob("phantom/*/") for name in ("command", "python"))
    assert command.name == python.name
    assert_same_run(command, python)
    assert (command / "predictions.csv").read_bytes() == (python / "predictions.csv").read_bytes()


@pytest.mark.slow
def test_the_code_of_the_page_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    subprocess.run(
        [sys.executable, "-W", "error:::ddtl", "-c", "\n".join(blocks)], cwd=tmp_path, check=True, capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert len(list(tmp_path.glob("runs/phantom/*/results.json"))) == 3  # one trial is the first run
    assert len(list(tmp_path.glob("runs/sweeps/*/report.html"))) == 1
    assert (tmp_path / "roc.html").exists()


SCRIPT = """\
from pathlib import Path

import ddtl
import numpy as np
import pandas as pd

run: ddtl.Run = ddtl.train(dataset="phantom", **{"optimizer.lr": 1e-3})
page: Path = run.report(share=True)
seed: int = ddtl.load("run").config.seed
scored: ddtl.Scored = run.evaluate("dataset=sarscov2ct")
again: ddtl.Scored = ddtl.evaluate("run", **{"evaluation.threshold": "youden"})
path: Path = scored.path
record: dict[str, object] = run.results
rate: float = run.config.optimizer.lr
scores: pd.DataFrame = run.scores()
predictions: pd.DataFrame = run.predictions
run.plot_roc().write_html("roc.html")
scored.plot_calibration().show()
run.plot_patients().show()
pixels = np.zeros((64, 64), dtype=np.uint8)
run.predict("scan.png", Path("folder"), unit="patient", patients="folder")
run.predict(pixels)
run.predict([pixels, pixels], batch_size=2)
run.predict(pd.DataFrame({"path": ["scan.png"]}))
maps: ddtl.HeatMaps = run.explain(n=4, randomised=0)
sheets: dict[str, Path] = maps.sheets
images: list[Path] = maps.images
onnx: Path = run.export()
sweep: ddtl.Sweep = ddtl.sweep("optimizer.lr=0.1,0.01", finalize=False)
trials: pd.DataFrame = sweep.trials
study: ddtl.Study = ddtl.study(study="cross_dataset", **{"study.seeds": 2})
means: pd.DataFrame = study.results
found: ddtl.Sweep = ddtl.load("sweep", folder=Path("runs"))
listed: pd.DataFrame = ddtl.runs()
paired: pd.DataFrame = ddtl.compare(run, "other", Path("third"), score="accuracy")
audited: ddtl.Audit = ddtl.audit("phantom", **{"dataset.phantom.n_patients": 20})
findings: pd.DataFrame = audited.findings
lists: dict[str, Path] = audited.exclude
data: ddtl.Dataset = ddtl.dataset("phantom", **{"dataset.image_size": 64})
manifest: pd.DataFrame = data.manifest
batch: ddtl.Batch = data.batch("val", n=4)
names: tuple[str, ...] = batch.classes
shape: tuple[int, ...] = batch.after.shape


@ddtl.plugins.loss("mine")
def mine(logits: float, labels: float, weights: float | None) -> float:
    return logits


value: float = mine(1.0, 2.0, None)
try:
    run.report()
except (ddtl.UserError, ddtl.TrainingFailure) as error:
    print(error)
wrong: int = run.report()
data.batch("tset")
run.predict("scan.png", unit="patients")
"""


@pytest.mark.slow
def test_a_user_s_script_is_type_checked_strictly(tmp_path: Path) -> None:
    assert [name for name in ddtl.__all__ if f"ddtl.{name}" not in SCRIPT] == []
    (tmp_path / "script.py").write_text(SCRIPT)
    # What the types of the API do not consist of is not examined: it takes minutes.
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = True\nignore_missing_imports = True\n"
        "[mypy-torch.*,torchvision.*,torchmetrics.*,pytorch_lightning.*,lightning_fabric.*,optuna.*]\n"
        "follow_imports = skip\n"
    )
    answer = subprocess.run(
        [sys.executable, "-m", "mypy", "script.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    at = {number for number, line in enumerate(SCRIPT.splitlines(), start=1) if line in SCRIPT.splitlines()[-3:]}
    told = {int(number) for number in re.findall(r"^script\.py:(\d+): error", answer.stdout, re.MULTILINE)}
    assert told == at, answer.stdout


def test_each_public_name_is_on_the_page() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    methods = [f".{name}" for name in vars(ddtl.Run) | vars(ddtl.Scored) if not name.startswith("_")]
    assert [name for name in [*ddtl.__all__, *methods] if name not in page] == []


def test_importing_it_is_quick() -> None:
    """Thirty modules, most of them Python's own; NumPy alone would be over a hundred."""
    code = "import sys; before = set(sys.modules); import ddtl; ddtl.__all__; print(len(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (ddtl.compare, "two runs or more"),
        (lambda: ddtl.compare("one"), "two runs or more"),
        (lambda: ddtl.compare(1, 2), "1: a path or a name is wanted"),
        (lambda: ddtl.load(None), "None: a path or a name is wanted"),  # type: ignore[arg-type]
        (lambda: ddtl.runs("/nowhere"), "/nowhere: there is no such folder of runs"),
        (lambda: ddtl.train({"seed": 1}), "a dict of settings is given as"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_meant_is_a_users_error(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ddtl.UserError, match=said):
        call()


def test_numpys_numbers_are_numbers() -> None:
    given_ = {"seed": np.int64(1), "optimizer.lr": np.float32(0.5), "trainer.compile": np.bool_(False)}
    assert as_words(given_) == ["seed=1", "optimizer.lr=0.5", "trainer.compile=false"]
