"""A run's log, and that notes on a run are no part of it: it resumes, and keeps its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ddtl.commands import cli
from ddtl.records import notes
from ddtl.training.callbacks import EarlyEnd
from ddtl.training.train import EndedEarly, train
from ddtl.utils.reading import read_lines
from tests.support import runs
from tests.support.tiny import tiny  # noqa: F401  # a fixture


def test_the_log_contains_the_epochs(tmp_path: Path, tiny: str) -> None:  # noqa: F811
    folder = runs.run(tmp_path, tiny).folder
    log = (folder / "log.txt").read_text()
    assert [f"epoch {i}/3" in log for i in (1, 2, 3)] == [True] * 3
    before = log
    runs.run(tmp_path, tiny)  # finished: nothing is trained, and nothing is written
    assert (folder / "log.txt").read_text() == before


class AfterOne(EarlyEnd):
    """Ends the fit after its first epoch."""

    def decide(self, trainer: Any) -> str | None:
        return "stopped" if trainer.current_epoch >= 1 else None


@pytest.mark.slow
def test_notes_change_neither_name_nor_resume(tmp_path: Path, tiny: str) -> None:  # noqa: F811
    plain = runs.run(tmp_path / "plain", tiny)
    with pytest.raises(EndedEarly) as ended:
        train(runs.config(tmp_path / "noted", tiny), [AfterOne()])
    folder = ended.value.folder
    assert cli.main(["runs", "note", folder.name, "lr=0.1 is too high", f"paths.runs_dir={tmp_path / 'noted'}"]) == 0
    assert cli.main(["runs", "tag", folder.name, "baseline", f"paths.runs_dir={tmp_path / 'noted'}"]) == 0
    identity = (folder / "identity.json").read_bytes()
    resumed = runs.run(tmp_path / "noted", tiny)
    assert resumed.folder == folder
    assert resumed.folder.name == plain.folder.name
    assert (folder / "identity.json").read_bytes() == identity
    assert notes.read(folder) == notes.Notes("lr=0.1 is too high", ("baseline",))
    scores = [json.loads((run / "results.json").read_text())["val"] for run in (plain.folder, folder)]
    assert scores[0] == scores[1]
    kept = [[row["val/loss"] for row in read_lines(run / "metrics.jsonl")] for run in (plain.folder, folder)]
    assert kept[0] == kept[1]
    assert "resuming" in (folder / "log.txt").read_text()
