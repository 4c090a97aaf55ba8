"""The installed command ``ddtl``, and ``python -m ddtl``."""

import sys


def script() -> None:
    """The entry point of the installed command."""
    from ddtl.utils import ending, isolation

    ending.prepare()
    isolation.isolate()
    from ddtl.commands.cli import main  # only now: a module of the current folder must not shadow one of these
    from ddtl.commands.launch import guarded

    ending.leave(guarded(main, sys.argv[1:]))


if __name__ == "__main__":
    script()
