"""The inputs of :data:`tests.golden.commands.NAMED`, the same to the byte on every machine."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

PATIENTS, SLICES, SIZE = 16, 2, 40


def draw(folder: Path) -> None:
    """Write class folders, a table of the same images, a list of images to exclude and a file of weights."""
    rows = ["path,label,patient_id"]
    for patient in range(PATIENTS):
        label = ("normal", "covid")[patient % 2]
        for number in range(SLICES):
            path = Path("images") / label / f"P{patient:02d}_{number}.png"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(png(_pixels(SLICES * patient + number)))
            rows.append(f"{path},{label},P{patient:02d}")
    (folder / "images.csv").write_text("\n".join(rows) + "\n")
    (folder / "exclude.csv").write_text("sample_id\nnormal/P00_1.png\n")


def png(pixels: np.ndarray) -> bytes:
    """A grayscale PNG, uncompressed, so that no version of a library changes its bytes."""
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)
    assert len(raw) < 65536, "one stored block holds it"
    stored = b"\x78\x01\x01" + struct.pack("<HH", len(raw), len(raw) ^ 0xFFFF) + raw
    height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", stored + struct.pack(">I", zlib.adler32(raw))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, *zip(*parts, strict=True)))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)


def write_weights(path: Path, state: dict[str, object]) -> None:
    """A file of weights for a network: each tensor counts upward from -0.1 to 0.1."""
    import torch
    from safetensors.torch import save_file

    def counted(tensor: torch.Tensor) -> torch.Tensor:
        return (torch.arange(tensor.numel()) / max(1, tensor.numel()) * 0.2 - 0.1).reshape(tensor.shape).to(tensor)

    save_file({name: counted(tensor) for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}, path)
