"""A PostgreSQL server of a test's own, from the programs that Debian's package installs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.ports import free_port

_USER, _PASSWORD = "sweeper", "hush-hush"


def programs() -> Path:
    """Where ``initdb`` and ``pg_ctl`` lie; skips the test where they do not, or fails it if DDTL_REQUIRE_POSTGRES=1."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        reason = "needs PostgreSQL's own programs: apt-get install postgresql"
        if os.environ.get("DDTL_REQUIRE_POSTGRES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found[-1].parent if found else Path(str(on_path)).parent


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A server with a user who needs a password; its URL, with it.

    Args:
        folder: not yet there; must lie where the user postgres may come, who runs it if we are root.
    """
    at, data = programs(), folder / "data"
    folder.mkdir()
    words = folder / "password"
    words.write_text(_PASSWORD)
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        for path in (folder, words):
            shutil.chown(path, "postgres", "postgres")
    _do([at / "initdb", "-D", data, "-U", _USER, "-A", "scram-sha-256", f"--pwfile={words}", "--no-sync"])
    port = free_port()
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    start = [at / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "-t", "300", "start"]
    _do(start)
    try:
        yield f"postgresql://{_USER}:{_PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        _do([at / "pg_ctl", "-D", data, "-m", "immediate", "-w", "-t", "300", "stop"])


def _do(command: list[str | Path]) -> None:
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    subprocess.run([*as_user, *command], check=True, stdout=subprocess.DEVNULL, cwd="/")
