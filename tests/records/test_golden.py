"""What an earlier ddtl wrote opens, resumes and scores as before; see tests/golden/make.py.

Another processor rounds otherwise, so numbers are compared within 1e-4; names and digests exactly.
"""

from __future__ import annotations

import csv
import html
import json
import lzma
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ddtl.data.phantom.dataset import PhantomSpec, build_manifest
from ddtl.records.identity import differences
from tests.golden import commands
from tests.support import fork_server
from tests.support.runs import ROOT, state

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SCRIPTS = {"train": "train.py", "sweep": "sweep.py"}
NEAR = 1e-4

pytestmark = pytest.mark.slow


def opened(name: str, tmp_path: Path) -> Path:
    """The folder of an archive, unpacked."""
    folder = tmp_path / name
    with lzma.open(GOLDEN / f"{name}.tar.xz") as file, tarfile.open(fileobj=file) as archive:
        archive.extractall(folder, filter="data")
    return folder


def typed(folder: Path, *words: str) -> str:
    """Type a command in a folder, as it was typed when the archive was made; what it printed."""
    folder.mkdir(exist_ok=True)
    command, *rest = words
    script = [str(ROOT / SCRIPTS[command])] if command in SCRIPTS else ["-m", "ddtl", command]
    done = fork_server.run(
        [sys.executable, *script, *rest],
        check=False,
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def environment() -> dict[str, str]:
    """With the golden network, in every process."""
    path = os.pathsep.join([str(ROOT), str(GOLDEN / "site")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def run_in(folder: Path) -> Path:
    """The one run of an archive."""
    (run,) = folder.glob("runs/phantom/golden-*")
    return run


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def records(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(path: Path) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """The texts and the numbers of a table of predictions."""
    rows = records(path)
    numbers = [key for key in rows[0] if key.startswith(("logit_", "probability_"))]
    assert numbers, f"{path} holds no predictions"
    texts = [tuple(value for key, value in row.items() if key not in numbers) for row in rows]
    return texts, np.array([[float(row[key]) for key in numbers] for row in rows])


def assert_same_predictions(path: Path, other: Path) -> None:
    """That two files hold the same images, in the same order, with the same predictions."""
    (texts, numbers), (others, theirs) = table(path), table(other)
    assert texts == others
    np.testing.assert_allclose(numbers, theirs, atol=NEAR)


def test_a_finished_run_opens_and_scores_as_before(tmp_path: Path) -> None:
    folder = opened("finished", tmp_path)
    run = run_in(folder)
    name = str(run.relative_to(folder))
    before, audit = read(run / "results.json"), read(folder / "runs/audits/phantom/audit.json")
    predictions = tmp_path / "predictions.csv"
    (run / "predictions.csv").rename(predictions)

    # The same command predicts again, without training, and finds the run's name as it was.
    assert "epoch  1/" not in typed(folder, *commands.FINISHED)
    assert list(folder.glob("runs/phantom/golden-*")) == [run]
    assert_same_predictions(run / "predictions.csv", predictions)
    after = read(run / "results.json")
    for split in ("val", "test"):
        assert after[split]["roc_auc"] == pytest.approx(before[split]["roc_auc"], abs=NEAR)
    assert after["audit"]["when"] == audit["when"] == before["audit"]["when"]
    finished = (run / "results.json").read_bytes()
    assert "epoch  1/" not in typed(folder, *commands.FINISHED)
    assert (run / "results.json").read_bytes() == finished

    typed(folder, "report", name)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert name.rpartition("/")[2] in page
    assert html.escape(before["audit"]["findings"][0]["sentence"], quote=False) in page
    assert run.name[:20] in typed(folder, "runs", "list")

    typed(folder, "evaluate", name, "evaluation.threshold=youden")
    scored = read(run / "results.json")
    assert scored["test"]["roc_auc"] == pytest.approx(before["test"]["roc_auc"], abs=NEAR)
    assert scored["evaluation"]["threshold"] == "youden"

    spec = PhantomSpec(**yaml.safe_load((run / "config.yaml").read_text())["dataset"]["phantom"])
    images = {s.sample_id: s.path for s in build_manifest(spec, Path(os.environ["DDTL_CACHE"])).samples}
    stored = records(predictions)[0]
    typed(folder, "predict", name, str(images[stored["sample_id"]]), "output=predicted")
    (predicted,) = records(folder / "predicted" / "predictions.csv")
    assert float(predicted["probability_COVID"]) == pytest.approx(float(stored["probability_COVID"]), abs=NEAR)

    typed(folder, *commands.FINISHED, "seed=1", "trainer.max_epochs=2")
    (other,) = (path for path in folder.glob("runs/phantom/golden-*") if path != run)
    assert read(other / "results.json")["audit"]["when"] == audit["when"]
    assert "roc_auc" in typed(folder, "compare", name, str(other.relative_to(folder))).lower().replace(" ", "_")


def test_a_killed_run_resumes_and_equals_one_that_was_not(tmp_path: Path) -> None:
    folder = opened("killed", tmp_path)
    run = run_in(folder)
    before = (run / "metrics.jsonl").read_text().splitlines()
    first = f"epoch {len(before) + 1:2}/16"
    out = typed(folder, *commands.KILLED)
    assert first in out
    assert "epoch  1/16" not in out

    typed(tmp_path / "whole", *commands.KILLED)
    whole = run_in(tmp_path / "whole")
    assert whole.name == run.name
    assert_same_predictions(run / "predictions.csv", whole / "predictions.csv")
    ours, theirs = (state(path / "checkpoints" / "last.ckpt") for path in (run, whole))
    assert ours["global_step"] == theirs["global_step"]
    for name, tensor in theirs["state_dict"].items():
        np.testing.assert_allclose(ours["state_dict"][name].numpy(), tensor.numpy(), atol=NEAR, err_msg=name)
    results, expected = read(run / "results.json"), read(whole / "results.json")
    assert results["best_epoch"] == expected["best_epoch"]
    assert results["digest"] == expected["digest"]
    for split in ("val", "test"):
        assert results[split]["roc_auc"] == pytest.approx(expected[split]["roc_auc"], abs=NEAR)
    assert (run / "metrics.jsonl").read_text().splitlines()[: len(before)] == before


def test_a_half_done_sweep_resumes_to_its_end(tmp_path: Path) -> None:
    folder = opened("sweep", tmp_path)
    sweep = folder / "runs/sweeps" / commands.SWEEP_NAME
    done = {path: path.read_bytes() for path in folder.glob("runs/phantom/*/results.json")}
    assert len(done) == commands.SWEEP_KILLED_AFTER
    (cut,) = (path for path in folder.glob("runs/phantom/golden-*") if path / "results.json" not in done)
    epochs = len((cut / "metrics.jsonl").read_text().splitlines())

    typed(folder, *commands.SWEEP)
    record = read(sweep / "sweep.json")
    assert [trial["number"] for trial in record["trials"]] == [0, 1, 2, 3, 4]
    assert {trial["state"] for trial in record["trials"]} <= {"complete", "pruned"}
    assert {path: path.read_bytes() for path in done} == done
    log = (sweep / "trials" / "2.log").read_text()
    assert log.count("epoch 1/8") == 1, f"trial 2 was trained again, {epochs} epochs of which were done"
    spent = record["trials"][2]["seconds"]
    assert 0 < spent < 3600, "the time since the kill, which was long ago, is no time of the trial"
    typed(folder, "report", str(sweep.relative_to(folder)))
    assert (sweep / "report.html").exists()


def test_a_half_done_study_resumes_to_its_end(tmp_path: Path) -> None:
    folder = opened("study", tmp_path)
    study = folder / "runs/studies" / commands.STUDY_NAME
    typed(folder, "report", str(study.relative_to(folder)))
    (evaluation,) = folder.glob("runs/phantom/*/evaluations/*/results.json")
    run = evaluation.parents[2]
    done = {path: path.read_bytes() for path in (evaluation, run / "results.json")}

    typed(folder, *commands.STUDY)
    record = read(study / "study.json")
    assert [job["state"] for job in record["jobs"]] == ["done"] * 2
    assert all(each["folder"] for job in record["jobs"] for each in job["evaluations"])
    assert {path: path.read_bytes() for path in done} == done
    assert len(list(folder.glob("runs/phantom/golden-*"))) == 2

    words = ("dataset=phantom", *commands.PHANTOM, "dataset.phantom.sites=[b]", "evaluation.refit=true")
    typed(folder, "evaluate", str(run.relative_to(folder)), *words)
    again = next(run.glob("evaluations/phantom-grouped*/predictions.csv"))
    assert_same_predictions(again, evaluation.parent / "predictions.csv")


def names(tmp_path: Path, wanted: list[str]) -> dict[str, Any]:
    out = fork_server.run(
        [sys.executable, "-m", "tests.golden.names", str(tmp_path), *wanted],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout
    found: dict[str, Any] = json.loads(out)
    return found


def check_names(found: dict[str, Any]) -> None:
    stored = read(GOLDEN / "names.json")
    for name, run in found.items():
        assert differences(stored[name]["identity"], run["identity"]) == [], name
        assert run["folder"] == stored[name]["folder"], name


def test_commands_of_before_name_the_same_runs(tmp_path: Path) -> None:
    wanted = [name for name in commands.NAMED if name not in commands.REAL]
    assert len(wanted) == 10
    check_names(names(tmp_path, wanted))


def test_commands_on_the_public_datasets_name_the_same_runs(tmp_path: Path, real_data: Path) -> None:
    check_names(names(tmp_path, list(commands.REAL)))
