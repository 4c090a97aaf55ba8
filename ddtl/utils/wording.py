"""Numbers, lists, times and commands as text."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Any


def percent(share: float) -> str:
    """Return ``12 %``; below ten with a decimal, where there is one."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %" if share < 0.0995 else f"{100 * share:.0f} %"


def count(n: int, one: str, several: str | None = None) -> str:
    """Return ``1,203 images``."""
    return f"{n:,} {one if n == 1 else several or one + 's'}"


def number(value: Any) -> str:
    """Return a setting as a person would write it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def listed(words: list[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def train_command(overrides: tuple[str, ...]) -> str:
    """Return the command that repeats a trial."""
    return shlex.join(["python", "train.py", *overrides])


def duration(seconds: float) -> str:
    """Return ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def now() -> str:
    """Return the time, as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
