"""Print the folder and the identity of the run that each of ten commands makes; without training.

    python -m tests.golden.names FOLDER NAME…

Args: the folder in which the commands are typed, and which of :data:`tests.golden.commands.NAMED`. The folder gets
their inputs. Needs the golden network: ``tests/golden/site`` in PYTHONPATH.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.golden import inputs
from tests.golden.commands import NAMED, PHANTOM, SETTINGS


def names(wanted: list[str]) -> dict[str, dict[str, Any]]:
    """By command: ``{"folder": …, "identity": {…}}``; to be called in the folder of the inputs."""
    from ddtl.config.load import load
    from ddtl.models.network import Network
    from ddtl.training.train import assemble

    inputs.draw(Path())
    network = Network(load(["dataset=phantom", *PHANTOM, *SETTINGS]).model, n_classes=2)
    inputs.write_weights(Path("weights.safetensors"), network.state_dict())
    found = {}
    for name in wanted:
        run = assemble(load(NAMED[name]))
        found[name] = {"folder": str(run.path), "identity": run.identity}
    return found


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    sys.stdout.write(json.dumps(names(sys.argv[2:] or list(NAMED)), indent=1, sort_keys=True) + "\n")
