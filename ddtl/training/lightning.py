"""The one place that builds Lightning's Trainer: what it does is decided by its arguments, never by the environment.

Left to itself, Lightning reads ``PL_TRAINER_*`` for every argument that is not given (``PL_TRAINER_FAST_DEV_RUN=1``
trains one batch), takes any shell with ``SLURM_NTASKS`` for a task of srun, writes ``hpc_ckpt_1.ckpt`` at a USR1, and
loads that file before each later fit or predict.
"""

from __future__ import annotations

import inspect
import os
import socket
import threading
import time
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only

from ddtl.utils import console, ranks
from ddtl.utils.errors import TrainingFailure
from ddtl.utils.ranks import Processes

# Seconds that the processes of a run wait for each other: one machine may have to prepare images that another one has.
JOIN_LIMIT = 15 * 60.0
_QUIET = 10.0  # seconds of waiting after which a line reports it


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
    processes = ranks.assign_process(devices, num_nodes)
    settle_rank(processes)
    fixed = {
        "devices": devices,
        "num_nodes": num_nodes,
        "plugins": [_Environment(processes)],
        # Lightning looks there for a checkpoint named hpc_ckpt_N.ckpt and prefers it to any other. No file can be in
        # it; what a run writes has paths of its own.
        "default_root_dir": os.devnull,
    }
    if processes.world_size > 1:
        fixed["strategy"] = _JoinedDDP(processes)
    return pl.Trainer(**defaults | settings | fixed)


def settle_rank(processes: Processes) -> None:
    """Have Lightning's loggers and warnings take this process for the one that it is: they read SLURM_PROCID, too."""
    rank_zero_only.rank = processes.rank  # type: ignore[attr-defined]


class _JoinedDDP(DDPStrategy):
    """DDP whose processes wait for each other in a thread: torch's own wait hears no signal, and has no line."""

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self._processes = processes

    def setup_distributed(self) -> None:
        """Join the processes.

        Raises:
            TrainingFailure: they do not meet within ``JOIN_LIMIT``.
        """
        failures: list[BaseException] = []

        def join() -> None:
            try:
                super(_JoinedDDP, self).setup_distributed()
            except BaseException as error:  # raised below, in the thread that can report it
                failures.append(error)

        joining = threading.Thread(target=join, daemon=True)
        joining.start()
        self._wait(joining)
        if not failures:
            return
        if isinstance(failures[0], RuntimeError):
            raise TrainingFailure(f"{self._what} cannot meet: {str(failures[0]).splitlines()[0]}") from failures[0]
        raise failures[0]

    def _wait(self, joining: threading.Thread) -> None:
        start, is_announced = time.monotonic(), False
        while joining.is_alive():
            joining.join(0.1)
            waited = time.monotonic() - start
            if waited > _QUIET and not is_announced:
                is_announced = True
                console.line(f"waiting for all of {self._what}, for at most {JOIN_LIMIT / 60:g} minutes")
            if waited > JOIN_LIMIT:
                raise TrainingFailure(
                    f"{self._what} did not all come within {JOIN_LIMIT / 60:g} minutes. Start the ones that are "
                    f"missing, or train by itself: {ranks.UNSET}"
                )

    @property
    def _what(self) -> str:
        environment = self.cluster_environment
        assert environment is not None
        where = f"{environment.main_address}:{environment.main_port}"
        return f"the {self._processes.world_size} processes of this run at {where}"


class _Environment(ClusterEnvironment):
    """The processes as :func:`ddtl.utils.ranks.assign_process` found them; no variable of a scheduler is read here."""

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
        """Lightning's guess, which takes ranks to follow the machines; srun may assign them differently."""

    def local_rank(self) -> int:
        return self._processes.local_rank

    def node_rank(self) -> int:
        return self._processes.node_rank
