"""Inputs that went wrong without a word, or may: how each is made, and what becomes of it.

``docs/robustness.md`` lists them; ``python -m tests.support.robust`` writes its tables from here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ddtl.data.loading.datamodule import CTDataModule

SETTINGS = (
    "dataset.name=mine", "dataset.image_size=32", "dataset.batch_size=2", "dataset.val_fraction=0.25", "trainer=cpu",
    "model=squeezenet1_1", "model.weights=none", "finetune=full", "logger=none",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """An input and what ddtl does with it.

    Attributes:
        kind: heading in the docs.
        given: the input, in words.
        does: what becomes of it, in words.
        make: makes it in a folder, and returns what is typed behind ``train.py``.
        refused: texts of the one message with which it is refused; empty where it is not.
        noted: texts of the record's warnings.
        check: looks at the data as it would be trained on.
    """

    kind: str
    given: str
    does: str
    make: Callable[[Path], Sequence[str]]
    refused: tuple[str, ...] = ()
    noted: tuple[str, ...] = ()
    check: Callable[[CTDataModule], None] = lambda data: None


def noise(*seed: int, size: int = 24) -> np.ndarray:
    """An image with many grey levels that no other seed has: uint8 (size, size)."""
    return np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)


def image(path: Path, pixels: np.ndarray) -> None:
    """A PNG (or what the suffix says)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def folders(here: Path, *names: str, images: int = 8) -> list[str]:
    """A folder of images for each class, each image of a patient of its own (``P00`` to …, numbered on)."""
    for k, name in enumerate(names):
        for i in range(images):
            image(here / "images" / name / f"P{k}{i:02}.png", noise(k, i))
    return ["dataset=folder", f"dataset.root={here}/images", *SETTINGS]


def table(here: Path, rows: Sequence[dict[str, str]], *words: str, pixels: Sequence[np.ndarray] = ()) -> list[str]:
    """A table of images; each row's ``path`` is made up unless it has one."""
    columns = list(dict.fromkeys(key for row in rows for key in ("path", *row)))
    lines = [",".join(columns)]
    for i, given in enumerate(rows):
        row = {"path": f"{i:03}.png"} | given
        if not (here / row["path"]).exists():
            image(here / row["path"], pixels[i] if len(pixels) else noise(i))
        lines.append(",".join(row.get(key, "") for key in columns))
    (here / "list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ["dataset=table", f"dataset.table={here}/list.csv", *SETTINGS, *words]


def labelled(*labels: str, images: int = 8) -> list[dict[str, str]]:
    """Rows of a table: so many images of each label."""
    return [{"label": label} for label in labels for _ in range(images)]


def of_patients(*ids: str, labels: Sequence[str] = ("normal", "covid")) -> list[dict[str, str]]:
    """Rows of a table: an image of each patient for every id, labels in turn."""
    return [{"label": labels[i % len(labels)], "patient_id": text} for i, text in enumerate(ids)]


def png(pixels: np.ndarray, *chunks: tuple[bytes, bytes], before: bool = True) -> bytes:
    """A grayscale PNG of 8 or 16 bits, written chunk by chunk, with more chunks before (or behind) its pixels."""
    bits = 8 * pixels.dtype.itemsize
    raw = b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, 0, 0, 0, 0)
    body = [(b"IDAT", zlib.compress(raw))]
    body = [*chunks, *body] if before else [*body, *chunks]
    parts = [(b"IHDR", header), *body, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def write(path: Path, data: bytes) -> None:
    """A file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def labels_of(data: CTDataModule) -> dict[str, set[str]]:
    """The classes that the images of each folder (or label in the sample id) got."""
    found: dict[str, set[str]] = {}
    for sample in data.manifest.samples:
        found.setdefault(sample.sample_id.rpartition("/")[0], set()).add(data.manifest.classes[sample.label])
    return found
