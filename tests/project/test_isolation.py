"""Nothing that lies in the folder where a command is typed is run by it, or by a process that it starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ddtl.commands.cli import COMMANDS
from ddtl.utils import isolation, threads
from tests.support.hostile_folder import command, hostile
from tests.support.runs import ROOT, small

__all__ = ["hostile"]  # a fixture

PLAIN = (
    "model=squeezenet1_1",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_batches=2",
    "dataset.num_workers=2",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_imports_from_the_folder_it_is_typed_in(hostile: Path, name: str) -> None:
    assert command(hostile, name, "--help")


def test_a_configuration_is_the_package_s(hostile: Path) -> None:
    assert "seed: 0\n" in command(hostile, "train", "--cfg", "job")


def test_an_empty_entry_of_the_path_is_not_that_folder(hostile: Path) -> None:
    for name in ("sitecustomize", "usercustomize", "ddtl"):  # of these Python takes the first before any program begins
        (hostile / f"{name}.py").unlink()
    for paths in ("", f"{os.pathsep}/nowhere", f"/nowhere{os.pathsep}", "."):
        assert "seed: 0\n" in command(hostile, "train", "--cfg", "job", PYTHONPATH=paths)


def test_a_script_of_the_checkout_imports_from_the_checkout(hostile: Path) -> None:
    for name in ("train", "sweep"):
        assert "seed: 0\n" in command(hostile, "--cfg", "job", "seed=0", *(
            ("optimizer.lr=1,2",) if name == "sweep" else ()
        ), python=(str(ROOT / f"{name}.py"),))  # fmt: skip


def test_as_a_module_with_python_s_own_switch(hostile: Path) -> None:
    """Without -P Python itself looks for ``ddtl`` in the current folder first."""
    assert command(hostile, "--version", python=("-P", "-m", "ddtl")).startswith("ddtl ")
    (hostile / "ddtl.py").unlink()
    assert "seed: 0\n" in command(hostile, "train", "--cfg", "job", python=("-m", "ddtl"))


@pytest.mark.slow
def test_nor_does_any_process_that_a_command_starts(hostile: Path) -> None:
    runs = hostile.parent / "runs"
    command(hostile, "train", "-m", *small(runs, *PLAIN))
    command(hostile, "sweep", *small(runs, *PLAIN, "optimizer.lr=1e-3,1e-4", "engine.workers=1"))
    assert len(list(runs.glob("phantom/squeezenet*/results.json"))) == 3
    command(hostile, "audit", "dataset.phantom.n_patients=16", "dataset.phantom.size=64", f"paths.runs_dir={runs}")
    command(hostile, "report", str(next(runs.glob("phantom/squeezenet*"))))
    command(hostile, "runs", "list", f"paths.runs_dir={runs}")


@pytest.mark.slow
@pytest.mark.skipif(threads.cores() < 2, reason="needs two cores")
def test_nor_does_a_process_of_another_device(hostile: Path) -> None:
    runs = hostile.parent / "runs"
    words = small(runs, *PLAIN, "trainer.devices=2")
    command(hostile, "train", *words)
    command(hostile, "sweep", *words, "optimizer.lr=1e-3,1e-4", "engine.workers=1", "engine.gpus_per_trial=2")
    assert len(list(runs.glob("phantom/squeezenet*/results.json"))) == 3


def test_the_settings_of_w_and_b_that_lie_there_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They name the server that a user's key is sent to."""
    import wandb

    from ddtl.training import loggers

    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "own"))
    for folder, server in ((tmp_path / "own", "own"), (tmp_path / "wandb", "strangers")):
        folder.mkdir()
        (folder / "settings").write_text(f"[default]\nbase_url = https://{server}.example\n")
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    try:
        assert loggers._set_up().settings.base_url == "https://own.example"
        assert Path.cwd() == tmp_path
    finally:
        wandb.teardown()


def test_git_is_asked_about_the_checkout_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository's own settings name programs that git runs."""
    from ddtl.training import loggers

    monkeypatch.chdir(ROOT)
    assert not loggers._settings(1.0, private=False).disable_git
    monkeypatch.chdir(tmp_path)
    assert loggers._settings(1.0, private=False).disable_git


def test_windows_is_refused_with_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(SystemExit, match="2"):
        isolation.isolate()
    monkeypatch.undo()
    assert capsys.readouterr().err.splitlines() == [
        "error: ddtl needs Linux or another POSIX system. Install it in WSL 2: wsl --install"
    ]
