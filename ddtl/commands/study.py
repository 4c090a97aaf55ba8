"""``sweep.py study=…``: many runs, each scored on all its test sets, from one command."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace

from ddtl.config.command_line import CommandLine
from ddtl.records import study_folder
from ddtl.schema.scores import with_unit
from ddtl.studies import settings
from ddtl.studies.settings import StudyPlan
from ddtl.utils import console
from ddtl.utils.errors import EXIT_FAILURE, UserError
from ddtl.utils.reading import RECORD, read_text
from ddtl.utils.redaction import redact_tree
from ddtl.utils.wording import count

log = logging.getLogger(__name__)


def main(command: CommandLine) -> int:
    """Check all of the command, then run the study; the exit code is 1 where a run or an evaluation failed.

    Raises:
        UserError: with one line for every mistake found; nothing has been started.
        TrainingFailure: the study cannot continue as things are.
        Stopped: by a signal; the same command resumes it.
    """
    plan = settings.read(command.overrides)
    if command.show_config:
        import yaml

        tree = {**plan.settings.model_dump(mode="json"), "train": plan.configs[0].model_dump(mode="json")}
        sys.stdout.write(yaml.safe_dump(redact_tree(tree), sort_keys=False))
        return 0
    for note in plan.notes:
        log.warning(note)
    if plan.settings.preview is not None:
        console.out.print("\n".join(_preview(plan, plan.settings.preview)), markup=False)
        return 0
    return run(plan)


def run(plan: StudyPlan) -> int:
    """Run what is not done yet, and write the page and the tables; the exit code is 1 where a part failed.

    Raises:
        TrainingFailure: the study cannot continue as things are.
        Stopped: by a signal; the same command resumes it.
    """
    import optuna

    from ddtl.data.datasets import registry
    from ddtl.studies import execute
    from ddtl.sweeps import engines
    from ddtl.sweeps.workers.progress import ProgressDisplay

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for config in {config.dataset.model_dump_json(): config for config in plan.configs}.values():
        registry.require_images(config)
    evaluations = sum(len(job.targets) for job in plan.jobs)
    console.line(f"study {plan.name}: {count(len(plan.jobs), 'run')}, {count(evaluations, 'score')}")
    console.line(f"folder: {plan.folder}")
    with ProgressDisplay(with_unit(plan.configs[0].trainer.monitor), of="run") as watch:
        # The best of runs on several datasets gives no information.
        study = execute.execute(plan, engines.run, lambda now: watch.update(replace(now, best=None, front=())))
    _conclude(plan)
    lost = study_folder.lost(study)
    for line in lost:
        console.error(line)
    return EXIT_FAILURE if lost else 0


def _preview(plan: StudyPlan, most: int) -> list[str]:
    """Return the first runs as commands, each with its evaluations."""
    import shlex

    from ddtl.utils.wording import train_command

    lines = []
    for job in plan.jobs[:most]:
        lines.append(train_command(job.overrides) + (" model.weights=RUN" if job.after is not None else ""))
        lines += [f"  ddtl evaluate RUN {shlex.join(target.words)}" for target in job.targets if target.words]
    return lines


def _conclude(plan: StudyPlan) -> None:
    """Write the controls, the study's page and its tables; on a full disk only a warning: the disk is full because of
    something else, and the results are on it.
    """
    from ddtl.reports.study import report
    from ddtl.studies import controls, subjects

    try:
        if pairs := subjects.pairs(plan):
            controls.write(plan.folder, pairs)
        page = report.write(plan.folder)
        console.out.print(read_text(plan.folder / "tables.txt", RECORD), markup=False)
        console.line(f"report: {page}")
    except (OSError, UserError) as error:
        log.warning("%s: no report could be written (%s)", plan.folder, error)
