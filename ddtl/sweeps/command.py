"""``sweep.py``, and ``ddtl sweep``: search for settings on validation, then score the choice on the test set, once."""

from __future__ import annotations

import importlib.util
import logging
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ddtl import console, ranks
from ddtl.config import command_line
from ddtl.config.overrides import key_of
from ddtl.errors import EXIT_FAILURE, UserError

if TYPE_CHECKING:
    from ddtl.sweeps.settings import Plan
    from ddtl.sweeps.store import Store

log = logging.getLogger(__name__)

_SHOWN = 20  # trials in the table at the end


def main(argv: Sequence[str]) -> int:
    """Read the command line, check all of it, then search.

    Raises:
        UserError: with one line for every mistake found; nothing has been started.
        TrainingFailure: the sweep cannot go on as things are.
        Stopped: by a signal; the same command goes on.
    """
    command = command_line.parse(argv)
    if command.help:
        from ddtl.sweeps import help_page

        sys.stdout.write(help_page.render())
        return 0
    ranks.alone("sweep.py")
    if command.multirun:
        raise UserError("-m: sweep.py takes several values for a key as it is. Leave -m out.")
    from ddtl.studies import settings as study_settings
    from ddtl.sweeps import settings

    if study_settings.is_asked(command.overrides):
        from ddtl.studies import command as study

        return study.main(command)
    if command.show_config:
        sys.stdout.write(settings.composed_yaml(command.overrides))
        return 0
    plan = settings.read(command.overrides)
    for note in plan.notes:
        log.warning(note)
    if plan.settings.preview is not None:
        from ddtl.sweeps import preview

        console.out.print("\n".join(preview.lines(plan, plan.settings.preview)), markup=False)
        return 0
    return _search(plan)


def _search(plan: Plan) -> int:
    """Run the trials that are left, and what comes after them; the exit code.

    Of a grid every trial counts, of a search only that there is a completed one.
    """
    import optuna

    from ddtl.data import catalogue
    from ddtl.sweeps import finalize, opening

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    catalogue.require_images(plan.base)
    store = opening.opened(plan)
    try:
        _announce(store)
        try:
            _run(store)
            _show(store)
            if plan.settings.finalize and (found := finalize.finalize(store, _run)) is not None:
                finalize.told(found)
        finally:
            _write(store)
        now = store.snapshot()
    finally:
        store.close()
    return EXIT_FAILURE if now.failed and (plan.settings.search is None or not now.complete) else 0


def _announce(store: Store) -> None:
    """Where the sweep stands, and how to watch it."""
    now = store.snapshot()
    begun = now.total - now.left
    console.line(f"sweep {store.plan.name}: {now.total} trials{f', {begun} of them done' if begun else ''}")
    console.line(f"folder: {store.folder}")
    journal = store.folder / "journal.log"
    if importlib.util.find_spec("optuna_dashboard") is not None and journal.exists():
        console.line(f"to look into it: optuna-dashboard --host 127.0.0.1 {shlex.quote(str(journal))}")


def _run(store: Store) -> None:
    """Run the trials that are left, and show how it goes."""
    from ddtl.sweeps import engines
    from ddtl.sweeps.watch import Watch

    with Watch(store.plan.base.trainer.monitor) as watch:
        engines.run(store, watch.update)


def _show(store: Store) -> None:
    """The completed trials, best first, the failed ones, and the line that scores the best one on the test set."""
    from optuna.study import StudyDirection
    from optuna.trial import TrialState
    from rich.markup import escape
    from rich.table import Table

    from ddtl.sweeps import task

    sign = 1 if store.study.directions[0] == StudyDirection.MINIMIZE else -1
    done = [trial for trial in store.trials() if trial.state == TrialState.COMPLETE]
    done.sort(key=lambda trial: sign * trial.values[0])
    table = Table(title="validation, best first", title_justify="left")
    names = {"score": store.plan.base.trainer.monitor, "seconds": "seconds"}
    table.add_column("trial", justify="right")
    for objective in store.plan.settings.sweep.objective:
        table.add_column(names[objective], justify="right")
    table.add_column("settings")
    for trial in done[:_SHOWN]:
        words = [word for word in trial.user_attrs[task.OVERRIDES] if word not in store.plan.fixed]
        table.add_row(str(trial.number), *(f"{value:.4f}" for value in trial.values), escape(" ".join(words)))
    for trial in [trial for trial in store.trials() if trial.state == TrialState.FAIL][:_SHOWN]:
        reason, words = (trial.user_attrs[key] for key in (task.REASON, task.WORDS))
        console.error(f"trial {trial.number} failed ({reason.replace('_', ' ')}): {words}")
    if done:
        console.out.print(table)
        words = [word for word in done[0].user_attrs[task.OVERRIDES] if key_of(word) != "evaluation.test"]
        console.out.print("The best one's test score:", task.line(tuple(words)), markup=False)


def _write(store: Store) -> None:
    """The sweep's record and its page; on a full disk only a warning, for what filled it is told anyway."""
    from ddtl.reports import command as report
    from ddtl.sweeps import record

    try:
        record.write(store)
        console.line(f"report: {report.write(store.folder)}")
    except OSError as error:
        log.warning("%s: no report could be written (%s)", store.folder, error.strerror or error)
