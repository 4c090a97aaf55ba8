"""``ddtl dashboard``: everything below the runs folder in a browser, on this machine alone."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ddtl.commands.arguments import Command, RunsFolder, no_words
from ddtl.utils import console
from ddtl.utils.errors import Stopped, UserError

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class DashboardSettings(RunsFolder):
    """Settings of ``ddtl dashboard``."""

    port: int = Field(8780, ge=0, le=65535, description="where it listens; 0 takes any that is free")
    host: Annotated[str, Field(min_length=1)] = Field(
        "127.0.0.1",
        description="who may ask: this machine alone. Another address, such as 0.0.0.0, shows scores, names, "
        "settings, logs and pages of all runs to everyone who reaches it; "
        "an SSH tunnel (ssh -L 8780:127.0.0.1:8780 HOST) does not",
    )
    open: bool = Field(False, description="true opens the browser")


COMMAND = Command(
    "dashboard",
    DashboardSettings,
    intro="Everything below the runs folder in a browser: runs, evaluations, sweeps, studies and audits.",
    examples=(
        ("dashboard", "of ./runs, at http://127.0.0.1:8780"),
        ("dashboard paths.runs_dir=FOLDER", "of another folder of runs"),
    ),
    notes=(
        "Sort and filter the table, pick runs to see their curves, logs and the settings that differ, compare them by "
        "ROC curves and paired tests, open their pages. New epochs of a running training appear by themselves. Nothing "
        "can be changed from there. Ctrl-C ends it.",
    ),
    exit_codes="129/130/143 stopped, 2 a mistake in the command",
)


def is_loopback(host: str) -> bool:
    """Return whether an address reaches this machine alone: 127.0.0.0/8, ::1, localhost."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() in LOOPBACK
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def main(argv: Sequence[str]) -> int:
    """Run ``ddtl dashboard`` with the words that follow it until it is stopped; return the exit code.

    Raises:
        UserError: a mistake in the command, no such folder, or the port is taken.
    """
    if COMMAND.wants_help(argv, without_words=False):
        return 0
    words = COMMAND.read(argv, problems=no_words(COMMAND))
    settings = words.settings
    try:
        serve(runs_folder(settings.runs_dir), settings.host, settings.port, settings.open)
    except Stopped as stop:  # there is nothing to resume, whether it has begun to serve or not
        return stop.exit_code
    return 0


def runs_folder(folder: Path) -> Path:
    """Return the folder of runs.

    Raises:
        UserError: it is not there.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder.absolute()}: there is no such folder of runs. Set paths.runs_dir=FOLDER, or train something "
            "first: `ddtl train` makes one."
        )
    return folder.absolute()


def serve(runs_dir: Path, host: str, port: int, browser: bool) -> None:
    """Listen until a stop signal.

    Raises:
        Stopped: by the signal.
        UserError: it cannot listen there.
    """
    import uvicorn

    from ddtl.dashboard.patience import MOST, Impatient
    from ddtl.dashboard.server import app

    here = is_loopback(host)
    listening = _listening(host, port)
    port = listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{port}"
    console.line(f"dashboard of {runs_dir}: {address} (Ctrl-C ends it)")
    if not here:
        log.warning(
            "host=%s: everyone who reaches this machine can read scores, names, settings, logs and pages of all runs.",
            host,
        )
    if browser:
        import webbrowser

        webbrowser.open(address)
    config = uvicorn.Config(
        app(runs_dir, [*LOOPBACK, "[::1]", host.lower(), shown.lower()] if here else ["*"]),
        http=Impatient,
        ws="none",
        limit_concurrency=MOST,
        log_level="warning",
        access_log=False,
        lifespan="off",
    )
    with listening:
        uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot listen at {host}:{port} ({getattr(error, 'strerror', None) or error}). Set another port=…; port=0 "
            "takes any that is free."
        ) from error
    return found
