"""Train, score and record one model: ``python train.py --help`` says what can be asked for."""

from __future__ import annotations

import sys

from ddtl.launch import guarded


def main(argv: list[str]) -> int:
    """Read the command line, check all of it, then train."""
    from ddtl.config import command_line, help_page, load
    from ddtl.data import catalogue

    command = command_line.parse(argv)
    if command.help:
        sys.stdout.write(help_page.render())
        return 0
    if command.show_config:
        sys.stdout.write(load.composed_yaml(command.overrides))
        return 0
    if command.multirun:
        from ddtl.multirun import run_each

        return run_each(command.overrides)

    config = load.load(command.overrides)
    catalogue.require_images(config)
    from ddtl.training.train import train

    train(config)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
