"""Who works at a run or a trial: a process that can be distinguished from every other one, also after its number is
reused.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

_PROC = Path("/proc")


def me() -> dict[str, Any]:
    """This process, as plain JSON."""
    return process(os.getpid())


def process(pid: int) -> dict[str, Any]:
    """Return a process of this machine, as plain JSON."""
    return {"host": socket.gethostname(), "place": _place(), "pid": pid, "started": _start_ticks(pid)}


def alive(owner: Mapping[str, Any]) -> bool | None:
    """Return whether that process still runs; None where it cannot be seen from here.

    A number that the system has given to another process since does not count: the two differ in their start.
    """
    if owner["host"] != socket.gethostname() or owner["place"] != _place():
        return None
    pid = int(owner["pid"])
    return exists(pid) and _start_ticks(pid) == owner["started"] and not _has_ended(pid)


def exists(pid: int) -> bool:
    """Return whether a process of this machine has that number now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def has_rebooted(owner: Mapping[str, Any]) -> bool:
    """Return whether this machine has been started again since that process wrote itself down."""
    boot, now = (str(place).partition(" ")[0] for place in (owner["place"], _place()))
    return bool(owner["host"] == socket.gethostname() and boot and now and boot != now)


def began(pid: int) -> float | None:
    """Return when a process started, in seconds since 1970 and to about a second; None where the system does not
    say.
    """
    ticks = _start_ticks(pid)
    try:
        up = float((_PROC / "uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return None if ticks is None else time.time() - up + int(ticks) / os.sysconf("SC_CLK_TCK")


@cache
def _place() -> str:
    """Return what process numbers of this machine can be compared with: one boot, and one container of it."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:  # no Linux
        return ""


def _stat(pid: int) -> list[str]:
    """Return the fields of proc(5)'s stat file after the command's name, which may contain spaces and brackets."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _start_ticks(pid: int) -> str | None:
    """Return when the process started, in clock ticks after the boot; None where the system does not say."""
    fields = _stat(pid)
    return fields[19] if fields else None


def _has_ended(pid: int) -> bool:
    """Return whether only its entry is left, until its parent reads its exit code."""
    return _stat(pid)[:1] in (["Z"], ["X"])
