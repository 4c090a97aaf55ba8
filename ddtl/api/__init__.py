"""What ``import ddtl`` offers to scripts and notebooks: the jobs of the commands, and their records as tables.

Each function does what the command of its name does, with the same code: a run that was trained here is resumed by
``train.py`` and the other way round. Settings are those of the command line.
"""

from ddtl.api.audits import Audit, audit
from ddtl.api.comparison import compare
from ddtl.api.datasets import Batch, Dataset, dataset
from ddtl.api.folder import evaluate, load, runs
from ddtl.api.runs import HeatMaps, Run, Scored, train
from ddtl.api.session import as_words
from ddtl.api.sweeps import Study, Sweep, study, sweep

__all__ = [
    "Audit", "Batch", "Dataset", "HeatMaps", "Run", "Scored", "Study", "Sweep", "as_words", "audit", "compare",
    "dataset", "evaluate", "load", "runs", "study", "sweep", "train",
]  # fmt: skip
