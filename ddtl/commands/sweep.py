"""``sweep.py``, and ``ddtl sweep``: search for settings on validation, then score the choice on the test set, once."""

from __future__ import annotations

import importlib.util
import logging
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from ddtl.config import command_line
from ddtl.config.overrides import key_of
from ddtl.records import run_folder
from ddtl.schema.scores import with_unit
from ddtl.utils import console, ranks
from ddtl.utils.errors import EXIT_FAILURE, UserError
from ddtl.utils.redaction import move_to_environment
from ddtl.utils.wording import count, duration

if TYPE_CHECKING:
    from ddtl.sweeps.plan.settings import Plan
    from ddtl.sweeps.store.snapshot import Snapshot
    from ddtl.sweeps.store.store import Store

log = logging.getLogger(__name__)

_SELDOM = 2.0  # seconds between two records of a sweep that is under way
_MOST_ROWS = 20  # trials in the table at the end


def main(argv: Sequence[str]) -> int:
    """Read the command line, check all of it, then search.

    Raises:
        UserError: with one line for every mistake found; nothing has been started.
        TrainingFailure: the sweep cannot continue as things are.
        Stopped: by a signal; the same command resumes it.
    """
    command = command_line.parse(argv)
    if command.help:
        from ddtl.commands import sweep_help

        sys.stdout.write(sweep_help.render())
        return 0
    ranks.require_one_process("sweep.py")
    command = replace(command, overrides=move_to_environment(command.overrides))
    if command.multirun:
        raise UserError("-m: sweep.py takes several values for a key as it is. Leave -m out.")
    from ddtl.studies import settings as study_settings
    from ddtl.sweeps.plan import settings

    if study_settings.is_requested(command.overrides):
        from ddtl.commands import study

        return study.main(command)
    if command.show_config:
        sys.stdout.write(settings.composed_yaml(command.overrides))
        return 0
    plan = settings.read(command.overrides)
    announce_notes(plan.notes)
    if plan.settings.preview is not None:
        from ddtl.sweeps.plan import preview

        console.out.print("\n".join(preview.lines(plan, plan.settings.preview)), markup=False)
        return 0
    return search(plan)


def announce_notes(notes: Sequence[str]) -> None:
    """Report what a plan excludes or changes."""
    for note in notes:
        log.warning(note)


def search(plan: Plan) -> int:
    """Run the trials that are left, and what comes after them; the exit code.

    Of a grid every trial counts, of a search only that there is a completed one.
    """
    import optuna

    from ddtl.data.datasets import registry
    from ddtl.sweeps import finalize
    from ddtl.sweeps.store import open

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    registry.require_images(plan.base)
    store = open.open_sweep(plan)
    try:
        _announce(store)
        try:
            with run_folder.announced(store.folder):
                _run(store)
                _show(store)
                if plan.settings.finalize and (found := finalize.finalize(store, _run)) is not None:
                    finalize.print_result(found)
        finally:
            _write(store)
        now = store.snapshot()
    finally:
        store.close()
    return EXIT_FAILURE if now.failed and (plan.settings.search is None or not now.complete) else 0


def _announce(store: Store) -> None:
    """Print the state of the sweep, and how to watch it."""
    now = store.snapshot()
    begun = now.total - now.left
    console.line(f"sweep {store.plan.name}: {count(now.total, 'trial')}{f', {begun} of them done' if begun else ''}")
    for text in work_left(store.plan, now):
        console.line(text)
    console.line(f"folder: {store.folder}")
    journal = store.folder / "journal.log"
    if importlib.util.find_spec("optuna_dashboard") is not None and journal.exists():
        console.line(f"to look into it: optuna-dashboard --host 127.0.0.1 {shlex.quote(str(journal))}")


def work_left(plan: Plan, now: Snapshot) -> list[str]:
    """Return what will be trained, ``finalize`` included, and for how long where trials have shown that."""
    settings, epochs = plan.settings, plan.base.trainer.max_epochs
    runs = 2 * settings.sweep.seeds if settings.finalize and settings.search is not None else 0
    pruned = "" if settings.search is None or "NopPruner" in settings.pruner.name else ", fewer where trials are pruned"
    lines = []
    if now.left:
        lines.append(
            f"to train: {count(now.left, 'trial')} of {count(epochs, 'epoch')}, {now.left * epochs:,} in all{pruned}"
        )
    if runs:
        lines.append(
            f"then finalize: the best and the default settings with {count(settings.sweep.seeds, 'seed')} each, "
            f"{runs * epochs:,} epochs, and once their scores on the test set"
        )
    if now.left and now.seconds:
        workers = settings.engine.workers if isinstance(settings.engine.workers, int) else 1
        each = sum(now.seconds) / len(now.seconds) / workers
        whole = f", {duration((now.left + runs) * each)} with finalize" if runs else ""
        lines.append(f"about {duration(now.left * each)}{whole}, at the pace of the trials that are done")
    elif now.left:
        lines.append("how long that takes is shown when the first trial has ended")
    return lines


def _run(store: Store) -> None:
    """Run the trials that are left, and show how it goes."""
    from ddtl.sweeps import engines
    from ddtl.sweeps.workers.progress import ProgressDisplay

    record = LiveRecord(store)
    with ProgressDisplay(with_unit(store.plan.base.trainer.monitor)) as watch:

        def seen(snapshot: Snapshot) -> None:
            watch.update(snapshot)
            record.update(snapshot)

        engines.run(store, seen)


class LiveRecord:
    """Writes the record of a sweep while its trials run, for the dashboard: where they have advanced, and seldom
    enough that it takes a fiftieth of the time.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._next = 0.0
        self._last: tuple[object, ...] = ()

    def update(self, snapshot: Snapshot) -> None:
        """Write the record, if it is another one and time for it; a failure is left to the end's to report."""
        from ddtl.sweeps.store import record

        now = snapshot.complete, snapshot.pruned, snapshot.failed, [(r.number, r.epoch) for r in snapshot.running]
        began = self._clock()
        if now == self._last or began < self._next:
            return
        with suppress(Exception):  # an unreachable database, a full disk: the trials are worth more
            record.write(self._store)
            self._last = now
        self._next = began + max(_SELDOM, 50 * (self._clock() - began))


def _show(store: Store) -> None:
    """Print the settings, best first, the failed trials, and the line that scores the best setting on the test set."""
    from optuna.trial import TrialState
    from rich.markup import escape
    from rich.table import Table

    from ddtl.reports.sweep import replicates
    from ddtl.sweeps.store import snapshot, task
    from ddtl.utils import wording

    trials, found = store.trials(), snapshot.settings(store.study)
    repeated = replicates.varied(trial.user_attrs.get(task.OVERRIDES, ()) for trial in trials)
    title = f"validation, mean over {' and '.join(repeated)}, best first" if repeated else "validation, best first"
    table = Table(title=title, title_justify="left")
    names = {"score": with_unit(store.plan.base.trainer.monitor), "seconds": "seconds"}
    table.add_column("trials" if repeated else "trial", justify="right")
    for objective in store.plan.settings.sweep.objective:
        table.add_column(names[objective], justify="right")
        if repeated and objective == "score":
            table.add_column("SD", justify="right")
            table.add_column("lowest to highest", justify="right")
    table.add_column("settings", overflow="fold")
    for one in found[:_MOST_ROWS]:
        words = [word for word in one.words if word not in store.plan.fixed]
        score, *others = (f"{value:.4f}" for value in one.means)
        shown = [", ".join(map(str, one.trials)), score, *others]
        if repeated:
            shown[0] += "" if len(one.trials) == one.of else f" ({one.of - len(one.trials)} not complete)"
            spread = "–" if one.deviation is None else f"{one.deviation:.4f}"
            shown[2:2] = [spread, f"{min(one.scores):.4f} to {max(one.scores):.4f}"]
        table.add_row(*shown, escape(" ".join(words)))
    for trial in [trial for trial in trials if trial.state == TrialState.FAIL][:_MOST_ROWS]:
        reason, words = (trial.user_attrs[key] for key in (task.REASON, task.WORDS))
        console.error(f"trial {trial.number} failed ({reason.replace('_', ' ')}): {words}")
    if found:
        console.out.print(table, soft_wrap=False)
        typed = tuple(word for word in found[0].words if key_of(word) != "evaluation.test")
        which = "The best setting's test score:" if repeated else "The best one's test score:"
        parts = replicates.parts(trial.user_attrs.get(task.OVERRIDES, ()) for trial in trials)
        console.out.print(which, wording.train_command((*typed, *parts)), markup=False)


def _write(store: Store) -> None:
    """Write the sweep's record and its page; on a full disk only a warning, for the trials have reported it already."""
    from ddtl.commands import report
    from ddtl.sweeps.store import record

    try:
        record.write(store)
        console.line(f"report: {report.write(store.folder)}")
    except OSError as error:
        log.warning("%s: no report could be written (%s)", store.folder, error.strerror or error)
