"""The installed command ``ddtl``: what it can do, each loaded when it is requested."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from ddtl.utils import ranks
from ddtl.utils.errors import UserError
from ddtl.utils.suggest import did_you_mean

# Name -> the module whose ``main(argv)`` does it, and a line about it.
COMMANDS = {
    "train": ("ddtl.commands.train", "train, score and record one model: what train.py does in a checkout"),
    "sweep": ("ddtl.commands.sweep", "train many variants and compare them on validation: what sweep.py does"),
    "finetune": ("ddtl.commands.finetune", "show which stages of the network a schedule trains in which epoch"),
    "lr-find": ("ddtl.commands.lr_find", "find a learning rate by a range test"),
    "evaluate": ("ddtl.commands.evaluate", "score a trained run with other settings, or on another dataset"),
    "compare": ("ddtl.commands.compare", "compare runs by paired tests, patient by patient"),
    "audit": ("ddtl.commands.audit", "find leaks, label conflicts and shortcuts in datasets"),
    "predict": ("ddtl.commands.predict", "predict new images with a trained run: PNG, JPEG, TIFF, DICOM"),
    "explain": (
        "ddtl.commands.explain",
        "heat maps of right and wrong decisions (Grad-CAM), and how reliable they are",
    ),
    "export": ("ddtl.commands.export", "a run's network as ONNX, or as safetensors, each with a model card"),
    "report": ("ddtl.commands.report", "write the page of a run or of a sweep, and a run's methods paragraph"),
    "dashboard": ("ddtl.commands.dashboard", "everything in the runs folder in a browser, on this machine alone"),
    "runs": ("ddtl.commands.runs", "list, show, tag and clean the runs folder; nothing is deleted without asking"),
    "data": ("ddtl.commands.data", "list, fetch and verify the public datasets; list and delete decoded images"),
    "schema": ("ddtl.commands.schema", "the configuration files' JSON Schema, for editors"),
    "completion": ("ddtl.commands.completion", "a script by which bash, zsh or fish completes what is typed"),
}


def main(argv: Sequence[str]) -> int:
    """Hand over to the command that is named first.

    Raises:
        UserError: there is no such command.
    """
    if not argv or argv[0] in ("--help", "-h"):
        sys.stdout.write(_help())
        return 0
    name, *rest = argv
    if name == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"ddtl {version('ddtl')}\n")
        return 0
    if name not in COMMANDS:
        raise UserError(f"{name}: no such command.{did_you_mean(name, COMMANDS)} There are {', '.join(COMMANDS)}.")
    if name != "train" and not {"--help", "-h"} & set(rest):
        ranks.require_one_process(f"ddtl {name}")
    if "" in rest and name != "runs":  # whose empty words delete a note or a view
        raise UserError(f"ddtl {name}: one of the words behind it is empty. Is a variable of the shell not set?")
    return int(import_module(COMMANDS[name][0]).main(rest))


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  ddtl {name:<{width}}  {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(["Deep transfer learning on small chest-CT datasets.\n", *lines, "\nMore: ddtl COMMAND --help\n"])
