"""``sweep.py``, and ``ddtl sweep``: every combination of the values given, compared on validation."""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddtl import console, multirun
from ddtl.config import command_line, load
from ddtl.errors import UserError
from ddtl.evaluation.names import MONITORS
from ddtl.files import read_lines
from ddtl.training.command import FOLDER_TO

LOCKED = "evaluation.test=false"

HELP = """\
Train every combination of the values given, one run after the other, and compare them on validation.

  python sweep.py optimizer.lr=1e-4,3e-4,1e-3 seed=0,1,2
  python sweep.py dataset=covid19ct finetune=full,linear_probe
  python sweep.py dataset=covid19ct dataset.protocol=kfold 'dataset.fold=range(5)'

The test set stays unseen: choose by validation, then score the choice once with the line that is printed. Every run is
one of train.py with a folder of its own; the same command goes on where it was stopped. `python train.py --help` shows
what can be set.
"""


@dataclass(frozen=True)
class Outcome:
    """A run of the sweep: what it was told, the monitor's best value, and its folder (both None where it failed)."""

    job: list[str]
    score: float | None
    folder: Path | None


def main(argv: Sequence[str]) -> int:
    """Run all combinations; the exit code is that of the first run that failed, else 0.

    Raises:
        UserError: with one line for every mistake in any combination, before the first run.
    """
    command = command_line.parse(argv)
    if command.help:
        sys.stdout.write(HELP)
        return 0
    overrides = command.overrides
    if any(word.lstrip("+").startswith("evaluation.test=") for word in overrides):
        raise UserError(
            "evaluation.test: a sweep never looks at the test set. Score the run that you choose afterwards."
        )
    if command.show_config:
        sys.stdout.write(load.composed_yaml([*overrides, LOCKED]))
        return 0
    jobs = multirun.planned([*overrides, LOCKED])
    outcomes, codes = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for number, job in enumerate(jobs, start=1):
            code, folder = _run(job, f"{number} of {len(jobs)}", Path(scratch) / str(number))
            codes.append(code)
            outcomes.append(Outcome(job, None if folder is None else _score(folder), folder))
    monitor = load.check(jobs[0])[0].trainer.monitor
    _show(outcomes, monitor)
    return next((code for code in codes if code), 0)


def _run(job: list[str], number: str, folder_to: Path) -> tuple[int, Path | None]:
    package = str(Path(__file__).resolve().parents[2])  # a checkout need not be installed
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, FOLDER_TO: str(folder_to), "PYTHONPATH": os.pathsep.join(paths)}
    code = multirun.run_one([sys.executable, "-m", "ddtl", "train"], job, number, environment)
    return code, Path(folder_to.read_text(encoding="utf-8")) if code == 0 else None


def _score(folder: Path) -> float:
    """The monitor's value in the epoch that was kept."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    row = next(row for row in read_lines(folder / "metrics.jsonl") if row["epoch"] == results["best_epoch"])
    return float(row[results["monitor"]])


def _show(outcomes: Sequence[Outcome], monitor: str) -> None:
    """The runs, best first, and the line that scores the best one on the test set."""
    from rich.markup import escape
    from rich.table import Table

    common = set(outcomes[0].job).intersection(*(outcome.job for outcome in outcomes))
    sign = 1 if MONITORS[monitor] == "min" else -1
    done = sorted((o for o in outcomes if o.score is not None), key=lambda o: sign * (o.score or 0.0))
    table = Table(title="validation, best first", title_justify="left")
    for heading in ("run", monitor, "folder"):
        table.add_column(heading, justify="right" if heading == monitor else "left")
    for outcome in [*done, *(o for o in outcomes if o.score is None)]:
        what = " ".join(word for word in outcome.job if word not in common) or "(the only one)"
        score = "–" if outcome.score is None else f"{outcome.score:.4f}"
        table.add_row(escape(what), score, escape(outcome.folder.name) if outcome.folder else "failed, see above")
    console.out.print(table)
    if done:
        console.out.print("The best one's test score:", end=" ")
        console.out.print(escape(shlex.join(["python", "train.py", *(w for w in done[0].job if w != LOCKED)])))
