"""Every schedule, stopped at each phase boundary and inside each phase, ends to the bit as if it had never been."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ddtl.finetuning.schedule import Schedule, compile_schedule
from tests.support.runs import PullThePlugError, assert_same_run, break_at, config, run
from tests.support.tiny import STAGES, tiny

__all__ = ["tiny"]  # a fixture

SCHEDULES: dict[str, tuple[str, ...]] = {
    "full": ("finetune=full",),
    "linear_probe": ("finetune=linear_probe",),
    "lp_ft": ("finetune=lp_ft", "finetune.rewarm=0.5", "finetune.batchnorm=train", "trainer.max_epochs=6"),
    "gradual": ("finetune=gradual", "finetune.rewarm=0.5", "trainer.max_epochs=12"),
    "layer_decay": ("finetune=layer_decay",),
    "surgical": ("finetune=surgical", "finetune.stages=[layer1,head]"),
}
SHORT = ("trainer.max_epochs=5", "trainer.limit_batches=4", "evaluation.replicates=100", "augment=strong")

# Every schedule with both precisions, both ways of making a step and both optimisers, pair by pair; of each schedule's
# two rows the tests of distributed runs take the other one.
ROWS = {
    "full": ("trainer.precision=32", "trainer.accumulate=1", "optimizer=adamw"),
    "linear_probe": ("trainer.precision=bf16-mixed", "trainer.accumulate=2", "optimizer=sgd"),
    "lp_ft": ("trainer.precision=bf16-mixed", "trainer.accumulate=1", "optimizer=adamw"),
    "gradual": ("trainer.precision=32", "trainer.accumulate=2", "optimizer=adamw"),
    "layer_decay": ("trainer.precision=32", "trainer.accumulate=1", "optimizer=sgd"),
    "surgical": ("trainer.precision=bf16-mixed", "trainer.accumulate=2", "optimizer=adamw"),
}


def stops(schedule: Schedule) -> list[tuple[int, int]]:
    """(epoch, batch) before which to stop: at a phase's first batch, inside its first epoch, and inside its last."""
    points = {(phase.first, batch) for phase in schedule.phases for batch in (0, 2)}
    points |= {(phase.end - 1, 2) for phase in schedule.phases}
    return sorted(points)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_resumes_to_the_same_bit_wherever_it_was_stopped(tiny, tmp_path, monkeypatch, name):
    command = (tiny, "trainer=cpu", *SHORT, *SCHEDULES[name], *ROWS[name], "optimizer.weight_decay=0.1")
    command += ("trainer.ema=0.8",) if name in ("lp_ft", "surgical") else ()
    c = config(tmp_path, *command)
    schedule = compile_schedule(c.finetune, STAGES, c.trainer.max_epochs)
    whole = run(tmp_path / "whole", *command).folder

    ahead = stops(schedule)
    break_at(monkeypatch, ahead)
    for _ in range(len(ahead)):
        with pytest.raises(PullThePlugError):
            run(tmp_path / "broken", *command)
    broken = run(tmp_path / "broken", *command).folder
    assert not ahead
    assert_same_run(broken, whole)


def test_the_schedules_stop_at_every_kind_of_place():
    phases = Counter()
    for name, settings in SCHEDULES.items():
        c = config(Path("runs"), "model=resnet18", *SHORT, *settings)
        schedule = compile_schedule(c.finetune, STAGES, c.trainer.max_epochs)
        phases[name] = len(schedule.phases)
        assert len(stops(schedule)) == 3 * len(schedule.phases), "each phase has a first epoch and another one"
    assert phases == {"full": 1, "linear_probe": 1, "lp_ft": 2, "gradual": 6, "layer_decay": 1, "surgical": 1}
