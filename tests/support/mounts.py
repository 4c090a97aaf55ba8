"""Small file systems that can be full or read-only: root ignores permissions, but not these."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(path: Path, size: str) -> Iterator[Path]:
    """A file system in memory of that size at a new folder; the test is skipped where none can be made."""
    path.mkdir()
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path)
    except (OSError, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", None) or error
        pytest.skip(f"no file system can be mounted here: {str(detail).strip()}")
    try:
        yield path
    finally:
        _run("umount", "--lazy", path)


def remount(path: Path, options: str) -> None:
    """Change a mounted file system: ``ro``, ``rw``, ``size=…``."""
    _run("mount", "-o", f"remount,{options}", path)


def _run(*command: str | Path) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
