"""Train many variants and compare them on validation: ``python sweep.py --help``."""

import sys

from ddtl.utils import ending, isolation

if __name__ == "__main__":
    ending.prepare()
    isolation.isolate()  # before anything is imported that the current folder may have a file for

from ddtl.commands.launch import guarded
from ddtl.commands.sweep import main

if __name__ == "__main__":
    ending.leave(guarded(main, sys.argv[1:]))
