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
    if not _is_checkpoint(found):
        raise Unreadable(path, "is no checkpoint of ddtl", fix)
    checkpoint: dict[str, Any] = found
    if state is not None and _shapes(state) != _shapes(checkpoint["state_dict"]):
        raise Unreadable(path, "is of another network", fix)
    return checkpoint


def _is_checkpoint(found: Any) -> bool:
    kinds = {"state_dict": Mapping, "callbacks": dict, "loops": dict, "optimizer_states": list, "lr_schedulers": list}
    if not isinstance(found, dict) or not all(isinstance(found.get(key), kind) for key, kind in kinds.items()):
        return False
    counts = (found.get("epoch"), found.get("global_step"))
    return all(isinstance(count, int) and is_number(count) and count >= 0 for count in counts) and all(
        isinstance(value, torch.Tensor) and value.layout == torch.strided for value in found["state_dict"].values()
    )


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in state.items()}
