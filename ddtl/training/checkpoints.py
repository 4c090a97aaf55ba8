"""A run's checkpoints, read as files from strangers: its folder may have been passed on, or a crash cut them off."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from ddtl.models import tensor_files
from ddtl.training.weight_averaging import scored_weights
from ddtl.utils import reading
from ddtl.utils.errors import UserError

# What Lightning and scoring take from a checkpoint, and of what type it is.
_PARTS = {
    "epoch": int, "global_step": int, "state_dict": Mapping, "optimizer_states": list, "lr_schedulers": list,
    "loops": Mapping, "callbacks": Mapping,
}  # fmt: skip


def read(path: Path, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return a checkpoint.

    Args:
        path: of the file.
        weights: of the network as it is now, by its names.

    Raises:
        UserError: it is not there, damaged, or of another network; and what to do.
    """
    try:
        checkpoint = tensor_files.load(path, reading.WEIGHTS, checked=True)
    except FileNotFoundError:
        raise unusable(path, "is not there") from None
    except reading.Unreadable as error:
        raise unusable(path, error.reason) from None
    except OSError as error:
        raise unusable(path, f"cannot be read ({error.strerror or error})") from None
    except Exception:  # torch meets damaged files with almost any
        raise unusable(path, "is cut off or damaged") from None
    if reason := _fault(checkpoint, weights):
        raise unusable(path, f"is damaged, {reason}")
    found: dict[str, Any] = checkpoint
    return found


def _fault(checkpoint: Any, weights: Mapping[str, Tensor]) -> str:
    if not isinstance(checkpoint, dict):
        return "no checkpoint"
    lacking = [name for name, kind in _PARTS.items() if not isinstance(checkpoint.get(name), kind)]
    if lacking:
        return f"it lacks {lacking[0]}"
    if reason := tensor_files.odd_within(checkpoint):
        return reason
    network = {
        name.removeprefix("network."): value
        for name, value in checkpoint["state_dict"].items()
        if isinstance(name, str) and name.startswith("network.")
    }
    try:
        scored = scored_weights(checkpoint) or network  # a mean that begins later is empty yet
        is_ours = all(_fits(weights, found) for found in (network, scored))
    except (KeyError, TypeError, AttributeError):
        is_ours = False
    return "" if is_ours else "its weights are not those of this run's network"


def _fits(weights: Mapping[str, Tensor], found: Mapping[str, Any]) -> bool:
    return set(found) == set(weights) and all(
        isinstance(found[name], Tensor)
        and found[name].shape == ours.shape
        and not tensor_files.differing_kind(ours, found[name])
        for name, ours in weights.items()
    )


@contextmanager
def restoring(path: Path | None, trainer: pl.Trainer) -> Iterator[None]:
    """Make one line of what Lightning raises over a checkpoint's parts; what is raised once it trains passes through.

    Args:
        path: of the checkpoint that a fit resumes from; None where it starts.
        trainer: that fits.
    """
    begun = _StartedFlag()
    trainer.callbacks.append(begun)  # type: ignore[attr-defined]
    try:
        yield
    except (LookupError, AttributeError, TypeError, ValueError, MisconfigurationException) as error:
        if path is None or begun.is_training or isinstance(error, UserError):
            raise
        raise unusable(path, f"is damaged, its parts do not fit together ({type(error).__name__})") from error


class _StartedFlag(pl.Callback):
    is_training = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.is_training = True


def unusable(path: Path, reason: str) -> UserError:
    """Return the error for a checkpoint that cannot be used."""
    folder = path.parent
    return UserError(
        f"{path}: {reason}. Delete the run's checkpoints, and the same command trains it from the start: rm -r "
        f"{shlex.quote(str(folder))}"
    )
