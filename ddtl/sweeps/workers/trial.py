"""What runs in a trial's process: one run as train.py would make it, whose end is reported to the worker."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import connection, parent_process
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from ddtl.sweeps.store import outcome as settle
from ddtl.sweeps.store.outcome import Outcome
from ddtl.sweeps.store.reasons import explain_failure
from ddtl.utils import console, memory, notices, ranks, signals, streams, threads
from ddtl.utils.errors import Stopped, TrainingFailure, UserError
from ddtl.utils.files import append_to, write_json
from ddtl.utils.isolation import skip_matplotlibrc

if TYPE_CHECKING:
    from ddtl.records.run_folder import RunFolder
    from ddtl.schema.run import Config
    from ddtl.sweeps.store.store import Store
    from ddtl.sweeps.workers.report_callback import AskSweep

_POLL = 1.0  # seconds between two checks of a run that another trial works at


@dataclass(frozen=True)
class TrialJob:
    """What a trial's process is given.

    Attributes:
        sweep: the sweep's folder.
        number: of the trial.
        overrides: for train.py.
        log: takes everything that is printed.
        stop: the file whose presence requests the end of all trials after their epoch.
    """

    sweep: Path
    number: int
    overrides: tuple[str, ...]
    log: Path
    stop: Path

    @property
    def failure(self) -> Path:
        """Where another process than the first one of a distributed trial says what broke it."""
        return self.log.with_suffix(".failure.json")


def run_forked(job: TrialJob, environment: Mapping[str, str], out: connection.Connection) -> NoReturn:
    """Run the process of a trial on one device. It never returns, so that nothing can block its end."""
    if hasattr(os, "setsid"):
        os.setsid()  # a Ctrl-C at the terminal is for the worker to answer; and all that starts here can end at once
    os.environ.clear()
    os.environ.update(environment)
    with append_to(job.log) as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    streams.steady()
    console.renew()
    sys.argv = ["train.py", *job.overrides]  # for the records of the run; the sweep's own words may contain a password
    parent = parent_process()
    assert parent is not None
    out.send(asdict(_outcome(job, parent.sentinel)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def main(argv: list[str]) -> int:
    """Return the process of a trial on several devices; Lightning's launcher starts the command again for each other
    one.

    Args:
        argv: the number of the file that the outcome goes to, the fields of the job, its overrides last.
    """
    memory.collect_seldom()
    out, sweep, number, log, stop, *overrides = argv
    job = TrialJob(Path(sweep), int(number), tuple(overrides), Path(log), Path(stop))
    if ranks.is_first():
        outcome = _outcome(job, sys.stdin.fileno())
        with connection.Connection(int(out), readable=False) as pipe:
            pipe.send(asdict(outcome))
        return 0
    outcome = _outcome(job)
    if outcome.end in ("completed", "pruned", "stopped"):
        return 0
    write_json(job.failure, asdict(outcome))
    return 1


def _outcome(job: TrialJob, parent: int | None = None) -> Outcome:
    """Run the trial; its outcome, whatever happens.

    Args:
        job: what to run.
        parent: a file that ends with the worker, and this process with it.
    """
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.unraisablehook = lambda what: None if signals.is_regained(what) else sys.__unraisablehook__(what)
    notices.outlast()
    console.set_up_logging()
    if not ranks.is_first():
        console.be_quiet()
    try:
        return _run(job)
    except Stopped as stop:
        return settle.failed("killed", str(stop))
    except BaseException as error:
        reason, words = explain_failure(error)
        if reason == "error" and not isinstance(error, UserError | TrainingFailure):
            traceback.print_exc()
        console.error(words)
        return settle.failed(reason, words)


def _end_with(parent: int) -> None:
    """End this process, and all that it has started, as soon as the worker is gone: nobody would hear the outcome."""
    connection.wait([parent])
    os.killpg(0, signal.SIGKILL)


def _stop(signum: int, frame: FrameType | None) -> None:
    """Unwind from wherever we are, as train.py does."""
    signal.signal(signum, signal.SIG_IGN)
    signals.unwind(signum, frame)


def _run(job: TrialJob) -> Outcome:
    """Train, and return how it ended."""
    from ddtl.config import load
    from ddtl.data.datasets import registry
    from ddtl.records import test_ledger
    from ddtl.sweeps.store import open
    from ddtl.sweeps.workers.report_callback import AskSweep

    config = _group_runs(load.load(job.overrides), job.sweep.name)
    registry.require_images(config)
    threads.share_out(config.trainer.devices)
    memory.tune_allocator()
    store = open.reopen(job.sweep) if ranks.is_first() else None
    ask = AskSweep(store, job.number, config.trainer.monitor, job.stop)
    if store is None:
        return _train(config, ask)
    store.note(job.number, {"phases": _phases(config), "epochs": config.trainer.max_epochs})
    plans = store.plan.planned
    try:
        with test_ledger.count_as_one(plans[job.number] if job.number < len(plans) else ""):
            return _train(config, ask)
    finally:
        store.note(job.number, {f"{stage}_seconds": round(seconds, 3) for stage, seconds in ask.seconds.items()})


def _train(config: Config, ask: AskSweep) -> Outcome:
    from ddtl.records.run_folder import InUse, RunFolder
    from ddtl.reports import terminal
    from ddtl.reports.run.publish import publish
    from ddtl.training.train import EndedEarly, train

    reported = False
    while True:
        try:
            result = train(config, [ask], publish=partial(publish, page=config.evaluation.test))
        except EndedEarly as end:
            return settle.pruned() if end.why == "pruned" else settle.stopped()
        except InUse as problem:  # by a trial of the same configuration, whose result will be this one's, too
            if ask.stop.exists():
                return settle.stopped()
            if not reported:
                console.line(f"{problem} This trial does.")
            reported = True
            time.sleep(_POLL)
        else:
            if ranks.is_first():
                terminal.run_result(config, result)
            folder = RunFolder(result.folder)
            return settle.completed(()) if ask.store is None else _result_of(ask.store, ask, folder, config)


def _result_of(store: Store, ask: AskSweep, folder: RunFolder, config: Config) -> Outcome:
    """Return the values of a finished run, which may have been finished before the sweep; a study's is evaluated
    first.
    """
    from ddtl.sweeps.workers.report_callback import objectives

    store.note(ask.number, {"run": str(folder.path.absolute())})
    ask.reported(folder)
    if store.plan.targets:
        from ddtl.sweeps.workers import evaluate_targets

        if not evaluate_targets.all_targets(store, ask.number, folder, config, ask.stop.exists):
            return settle.stopped()
    return settle.completed(objectives(folder, store.plan.settings.sweep.objective))


def _group_runs(config: Config, group: str) -> Config:
    """Return the configuration with the trials' W&B runs in one group, where its user has not named one, and without
    weights.

    Hundreds of trials would send gigabytes; the one that is chosen can be trained again, and sent, by its line.
    """
    logger = config.logger
    wandb = logger.wandb.model_copy(update={"group": logger.wandb.group or group, "artifacts": False})
    return config.model_copy(update={"logger": logger.model_copy(update={"wandb": wandb})})


def _phases(config: Config) -> list[int]:
    """Return the epochs, from 0, in which a phase of the schedule begins."""
    from ddtl.finetuning.schedule import compile_schedule
    from ddtl.schema.backbones import stages_of

    schedule = compile_schedule(config.finetune, stages_of(config.model.key), config.trainer.max_epochs)
    return [phase.first for phase in schedule.phases]


if __name__ == "__main__":
    skip_matplotlibrc()
    sys.exit(main(sys.argv[1:]))
