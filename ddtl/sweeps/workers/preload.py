"""What every trial imports, imported once: the server that trial processes are forked from loads this module.

Nothing here may start a thread, compute with torch, or ask for a GPU: a fork would share that with every trial.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from importlib import import_module

from ddtl.utils.isolation import skip_matplotlibrc
from ddtl.utils.memory import collect_seldom

# The server outlives what ends its worker's group, so that the worker hears how its trials ended; it ends when the
# worker is gone. Trials set their own answer to signals.
if hasattr(os, "setsid"):
    os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's and SciPy's start their threads as they are imported

skip_matplotlibrc()
collect_seldom()

# A trial, and what ddtl imports only where it is first needed.
MODULES = (
    "ddtl.training.train", "ddtl.reports.run.publish", "ddtl.reports.terminal", "ddtl.sweeps.workers.trial",
    "ddtl.sweeps.workers.report_callback", "ddtl.sweeps.store.open",
    "albumentations", "cv2", "hydra", "safetensors.torch", "sklearn.metrics", "wandb",
)  # fmt: skip
# W&B imports this when a run starts: for seconds, for it looks through all modules that are there by then, and so it
# comes first. It is W&B's own, and may be gone in another version.
with suppress(ImportError):
    import_module("wandb.sdk.launch.inputs.internal")
for _module in MODULES:
    import_module(_module)

# The first composition of a process takes half a second: grammars are compiled, files are read.
import_module("ddtl.config.load").check()
