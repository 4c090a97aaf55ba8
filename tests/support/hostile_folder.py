"""A folder full of a stranger's modules, and the installed command typed in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Modules that Python, ddtl and its libraries import, at their start or late.
NAMES = (
    "random", "json", "string", "torch", "numpy", "wandb", "ddtl", "optuna", "conf", "sitecustomize", "usercustomize",
    "secrets", "multiprocessing", "logging", "sklearn", "colorlog", "resource", "tempfile", "socket",
)  # fmt: skip


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with a file for each name, which leaves a mark when it is run."""
    folder = tmp_path / "from a stranger"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'marks')!r}, 'a').write({name!r} + ' ')\n")
    for group in ("trainer", "dataset"):
        (folder / "conf" / group).mkdir(parents=True)
    (folder / "conf" / "train.yaml").write_text("seed: 666\n")
    (folder / ".env").write_text("DDTL_DATA=/nowhere\nOMP_NUM_THREADS=77\n")
    os.mkfifo(folder / "matplotlibrc")  # whoever opens it waits for ever
    return folder


def command(hostile: Path, *words: str, python: tuple[str, ...] = (), **environment: str) -> str:
    """Run it there; what it printed. Nothing of the folder may have been run."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, *(python or (installed(hostile),)), *words],
        cwd=hostile, env=given | environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    marks = hostile.parent / "marks"
    assert not marks.exists(), marks.read_text()
    assert done.returncode == 0, done.stderr
    return done.stdout


def installed(hostile: Path) -> str:
    """The command as an installer writes it: a script in a folder of its own."""
    script = hostile.parent / "bin" / "ddtl"
    script.parent.mkdir(exist_ok=True)
    script.write_text(
        "import sys\nfrom ddtl.__main__ import script\nif __name__ == '__main__':\n    sys.exit(script())\n"
    )
    return str(script)
