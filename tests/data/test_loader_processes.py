"""The processes that load batches, where their parent is stopped."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from multiprocessing import reduction
from multiprocessing.connection import Client, Connection
from multiprocessing.resource_sharer import DupFd

import pytest

from ddtl.data.loading import dataset


def _hand_over(end: Connection) -> None:
    """Offer a file twice, as a loader process offers a batch in shared memory; then break in two ways."""
    dataset._quiet_worker(0)
    with open(os.devnull, "rb") as file:
        first, second = DupFd(file.fileno()), DupFd(file.fileno())
    end.send(first._id)  # type: ignore[attr-defined]
    end.send(second._id)  # type: ignore[attr-defined]
    end.recv()
    thread = threading.Thread(target=lambda: sys.excepthook(ValueError, ValueError("of a thread"), None))
    thread.start()
    thread.join()
    sys.excepthook(OSError, OSError("of the process"), None)


@pytest.mark.parametrize("heard", [False, True])
def test_a_parent_that_hangs_up_is_no_traceback(capfd: pytest.CaptureFixture[str], heard: bool) -> None:
    """What a stop leaves of a batch that was under way; all other errors are reported as ever."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_hand_over, args=(theirs,))
    process.start()
    (address, key), (_, other) = ours.recv(), ours.recv()
    connection = Client(address, authkey=multiprocessing.current_process().authkey)
    if heard:  # the file is on its way, and nobody takes it
        connection.send((key, os.getpid()))
    connection.close()
    with Client(address, authkey=multiprocessing.current_process().authkey) as connection:
        connection.send((other, os.getpid()))  # answered after the first
        os.close(reduction.recv_handle(connection))
    ours.send(None)
    process.join(300)
    assert process.exitcode == 0
    error = capfd.readouterr().err
    assert "EOFError" not in error
    assert "ConnectionResetError" not in error
    assert "BrokenPipeError" not in error
    assert "ValueError: of a thread" in error
    assert "OSError: of the process" in error
