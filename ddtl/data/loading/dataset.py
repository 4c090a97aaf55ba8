"""Batches of tensors from the decoded cache."""

from __future__ import annotations

import multiprocessing.queues
import os
import signal
import sys
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ddtl.data.images.cache import DecodedCache
from ddtl.data.images.harmonize import Harmonizer
from ddtl.data.loading.samplers import Key
from ddtl.data.loading.transforms import Augmenter, import_libraries
from ddtl.schema.augment import NONE
from ddtl.utils import notices, signals
from ddtl.utils.errors import EXIT_FAILURE

# Tells the random streams of one run apart: this one draws augmentations.
_AUGMENTATION = 1


class Slices(Dataset[dict[str, Tensor]]):
    """Whole batches by their keys; see :data:`ddtl.data.loading.samplers.Key`.

    Args:
        cache: the decoded images, in manifest order.
        labels: label of each manifest row.
        augmenter: makes float images of grayscale ones.
        seed: of the run. What happens to an image is a function of (seed, epoch, row, how often it came before in that
            epoch), whoever loads it.
        harmonizer: changes grey levels before the augmentation; None leaves them.
    """

    def __init__(
        self,
        cache: DecodedCache,
        labels: np.ndarray,
        augmenter: Augmenter,
        seed: int,
        harmonizer: Harmonizer | None = None,
    ) -> None:
        self.cache = cache
        self.labels = labels
        self.augmenter = augmenter
        self.seed = seed
        self.harmonizer = harmonizer

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, keys: list[Key]) -> dict[str, Tensor]:
        """``image`` (N, C, H, W) float32 in [0, 1], ``label``, ``row`` and ``real`` (N,); fillers are not real."""
        images = [
            self.augmenter(self._image(row), (self.seed, _AUGMENTATION, max(epoch, 0), row, before))
            for row, epoch, before in keys
        ]
        return {"image": torch.from_numpy(np.stack(images)), **self.facts(keys)}

    def _image(self, row: int) -> np.ndarray:
        image = self.cache[row]
        return image if self.harmonizer is None else self.harmonizer(image, row)

    def facts(self, keys: list[Key]) -> dict[str, Tensor]:
        """``label``, ``row`` and ``real`` alone."""
        rows = np.array([row for row, *_ in keys])
        return {
            "label": torch.from_numpy(self.labels[rows]),
            "row": torch.from_numpy(rows),
            "real": torch.tensor([epoch >= 0 for _, epoch, _ in keys]),
        }


class _Loader(DataLoader[dict[str, Tensor]]):
    """torch's, whose processes are not ended by what is meant for their parent before they can report it themselves."""

    def __iter__(self) -> Any:
        with signals.held():
            return super().__iter__()


def build_loader(slices: Slices, batches: Iterable[list[Key]], num_workers: int, pin: bool) -> DataLoader:
    """A loader whose batches come whole from :class:`Slices`."""
    if num_workers and slices.augmenter.spec != NONE:
        import_libraries()
    return _Loader(
        slices,
        batch_sampler=batches,
        collate_fn=_as_is,  # type: ignore[arg-type]  # it gets what __getitems__ returns
        num_workers=num_workers,
        pin_memory=pin,
        worker_init_fn=_quiet_worker,
    )


def _as_is(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch itself, from a loader process in shared memory.

    The loader would move it there by itself, in a thread whose failure nobody hears of: with a full /dev/shm the
    training would wait for ever.
    """
    if get_worker_info() is not None:
        for tensor in batch.values():
            tensor.share_memory_()
    return batch


def _quiet_worker(worker: int) -> None:
    """Ctrl-C and a hang-up reach the whole process group; the parent alone answers, and it ends its workers."""
    signals.leave_to_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    notices.ignore()
    sys.excepthook = _unless_parent_left
    torch.set_num_threads(1)
    # A batch that cannot be sent (no file can be opened any more) would be dropped, and waited for without end.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_give_up)  # type: ignore[attr-defined]


def _unless_parent_left(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Pass over what breaks in the thread that hands batches over, where a parent that is being stopped hangs up."""
    if threading.current_thread() is threading.main_thread() or not isinstance(error, OSError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _give_up(error: Exception, what: object) -> None:
    """End this loader process; its parent notices and reports it."""
    os._exit(EXIT_FAILURE)
