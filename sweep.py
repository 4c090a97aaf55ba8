"""Train many variants and compare them on validation: ``python sweep.py --help``."""

import sys

from ddtl import isolation

if __name__ == "__main__":
    isolation.isolate()  # before anything is imported that the current folder may have a file for

from ddtl.launch import guarded
from ddtl.sweeps.command import main

if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
