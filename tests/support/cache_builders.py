"""Processes that build a decoded cache and are stopped meanwhile."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from ddtl.data.images import half_built
from ddtl.data.images.cache import open_cache
from ddtl.data.manifest import Manifest
from ddtl.utils import signals


def build_and_stop(manifest: Manifest, size: int, root: Path, at: int, signum: int) -> None:
    """Build, and send the own process a signal after so many images; a command's handler ends it."""

    def progress(done: int, total: int) -> None:
        if done == at:
            os.kill(os.getpid(), signum)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signals.unwind)
    open_cache(manifest, size=size, root=root, workers=2, progress=progress)


def build_up_to(manifest: Manifest, size: int, root: Path, decoded: Any, most: Any) -> None:
    """Build, write each row at once, and count in a shared number what is decoded.

    While that is ``most`` or more, another shared number, each of the threads waits to be killed or let on.
    """

    def progress(done: int, total: int) -> None:
        with decoded.get_lock():
            decoded.value += 1
        time.sleep(0.002)
        until = time.monotonic() + 600
        while decoded.value >= most.value:
            assert time.monotonic() < until
            time.sleep(0.002)

    half_built._SECONDS = 0.0
    open_cache(manifest, size=size, root=root, workers=2, progress=progress)
