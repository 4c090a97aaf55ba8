"""What breaks a run from outside: a full disk, files that vanish, loader processes that die. No epoch is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddtl.training.callbacks import EpochEnd, StopOnNonFinite
from ddtl.utils.files import write_json
from tests.support.mounts import mounted, remount
from tests.support.runs import assert_same_run, finish, run, small, start, state

QUICK = ("model=squeezenet1_1", "model.weights=none", "trainer=cpu", "trainer.max_epochs=3", "trainer.limit_batches=3")
CHECKPOINT = 9  # megabytes, at the most

Guarded = Callable[[Sequence[str]], int]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run that all others on the phantom must equal."""
    return run(tmp_path_factory.mktemp("uninterrupted"), *QUICK).folder


def after_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int, do: Callable[[], Any]) -> None:
    """Do something once that epoch (from 1) is written."""
    save = EpochEnd._save

    def and_then(self: EpochEnd, trainer: Any, improved: bool) -> None:
        save(self, trainer, improved)
        if trainer.current_epoch + 1 == epoch:
            do()

    monkeypatch.setattr(EpochEnd, "_save", and_then)


def assert_broken_off(code: int, text: str, *words: str) -> None:
    """Exit code 1, and one message with the way on."""
    assert code == 1, text
    assert "Traceback" not in text
    assert text.count("error: ") == 1, text
    message = text.partition("error: ")[2]
    assert [word for word in (*words, "The same command resumes it", "as=typed") if word not in message] == [], text


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_disk_that_gets_full_in_training(
    uninterrupted: Path, tmp_path: Path, guarded: Guarded, capfd: pytest.CaptureFixture[str]
) -> None:
    assert 0.8 * CHECKPOINT < (uninterrupted / "checkpoints" / "last.ckpt").stat().st_size / 1e6 < CHECKPOINT
    with mounted(tmp_path / "disk", f"{CHECKPOINT + 4}m") as disk:
        argv = small(disk, *QUICK)
        code = guarded(argv)
        folder = next(disk.glob("phantom/squeezenet1_1-*"))
        last = folder / "checkpoints" / "last.ckpt"
        assert_broken_off(
            code, capfd.readouterr().err, f"could not write {last}", "No space left on device", "Make room"
        )
        assert sorted(path.name for path in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]
        assert (state(last)["epoch"], state(last)["global_step"]) == (0, 3)

        remount(disk, f"size={8 * CHECKPOINT}m")
        assert guarded(argv) == 0
        assert "resuming" in capfd.readouterr().err
        assert_same_run(folder, uninterrupted)


@pytest.mark.slow
def test_a_disk_that_gets_full_in_scoring(tmp_path: Path, guarded: Guarded, capfd: pytest.CaptureFixture[str]) -> None:
    """Room for the only epoch's checkpoint, not for the weights that are written at the end."""
    with mounted(tmp_path / "disk", f"{CHECKPOINT + 1}m") as disk:
        argv = small(disk, *QUICK, "trainer.max_epochs=1")
        code = guarded(argv)
        folder = next(disk.glob("phantom/squeezenet1_1-*"))
        weights = folder / "model.safetensors"
        assert_broken_off(code, capfd.readouterr().err, str(weights), "No space left on device", "Make room")
        assert not weights.exists()
        assert not (folder / "results.json").exists()
        assert [path for path in folder.iterdir() if path.name.endswith(".partial")] == []
        assert state(folder / "checkpoints" / "last.ckpt")["epoch"] == 0

        remount(disk, f"size={4 * CHECKPOINT}m")
        assert guarded(argv) == 0
        assert_same_run(folder, run(tmp_path / "straight", *QUICK, "trainer.max_epochs=1").folder)


@pytest.mark.slow
def test_a_full_disk_as_a_person_meets_it(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", f"{CHECKPOINT + 4}m") as disk:
        argv = small(disk, *QUICK)
        code, text = finish(start([*argv, "run.name=as=typed"], NO_COLOR="1"))
        assert_broken_off(code, text, "No space left on device", "Make room")


# --- files that vanish ------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of forty images of two classes."""
    lines = ["path,label,patient_id"]
    for i in range(40):
        label = ("normal", "covid")[i % 2]
        pixels = np.random.default_rng(i).integers(0, 256, (20, 20), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")
        lines.append(f"{i:02}.png,{label},p{i}")
    path = tmp_path / "list.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def on(table: Path, runs: str, *overrides: str) -> list[str]:
    here = table.parent
    own = ("dataset=table", f"dataset.table={table}", "dataset.classes=[normal,covid]", "dataset.image_size=32")
    paths = (f"paths.runs_dir={here}/{runs}", f"paths.cache_dir={here}/cache")
    return [*own, "dataset.batch_size=4", *QUICK, "logger=none", *paths, *overrides]


def the_run(table: Path, runs: str) -> Path:
    return next((table.parent / runs).glob("table/squeezenet1_1-*"))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_images_and_cache_that_vanish_in_training(
    workers: int, table: Path, guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was decoded at the start lasts to the end."""
    assert guarded(on(table, "straight")) == 0

    def vanish(self: Any, trainer: Any, *_: Any) -> None:
        shutil.rmtree(table.parent / "cache", ignore_errors=True)
        for path in table.parent.glob("*.png"):
            path.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(StopOnNonFinite, "on_train_batch_end", vanish)
        assert guarded(on(table, "disturbed", f"dataset.num_workers={workers}")) == 0
    assert not list(table.parent.glob("*.png"))
    path = the_run(table, "disturbed") / "results.json"
    results = json.loads(path.read_text())
    assert "does not exist" in results["baselines"]["file_facts"]["why_not"]  # this alone needs the files
    results["baselines"] = json.loads((the_run(table, "straight") / "results.json").read_text())["baselines"]
    write_json(path, results)
    assert_same_run(the_run(table, "disturbed"), the_run(table, "straight"))


@pytest.mark.slow
def test_images_that_vanish_while_a_run_is_stopped(
    table: Path, guarded: Guarded, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert guarded(on(table, "straight")) == 0
    with monkeypatch.context() as patch:
        after_epoch(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert guarded(on(table, "stopped")) == 143
    folder = the_run(table, "stopped")
    before = {path: path.stat().st_mtime_ns for path in (table.parent / "stopped").rglob("*")}
    capfd.readouterr()

    away = table.parent / "away"
    away.mkdir()
    for name in ("03.png", "17.png"):
        (table.parent / name).rename(away / name)
    assert guarded(on(table, "stopped")) == 2
    text = capfd.readouterr().err
    assert "2 of 40 files are not there" in text
    assert "03.png" in text
    assert {path: path.stat().st_mtime_ns for path in (table.parent / "stopped").rglob("*")} == before

    for path in away.iterdir():
        path.rename(table.parent / path.name)
    assert guarded(on(table, "stopped")) == 0
    assert "resuming" in capfd.readouterr().err
    assert_same_run(folder, the_run(table, "straight"))


# --- loader processes that die ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_decoded_images_cut_off_under_a_loader_process(
    table: Path, guarded: Guarded, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A process that reads a mapped file behind its new end is killed; the next start makes the images anew."""
    assert guarded(on(table, "straight")) == 0

    def cut_off() -> None:
        (array,) = table.parent.glob("cache/decoded/*/images.npy")
        os.truncate(array, 100)

    argv = on(table, "broken", "dataset.num_workers=2")
    with monkeypatch.context() as patch:
        after_epoch(patch, 1, cut_off)
        code = guarded(argv)
    assert_broken_off(code, capfd.readouterr().err, "loader process", "dataset.num_workers=0")
    folder = the_run(table, "broken")
    assert state(folder / "checkpoints" / "last.ckpt")["epoch"] == 0

    assert guarded(argv) == 0
    assert "decoding them again" in capfd.readouterr().err
    assert_same_run(folder, the_run(table, "straight"))


# --- a GPU that is too small ------------------------------------------------------------------------------------------


def test_a_gpu_whose_memory_is_full(
    tmp_path: Path, guarded: Guarded, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of …")

    argv = small(tmp_path, *QUICK)
    with monkeypatch.context() as patch:
        after_epoch(patch, 1, full)
        code = guarded(argv)
    assert_broken_off(code, capfd.readouterr().err, "the GPU's memory is full (CUDA out of memory)", "batch_size")
    assert guarded(argv) == 0
