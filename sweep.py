"""Train many variants and compare them on validation: ``python sweep.py --help``."""

from __future__ import annotations

import sys

from ddtl.launch import guarded
from ddtl.sweeps.command import main

if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
