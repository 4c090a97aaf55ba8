"""``train.py``, and ``ddtl train`` where only the package is installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddtl.commands.multirun import FOLDER_TO, run_each
from ddtl.utils.files import write_text
from ddtl.utils.ranks import is_first

if TYPE_CHECKING:
    from ddtl.schema.run import Config
    from ddtl.training.results import RunResult


def main(argv: Sequence[str]) -> int:
    """Read the command line, check all of it, then train."""
    from ddtl.config import command_line, help_page, load

    command = command_line.parse(argv)
    if command.help:
        sys.stdout.write(help_page.render())
        return 0
    if command.show_config:
        sys.stdout.write(load.composed_yaml(command.overrides))
        return 0
    if command.multirun:
        return run_each(command.overrides, argv)

    config = load.load(command.overrides)
    from ddtl.reports import terminal

    result = run(config)
    if is_first():
        terminal.run_result(config, result)
        if FOLDER_TO in os.environ:
            write_text(Path(os.environ[FOLDER_TO]), str(result.folder.absolute()))
    return 0


def run(config: Config) -> RunResult:
    """Train, score and record a run with its page; resume it where it was stopped.

    Raises:
        UserError, TrainingFailure: as :func:`ddtl.training.train.train` does.
    """
    from ddtl.data.datasets import registry
    from ddtl.utils.memory import tune_allocator
    from ddtl.utils.threads import share_out

    registry.require_images(config)
    share_out(config.trainer.devices)
    tune_allocator()
    from ddtl.reports.run.publish import publish
    from ddtl.training.train import train

    return train(config, publish=publish)
