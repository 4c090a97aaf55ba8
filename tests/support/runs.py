"""Small whole runs on the phantom, in this process or in their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ddtl.config.load import load
from ddtl.models.module import Classifier
from ddtl.reports.run.publish import publish
from ddtl.schema.run import Config
from ddtl.training.results import RunResult
from ddtl.training.train import train
from ddtl.utils.reading import read_lines
from tests.support import fork_server

ROOT = Path(__file__).resolve().parents[2]

# 60 patients of 4 slices, 19 batches an epoch: a second on two cores. DenseNet121, the default, takes nine.
SMALL = (
    "dataset.phantom.n_patients=60",
    "dataset.phantom.slices_per_patient=4",
    "dataset.phantom.size=64",
    "dataset.image_size=32",
    "dataset.batch_size=8",
    "trainer.max_epochs=3",
    "logger=none",
    "model=squeezenet1_1",
    "model.weights=none",
    "trainer.checkpoint_seconds=0",  # an epoch takes less than a second, and tests stop runs after a certain one
)


def small(runs_dir: Path, *overrides: str) -> list[str]:
    """The overrides of a small run."""
    return [*SMALL, f"paths.runs_dir={runs_dir}", *overrides]


def config(runs_dir: Path, *overrides: str) -> Config:
    return load(small(runs_dir, *overrides))


def run(runs_dir: Path, *overrides: str) -> RunResult:
    """Train in this process."""
    return train(config(runs_dir, *overrides), publish=publish)


# A run that waits before a step until it is stopped: a test that comes late finds it as far as one that comes early.
_HELD = """
import runpy, sys, time
from pathlib import Path
_, program, reached, epoch, batch, *words = sys.argv
sys.argv = [program, *words]
sys.path.insert(0, str(Path(program).parent))
from ddtl.models.module import Classifier
step = Classifier.training_step
def held(self, values, batch_idx):
    if (self.current_epoch, batch_idx) == (int(epoch), int(batch)):
        Path(reached).touch()
        until = time.monotonic() + 600
        while time.monotonic() < until:
            time.sleep(0.05)
        raise RuntimeError("nobody has stopped this run")
    return step(self, values, batch_idx)
Classifier.training_step = held
runpy.run_path(program, run_name="__main__")
"""


def start_held(overrides: list[str], before: tuple[int, int], reached: Path) -> subprocess.Popen[str]:
    """Type the command, and wait until it is about to make a step, in which it stays until it is stopped.

    Args:
        overrides: what is typed.
        before: epoch and batch of the step, from 0.
        reached: a file that the process makes there; not yet there.
    """
    program = [str(ROOT / "train.py"), str(reached), *map(str, before)]
    process = _start(["-c", _HELD, *program, *overrides])
    while not reached.exists():
        assert process.poll() is None, finish(process)[1]
        time.sleep(0.02)
    return process


def start(overrides: list[str], **environment: str) -> subprocess.Popen[str]:
    """Type the command; the caller waits for it."""
    return _start([str(ROOT / "train.py"), *overrides], **environment)


def _start(words: list[str], **environment: str) -> subprocess.Popen[str]:
    return fork_server.Popen(
        [sys.executable, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,  # a Ctrl-C is sent to the whole group, as a terminal does
    )


# Python imports it as it starts, from a folder of PYTHONPATH.
_HOLD = """\
import os, time
_replace = os.replace
def replace(source, target, **how):
    _replace(source, target, **how)
    while str(target).endswith("last.ckpt") and os.path.exists({flag!r}):
        time.sleep(0.01)
os.replace = replace
"""


def hold_at_checkpoints(folder: Path) -> tuple[dict[str, str], Path]:
    """Variables with which a command's processes wait at each checkpoint, once it is there; until a file is removed.

    So that a signal after :func:`wait_for_epochs` comes in the midst of a training, however slow the test is.
    """
    flag = folder / "hold"
    flag.parent.mkdir()
    flag.touch()
    (folder / "sitecustomize.py").write_text(_HOLD.format(flag=str(flag)))
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}, flag


class PullThePlugError(Exception):
    """What a killed process leaves is what an exception leaves that nobody expects."""


def break_at(monkeypatch: pytest.MonkeyPatch, ahead: list[tuple[int, int]]) -> None:
    """Let training break before the first of these steps, (epoch, batch), which is taken from the list."""
    step = Classifier.training_step

    def breaking(self: Classifier, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if ahead and (self.current_epoch, batch_idx) == ahead[0]:
            ahead.pop(0)
            raise PullThePlugError
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", breaking)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code, and what was printed on both streams."""
    out, err = process.communicate(timeout=600)
    return process.returncode, out + err


def wait_for_epochs(runs_dir: Path, process: subprocess.Popen[str], epochs: int) -> Path:
    """Wait until a run has that many epochs behind it, checkpoint included; its folder."""
    while True:
        for checkpoint in runs_dir.glob("*/*/checkpoints/last.ckpt"):
            folder = checkpoint.parents[1]
            metrics = folder / "metrics.jsonl"
            done = len(read_lines(metrics))
            # An epoch's row is written before its checkpoint: the checkpoint of the last row may be still to come.
            saved = checkpoint.stat().st_mtime_ns >= metrics.stat().st_mtime_ns
            if done > epochs or (done == epochs and saved):
                return folder
        assert process.poll() is None, finish(process)[1]
        time.sleep(0.02)


def state(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's contents, loaded without trust."""
    contents: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return contents


def same_tensors(a: Any, b: Any) -> bool:
    """Whether two nested structures hold the same numbers to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same_tensors(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same_tensors, a, b))
    return bool(a == b)


def assert_same_run(folder: Path, other: Path) -> None:
    """That two folders hold the same run to the bit: its state, its curves, its predictions and its results."""
    ours, theirs = (state(path / "checkpoints" / "last.ckpt") for path in (folder, other))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "epoch", "global_step"):
        assert same_tensors(ours[part], theirs[part]), part
    timeless = [
        [{key: value for key, value in row.items() if key != "seconds"} for row in read_lines(path / "metrics.jsonl")]
        for path in (folder, other)
    ]
    assert timeless[0] == timeless[1]  # with the order of the images of each epoch
    for name in ("predictions.csv", "results.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
