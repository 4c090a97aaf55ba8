"""``-m``: every combination of the values given, one process a job, one after the other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ddtl.config.command_line import expand
from ddtl.config.load import ConfigError, check
from ddtl.schema.run import Config
from ddtl.utils import console
from ddtl.utils.errors import Stopped

# A file that a parent process wants the run's folder written to.
FOLDER_TO = "DDTL_FOLDER_TO"

Job = list[str]


def run_each(overrides: Sequence[str], argv: Sequence[str]) -> int:
    """Run each job and return the first exit code that is not 0. All jobs are checked before the first one starts.

    Args:
        overrides: what was requested, with several values.
        argv: the words of this process's command line that the jobs' own take the place of.

    Raises:
        UserError: with one line for every mistake in any job.
    """
    jobs = plan_jobs(overrides)
    program = [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(argv)]]
    with tempfile.TemporaryDirectory() as scratch:
        reports = [Path(scratch) / str(number) for number in range(len(jobs))]
        codes = [
            run_one(program, job, f"{number + 1} of {len(jobs)}", {**os.environ, FOLDER_TO: str(reports[number])})
            for number, job in enumerate(jobs)
        ]
        folders = [Path(file.read_text()) if file.exists() else None for file in reports]
    if len(jobs) > 1:
        from ddtl.records import run
        from ddtl.reports import terminal

        terminal.job_table(jobs, [None if folder is None else run.read(folder) for folder in folders])
    return next((code for code in codes if code), 0)


def plan_jobs(overrides: Sequence[str]) -> list[Job]:
    """Return the jobs, each of them checked.

    Raises:
        UserError: with one line for every mistake in any job.
    """
    jobs, problems = expand(overrides)
    configs: list[Config] = []
    for job in jobs:
        try:
            config, _ = check(job)  # each job logs its own warnings
        except ConfigError as error:
            problems += error.problems
        else:
            configs.append(config)
            problems += _too_many_devices(job, config)
    problems += _shared_names(configs)
    if problems:
        raise ConfigError(problems)
    return jobs


def _too_many_devices(job: Job, config: Config) -> Iterator[str]:
    trainer = config.trainer
    if trainer.devices * trainer.num_nodes > 1:
        yield (
            f"-m runs one job after the other on one device each, but {' '.join(job)} requests "
            f"trainer.devices={trainer.devices}, trainer.num_nodes={trainer.num_nodes}. "
            "Start such runs one by one."
        )


def _shared_names(configs: Sequence[Config]) -> Iterator[str]:
    folders = Counter(
        (config.paths.runs_dir, config.dataset.name, config.run.name)
        for config in configs
        if config.run.name is not None and not config.run.overwrite
    )
    for (_, _, name), count in folders.items():
        if count > 1:
            yield (
                f"run.name={name}: {count} jobs would share this one folder. "
                f"Leave run.name out, or put what differs into it: 'run.name={name}-${{seed}}'."
            )


def run_one(program: Sequence[str], job: Job, number: str, environment: Mapping[str, str] | None = None) -> int:
    """Run a job in a process of its own.

    Args:
        program: the words before the job's.
        job: overrides.
        number: which job it is, for the person.
        environment: of the process; None: this one's.

    Returns:
        Its exit code.

    Raises:
        Stopped: the job was stopped by a signal, which was meant for the whole command.
    """
    words = " ".join(job) or "(defaults)"
    console.line(f"\njob {number}: {words}")
    with subprocess.Popen([*program, *job], env=environment) as process:
        try:
            code = process.wait()
        except Stopped as stop:
            # Ctrl-C reaches every process at the terminal; anything else reached this one alone. Let the job unwind.
            if stop.exit_code != 128 + signal.SIGINT:
                process.terminate()
            process.wait()
            raise
    if code < 0 or code >= 128:
        raise Stopped(-code if code < 0 else code - 128)
    if code:
        console.line(f"job {number} ended with exit code {code}: {words}")
    return code
