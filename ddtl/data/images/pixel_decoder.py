"""Compressed DICOM pixels, decoded in child processes with limits of memory and time: a crash costs one file.

A decoder of compressed images is C code that meets whatever is in a file. Each child is kept for the files that follow;
where one crashes, hangs or wants too much memory, it is ended, its file is refused and the next file gets a new child.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path

from ddtl.data.images.bounds import MAX_PIXELS
from ddtl.data.images.dicom_header import HeaderError

# What the largest image may take. Smaller ones may take their share of it, and no less than a fixed part: a slice takes
# a hundredth of a second.
MEMORY = 2 * 2**30  # bytes that a child may address; the largest image takes less than half of it
SECONDS = 60  # of processor time
_LEAST_MEMORY, _LEAST_SECONDS = 2**29, 4
_WAIT = 3  # of the clock, as a multiple: a busy machine gives a child less than a core
_GOODBYE = 20.0  # seconds that a child may take to be gone once its pipe is closed

_NOT_INSTALLED = (
    "is compressed ({syntax}), and the decoder python-gdcm is not installed. Install it with: pip install python-gdcm"
)


def limits(expected: int) -> dict[str, int]:
    """Return what a file may take for so many bytes of pixels: ``memory`` in bytes, ``seconds`` of processor time."""
    part = min(1.0, expected / (2 * MAX_PIXELS))
    return {
        "memory": round(_LEAST_MEMORY + part * (MEMORY - _LEAST_MEMORY)),
        "seconds": round(_LEAST_SECONDS + part * (SECONDS - _LEAST_SECONDS)),
    }


class Child:
    """One decoding process.

    Args:
        command: what is started; reads requests and answers as ``pixel_worker.py`` describes.
        seconds: of the clock, after which it is ended.
    """

    def __init__(self, command: Sequence[str], seconds: float) -> None:
        self._seconds = seconds
        self._ready = False
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def decode(self, request: dict[str, object], frame: bytes, expected: int) -> tuple[bytes, str]:
        """Return the decoded bytes and an error, one of both empty.

        Args:
            request: as ``pixel_worker.py`` takes it.
            frame: the compressed image.
            expected: bytes that the image must have.
        """
        process = self._process
        request = request | limits(expected) | {"size": len(frame)}
        assert process.stdin is not None, "a pipe"
        assert process.stdout is not None, "a pipe"
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(min(self._seconds, _WAIT * limits(expected)["seconds"]), end)
        timer.daemon = True
        timer.start()
        is_gone = True
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n" + frame)
            process.stdin.flush()
            self._ready = self._ready or process.stdout.readline().startswith(b'{"ready"')
            line = process.stdout.readline()
            is_gone = not line
            answer = json.loads(line or b'{"error": "ended"}')
            pixels = process.stdout.read(answer["size"]) if answer.get("size") == expected else b""
            error = answer["error"] or ("" if len(pixels) == expected else "size")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # gone, or no answer of the worker's
            pixels, error = b"", "ended"
        finally:
            timer.cancel()
        if error in {"ended", "size"}:
            with suppress(subprocess.TimeoutExpired):
                # Where it ended by itself, its own exit code, which a busy machine tells some time after its last word.
                process.wait(_GOODBYE if is_gone else 0.5)
            code = process.poll()
            self.close()
            if late.is_set() or code == -signal.SIGXCPU:
                error = "time"
            elif not self._ready:
                error = "start"
            elif code == -signal.SIGKILL:
                error = "killed"
        return pixels, error

    def close(self) -> None:
        """End the process and wait for it."""
        process = self._process
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def abandon(self) -> None:
        """Close this process's copies of the pipes: the child is another process's, which was forked to this one."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                getattr(stream, "raw", stream).close()
        self._process.returncode = 0  # not to be waited for

    @property
    def usable(self) -> bool:
        return self._process.poll() is None and not getattr(self._process.stdin, "closed", True)


class Decoder:
    """As many children as threads that ask at a time; each call takes one that is idle, or starts one.

    Args:
        command: of a child; None: the decoder of this module.
        seconds: of the clock that a file may take.
    """

    def __init__(self, command: Sequence[str] | None = None, seconds: float = _WAIT * SECONDS) -> None:
        self._command = command
        self._seconds = seconds
        self._idle: list[Child] = []
        self._lock = threading.Lock()

    def decode(self, request: dict[str, object], frame: bytes, expected: int, name: str) -> bytes:
        """Return the image's samples.

        Args:
            request: as ``pixel_worker.py`` takes it.
            frame: the compressed image.
            expected: bytes that the image must have.
            name: of the compression, for messages.

        Raises:
            HeaderError: it cannot be decoded, and why.
        """
        child = self._take(name)
        pixels, error = child.decode(request, frame, expected)
        if child.usable:
            with self._lock:
                self._idle.append(child)
        if error == "no gdcm":
            raise HeaderError(_NOT_INSTALLED.format(syntax=name))
        if error:
            may = limits(expected)
            reason = _REASONS.get(error, _REASONS["damaged"])
            raise HeaderError(reason.format(name=name, seconds=may["seconds"], memory=may["memory"] / 2**30))
        return pixels

    def _take(self, name: str) -> Child:
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if child.usable:
                    return child
                child.close()
        command = self._command or _command(name)
        try:
            return Child(command, self._seconds)
        except OSError as error:
            raise HeaderError(
                f"cannot be decoded: no process could be started for it ({error.strerror}). Free memory or processes"
            ) from None

    def close(self) -> None:
        """End all children."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def forget(self) -> None:
        """Leave the children to another process, from which this one was forked."""
        self._lock = threading.Lock()
        while self._idle:
            self._idle.pop().abandon()


_REASONS = {
    "start": "cannot be decoded: the decoder of {name} pixels does not start on this machine. Convert the file to "
    "uncompressed pixels",
    "killed": "was not decoded: the system ended the decoder of its {name} pixels, probably for want of memory. "
    "Predict it again",
    "damaged": "is cut off or damaged: its {name} pixels cannot be decoded. Export it again",
    "ended": "is damaged: the decoder crashed on its {name} pixels. Export it again",
    "size": "is damaged: its {name} pixels are not as many as Rows and Columns say. Export it again",
    "time": "is damaged: its {name} pixels take more than {seconds} s to decode. Export it again",
    "memory": "needs more than {memory:.1f} GB of memory to decode its {name} pixels",
}


def _command(name: str) -> list[str]:
    """Return what starts a child; GDCM is found where this process finds it, but not in the current folder."""
    here = os.path.realpath(os.curdir)
    spec = PathFinder.find_spec("gdcm", [p for p in sys.path if p and os.path.realpath(p) != here])
    if spec is None or spec.origin is None:
        raise HeaderError(_NOT_INSTALLED.format(syntax=name))
    worker = Path(__file__).with_name("pixel_worker.py")
    return [sys.executable, "-I", "-S", str(worker), str(Path(spec.origin).parent), str(MEMORY), str(SECONDS)]


decoder = Decoder()
atexit.register(decoder.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=decoder.forget)
