"""``ddtl evaluate RUN``: a trained run scored in another way, or on another dataset."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddtl.commands.arguments import name_something
from ddtl.commands.run_names import run_folder
from ddtl.config import overrides as override_grammar
from ddtl.config.where import groups
from ddtl.schema.run import Config
from ddtl.training.rescore import RescoreRequest, load_run, read_request, rescore_run, with_own_runs, with_weights
from ddtl.utils.errors import UserError

if TYPE_CHECKING:
    from ddtl.records.run_folder import RunFolder
    from ddtl.training.results import RunResult

HELP = """\
A trained run, scored in another way or on another dataset; nothing is trained.

  ddtl evaluate RUN evaluation.threshold=youden           from the stored predictions, with other evaluation settings
  ddtl evaluate RUN dataset=sarscov2ct                    the run's network on the test set of another dataset
  ddtl evaluate RUN dataset=… dataset.harmonize=match     with its grey levels brought to those of the run's images
  ddtl evaluate RUN dataset=… evaluation.batchnorm=adapt  with BatchNorm's statistics of the test images
  ddtl evaluate RUN dataset=… evaluation.refit=true       and with threshold and temperature of its validation images

RUN is the run's folder, or a part of the name of just one run. What train.py takes may follow: dataset=…, dataset.…,
evaluation.…, paths.…, trainer.accelerator, trainer.precision, and verbose=true, which prints the whole table of
scores. Threshold and calibration come from the run's own validation images; what is refitted is reported with that.
Settings of its dataset that are not named stay the run's; dataset=NAME begins with those of that option.
Without dataset… (=… or .…) the run's results.json and report.html are rewritten. With it, or with BatchNorm adapted,
RUN/evaluations/<dataset>-<protocol>/ (or …-match/, …-adapt/) contains predictions.csv, results.json and report.html.
Each different scoring of a test set is a further use of it and is written into that test set's ledger, in the runs
folder that contains RUN. Where that folder contains the scores of other images, such as those of another site, a hash
follows its name.

Exit codes: 0 done, 2 a mistake in the command, 1 a failure, 129/130/143 stopped.
"""


def main(argv: Sequence[str]) -> int:
    """Run ``ddtl evaluate`` with the words that follow it; return the exit code.

    Raises:
        UserError: a mistake in the command, or a run that cannot be evaluated so.
    """
    if {"--help", "-h"} & set(argv):
        sys.stdout.write(HELP)
        return 0
    if not argv:
        name_something("evaluate", HELP)
    from ddtl.reports import terminal

    done = evaluate(run_folder("evaluate", argv), argv[1:])
    terminal.scores(done.results, done.folder, verbose=_is_verbose(argv[1:]))
    return 0


def evaluate(path: Path, words: Sequence[str]) -> RunResult:
    """Score a trained run as ``words`` say, and write the record and its page.

    Args:
        path: the run's folder.
        words: what train.py takes.

    Returns:
        The record and its folder: the run's, or one of its evaluations on other images.

    Raises:
        UserError: a mistake in the words, or a run that cannot be evaluated so.
    """
    from ddtl.records.run_folder import RunFolder
    from ddtl.reports.run.write import write_page

    folder = RunFolder(path)
    saved, results = load_run(folder)
    found = read_request(saved, words)
    found = replace(found, config=with_own_runs(found.config, folder.path, results["dataset"]))
    _check_test(words, found, results)
    _tell_own_runs(words, found.config)
    done = _on_dataset(folder, found.config, results) if found.external else rescore_run(folder, found.config, results)
    write_page(done.folder)
    return done


def _is_verbose(words: Sequence[str]) -> bool:
    return any(
        one.key == "verbose" and one.value is True for one in override_grammar.read(words, groups("train")).settings
    )


def _check_test(words: Sequence[str], found: RescoreRequest, before: dict[str, Any]) -> None:
    """Refuse to exclude the test set where it is what is scored.

    Raises:
        UserError: so it is.
    """
    typed = {setting.key for setting in override_grammar.read(words, groups("train")).settings}
    if "evaluation.test" in typed and not found.config.evaluation.test and (found.external or "test" in before):
        raise UserError(
            "evaluation.test=false: this command scores the test set and counts it as a use. Leave evaluation.test "
            "out; the command that made the run scores validation alone with evaluation.test=false"
        )


def _tell_own_runs(words: Sequence[str], config: Config) -> None:
    """Print a line where another runs folder was named than the one that contains the run."""
    from ddtl.utils import console

    for setting in override_grammar.read(words, groups("train")).settings:
        own = config.paths.runs_dir
        if setting.key == "paths.runs_dir" and Path(str(setting.value)).expanduser().resolve() != Path(own):
            console.line(f"paths.runs_dir has no effect here: test-set uses are counted where the run lies, in {own}")


def _on_dataset(folder: RunFolder, config: Config, before: dict[str, Any]) -> RunResult:
    """Return the run's network on another test set."""
    from ddtl.data.datasets import registry
    from ddtl.utils.memory import tune_allocator

    config = with_weights(config, folder.path)
    registry.require_images(config)
    tune_allocator()
    from ddtl.training.evaluate_external import score_external

    return score_external(folder, config, before)
