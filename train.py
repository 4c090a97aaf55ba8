"""Train, score and record one model: ``python train.py --help`` says what can be requested."""

import sys

from ddtl.utils import ending, isolation

if __name__ == "__main__":
    ending.prepare()
    isolation.isolate()  # before anything is imported that the current folder may have a file for

from ddtl.commands.launch import guarded
from ddtl.commands.train import main

if __name__ == "__main__":
    ending.leave(guarded(main, sys.argv[1:]))
