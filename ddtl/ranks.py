"""Which process of a distributed run this is. The first one owns the run's folder and speaks; the others compute."""

from __future__ import annotations

import os
from typing import Any


def is_first() -> bool:
    """Whether this process is rank 0, also before anything distributed has started."""
    # torchrun sets RANK; Lightning's launcher sets LOCAL_RANK and NODE_RANK for the processes that it starts.
    rank = os.environ.get("RANK")
    if rank is not None:
        return int(rank) == 0
    return int(os.environ.get("LOCAL_RANK", "0")) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0


def gathered(mine: list[Any]) -> list[Any]:
    """The lists of all ranks, one after the other; every rank must call this."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return mine
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, mine)
    return [item for items in everyones for item in items]
