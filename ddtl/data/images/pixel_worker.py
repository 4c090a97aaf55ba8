"""Decode compressed pixels with GDCM in a process of its own. Started by ``pixel_decoder.py`` as a script.

``python -I -S pixel_worker.py FOLDER MEMORY SECONDS``: the folder with GDCM, and what a file may take at most; a
request can say less (``memory``, ``seconds``). Isolated (-I, -S), so that nothing is imported from the current folder;
and without numpy or pydicom, so that it starts at once.

It answers a line when it is ready. Then it reads a request a file from standard input and answers on standard output,
each a line of JSON and as many bytes as its ``size`` says. A damaged file may crash it, which is why it is not the
process that predicts.
"""

import json
import os
import signal
import sys
import tempfile
from contextlib import suppress
from typing import Any, BinaryIO

# What the JPEG library reports of pixels that it had to invent.
_DAMAGE = (b"Corrupt JPEG data", b"Premature end of JPEG", b"Invalid JPEG", b"Inconsistent progression")


def main() -> None:
    """Answer requests until standard input ends."""
    folder, memory, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends this process
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    messages = _scratch_file()
    for stream in (1, 2):  # C libraries print to both
        os.dup2(messages.fileno(), stream)
    sys.path.append(folder)
    problem = _import_gdcm()
    _limit("RLIMIT_AS", memory)
    _limit("RLIMIT_CORE", 0)
    answers.write(b'{"ready": true}\n')
    answers.flush()
    while line := requests.readline():
        request = json.loads(line)
        frame = requests.read(request["size"])
        _limit("RLIMIT_AS", min(memory, request.get("memory", memory)))
        _limit("RLIMIT_CPU", int(sum(os.times()[:2])) + 1 + min(seconds, request.get("seconds", seconds)))
        pixels, error = b"", problem
        if not problem:
            try:
                pixels = _decode(request, frame)
            except MemoryError:
                error = "memory"
            except Exception:
                error = "damaged"
        if not error and _reported(messages):
            error = "damaged"
        answers.write(json.dumps({"size": 0 if error else len(pixels), "error": error}).encode() + b"\n")
        answers.write(b"" if error else pixels)
        answers.flush()


def _scratch_file() -> BinaryIO:
    """A file in memory, where the system has such, so that no temporary folder is needed."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("messages"), "w+b")
    return tempfile.TemporaryFile()


def _import_gdcm() -> str:
    try:
        import gdcm
    except ImportError:
        return "no gdcm"
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    return ""


def _limit(name: str, value: int) -> None:
    """Set a limit where the system has it; the hard limit stays, so that the CPU time can be extended."""
    with suppress(ImportError, AttributeError, ValueError, OSError):
        import resource

        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _decode(request: dict[str, Any], frame: bytes) -> bytes:
    """Return the samples, little endian, of 8 or 16 bits each.

    Args:
        request: ``syntax`` (UID), ``rows``, ``columns``, ``allocated``, ``stored`` (bits), ``signed`` (0 or 1).
        frame: the compressed image.
    """
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((request["columns"], request["rows"], 1))
    image.SetDataElement(element)
    gray = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gray))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(request["syntax"])))
    stored = request["stored"]
    image.SetPixelFormat(gdcm.PixelFormat(1, request["allocated"], stored, stored - 1, request["signed"]))
    # GDCM returns its char* as text; None where it cannot decode.
    return bytes(image.GetBuffer().encode("utf-8", "surrogateescape"))


def _reported(messages: BinaryIO) -> bool:
    """Whether the libraries reported damage since the last call."""
    messages.seek(0)
    text = messages.read()
    messages.seek(0)
    messages.truncate()
    return any(sign in text for sign in _DAMAGE)


if __name__ == "__main__":
    main()
