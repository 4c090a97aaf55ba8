"""``-m``: every combination of the values given, one process a job, one after the other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from ddtl import console
from ddtl.config.command_line import expand
from ddtl.config.load import load
from ddtl.errors import UserError


def run_each(overrides: Sequence[str]) -> int:
    """Run each job and return the first exit code that is not 0. All jobs are checked before the first one starts.

    Raises:
        UserError: a job has a mistake, or asks for several devices.
    """
    jobs = expand(overrides)
    for job in jobs:
        trainer = load(job).trainer
        if trainer.devices * trainer.num_nodes > 1:
            raise UserError(
                f"-m runs one job after the other on one device each, but {' '.join(job)} asks for "
                f"trainer.devices={trainer.devices}, trainer.num_nodes={trainer.num_nodes}. "
                "Start such runs one by one, or search with sweep.py."
            )
    first_bad = 0
    for number, job in enumerate(jobs, start=1):
        console.line(f"\njob {number} of {len(jobs)}: {' '.join(job) or '(defaults)'}")
        code = subprocess.run([sys.executable, sys.argv[0], *job], check=False).returncode
        first_bad = first_bad or code
        if code < 0 or code >= 128:
            return code  # stopped by a signal, which was meant for the whole command
    return first_bad
