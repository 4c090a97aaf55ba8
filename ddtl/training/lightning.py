"""The one place that builds Lightning's Trainer: what it does is decided by its arguments, never by the environment.

Left to itself, Lightning reads ``PL_TRAINER_*`` for every argument that is not given (``PL_TRAINER_FAST_DEV_RUN=1``
trains one batch), takes any shell with ``SLURM_NTASKS`` for a task of srun, writes ``hpc_ckpt_1.ckpt`` at a USR1, and
loads that file before each later fit or predict.
"""

from __future__ import annotations

import inspect
import os
import socket
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments import ClusterEnvironment
from pytorch_lightning.utilities import rank_zero_only

from ddtl import ranks
from ddtl.ranks import Processes


def build(*, devices: int = 1, num_nodes: int = 1, **settings: Any) -> pl.Trainer:
    """Return a trainer with these settings, Lightning's own defaults for the others, and nothing of the environment.

    Args:
        devices: processes of each machine.
        num_nodes: machines.
        settings: other arguments of Lightning's Trainer.

    Raises:
        UserError: the environment says something else about the processes.
    """
    defaults = {name: each.default for name, each in inspect.signature(pl.Trainer).parameters.items()}
    processes = ranks.assigned(devices, num_nodes)
    settle_rank(processes)
    fixed = {
        "devices": devices,
        "num_nodes": num_nodes,
        "plugins": [_Environment(processes)],
        # Lightning looks there for a checkpoint named hpc_ckpt_N.ckpt and prefers it to any other. No file can be in
        # it; what a run writes has paths of its own.
        "default_root_dir": os.devnull,
    }
    return pl.Trainer(**defaults | settings | fixed)


def settle_rank(processes: Processes) -> None:
    """Have Lightning's loggers and warnings take this process for the one that it is: they read SLURM_PROCID, too."""
    rank_zero_only.rank = processes.rank  # type: ignore[attr-defined]


class _Environment(ClusterEnvironment):
    """The processes as :func:`ddtl.ranks.assigned` found them; no variable of a scheduler is read here."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    @property
    def creates_processes_externally(self) -> bool:
        # Lightning's launcher sets LOCAL_RANK once it has started the others; it must not do so twice.
        return self._processes.external or "LOCAL_RANK" in os.environ

    @property
    def main_address(self) -> str:
        return self._processes.address or "127.0.0.1"

    @property
    def main_port(self) -> int:
        return self._processes.port or self._free_port

    @cached_property
    def _free_port(self) -> int:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return int(free.getsockname()[1])

    @staticmethod
    def detect() -> bool:
        return True

    def world_size(self) -> int:
        return self._processes.world_size

    def set_world_size(self, size: int) -> None:
        assert size == self._processes.world_size

    def global_rank(self) -> int:
        return self._processes.rank

    def set_global_rank(self, rank: int) -> None:
        """Lightning's guess, which takes ranks to follow the machines; srun may deal them out otherwise."""

    def local_rank(self) -> int:
        return self._processes.local_rank

    def node_rank(self) -> int:
        return self._processes.node_rank
