"""Ports of this machine for servers of other programs, which cannot be given a socket."""

from __future__ import annotations

import itertools
import os
import socket

# Below what systems give to clients and to whoever asks for any port: between the test and the server that is started
# with it, nobody is given the number by chance.
_FIRST, _LAST = 15_000, 29_000
_numbers = itertools.count(os.getpid() * 7)


def free_port() -> int:
    """A port at which nobody listens, another one at each call."""
    for number in itertools.islice(_numbers, _LAST - _FIRST):
        port = _FIRST + number % (_LAST - _FIRST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no port is free")
