"""Train many variants and compare them on validation: ``python sweep.py --help``."""

import sys

from ddtl.utils import isolation

if __name__ == "__main__":
    isolation.isolate()  # before anything is imported that the current folder may have a file for

from ddtl.commands.launch import guarded
from ddtl.commands.sweep import main

if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
