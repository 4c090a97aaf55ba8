"""Train, score and record one model: ``python train.py --help`` says what can be asked for."""

from __future__ import annotations

import sys

from ddtl.launch import guarded
from ddtl.training.command import main

if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
