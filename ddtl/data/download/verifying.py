"""Checking image files of the public datasets against their index tables.

A file of other bytes than the published ones can still be the same image: saved again, in another format, smaller.
Its difference hash (``ddtl/data/images/perceptual_hash.py``) tells. An image counts as the same where at most ``NEAR``
of the 256 bits differ and no other image of the dataset is nearer by more than ``CLOSER`` bits.

Measured (2026-11-23) on 744 images, 300 of each dataset drawn at random and all that have a near-duplicate. Saved again
as JPEG of quality 50 to 95, with alpha or as BMP, or resized to a shorter side or a square of 96 to 512 pixels (12,648
files), an image differs from the published one in 1 bit (median) and in 18 at most, and every file is taken for the
same image. 182 pairs of different images of a dataset are within 24 bits. Saved again under the name of its
near-duplicate within 20 bits, an image is noticed in 2,822 of 2,941 files; of the others, 102 are twins (1 bit apart
at most) and 17 are of pairs at most 8 bits apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ddtl.data.download.published import IndexRow, image_files
from ddtl.data.images.decode import decode_gray
from ddtl.data.images.image_file import BadImageError, read_bytes
from ddtl.data.images.perceptual_hash import BITS, difference_hash, distance
from ddtl.utils import threads
from ddtl.utils.progress import Progress

NEAR = 24
CLOSER = 2

LFS_POINTER = b"version https://git-lfs"


class State(StrEnum):
    """What a file is, as people read it."""

    PUBLISHED = "as published"
    SAME = "the same image in another encoding or size"
    OTHER = "another image"
    DAMAGED = "damaged, or no image"
    POINTER = "a Git LFS pointer instead of the image"
    MISSING = "missing"


FINE = (State.PUBLISHED, State.SAME)


@dataclass(frozen=True)
class Finding:
    """What was found under the name of one image; ``detail`` says more about what is not fine."""

    row: IndexRow
    state: State
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.row.sample_id} {self.detail}"


class Checker:
    """Says what the bytes under an image's name are.

    Args:
        rows: the whole index table of the dataset.
    """

    def __init__(self, rows: Sequence[IndexRow]) -> None:
        self.rows = rows
        self.by_sha256 = {row.sha256: row for row in rows}

    def examine(self, data: bytes, row: IndexRow) -> Finding:
        """``data``, which stands for the image of ``row``."""
        digest = hashlib.sha256(data).hexdigest()
        if digest == row.sha256:
            return Finding(row, State.PUBLISHED)
        unlike = f"{len(data)} bytes, sha256 {digest[:12]}…, where {row.size}, {row.sha256[:12]}… are published"
        if data.startswith(LFS_POINTER):
            return Finding(row, State.POINTER, f"is a Git LFS pointer instead of the image ({len(data)} bytes)")
        try:
            dhash = difference_hash(decode_gray(data, Path(row.sample_id)))
        except BadImageError as error:
            return Finding(row, State.DAMAGED, f"{error.reason} ({unlike})")
        shown = self.by_sha256.get(digest) or self._clearly_nearer(dhash, row)
        if shown is not None:
            return Finding(row, State.OTHER, f"shows the image {shown.sample_id} ({unlike})")
        bits = distance(dhash, row.dhash)
        if bits > NEAR:
            return Finding(row, State.OTHER, f"shows another image: {bits} of {BITS} bits differ ({unlike})")
        return Finding(row, State.SAME, f"is the same image in another encoding or size ({unlike})")

    def _clearly_nearer(self, dhash: int, row: IndexRow) -> IndexRow | None:
        """The image that a file is rather than that of ``row``; None where there is no such one."""
        nearest = min(self.rows, key=lambda other: distance(dhash, other.dhash))
        bits = distance(dhash, nearest.dhash)
        return nearest if bits <= NEAR and bits < distance(dhash, row.dhash) - CLOSER else None


def verify(
    root: Path, rows: Sequence[IndexRow], progress: Progress | None = None, checker: Checker | None = None
) -> list[Finding]:
    """Reads the image files of ``rows`` under ``root``, the dataset's folder; a finding for each, in order.

    Args:
        checker: knows the whole index, where ``rows`` is only a part of it.

    Raises:
        UserError: a class folder cannot be read.
    """
    present = image_files(root, rows)
    checker = checker or Checker(rows)

    def check(row: IndexRow) -> Finding:
        if row.sample_id not in present:
            return Finding(row, State.MISSING, "is missing")
        try:
            return checker.examine(read_bytes(root / row.sample_id), row)
        except BadImageError as error:
            return Finding(row, State.DAMAGED, error.reason)

    findings = []
    with ThreadPoolExecutor(min(8, threads.cores())) as pool:
        for finding in pool.map(check, rows):
            findings.append(finding)
            if progress is not None:
                progress(len(findings), len(rows))
    return findings
