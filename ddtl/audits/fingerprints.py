"""Every image decoded once: its hashes, a thumbnail, and its file metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ddtl.data.images.decode import decode_gray, read_header
from ddtl.data.images.image_file import BadImageError, read_bytes
from ddtl.data.images.perceptual_hash import difference_hash, orientation_hashes, words
from ddtl.data.manifest import Manifest, Sample
from ddtl.utils import spawn
from ddtl.utils.errors import TrainingFailure
from ddtl.utils.progress import Progress

Key = tuple[str, str]  # dataset, sample id
Measure = Callable[[bytes, Image.Image], Any]  # of a file's content and its decoded gray image

SIDE = 64  # of a thumbnail, in pixels
# Borders cut off: left, top, right, bottom. A copy that was cropped a little meets one of these.
TRIMS = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (1, 0, 1, 0), (0, 1, 0, 1), (1, 1, 1, 1))
_TRIM = 0.04  # of the side
_FEW = 100  # images that are decoded sooner than a second process has started
_AT_A_TIME = 16  # images handed to a process


@dataclass(frozen=True, slots=True)
class FileContents:
    """What one image file is.

    Attributes:
        sha256: of its content.
        pixels: sha256 of its decoded gray image, at full size, not rotated.
        format, mode: as Pillow names them; the mode is the stored one, before conversion to gray.
        width, height: as decoded, in pixels.
        size: bytes of the file.
    """

    sha256: str
    pixels: str
    format: str
    mode: str
    width: int
    height: int
    size: int


@dataclass(frozen=True)
class Fingerprints:
    """The images of one or more manifests that could be decoded, N of them, in the order of the manifests.

    Attributes:
        keys: dataset and sample id of each.
        samples: the rows of the manifests.
        files: what each file is.
        hashes: uint64 ``(N, 8, 4)``: the 256-bit hashes of the image in its eight orientations, in the order of
            ``ddtl.data.images.perceptual_hash.TRANSFORMS``.
        trimmed: uint64 ``(N, len(TRIMS), 4)``: the hashes of the unrotated image with borders cut off.
        thumbnails: uint8 ``(N, SIDE, SIDE)``: gray, squashed to a square.
        measured: what ``measure`` gave for each; None for each where there is no ``measure``.
        bad: the images that could not be decoded, and why.
    """

    keys: tuple[Key, ...]
    samples: tuple[Sample, ...]
    files: tuple[FileContents, ...]
    hashes: np.ndarray
    trimmed: np.ndarray
    thumbnails: np.ndarray
    measured: tuple[Any, ...]
    bad: Mapping[Key, str]


class _Read(NamedTuple):
    """One decoded image."""

    file: FileContents
    hashes: np.ndarray
    trimmed: np.ndarray
    thumbnail: np.ndarray
    measured: Any


def decode(
    manifests: Sequence[Manifest],
    progress: Progress | None = None,
    processes: int = 2,
    measure: Measure | None = None,
) -> Fingerprints:
    """Read and decodes each image once, as ``ddtl/data/images/decode.py`` does.

    Args:
        manifests: of datasets with different names.
        progress: called with (images done, images in all).
        processes: that decode; 1 works in this one, and so does any number where there are few images.
        measure: called with each file's content and its gray image (mode ``L``, full size), in the process that
            decoded it; a function of a module, whose result can be pickled.
    """
    names = [manifest.dataset for manifest in manifests]
    assert len(set(names)) == len(names), f"a dataset twice: {names}"
    keys = [(manifest.dataset, sample.sample_id) for manifest in manifests for sample in manifest.samples]
    samples = [sample for manifest in manifests for sample in manifest.samples]
    rows, reads, bad = [], [], {}
    for row, result in enumerate(_read_all(samples, processes, measure)):
        if isinstance(result, BadImageError):
            bad[keys[row]] = result.reason
        else:
            rows.append(row)
            reads.append(result)
        if progress is not None:
            progress(row + 1, len(keys))
    return Fingerprints(
        keys=tuple(keys[row] for row in rows),
        samples=tuple(samples[row] for row in rows),
        files=tuple(read.file for read in reads),
        hashes=np.array([read.hashes for read in reads], dtype=np.uint64).reshape(-1, 8, 4),
        trimmed=np.array([read.trimmed for read in reads], dtype=np.uint64).reshape(-1, len(TRIMS), 4),
        thumbnails=np.array([read.thumbnail for read in reads], dtype=np.uint8).reshape(-1, SIDE, SIDE),
        measured=tuple(read.measured for read in reads),
        bad=bad,
    )


def _read_all(samples: Sequence[Sample], processes: int, measure: Measure | None) -> Iterator[_Read | BadImageError]:
    measures = [measure] * len(samples)
    if processes == 1 or len(samples) < _FEW:
        yield from map(_read, samples, measures)
        return
    try:
        yield from spawn.mapped(_read, samples, measures, processes=processes, chunksize=_AT_A_TIME)
    except BrokenProcessPool as error:
        raise TrainingFailure(
            "a process that decodes images was ended, by hand or as memory ran out. Close other programs."
        ) from error


def _read(sample: Sample, measure: Measure | None) -> _Read | BadImageError:
    try:
        data = read_bytes(sample.path)
        gray = decode_gray(data, sample.path, sample.window)
    except BadImageError as error:
        return error
    thumbnail = gray.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return _Read(
        file=_file(data, gray),
        hashes=orientation_hashes(gray),
        trimmed=np.array([words(difference_hash(thumbnail, _box(trim))) for trim in TRIMS], dtype=np.uint64),
        thumbnail=np.array(thumbnail),
        measured=None if measure is None else measure(data, gray),
    )


def _box(trim: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Return what is left of a thumbnail."""
    left, top, right, bottom = (side * _TRIM * SIDE for side in trim)
    return left, top, SIDE - right, SIDE - bottom


def _file(data: bytes, gray: Image.Image) -> FileContents:
    header = read_header(data)
    pixels = hashlib.sha256(f"{gray.width} x {gray.height}\n".encode() + gray.tobytes())
    return FileContents(
        hashlib.sha256(data).hexdigest(),
        pixels.hexdigest(),
        header.format,
        header.mode,
        gray.width,
        gray.height,
        len(data),
    )
