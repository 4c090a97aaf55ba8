"""Image files that somebody meant to break the reader: valid ones of each kind, changed by a seed.

``python -m tests.support.hostile_files FIRST COUNT`` reads each as ``ddtl predict`` does, under a limit of memory, and
prints a line of JSON for it. A line says what became of it: read, or the reason why not.
"""

from __future__ import annotations

import io
import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import tifffile
from PIL import Image
from pydicom.uid import (
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.support import ct_slices

MEMORY = 1 << 30  # bytes that reading one file may take
SECONDS = 2.0  # of processor time, likewise
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """What became of a changed file.

    Attributes:
        seed: by which it was made.
        kind: of the valid file.
        reason: why it was not read; empty where it was.
        seconds: of this process's time.
    """

    seed: int
    kind: str
    reason: str
    seconds: float


def pixels(bits: int = 8, *channels: int) -> np.ndarray:
    """A smooth image with some noise: (48, 40) or (48, 40, channels)."""
    y, x = np.mgrid[0:48, 0:40]
    noise = np.random.default_rng(0).integers(0, 8, (48, 40))
    gray = (120 + 60 * np.sin(x / 7) + 50 * np.cos(y / 5) + noise).clip(0, 255).astype(np.uint8)
    deep = gray.astype(np.uint16) * 257 if bits == 16 else gray
    return np.stack([deep] * channels[0], axis=-1) if channels else deep


def _pillow(form: str, image: np.ndarray, mode: str = "", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(image)
    (picture.convert(mode) if mode else picture).save(buffer, form, **options)
    return buffer.getvalue()


def _tiff(image: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, photometric="minisblack" if image.ndim == 2 else "rgb", **options)
    return buffer.getvalue()


def _dicom(syntax: str = "", **how: object) -> bytes:
    rows, columns = 48, 40
    values = np.full((rows, columns), -1000.0)
    values[3:-3, 3:-3] = np.linspace(-900, 400, (rows - 6) * (columns - 6)).reshape(rows - 6, columns - 6).round()
    ds = ct_slices.dataset(values, bits=12, **how)  # type: ignore[arg-type]
    buffer = io.BytesIO()
    if syntax == "deflated":
        return ct_slices.deflated(ds)
    if syntax == ImplicitVRLittleEndian:
        ds.file_meta.TransferSyntaxUID = syntax
    elif syntax:
        ct_slices.compressed(ds, syntax)
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def rle_bmp() -> bytes:
    """A run-length encoded BMP of 40 × 48 pixels."""
    rows = b"".join(b"\x28" + bytes([level]) + b"\0\0" for level in range(48)) + b"\0\1"
    palette = b"".join(bytes((i, i, i, 0)) for i in range(256))
    head = struct.pack("<IiiHHIIiiII", 40, 40, 48, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(rows), 0, 0, 54 + 1024) + head + palette + rows


EXIF = b"Exif\0\0" + b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, 6, 0)

KINDS: dict[str, Callable[[], bytes]] = {
    "PNG, gray": lambda: _pillow("PNG", pixels()),
    "PNG, 16 bits": lambda: _pillow("PNG", pixels(16)),
    "PNG, transparent": lambda: _pillow("PNG", pixels(8, 4)),
    "PNG, palette": lambda: _pillow("PNG", pixels(), "P"),
    "JPEG": lambda: _pillow("JPEG", pixels(), exif=EXIF),
    "JPEG, progressive": lambda: _pillow("JPEG", pixels(8, 3), progressive=True),
    "JPEG, CMYK": lambda: _pillow("JPEG", pixels(8, 3), "CMYK"),
    "TIFF": lambda: _pillow("TIFF", pixels()),
    "TIFF, LZW": lambda: _pillow("TIFF", pixels(8, 3), compression="tiff_lzw"),
    "TIFF, 16 bits, Deflate": lambda: _tiff(pixels(16), compression="zlib", predictor=True),
    "TIFF, tiles": lambda: _tiff(pixels(16), tile=(16, 16)),
    "TIFF, big": lambda: _tiff(pixels(16), bigtiff=True, byteorder=">"),
    "TIFF, JPEG": lambda: _pillow("TIFF", pixels(), compression="jpeg"),
    "BMP": lambda: _pillow("BMP", pixels()),
    "BMP, run-length": rle_bmp,
    "DICOM": _dicom,
    "DICOM, implicit": lambda: _dicom(ImplicitVRLittleEndian),
    "DICOM, deflated": lambda: _dicom("deflated"),
    "DICOM, JPEG": lambda: _dicom(JPEGLosslessSV1),
    "DICOM, JPEG-LS": lambda: _dicom(JPEGLSLossless),
    "DICOM, JPEG 2000": lambda: _dicom(JPEG2000Lossless),
    "DICOM, RLE": lambda: _dicom(RLELossless),
}


@cache
def whole(kind: str) -> bytes:
    """The valid file of a kind."""
    return KINDS[kind]()


_NUMBERS = (
    0,
    1,
    2,
    3,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFE,
    0xFFFFFFFF,
)
_TEXTS = (
    b"NaN", b"inf", b"-Infinity", b"1e400", b"1e308", b"-1e308", b"0", b"-1", b"65535", b"9" * 40, b"\\" * 30, b"1\\2",
    b"\xff\xfe", b"\x1b]0;owned\x07", b"\0", b"ISO 2022 IR 87", b"../../x", b"${oc.env:HOME}", b"=1+1",
)  # fmt: skip


def _bytes(data: bytearray, random: Random) -> None:
    for _ in range(random.randint(1, 8)):
        data[random.randrange(len(data))] = random.randrange(256)


def _number(data: bytearray, random: Random) -> None:
    """A number of 2 or 4 bytes in the first part of the file, where headers are."""
    for _ in range(random.randint(1, 3)):
        form = random.choice(("<H", ">H", "<I", ">I"))
        value = random.choice(_NUMBERS) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF)
        at = random.randrange(min(len(data), 1500) - 4)
        struct.pack_into(form, data, at, value)


def _cut(data: bytearray, random: Random) -> None:
    del data[random.randrange(len(data)) :]


def _repeat(data: bytearray, random: Random) -> None:
    start = random.randrange(len(data))
    part = data[start : start + random.randint(1, 200)]
    data[start:start] = part * random.choice((1, 10, 1000, 20_000))


def _lose(data: bytearray, random: Random) -> None:
    start = random.randrange(len(data))
    del data[start : start + random.randint(1, 50)]


def _text(data: bytearray, random: Random) -> None:
    """Other text of the same length somewhere in the header: of a DICOM file, an element's value."""
    ends = [
        at for at in range(132, min(len(data), 1500) - 8) if data[at : at + 2] in (b"DS", b"IS", b"CS", b"UI", b"US")
    ]
    at = random.choice(ends) + 8 if ends else random.randrange(len(data))
    length = int.from_bytes(data[at - 2 : at], "little") if ends else 8
    data[at : at + length] = random.choice(_TEXTS)[:length].ljust(length)


def _text_of_any_length(data: bytearray, random: Random) -> None:
    ends = [
        at for at in range(132, min(len(data), 1500) - 8) if data[at : at + 2] in (b"DS", b"IS", b"CS", b"LO", b"UI")
    ]
    if not ends:
        _bytes(data, random)
        return
    at = random.choice(ends) + 8
    length = int.from_bytes(data[at - 2 : at], "little")
    text = random.choice(_TEXTS) * random.choice((1, 1, 1, 500))
    text += b" " * (len(text) % 2)
    data[at : at + length] = text
    struct.pack_into("<H", data, at - 2, len(text))


_CHANGES = (_bytes, _number, _number, _cut, _repeat, _lose, _text, _text_of_any_length)


def mutated(seed: int) -> tuple[str, bytes]:
    """The kind of a valid file, and what became of it."""
    random = Random(seed)
    kind = list(KINDS)[seed % len(KINDS)]
    data = bytearray(whole(kind))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        random.choice(_CHANGES)(data, random)
        if len(data) < 64:
            break
    if kind.startswith("PNG") and random.random() < 0.7:  # past the first check
        data = bytearray(_with_checksums(bytes(data)))
    return kind, bytes(data)


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the right checksums as far as they are whole."""
    found, at = data[:8], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        if len(body) < 4 + length:
            break
        found += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return found + data[at:]


def examine(path: Path) -> str:
    """Read a file as ``ddtl predict`` does: why it is left out, or nothing. Anything else than a reason is raised."""
    from ddtl.inference.inputs import decode_all, find

    found = find([str(path)], by_folder=False, progress=lambda done, total: None)
    reasons = [error.reason for error in found.bad]
    for one in decode_all(found.files, 32, ahead=1, workers=1):
        reasons += [] if isinstance(one.image, np.ndarray) else [one.image.reason]
    return "; ".join(reasons)


def run(first: int, count: int) -> Iterator[Outcome]:
    """Examine files by their seeds, in a process that may take so much memory; a crash names its seed.

    Raises:
        AssertionError: the process ended before it was done.
    """
    command = [sys.executable, "-m", "tests.support.hostile_files", str(first), str(count)]
    limit = 60 + 2 * SECONDS * count
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)
    outcomes = [Outcome(**json.loads(line)) for line in done.stdout.splitlines()]
    if len(outcomes) < count:
        raise AssertionError(f"seed {first + len(outcomes)}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    yield from outcomes


def faults(outcome: Outcome) -> list[str]:
    """What is wrong with an outcome: a reason that is no line, names a fault of the program, or too much time."""
    found = []
    if outcome.seconds > SECONDS:
        found.append(f"took {outcome.seconds:.1f} s")
    if "memory" in outcome.reason or "not known (" in outcome.reason:
        found.append(outcome.reason)
    if not outcome.reason.isprintable() or len(outcome.reason) > 600:
        found.append(f"not one line: {outcome.reason!r}")
    return found


def main(first: int, count: int) -> None:
    """Examine the files of so many seeds, a line for each."""
    import ddtl.inference.inputs  # noqa: F401  # its libraries do not count

    examine_first = Path(tempfile.mkdtemp())
    for kind in KINDS:  # every library is loaded before memory is counted
        path = examine_first / "file"
        path.write_bytes(whole(kind))
        reason = examine(path)
        assert not reason, f"{kind}: {reason}"
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, hard))
    for seed in range(first, first + count):
        kind, data = mutated(seed)
        path.write_bytes(data)
        start = time.process_time()
        reason = examine(path)
        outcome = Outcome(seed, kind, reason, round(time.process_time() - start, 3))
        sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
        sys.stdout.flush()
    path.unlink()
    examine_first.rmdir()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
