"""How long a person waits: for the answer to a mistake, for the help page, and for the first training batch.

    python -m benchmarks.startup

Whole processes of train.py, in turn with a process that only imports what any Lightning script imports.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measuring import finish, interleaved, summary

ROOT = Path(__file__).resolve().parents[1]

FIRST_BATCH = """\
import sys
sys.argv = ["train.py", *sys.argv[1:]]
from ddtl.training import callbacks
class FirstBatch(Exception): pass
def stop(self, *_): raise FirstBatch
callbacks.EpochEnd.on_train_batch_end = stop
from ddtl.commands.train import main
try: main(sys.argv[1:])
except FirstBatch: sys.exit(0)
sys.exit("no batch")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first_batch = ["-c", FIRST_BATCH, "logger=none", f"paths.runs_dir={folder}/runs", "run.overwrite=true"]
        contenders = {
            "config_error_s": seconds(["train.py", "optimizer.lr=fast"], code=2),
            "help_s": seconds(["train.py", "--help"]),
            "imports_s": seconds(["-c", "import torch, torchvision, pytorch_lightning, torchmetrics"]),
            "first_batch_s": seconds(first_batch),
        }
        contenders["first_batch_s"]()  # the phantom is drawn and its images are decoded once
        figures = interleaved(contenders, arguments.rounds)
    finish(benchmark="startup", rounds=arguments.rounds, **summary(figures))


def seconds(words: list[str], code: int = 0) -> Callable[[], float]:
    """Return a whole process of Python, timed."""

    def measure() -> float:
        started = time.perf_counter()
        ended = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == code, ended.stderr
        return time.perf_counter() - started

    return measure


if __name__ == "__main__":
    main()
