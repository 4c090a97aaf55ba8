"""Whole runs: the record they leave, what happens the second time, and what happens when they break."""

from __future__ import annotations

import errno
import io
import json
import re
from collections import Counter

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from rich.console import Console
from safetensors.torch import load_file

from ddtl.config.load import load
from ddtl.evaluation.score import score
from ddtl.records import predictions as prediction_table, run_folder, small
from ddtl.schema.scores import EPOCH_SCORES, SCORES
from ddtl.training import callbacks
from ddtl.training.train import assemble, train
from ddtl.utils import console
from ddtl.utils.errors import TrainingFailure, UserError
from ddtl.utils.files import append_line
from ddtl.utils.reading import read_lines
from tests.support.runs import config, run, same_tensors, state


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder of runs, result) of one run that came to its end."""
    runs_dir = tmp_path_factory.mktemp("finished")
    return runs_dir, run(runs_dir)


def test_a_run_leaves_its_whole_record(finished):
    _, result = finished
    names = {path.relative_to(result.folder).as_posix() for path in result.folder.rglob("*") if path.is_file()}
    assert names - {".lock"} == {
        "config.yaml",
        "identity.json",
        "environment.json",
        "split.csv",
        "histogram.json",
        "log.txt",
        "metrics.jsonl",
        "predictions.csv",
        "results.json",
        "report.html",
        "methods.md",
        "model.safetensors",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    }
    assert json.loads((result.folder / "results.json").read_text()) == result.results
    assert result.folder.name.startswith("squeezenet1_1-full-s0-")


def test_every_epoch_has_its_row(finished):
    _, result = finished
    rows = read_lines(result.folder / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    steps = rows[0]["step"]
    assert [row["step"] for row in rows] == [steps, 2 * steps, 3 * steps]
    assert all(set(EPOCH_SCORES) | {"train/loss", "lr", "seconds", "order"} <= set(row) for row in rows)
    assert len({row["order"] for row in rows}) == 3
    best = max(rows, key=lambda row: row["val/roc_auc"])
    assert result.results["best_epoch"] == best["epoch"]


def test_the_scores_are_those_of_the_predictions_of_the_best_checkpoint(finished):
    _, result = finished
    table = prediction_table.read(result.folder / "predictions.csv")
    assert Counter(table.split.tolist()) == {s: result.results["splits"][s]["images"] for s in ("val", "test")}
    assert len(set(table.sample_id.tolist())) == len(table)
    for split in ("val", "test"):
        assert score(table.of(split), 0.5).items() <= result.results[split].items()
        assert set(SCORES) <= set(result.results[split])
    # An epoch's own score, by torchmetrics in bf16 or not, is the same number.
    rows = read_lines(result.folder / "metrics.jsonl")
    assert result.results["val"]["roc_auc"] == pytest.approx(
        rows[result.results["best_epoch"]]["val/roc_auc"], abs=1e-6
    )
    weights = load_file(result.folder / "model.safetensors")
    best = state(result.folder / "checkpoints" / "best.ckpt")["state_dict"]
    assert all(torch.equal(weights[name.removeprefix("network.")], value) for name, value in best.items())


def test_the_record_says_what_the_scores_rest_on(finished):
    _, result = finished
    r = result.results
    assert (r["dataset"], r["protocol"], r["grouping"], r["positive"], r["test_use"]) == (
        "phantom",
        "grouped",
        "patient",
        "COVID",
        1,
    )
    assert r["leaked_share"] == 0
    assert any("synthetic" in warning for warning in r["warnings"])
    assert r["test"]["images"] == sum(r["test"]["classes"].values()) == sum(r["test"]["confusion"].values())


def test_a_finished_run_is_not_trained_again(finished, capsys):
    runs_dir, result = finished
    before = {path: path.stat().st_mtime_ns for path in result.folder.rglob("*") if path.is_file()}
    again = run(runs_dir)
    assert again == result
    assert {p: p.stat().st_mtime_ns for p in before if p.name != ".lock"} == {
        p: t for p, t in before.items() if p.name != ".lock"
    }
    assert len(read_lines(runs_dir / "phantom" / "test_looks_grouped.jsonl")) == 1
    assert "finished" in capsys.readouterr().err


def test_a_ledger_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "phantom" / "test_looks_grouped.jsonl").mkdir(parents=True)
    with pytest.raises(UserError, match="this use of the test set cannot be written down"):
        run(tmp_path)
    assert not [path for path in (tmp_path / "phantom").iterdir() if path.name != "test_looks_grouped.jsonl"]


def test_a_guarantee_that_validation_cannot_give_is_refused_before_training(tmp_path):
    words = ["evaluation.threshold=sensitivity_guaranteed", "evaluation.target=0.95"]
    with pytest.raises(UserError, match="takes 59 positive validation patients or more, and there are "):
        run(tmp_path, *words)
    assert not list(tmp_path.glob("*/*/config.yaml"))


def test_another_seed_is_another_run_and_another_look(finished):
    runs_dir, result = finished
    other = run(runs_dir, "seed=1", "trainer.max_epochs=1", "trainer.limit_batches=1")
    assert other.folder != result.folder
    assert other.results["test_use"] == 2


@pytest.mark.slow
def test_the_test_set_can_be_scored_later_without_training(tmp_path):
    first = run(tmp_path, "evaluation.test=false", "trainer.max_epochs=1")
    assert "test" not in first.results
    assert not (tmp_path / "phantom" / "test_looks_grouped.jsonl").exists()
    rows = (first.folder / "metrics.jsonl").read_bytes()
    second = run(tmp_path, "trainer.max_epochs=1")
    assert second.folder == first.folder
    assert second.results["test_use"] == 1
    assert second.results["val"] == first.results["val"]
    assert (first.folder / "metrics.jsonl").read_bytes() == rows


def test_another_threshold_is_scored_without_training(finished):
    runs_dir, result = finished
    before = state(result.folder / "checkpoints" / "last.ckpt")
    strict = run(runs_dir, "evaluation.threshold=0.9")
    assert strict.results["threshold"] == 0.9
    assert strict.results["test"]["roc_auc"] == result.results["test"]["roc_auc"]
    assert strict.results["test"]["sensitivity"] <= result.results["test"]["sensitivity"]
    assert same_tensors(state(result.folder / "checkpoints" / "last.ckpt"), before)
    assert strict.results["test_uses"]["changed"] == ["evaluation.threshold: was 0.5, is 0.9"]
    again = run(runs_dir).results
    uses = ("test_use", "test_uses")
    assert {key: value for key, value in again.items() if key not in uses} == {
        key: value for key, value in result.results.items() if key not in uses
    }
    assert again["test_use"] == 1, "scored the same again, but after another threshold was seen"
    assert again["test_uses"]["total"] == strict.results["test_use"] > 1
    text = (result.folder / "methods.md").read_text()
    assert "played no part in training or in choosing" not in text


@pytest.mark.slow
def test_a_run_named_by_hand_refuses_other_settings_and_says_which(tmp_path):
    quick = ("run.name=mine", "trainer.max_epochs=1", "trainer.limit_batches=1")
    first = run(tmp_path, *quick)
    assert first.folder == tmp_path / "phantom" / "mine"
    with pytest.raises(UserError, match=r"(?s)contains another run.*optimizer\.lr: was 0\.0005, is 0\.001"):
        run(tmp_path, *quick, "optimizer.lr=0.001")
    assert run(tmp_path, *quick) == first
    anew = run(tmp_path, *quick, "optimizer.lr=0.001", "run.overwrite=true")
    assert anew.results != first.results


def test_a_folder_in_use_is_refused(tmp_path):
    c = config(tmp_path, "trainer.max_epochs=1", "trainer.limit_batches=1")
    assembled = assemble(c)
    with (
        run_folder.open_run(assembled.path, assembled.identity, overwrite=False),
        pytest.raises(UserError, match="in use by another process"),
    ):
        run(tmp_path, "trainer.max_epochs=1", "trainer.limit_batches=1")


def test_a_mistake_found_in_the_data_leaves_no_folder(tmp_path):
    runs_dir = tmp_path / "runs"
    with pytest.raises(UserError, match="more than the"):
        run(runs_dir, "dataset.batch_size=4000")
    with pytest.raises(UserError, match="DDTL_DATA"):
        train(load(["dataset=covid19ct", f"paths.runs_dir={runs_dir}", f"paths.data_dir={tmp_path}/nowhere"]))
    with pytest.raises(UserError, match=r"gone\.safetensors"):  # before the images are decoded
        run(runs_dir, "dataset.batch_size=4000", f"model.weights={tmp_path}/gone.safetensors")
    assert not runs_dir.exists()


def test_a_loss_that_is_no_number_ends_the_run_and_names_step_and_images(tmp_path):
    with pytest.raises(
        TrainingFailure, match=r"(?s)loss became (nan|inf).*at step \d+, on the images .*a/p\d+.*optimizer\.lr"
    ):
        run(
            tmp_path,
            "model=squeezenet1_1",
            "model.weights=none",
            "optimizer=sgd",
            "optimizer.lr=1e30",
            "trainer.clip_norm=0",
        )
    assert not list(tmp_path.glob("*/*/results.json"))
    (folder,) = tmp_path.glob("phantom/*-s0-*")
    assert re.match(r"the loss became (nan|inf).* at step \d+", small.failure(folder))


@pytest.mark.slow
def test_patience_ends_a_run_which_then_stays_ended(tmp_path):
    overrides = ("trainer.patience=1", "trainer.max_epochs=30", "trainer.limit_batches=2", "optimizer.lr=1e-9")
    first = run(tmp_path, *overrides)
    rows = (first.folder / "metrics.jsonl").read_bytes()
    assert len(rows.splitlines()) < 30
    (first.folder / "results.json").unlink()  # as if it was killed after training, before its scores
    assert run(tmp_path, *overrides).results == first.results
    assert (first.folder / "metrics.jsonl").read_bytes() == rows


@pytest.mark.slow
def test_a_row_written_before_a_kill_is_not_written_twice(tmp_path):
    quick = ("trainer.max_epochs=2", "trainer.limit_batches=2")
    first = run(tmp_path, *quick)
    rows = read_lines(first.folder / "metrics.jsonl")
    (first.folder / "results.json").unlink()
    append_line(first.folder / "metrics.jsonl", {**rows[1], "epoch": 2})
    run(tmp_path, *quick)
    assert read_lines(first.folder / "metrics.jsonl") == rows


@pytest.mark.slow
def test_loader_processes_do_not_change_a_result(tmp_path):
    quick = ("trainer.max_epochs=2", "trainer.limit_batches=3", "augment=strong")
    one, two = run(tmp_path / "0", *quick), run(tmp_path / "2", *quick, "dataset.num_workers=2")
    assert one.folder.name == two.folder.name
    assert one.results == two.results
    last = [state(result.folder / "checkpoints" / "last.ckpt")["state_dict"] for result in (one, two)]
    assert same_tensors(*last)


@pytest.mark.slow
def test_accumulated_batches_equal_one_large_batch(tmp_path):
    # A network without BatchNorm and dropout, in full precision: then it is the same sum in another order.
    plain = (
        "model=squeezenet1_1",
        "model.weights=none",
        "model.head.dropout=0",
        "trainer=cpu",
        "trainer.max_epochs=1",
        "trainer.limit_batches=4",
        "optimizer=sgd",  # Adam makes whole steps of rounding errors where a gradient is near 0
    )
    whole = run(tmp_path, *plain)
    parts = run(tmp_path, *plain, "trainer.accumulate=2", "trainer.limit_batches=8")
    a, b = (state(result.folder / "checkpoints" / "last.ckpt")["state_dict"] for result in (whole, parts))
    rows = [read_lines(result.folder / "metrics.jsonl") for result in (whole, parts)]
    assert [row[0]["step"] for row in rows] == [4, 4]
    assert [row[0]["order"] for row in rows] == [rows[0][0]["order"]] * 2
    for name, value in a.items():
        assert torch.allclose(value, b[name], atol=2e-4), name


def test_balanced_class_weights_are_inverse_shares(tmp_path):
    assembled = assemble(config(tmp_path, "model.class_weights=balanced", "dataset.phantom.prevalence=0.25"))
    labels = assembled.datamodule.labels[assembled.datamodule.manifest.rows("train")]
    counts = np.bincount(labels)
    weights = assembled.class_weights()
    assert counts[0] > counts[1]
    assert weights == pytest.approx((len(labels) / 2 / counts).tolist())
    assert (weights * counts).sum() == pytest.approx(len(labels))


def test_checkpoints_hold_plain_data_only(finished):
    _, result = finished
    for name in ("best.ckpt", "last.ckpt"):
        contents = state(result.folder / "checkpoints" / name)  # weights_only=True refuses anything else
        assert "hyper_parameters" not in contents
        assert "state_dict" in contents


@pytest.mark.slow
def test_a_full_disk_ends_the_run_in_one_line_and_loses_no_epoch(tmp_path, monkeypatch):
    save = pl.Trainer.save_checkpoint
    full = []

    def save_until_full(trainer, path, **kwargs):
        if full:
            path.write_bytes(b"the first part of a checkpoint")
            raise OSError(errno.ENOSPC, "No space left on device")
        full.append(True)
        save(trainer, path, **kwargs)

    quick = ("trainer.max_epochs=2", "trainer.limit_batches=2")
    with monkeypatch.context() as patch:
        patch.setattr(pl.Trainer, "save_checkpoint", save_until_full)
        with pytest.raises(TrainingFailure, match="No space left on device"):
            run(tmp_path, *quick)
    folder = next(tmp_path.glob("phantom/*/checkpoints"))
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert state(folder / "last.ckpt")["epoch"] == 0
    resumed = run(tmp_path, *quick)
    straight = run(tmp_path / "straight", *quick)
    assert resumed.results["test"] == straight.results["test"]


@pytest.mark.slow
def test_checkpoints_are_written_where_links_are_not_to_be_had(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    result = run(tmp_path, "trainer.max_epochs=1", "trainer.limit_batches=1")
    best, last = (state(result.folder / "checkpoints" / name) for name in ("best.ckpt", "last.ckpt"))
    assert same_tensors(best["state_dict"], last["state_dict"])


def test_at_a_terminal_a_bar_moves_and_the_lines_of_finished_epochs_stay(tmp_path, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=screen, force_terminal=True, width=120, highlight=False))
    run(tmp_path, "trainer.max_epochs=2", "trainer.limit_batches=2")
    assert all(text in screen.getvalue() for text in ("━", "epoch 1/2   train loss", "epoch 2/2   train loss"))


def test_without_a_terminal_lines_tell_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(callbacks.EpochProgress.__init__, "__defaults__", (0.0,))
    run(tmp_path, "trainer.max_epochs=2", "trainer.limit_batches=3")
    lines = [line for line in capsys.readouterr().err.splitlines() if "   batch " in line]
    assert [line.split("   ")[:2] for line in lines] == [
        [f"epoch {epoch}/2", f"batch {batch}/3"] for epoch in (1, 2) for batch in (1, 2, 3)
    ]
    pattern = r"   loss \d\.\d{4}   \d+\.\d images/s   about \d+ s left$"
    assert all(re.search(pattern, line) for line in lines)
    assert lines[-1].endswith("about 0 s left")


def test_lines_come_seldom(tmp_path, capsys):
    run(tmp_path, "trainer.max_epochs=2", "trainer.limit_batches=2")
    assert "   batch " not in capsys.readouterr().err


@pytest.mark.parametrize("part", ["", "checkpoints/best.ckpt", "model.safetensors"])
def test_a_run_can_start_from_what_another_one_learned(finished, tmp_path, part):
    _, result = finished
    learned = load_file(result.folder / "model.safetensors")
    assembled = assemble(config(tmp_path, f"model.weights={result.folder / part}"))
    assert same_tensors(dict(assembled.network.state_dict()), learned)
    assert assembled.identity["model.weights"].startswith("sha256:")
    assert str(result.folder) not in str(assembled.public_settings())
