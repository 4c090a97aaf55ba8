"""Which process of a distributed run this is. The first one owns the run's folder and speaks; the others compute.

The environment alone reports it, by one of four methods: torchrun's variables, those of a step that srun started,
``RANK``, ``LOCAL_RANK`` and ``WORLD_SIZE`` set by hand (or by ddtl for the processes that it starts), or nothing at
all. Variables that contradict each other or the settings are a mistake: a process with a wrong rank would write no
result, or wait for others that never come. No torch: a mistake is answered at once.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddtl.utils.errors import UserError

_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK")
_BY_HAND = ("RANK", "LOCAL_RANK", "NODE_RANK")
_OF_SRUN = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
UNSET = "unset RANK LOCAL_RANK WORLD_SIZE NODE_RANK GROUP_RANK"
_INTERACTIVE_STEP = 4294967290  # SLURM's number of the step that salloc's own shell is
_SHELLS = ("bash", "interactive")  # job names that mark a shell in SLURM, by Lightning's convention
_RESOLVE = 10.0  # seconds


@dataclass(frozen=True)
class Processes:
    """The processes of a run, and which of them this one is.

    Attributes:
        rank: of this process among all.
        local_rank: among those of this machine.
        node_rank: of this machine.
        world_size: how many processes there are.
        external: whether torchrun, srun or a person starts them; otherwise the first one of a machine does.
        address, port: where they find the first one; None where the first one chooses.
    """

    rank: int = 0
    local_rank: int = 0
    node_rank: int = 0
    world_size: int = 1
    external: bool = False
    address: str | None = None
    port: int | None = None


def is_first() -> bool:
    """Return whether this process is rank 0, also before anything distributed has started.

    Raises:
        UserError: a variable about ranks is not a number.
    """
    environ = os.environ
    rank = _number("RANK", environ)
    if rank is not None:
        return rank == 0
    local, node = _number("LOCAL_RANK", environ), _number("NODE_RANK", environ)
    step = _step(environ)
    if local is None and step is not None and step.tasks > 1:
        return step.rank == 0
    return not local and not node


def check() -> None:
    """Refuse variables about ranks that are not numbers, and remove those of a launcher that did not start this
    process.

    Lightning reads ``SLURM_PROCID`` and ``JSM_NAMESPACE_RANK`` when it is imported, wherever they come from.

    Raises:
        UserError: one is not.
    """
    for name in _RANKS:
        _number(name, os.environ)
    if _step(os.environ) is None:
        os.environ.pop("SLURM_PROCID", None)
    os.environ.pop("JSM_NAMESPACE_RANK", None)


def assign_process(devices: int, num_nodes: int, environ: Mapping[str, str] | None = None) -> Processes:
    """Return which process of ``devices`` × ``num_nodes`` this one is.

    Args:
        devices: processes of each machine.
        num_nodes: machines.
        environ: variables; None: this process's.

    Raises:
        UserError: the variables contradict each other or these numbers, or name a machine that cannot be found.
    """
    environ = os.environ if environ is None else environ
    for name in _RANKS:
        _number(name, environ)
    if "TORCHELASTIC_RUN_ID" in environ:
        return _of_torchrun(devices, num_nodes, environ)
    if any(name in environ for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")):
        return _by_hand(devices, num_nodes, environ)
    step = _step(environ)
    if step is not None and step.tasks > 1:
        if step.tasks == devices * num_nodes:
            return _of_srun(step, devices, environ)
        if environ.get("SLURM_JOB_NAME") not in _SHELLS or step.rank:
            per_node = step.tasks // num_nodes if step.tasks % num_nodes == 0 else step.tasks
            raise UserError(
                f"SLURM_STEP_NUM_TASKS: srun started {step.tasks} processes, but trainer.devices × trainer.num_nodes = "
                f"{devices * num_nodes}. Set trainer.devices={per_node} trainer.strategy=ddp, or start one process: "
                "srun --ntasks=1 python train.py …"
            )
    return _of_this_program(devices, num_nodes, environ)


def require_one_process(command: str) -> None:
    """Refuse to run a command that works in one process as one of several.

    Raises:
        UserError: torchrun, srun or the environment say that there are several.
    """
    try:
        assign_process(1, 1)
    except UserError as error:
        what = str(error).partition(", but ")[0].partition(". ")[0]
        fix = f"srun --ntasks=1 {command} …" if what.startswith("SLURM_") else UNSET
        raise UserError(f"{command} works in one process. {what}. Start it by itself: {fix}") from None


def gather(mine: list[Any]) -> list[Any]:
    """Return the lists of all ranks, one after the other; every rank must call this."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return mine
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, mine)
    return [item for items in everyones for item in items]


def _number(name: str, environ: Mapping[str, str]) -> int | None:
    text = environ.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise UserError(f"{name}={text!r} in the environment is not a whole number. If it means nothing here: {UNSET}")
    return int(text)


def _of_torchrun(devices: int, num_nodes: int, environ: Mapping[str, str]) -> Processes:
    world = _require("WORLD_SIZE", environ, "torchrun sets it")
    if world != devices * num_nodes:
        here = _number("LOCAL_WORLD_SIZE", environ) or 1
        raise UserError(
            f"torchrun started {world} processes, {here} on each node, but trainer.devices × trainer.num_nodes = "
            f"{devices * num_nodes}. Set trainer.devices={here} trainer.num_nodes={world // here} trainer.strategy=ddp."
        )
    rank, local = (_require(name, environ, "torchrun sets it") for name in ("RANK", "LOCAL_RANK"))
    node = _number("GROUP_RANK", environ)
    return _consistent(Processes(rank, local, rank // devices if node is None else node, world, True), devices, environ)


def _by_hand(devices: int, num_nodes: int, environ: Mapping[str, str]) -> Processes:
    wanted = devices * num_nodes
    rank, local, world, node = (_number(name, environ) for name in _RANKS[:4])
    given = ", ".join(f"{name}={environ[name]}" for name in _RANKS[:4] if name in environ)
    if world is None and (rank or local or wanted > 1):
        raise UserError(
            f"{given} in the environment, but WORLD_SIZE is not set: this would be one process of an unknown number. "
            f"Start several with torchrun; to train by itself: {UNSET}"
        )
    if world is not None and world != wanted:
        raise UserError(
            f"WORLD_SIZE={world} in the environment ({given}), but trainer.devices × trainer.num_nodes = {wanted}. "
            f"Start several processes with torchrun; to train by itself: {UNSET}"
        )
    if rank is None and local is None:
        return _of_this_program(devices, num_nodes, environ)
    if rank is None:
        rank = (node or 0) * devices + (local or 0)
    local = rank % devices if local is None else local
    found = Processes(rank, local, rank // devices if node is None else node, wanted, wanted > 1)
    return _consistent(found, devices, environ)


def _of_srun(step: _Step, devices: int, environ: Mapping[str, str]) -> Processes:
    address = environ.get("MASTER_ADDR") or first_host(step.nodes)
    if not address:
        raise UserError("SLURM_STEP_NODELIST is not set, so the first machine has no name: export MASTER_ADDR=HOST")
    port = environ.get("MASTER_PORT") or str(15000 + (step.job + step.number) % 10000)
    found = Processes(step.rank, step.local_rank, step.node_rank, step.tasks, True)
    return _consistent(found, devices, {**environ, "MASTER_ADDR": address, "MASTER_PORT": port}, _OF_SRUN)


def _of_this_program(devices: int, num_nodes: int, environ: Mapping[str, str]) -> Processes:
    """Return one process for each machine, which starts the others of that machine."""
    node = _number("NODE_RANK", environ)
    if num_nodes == 1 and node:
        raise UserError(
            f"NODE_RANK={node} in the environment, but trainer.num_nodes=1. Set trainer.num_nodes to the number of "
            f"machines; to train by itself: {UNSET}"
        )
    if devices * num_nodes == 1:
        return Processes()
    if num_nodes == 1:
        return Processes(world_size=devices, port=_port(environ) if "MASTER_PORT" in environ else None)
    missing = [name for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if not environ.get(name)]
    if node is None or missing:
        raise UserError(
            f"trainer.num_nodes={num_nodes}: {', '.join(missing)} not set, so the machines cannot find each other. "
            f"Start a process for each device: torchrun --nnodes={num_nodes} --nproc-per-node={devices} … train.py …, "
            f"or in SLURM: srun --nodes={num_nodes} --ntasks-per-node={devices} python train.py …"
        )
    found = Processes(node * devices, 0, node, devices * num_nodes)
    return _consistent(found, devices, environ)


def _consistent(
    found: Processes, devices: int, environ: Mapping[str, str], names: Sequence[str] = _BY_HAND
) -> Processes:
    """Return the processes with the address of the first one.

    Args:
        found: the processes, without an address.
        devices: processes of each machine.
        environ: variables.
        names: of the variables that the ranks among all, on the machine and of the machine come from.

    Raises:
        UserError: the numbers contradict each other, or the first one cannot be found.
    """
    fix = f"Start several processes with torchrun; to train by itself: {UNSET}"
    if names is _OF_SRUN:
        fix = "Let srun set it; to train by itself: srun --ntasks=1 python train.py …"
    numbers = (found.rank, found.local_rank, found.node_rank)
    counts = (found.world_size, devices, found.world_size // devices)
    for name, number, count in zip(names, numbers, counts, strict=True):
        if number >= count:
            raise UserError(f"{name}={number} in the environment: ranks count from 0, and there are {count}. {fix}")
    if found.world_size == 1:
        return found
    if names is _BY_HAND and found.rank != found.node_rank * devices + found.local_rank:
        raise UserError(
            f"RANK={found.rank} in the environment contradicts LOCAL_RANK={found.local_rank} with "
            f"trainer.devices={devices}. {fix}"
        )
    address = environ.get("MASTER_ADDR")
    if not address:
        raise UserError(
            "MASTER_ADDR is not set: the processes cannot find the first one. Start them with torchrun; to train by "
            f"itself: {UNSET}"
        )
    port = _port(environ)
    _check_address(address)
    return Processes(
        found.rank, found.local_rank, found.node_rank, found.world_size, found.external, address=address, port=port
    )


def _require(name: str, environ: Mapping[str, str], why: str) -> int:
    number = _number(name, environ)
    if number is None:
        raise UserError(f"{name} is not set in the environment, and {why}. Start the processes with torchrun.")
    return number


def _port(environ: Mapping[str, str]) -> int:
    text = environ.get("MASTER_PORT", "")
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise UserError(
            f"MASTER_PORT={text!r} in the environment is not a port from 1 to 65535. Take a free one: "
            "export MASTER_PORT=29500"
        )
    return int(text)


def _check_address(address: str) -> None:
    """Look a machine up by its name, with a limit of time.

    Raises:
        UserError: there is none of that name.
    """
    found: list[Any] = []

    def resolve() -> None:
        try:
            found.append(socket.getaddrinfo(address, None))
        except (OSError, UnicodeError):
            return

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(_RESOLVE)
    if not found:
        raise UserError(
            f"the first machine, {address} (of MASTER_ADDR, or of SLURM's list of nodes), cannot be found by that "
            "name. Name one that can: export MASTER_ADDR=HOST"
        )


@dataclass(frozen=True)
class _Step:
    """What SLURM gives to a process that srun started."""

    job: int
    number: int
    rank: int
    local_rank: int
    node_rank: int
    tasks: int
    nodes: str


def _step(environ: Mapping[str, str]) -> _Step | None:
    """Return the step of srun that this process is a task of; None in a batch script, and in a shell of salloc.

    Raises:
        UserError: there is a step, and a number that belongs to it is none.
    """

    def number(*names: str) -> int | None:
        for name in names:
            text = environ.get(name)
            if text and not (text.isascii() and text.isdecimal()):
                raise UserError(
                    f"{name}={text!r} in the environment is not a whole number. Let srun set it, or: unset {name}"
                )
            if text:
                return int(text)
        return None

    step = number("SLURM_STEP_ID", "SLURM_STEPID")
    if step is None or step == _INTERACTIVE_STEP:
        return None
    rank, tasks = number("SLURM_PROCID"), number("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS")
    if rank is None:
        return None
    return _Step(
        job=number("SLURM_JOB_ID", "SLURM_JOBID") or 0,
        number=step,
        rank=rank,
        local_rank=number("SLURM_LOCALID") or 0,
        node_rank=number("SLURM_NODEID") or 0,
        tasks=tasks or 1,
        nodes=next(
            (environ[n] for n in ("SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST") if n in environ), ""
        ),
    )


def first_host(nodes: str) -> str:
    """Return the first machine of SLURM's list: ``gpu01`` of ``gpu[01-04,07],big1``."""
    first = re.match(r"[^,\[\s]*(\[[^\]]*\][^,\[\s]*)*", nodes.strip())
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0]) if first else ""
