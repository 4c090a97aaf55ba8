"""The installed command ``ddtl``, and ``python -m ddtl``."""

import sys


def script() -> None:
    """The entry point of the installed command."""
    from ddtl.utils.isolation import isolate

    isolate()
    from ddtl.commands.cli import main  # only now: a module of the current folder must not shadow one of these
    from ddtl.commands.launch import guarded

    sys.exit(guarded(main, sys.argv[1:]))


if __name__ == "__main__":
    script()
