"""The package as a user installs it: a wheel in an environment of its own, far from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runs import ROOT, finish, small, start

pytestmark = pytest.mark.slow


def shell(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command ``ddtl`` of a clean environment that holds the wheel and the locked dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    uv = Path(sys.executable).with_name("uv")
    python = folder / "env" / "bin" / "python"
    build = (uv, "build", "--wheel", "--no-build-isolation", "--python", sys.executable, "-o", folder, ROOT)
    install = (uv, "pip", "install", "--python", python)
    for words in (
        build,
        (uv, "venv", "--python", sys.executable, folder / "env"),
        (*install, "--require-hashes", "-r", ROOT / "requirements.lock"),
        (*install, "--no-deps", "--find-links", folder, "--no-index", "ddtl"),
    ):
        done = shell(*words, cwd=folder)
        assert done.returncode == 0, done.stderr
    return python.with_name("ddtl")


def test_the_installed_command_trains_by_the_same_grammar_to_the_same_run(installed: Path, tmp_path: Path) -> None:
    plain = ("model=squeezenet1_1", "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_batches=4")
    done = shell(installed, "train", *small(tmp_path / "installed", *plain), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    code, text = finish(start(small(tmp_path / "checkout", *plain)))
    assert code == 0, text
    ours, theirs = (next((tmp_path / name).glob("phantom/squeezenet*")) for name in ("checkout", "installed"))
    assert ours.name == theirs.name
    assert (ours / "predictions.csv").read_bytes() == (theirs / "predictions.csv").read_bytes()


def test_the_installed_command_starts_further_processes_of_itself(installed: Path, tmp_path: Path) -> None:
    plain = small(tmp_path, "model=squeezenet1_1", "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_batches=2")
    done = shell(installed, "train", "-m", *plain, "seed=0,1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = shell(installed, "train", *plain, "seed=2", "trainer.devices=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("phantom/squeezenet*/results.json"))) == 3
    done = shell(installed, "sweep", *plain, "optimizer.lr=1e-3,1e-4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("phantom/squeezenet*/results.json"))) == 5
    pages = [*tmp_path.glob("phantom/squeezenet*/report.html"), *tmp_path.glob("sweeps/*/report.html")]
    assert len(pages) == 3 + 1, "pages are made from files of the wheel; trials leave theirs to `ddtl report`"


def test_the_installed_command_has_its_files_and_answers_mistakes(installed: Path, tmp_path: Path) -> None:
    shown = shell(installed, "train", "--cfg", "job", "experiment=ddtl_cov_sarscov2ct", cwd=tmp_path)
    assert "name: sarscov2ct" in shown.stdout
    assert shell(installed, "--version", cwd=tmp_path).stdout.startswith("ddtl ")
    listed = shell(installed, "data", "list", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "covid19ct" in listed.stdout
    for words, says in (
        (("trian",), "Did you mean train?"),
        (("train", "dataset=phantum"), "Did you mean phantom?"),
        (("data", "fetch", "covid19"), "Did you mean covid19ct?"),
    ):
        done = shell(installed, *words, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert says in done.stderr
    assert list(tmp_path.iterdir()) == []
