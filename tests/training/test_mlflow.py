"""MLflow: what is logged there, what never is, what a resumed run does, and a store that cannot be had."""

from __future__ import annotations

import logging
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from ddtl.config.load import load
from ddtl.records.run_folder import RunFolder
from ddtl.schema.run import Config
from ddtl.training import loggers
from ddtl.utils.errors import UserError
from tests.support.runs import PullThePlugError, run as train

PUBLIC = {"optimizer": {"lr": 1e-3, "betas": [0.9, 0.999]}, "seed": 0}


def config(runs: Path, *overrides: str) -> Config:
    return load(["dataset=phantom", "logger=mlflow", f"paths.runs_dir={runs}", *overrides])


def rows(store: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(store) as database:
        return database.execute(query).fetchall()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    path = tmp_path / "runs" / "zebra-run"
    path.mkdir(parents=True)
    return RunFolder(path)


def log(folder: RunFolder, *steps: int, broken: bool = False) -> None:
    with loggers.opened(config(folder.path.parent), folder, PUBLIC) as (logger,):
        for step in steps:
            logger.log_metrics({"val/roc_auc": 0.5 + step / 10, "train/loss": float("nan")}, step=step)
        if broken:
            raise PullThePlugError


@pytest.mark.slow
def test_settings_curves_and_end_are_there_and_a_resumed_run_continues(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(PullThePlugError):
        log(folder, 0, broken=True)
    store = folder.path.parent / "mlflow.db"
    assert rows(store, "select name, status from runs") == [("zebra-run", "FAILED")]
    log(folder, 1, 2)
    assert rows(store, "select name, status from runs") == [("zebra-run", "FINISHED")]
    curve = "select step, value from metrics where key = 'val/roc_auc' order by step"
    assert rows(store, curve) == [(0, 0.5), (1, 0.6), (2, 0.7)]
    assert dict(rows(store, "select key, value from params")) == {
        "optimizer.lr": "0.001",
        "optimizer.betas": "[0.9, 0.999]",
        "seed": "0",
    }
    assert not list(tmp_path.glob("**/mlruns"))


@pytest.mark.slow
def test_a_folder_from_elsewhere_writes_into_no_other_run(folder: RunFolder) -> None:
    log(folder, 1)
    other = RunFolder(folder.path.with_name("other"))
    other.path.mkdir()
    other.mlflow_id.write_text(folder.mlflow_id.read_text())
    log(other, 5)
    store = folder.path.parent / "mlflow.db"
    assert rows(store, "select name from runs order by name") == [("other",), ("zebra-run",)]
    assert rows(store, "select count(*) from metrics where step = 5") == [(2,)]
    other.mlflow_id.write_text("0" * 32)  # of a store that is gone
    log(other, 6)
    assert len(rows(store, "select name from runs")) == 3


@pytest.mark.slow
def test_a_whole_run_leaves_its_scores_and_nothing_of_a_sample_or_this_machine(tmp_path: Path) -> None:
    result = train(tmp_path / "runs", "logger=mlflow", "logger.mlflow.experiment=of mine")
    store = tmp_path / "runs" / "mlflow.db"
    found = dict(rows(store, "select key, value from latest_metrics"))
    test = result.results["test"]
    assert found["final/test/roc_auc"] == pytest.approx(test["roc_auc"])
    assert found["final/test/roc_auc_low"] == pytest.approx(test["intervals"]["roc_auc"]["low"])
    assert found["final/test/patients/roc_auc"] == pytest.approx(test["patients"]["roc_auc"])
    assert len(rows(store, "select * from metrics where key = 'val/roc_auc'")) == 3
    assert ("of mine",) in rows(store, "select name from experiments")
    content = store.read_bytes()
    names = {line.split(",")[1] for line in (result.folder / "predictions.csv").read_text().splitlines()[1:]}
    assert not [name for name in names if name.encode() in content]
    words = b" ".join(
        str(row).encode() for table in ("params", "tags", "runs") for row in rows(store, f"select * from {table}")
    )
    assert str(tmp_path).encode() not in words
    assert socket.gethostname().encode() not in words


def test_a_server_that_does_not_answer_costs_seconds_and_a_warning(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    import mlflow.tracking  # noqa: F401  (takes seconds)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"logger.mlflow.store=http://127.0.0.1:{taken.getsockname()[1]}"
        begin = time.monotonic()
        with loggers.opened(config(folder.path.parent, address), folder, PUBLIC) as shown_to:
            assert shown_to == []
    assert time.monotonic() - begin < 300, "MLflow itself would try for a quarter of an hour"
    ours = [record for record in caplog.records if record.name.startswith("ddtl.")]
    (warning,) = [record.getMessage() for record in ours if record.levelno >= logging.WARNING]
    assert warning.startswith("MLflow does not work here, continuing without it: ")


def test_a_link_in_the_place_of_the_file_is_not_followed(folder: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = folder.path.parents[1] / "elsewhere.db"
    elsewhere.write_bytes(b"")
    (folder.path.parent / "mlflow.db").symlink_to(elsewhere)
    with loggers.opened(config(folder.path.parent), folder, PUBLIC) as shown_to:
        assert shown_to == []
    assert "is a link" in caplog.text
    assert elsewhere.read_bytes() == b""


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("postgres://host/db", "it is sqlite:"),
        ("mlflow.db", "it is sqlite:"),
        ("https://me:opensesame@host", "MLFLOW_TRACKING_PASSWORD"),
    ],
)
def test_another_store_is_refused(tmp_path: Path, store: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        config(tmp_path, f"logger.mlflow.store='{store}'")
    assert "opensesame" not in str(caught.value)
