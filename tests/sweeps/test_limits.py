"""Sweeps that meet the machine's limits, really: a full disk, a system out of memory, parts killed at random."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import fork_server, mounts
from tests.support.runs import ROOT
from tools import chaos_sweep

WORDS = (
    "model=squeezenet1_1", "dataset.phantom.n_patients=60", "dataset.phantom.size=64", "trainer=cpu",
    "trainer.max_epochs=1", "finalize=false", "logger=none", "sweep.name=limits", "engine.workers=1",
)  # fmt: skip


def sweep(words: Sequence[str], into: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command, with all its processes in a control group where one is given."""
    command = [sys.executable, str(ROOT / "sweep.py"), *WORDS, *words]
    if into is not None:
        command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(into / "cgroup.procs"), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return fork_server.run(command, check=False, capture_output=True, text=True, timeout=600, env=environment)


def record(runs: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((runs / "sweeps" / "limits" / "sweep.json").read_text())["trials"]
    return found


@pytest.mark.slow
def test_a_full_disk_stops_the_sweep_with_a_word_and_with_room_it_resumes(tmp_path: Path) -> None:
    with mounts.mounted(tmp_path / "runs", size="24m") as runs:
        words = [
            "optimizer.lr=0.001,0.002,0.003",
            "dataset.image_size=32",
            f"paths.runs_dir={runs}",
            f"paths.cache_dir={tmp_path / 'cache'}",
        ]
        ended = sweep(words)
        assert ended.returncode == 1, ended.stderr[-2000:]
        assert "the disk is full" in ended.stderr
        assert "Traceback" not in ended.stderr
        mounts.remount(runs, "size=300m")
        again = sweep(words)
        assert again.returncode == 0, again.stderr[-2000:]
        trials = record(runs)
        assert [trial["state"] for trial in trials] == ["complete"] * 3
        reasons = [attempt["reason"] for trial in trials for attempt in trial["attempts"]]
        assert set(reasons) <= {"disk_full", "stopped", "completed"}


@contextmanager
def limited(megabytes: int) -> Iterator[Path]:
    """A control group with so much memory; the test is skipped where none can be made."""
    root = Path("/sys/fs/cgroup")
    first = (root / "memory").is_dir()  # version 1
    group = (root / "memory" if first else root) / f"ddtl-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(megabytes * 2**20))
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    try:
        yield group
    finally:
        _removed(group)


def _removed(group: Path) -> None:
    """The server that trials are forked from ends a moment after its sweep."""
    until = time.monotonic() + 60
    while True:
        try:
            group.rmdir()
            return
        except OSError:
            assert time.monotonic() < until, f"{group} is still in use"
            time.sleep(0.2)


@pytest.mark.slow
def test_a_trial_that_the_system_kills_for_memory_is_recorded_so_and_the_sweep_resumes(tmp_path: Path) -> None:
    with limited(3000) as group:
        words = [
            "dataset.batch_size=24", "dataset.image_size=32,1024,48",
            f"paths.runs_dir={tmp_path / 'runs'}", f"paths.cache_dir={tmp_path / 'cache'}",
        ]  # fmt: skip
        ended = sweep(words, group)
    assert ended.returncode == 1, ended.stderr[-2000:]
    trials = record(tmp_path / "runs")
    ends = [(trial["state"], trial["attempts"][-1]["reason"] if trial["attempts"] else "") for trial in trials]
    assert ("failed", "out_of_memory") in ends, ends
    assert sum(state == "complete" for state, _ in ends) >= 2, ends
    assert "memory ran out" in ended.stderr + ended.stdout


@pytest.mark.slow
def test_two_rounds_of_killing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # In this file, and so never while the system kills a trial above: a trial killed then would be taken for that one.
    monkeypatch.setattr(
        chaos_sweep,
        "subprocess",
        SimpleNamespace(**vars(subprocess) | {"Popen": fork_server.Popen, "run": fork_server.run}),
    )
    code = chaos_sweep.main(["--rounds", "2", "--trials", "3"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["problems"] == []
    assert (code, found["rounds"], found["trials"]) == (0, 2, 6)
