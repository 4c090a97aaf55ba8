"""``ddtl dashboard``: everything below the runs folder in a browser, on this machine alone."""

from __future__ import annotations

import ipaddress
import logging
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddtl.config.command_line import own_settings, truth
from ddtl.utils import console
from ddtl.utils.errors import UserError
from ddtl.utils.suggest import did_you_mean

log = logging.getLogger(__name__)

HELP = """\
Everything below the runs folder in a browser: runs, evaluations, sweeps, studies and audits.

  ddtl dashboard                          of ./runs, at http://127.0.0.1:8780
  ddtl dashboard paths.runs_dir=FOLDER    of another folder of runs

  port=8780        where it listens; 0 takes any that is free
  host=127.0.0.1   who may ask: this machine alone. Another address, such as 0.0.0.0, shows scores, names and the pages
                   of all runs to everyone who reaches it; an SSH tunnel (ssh -L 8780:127.0.0.1:8780 HOST) does not
  open=false       true opens the browser

Sort and filter the table, pick runs to see their curves, compare them by ROC curves and paired tests, open their
pages. New epochs of a running training appear by themselves. Nothing can be changed from there. Ctrl-C ends it.
"""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_loopback(host: str) -> bool:
    """Whether an address reaches this machine alone: 127.0.0.0/8, ::1, localhost."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() in LOOPBACK
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def main(argv: Sequence[str]) -> int:
    """What follows ``ddtl dashboard``; serves until it is stopped, and returns the exit code.

    Raises:
        UserError: a mistake in the command, no such folder, or the port is taken.
    """
    if {"--help", "-h"} & set(argv):
        sys.stdout.write(HELP)
        return 0
    values, others, problems = own_settings(argv, _READ)
    problems += [
        f"{word}: no such setting.{did_you_mean(word.partition('=')[0], _READ)} There are {', '.join(_READ)}."
        for word in others
    ]
    if problems:
        raise UserError("\n".join(problems))
    host, port = values.get("host", "127.0.0.1"), values.get("port", 8780)
    serve(runs_folder(values.get("paths.runs_dir")), host, port, values.get("open", False))
    return 0


def runs_folder(asked: Path | None) -> Path:
    """The folder of runs.

    Raises:
        UserError: it is not there.
    """
    folder = (asked or Path("runs")).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"{folder.absolute()}: there is no such folder of runs. Set paths.runs_dir=FOLDER, or train something "
            "first: `ddtl train` makes one."
        )
    return folder.absolute()


def serve(runs_dir: Path, host: str, port: int, browser: bool) -> None:
    """Listen until a signal says otherwise.

    Raises:
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
        log.warning("host=%s: everyone who reaches this machine can read scores, names and pages of all runs.", host)
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


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise ValueError("must be a whole number from 0 to 65535.")
    return int(text)


def folder_of_runs(text: str) -> Path:
    """Reads ``paths.runs_dir``.

    Raises:
        ValueError: it names nothing.
    """
    if not text:
        raise ValueError("name the folder of runs: paths.runs_dir=runs")
    return Path(text)


def _host(text: str) -> str:
    if not text:
        raise ValueError("must be an address, such as 127.0.0.1.")
    return text


_READ: Mapping[str, Callable[[str], Any]] = {
    "port": _port,
    "host": _host,
    "open": truth,
    "paths.runs_dir": folder_of_runs,
}
