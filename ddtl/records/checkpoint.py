"""``checkpoints/last.ckpt`` and ``best.ckpt``: what training resumes from, and what is scored."""

from __future__ import annotations

import pickle
import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ddtl.reading import WEIGHTS, Unreadable, opened
from ddtl.records.checking import is_number

_NEEDED = ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "callbacks", "loops")


def read(path: Path, state: Mapping[str, torch.Tensor] | None = None) -> dict[str, Any]:
    """A checkpoint of Lightning's, in the memory of the CPU.

    Args:
        path: of the file.
        state: of the module that it is for; None where it is not compared.

    Raises:
        FileNotFoundError: there is none.
        Unreadable: it was cut off or damaged, or is of another network.
    """
    fix = f"Delete it: rm {shlex.quote(str(path))}. The same command then begins at the first epoch."
    try:
        with opened(path, WEIGHTS) as file:
            with zipfile.ZipFile(file) as archive:
                size = sum(info.file_size for info in archive.infolist())
                if size > 2 * WEIGHTS or archive.testzip() is not None:  # torch itself compares no checksums
                    raise zipfile.BadZipFile
            file.seek(0)
            found = torch.load(file, map_location="cpu", weights_only=True)
    except (
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        EOFError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        NotImplementedError,
    ) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(path, "is damaged or was cut off", fix) from None
    fault = _fault(found, state)
    if fault:
        raise Unreadable(path, fault, fix)
    checkpoint: dict[str, Any] = found
    return checkpoint


def _fault(found: Any, state: Mapping[str, torch.Tensor] | None) -> str:
    """What a checkpoint lacks; nothing where it is whole."""
    if not isinstance(found, dict) or any(key not in found for key in _NEEDED):
        return "is no checkpoint of ddtl"
    if any(not isinstance(found[key], int) or not is_number(found[key]) for key in ("epoch", "global_step")):
        return "is no checkpoint of ddtl"
    kinds = {"state_dict": Mapping, "callbacks": dict, "loops": dict, "optimizer_states": list, "lr_schedulers": list}
    if any(not isinstance(found[key], kind) for key, kind in kinds.items()):
        return "is no checkpoint of ddtl"
    if not all(
        isinstance(value, torch.Tensor) and value.layout == torch.strided for value in found["state_dict"].values()
    ):
        return "is no checkpoint of ddtl"
    if state is None:
        return ""
    shapes = {name: (value.shape, value.dtype) for name, value in state.items()}
    if shapes != {name: (value.shape, value.dtype) for name, value in found["state_dict"].items()}:
        return "is of another network"
    return ""
