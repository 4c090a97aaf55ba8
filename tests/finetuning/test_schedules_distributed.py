"""Every schedule in two processes, by the real launcher: the processes agree to the bit after every epoch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddtl.utils.reading import read_lines
from tests.support.runs import ROOT, run, small, state

pytestmark = pytest.mark.slow

EPOCHS = 5
SCHEDULES = {
    "full": ("finetune=full",),
    "linear_probe": ("finetune=linear_probe",),
    "lp_ft": ("finetune=lp_ft", "finetune.rewarm=0.5"),
    "gradual": ("finetune=gradual",),
    "layer_decay": ("finetune=layer_decay",),
    "surgical": ("finetune=surgical", "finetune.stages=[stem,fire2]"),
}
SHORT = ("trainer=cpu", f"trainer.max_epochs={EPOCHS}", "trainer.limit_batches=2", "evaluation.test=false")

# Without BatchNorm and dropout and in full precision, dealing out a batch changes only the order of a sum; Adam would
# make whole steps of that where a gradient is near 0.
PLAIN = ("model=squeezenet1_1", "model.head.dropout=0", "optimizer=sgd", "optimizer.momentum=0", *SHORT)

# With test_schedules_resume.py's rows: every schedule with both precisions, both ways of making a step, and in one and
# in two processes, pair by pair; here under AdamW.
ROWS = {
    "full": ("bf16-mixed", 2, "squeezenet1_1"),
    "linear_probe": (32, 1, "squeezenet1_1"),
    "lp_ft": (32, 2, "squeezenet1_1"),
    "gradual": ("bf16-mixed", 1, "squeezenet1_1"),
    "layer_decay": ("bf16-mixed", 2, "squeezenet1_1"),
    "surgical": (32, 1, "squeezenet1_1"),
}
# A stage with BatchNorm trains, stands still and trains again.
BACK_AND_FORTH = (
    "finetune.phases=[{name: a, train: [all], epochs: 2}, {name: b, train: [layer4, head], epochs: 1}, "
    "{name: c, train: [all], epochs: 2}]"
)

# Runs that end after their second epoch, in the middle of their schedule, and are gone on with.
STOPPED = {"gradual-row": (*SCHEDULES["gradual"], "trainer.precision=bf16-mixed", "model=squeezenet1_1"),
           "back-and-forth": ("model=resnet18", "trainer.ema=0.8", "finetune=full", BACK_AND_FORTH)}  # fmt: skip


def jobs(runs_dir: Path) -> list[dict]:
    """The runs, the last one without what this is about."""
    found = [
        {"name": name, "overrides": [*PLAIN, *settings], "wrap_again": True} for name, settings in SCHEDULES.items()
    ]
    for name, (precision, accumulate, model) in ROWS.items():
        options = (f"trainer.precision={precision}", f"trainer.accumulate={accumulate}", f"model={model}")
        found.append({"name": f"{name}-row", "overrides": [*SHORT, *SCHEDULES[name], *options], "wrap_again": True})
    norms = ("model=resnet18", "trainer.ema=0.8", "finetune=full", BACK_AND_FORTH)
    found.append({"name": "back-and-forth", "overrides": [*SHORT, *norms], "wrap_again": True})
    for name, settings in STOPPED.items():
        again = {"overrides": [*SHORT, *settings, f"run.name={name}-again"], "wrap_again": True}
        found += [{"name": f"{name}-stopped", **again, "stop_after": 2}, {"name": f"{name}-again", **again}]
    found.append({"name": "drifting", "overrides": [*PLAIN, *SCHEDULES["lp_ft"]], "wrap_again": False})
    for job in found:
        job["overrides"] = small(runs_dir, f"run.name={job['name']}", *job["overrides"], "trainer.devices=2")
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, str]:
    """The folder of what two processes wrote, and what they printed."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "jobs.json").write_text(json.dumps(jobs(folder)))
    command = [sys.executable, "-m", "tests.support.runs_in_a_row", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=800,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    return folder, done.stderr


def rows(folder: Path, name: str) -> tuple[list[dict], list[dict]]:
    first, second = (read_lines(folder / f"{name}-{rank}.jsonl") for rank in (0, 1))
    return first, second


@pytest.mark.parametrize("name", [*SCHEDULES, *(f"{name}-row" for name in ROWS), "back-and-forth"])
def test_two_processes_hold_the_same_weights_after_every_epoch(made, name):
    first, second = rows(made[0], name)
    assert [row["epoch"] for row in first] == list(range(EPOCHS)), made[1][-5000:]
    assert first == second
    assert len({row["digest"] for row in first}) == EPOCHS  # they train
    assert not any(row["moving"] for row in first)
    assert not any(row["unused"] for row in first)


@pytest.mark.parametrize("name", STOPPED)
def test_two_processes_that_resume_with_a_stopped_run_end_with_the_same_weights(made, name):
    stopped, again = rows(made[0], f"{name}-stopped"), rows(made[0], f"{name}-again")
    assert [row["epoch"] for row in stopped[0]] == [0, 1], made[1][-5000:]
    assert [row["epoch"] for row in again[0]] == [2, 3, 4]
    assert again[0] == again[1]
    whole = rows(made[0], name)[0]
    assert [row["digest"] for row in (*stopped[0], *again[0])] == [row["digest"] for row in whole]


def test_the_schedules_freeze_and_thaw_as_they_say(made):
    frozen = {name: [len(row["frozen"]) for row in rows(made[0], name)[0]] for name in SCHEDULES}
    assert frozen == {
        "full": [0] * 5,
        "linear_probe": [4] * 5,
        "lp_ft": [4, 0, 0, 0, 0],
        "gradual": [4, 3, 2, 1, 0],
        "layer_decay": [0] * 5,
        "surgical": [3] * 5,
    }
    assert [len(row["frozen"]) for row in rows(made[0], "back-and-forth")[0]] == [0, 0, 4, 0, 0]


@pytest.mark.parametrize("name", SCHEDULES)
def test_two_processes_make_the_run_of_one(made, tmp_path, name):
    alone = run(tmp_path, *PLAIN, *SCHEDULES[name]).folder
    together = made[0] / "phantom" / name
    ours, theirs = (state(path / "checkpoints" / "last.ckpt")["state_dict"] for path in (alone, together))
    for key, value in ours.items():
        assert value.allclose(theirs[key], atol=1e-5), key


def test_without_a_new_wrapper_the_processes_drift_apart_and_the_run_says_so(made):
    first, second = rows(made[0], "drifting")
    equal = [a["digest"] == b["digest"] for a, b in zip(first, second, strict=True)]
    assert equal[0]
    assert not equal[-1]
    assert "drifting: the processes have different weights" in made[1]
