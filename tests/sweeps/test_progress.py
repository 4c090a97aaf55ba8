"""What a person sees while a sweep runs: a table at a terminal, few lines elsewhere."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from ddtl.sweeps.store.snapshot import Running, Snapshot
from ddtl.sweeps.workers import progress
from ddtl.utils import console

START = Snapshot(10, 0, 0, 0, (), 0, None, (), (), ())
RUNNING = Running(3, 1, 4, 10, 0.81234, "2026-11-23T09:00:00+00:00", "local 0")
NOW = datetime(2026, 11, 23, 9, 2, 0, tzinfo=UTC)
UNDER_WAY = Snapshot(10, 2, 1, 1, (RUNNING,), 0, (1, (0.9012,)), (1,), (), (10.0, 10.0, 5.0, 1.0))


def shown(snapshot: Snapshot, left: float | None = None) -> str:
    out = Console(file=io.StringIO(), width=120)
    out.print(progress.live_table(snapshot, "val/roc_auc", left, NOW))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def lines_of(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> io.StringIO:
    file = io.StringIO()
    err = Console(file=file, force_terminal=terminal, width=100, soft_wrap=True, color_system=None)
    monkeypatch.setattr(console, "err", err)
    return file


def watched(snapshots: list[tuple[float, Snapshot]]) -> None:
    seconds: dict[str, Any] = {"now": 0.0}
    with progress.ProgressDisplay("val/roc_auc", clock=lambda: seconds["now"]) as found:
        for seconds["now"], snapshot in snapshots:
            found.update(snapshot)


def test_elsewhere_there_is_a_line_when_a_trial_ends_and_none_in_between(monkeypatch):
    file = lines_of(monkeypatch, terminal=False)
    first = replace(START, complete=1, best=(0, (0.7,)))
    watched([(0, START), (1, START), (2, replace(START, running=(RUNNING,))), (60, first), (61, first)])
    assert file.getvalue().splitlines() == [
        "0 of 10 trials: 0 complete",
        "1 of 10 trials: 1 complete; best val/roc_auc 0.7000 (trial 0); about 9 min left",
    ]


def test_time_left_counts_the_trials_of_this_call_alone(monkeypatch):
    file = lines_of(monkeypatch, terminal=False)
    before = replace(START, complete=6)
    watched([(0, before), (20, replace(before, complete=7)), (40, replace(before, complete=8, pruned=2))])
    said = file.getvalue().splitlines()
    assert "left" not in said[0]  # six trials of yesterday say nothing about today's pace
    assert said[1].endswith("about 60 s left")
    assert "left" not in said[2]  # nothing is


def test_a_terminal_keeps_one_image(monkeypatch):
    file = lines_of(monkeypatch, terminal=True)
    watched([(0, START), (30, UNDER_WAY)])
    assert "4 of 10 trials: 2 complete, 1 pruned, 1 failed, 1 running; best val/roc_auc 0.9012" in file.getvalue()
    assert "trial 3" in file.getvalue()


def test_the_image_tells_running_trials_and_the_last_failure():
    text = shown(replace(UNDER_WAY, failures=("trial 7: error: [bold]first\nlast [/x] line",)), left=90)
    row = next(line for line in text.splitlines() if line.startswith("trial 3"))
    assert row.split() == ["trial", "3", "5/10", "0.8123", "2", "min"]
    assert "about 2 min left" in text
    assert "last failure: last [/x] line" in text


def test_a_trial_that_has_no_epoch_yet_and_one_that_was_killed_before():
    text = shown(replace(UNDER_WAY, running=(replace(RUNNING, attempt=2, epoch=None, epochs=None, score=None),)))
    assert next(line for line in text.splitlines() if line.startswith("trial 3")).split() == [
        *("trial", "3,", "attempt", "2", "–", "–", "2", "min")
    ]


def test_many_workers_do_not_fill_the_screen():
    many = tuple(replace(RUNNING, number=number) for number in range(200))
    text = shown(replace(UNDER_WAY, total=300, running=many))
    assert len(text.splitlines()) < 20
    assert "and 188 more" in text


def test_two_objectives_have_a_front_and_no_best():
    text = shown(replace(UNDER_WAY, best=None, front=(1, 4, 5)))
    assert "3 trials on the Pareto front" in text
    assert "best" not in text


def test_quiet_processes_say_nothing(monkeypatch):
    file = lines_of(monkeypatch, terminal=True)
    monkeypatch.setattr(console.out, "quiet", True)
    watched([(0, START), (30, UNDER_WAY)])
    assert file.getvalue() == ""


def test_the_live_image_ends_when_the_sweep_breaks(monkeypatch):
    file = lines_of(monkeypatch, terminal=True)
    with suppress(KeyboardInterrupt), progress.ProgressDisplay("val/loss") as found:
        found.update(UNDER_WAY)
        raise KeyboardInterrupt
    assert file.getvalue().endswith("\x1b[?25h")  # the cursor is back
