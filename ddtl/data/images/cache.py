"""The decoded cache: every image opened, checked, converted and resized once, then read as an array.

``root/decoded/<key>/`` has ``images.npy`` (a row for each distinct file content) and ``index.json`` (what the rows are,
how many grey levels each image has, and the array's sha256). The key is a hash of the decoder's version, the size, the
contents and the windows through which they are decoded, so that labels, splits, names and the order of a manifest
neither change it nor make a second copy. While it is built its rows are in ``<key>.partial``, from which the next
command continues (:mod:`ddtl.data.images.half_built`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from filelock import FileLock, Timeout

from ddtl.data.images import half_built
from ddtl.data.images.decode import DECODER_VERSION, decode_channels, stacked
from ddtl.data.images.half_built import HalfBuilt
from ddtl.data.images.image_file import BadImageError, read_bytes
from ddtl.data.images.levels import CTWindow, channels_of, grey_levels
from ddtl.data.manifest import Manifest, Sample, content_key
from ddtl.records import small
from ddtl.utils import files, threads
from ddtl.utils.errors import Unwritable, UserError
from ddtl.utils.progress import Progress

logger = logging.getLogger(__name__)


_SHOWN = 10  # bad files named in an error
_BATCH = 64  # decoded images held in memory at a time
_FORGOTTEN = 7 * 86400.0  # seconds after which the half-built cache of other images is deleted


@dataclass(frozen=True)
class DecodedCache:
    """The images of one manifest, decoded.

    It travels to worker processes as a file name, not as pixels.

    Attributes:
        folder: where the array is.
        rows: int64 ``(N,)``: the row of each sample of the manifest, in its order.
        file_hashes: sha256 of each sample's file, in the manifest's order.
        levels: int64 ``(N, 2)``: how many grey levels each sample's image has as it was decoded, before it was resized,
            and how far its brightest is from its darkest; of three windows, of the one with the fewest.
        images: uint8 ``(distinct files, size, size)``, or ``(distinct files, size, size, 3)`` through three windows;
            read-only, mapped from disk.
    """

    folder: Path
    rows: np.ndarray
    file_hashes: list[str]
    levels: np.ndarray = field(repr=False)
    images: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", np.asarray(np.load(self.folder / "images.npy", mmap_mode="r")))

    def __reduce__(self) -> tuple[Any, ...]:
        return DecodedCache, (self.folder, self.rows, self.file_hashes, self.levels)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, sample: int) -> np.ndarray:
        """The image of the manifest's sample number ``sample``, read-only: uint8 ``(size, size)`` or ``(…, 3)``."""
        return self.images[self.rows[sample]]

    def take(self, samples: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images of several samples, copied: uint8 ``(len(samples), size, size)`` or ``(…, 3)``."""
        return self.images[self.rows[np.asarray(samples, dtype=np.int64)]]


def first_channel(images: np.ndarray) -> np.ndarray:
    """Return the gray images ``(N, size, size)`` of images of one or of three windows; of those the first."""
    return images if images.ndim == 3 else images[..., 0]


def open_cache(
    manifest: Manifest, *, size: int, root: Path, workers: int | None = None, progress: Progress | None = None
) -> DecodedCache:
    """Opens the cache that fits the image files as they are now, and builds it first where there is none.

    Any number of processes may call this at once: one builds, the others wait for it. A finished cache is only read,
    so it may be on a read-only disk. What a stopped process has decoded is not decoded again.

    Args:
        manifest: whose images.
        size: side of the decoded images, in pixels.
        root: the cache folder (``paths.cache_dir``).
        workers: threads that read and decode; None takes the cores this process may use, at most 8, and twice as
            many for slices of CT volumes.
        progress: called as ``progress(done, total)`` in this thread after each image that is decoded.

    Raises:
        UserError: some files cannot be used (all of them are counted, the first ten named), or the cache cannot be
            written (no space, no permission).
    """
    paths = [sample.path for sample in manifest.samples]
    # Compressed DICOM is decoded by children: while they work, the cores need further threads to give them work.
    cores = min(threads.cores(), 8)
    usual = 2 * cores if any(isinstance(sample.window, CTWindow) for sample in manifest.samples) else cores
    with ThreadPoolExecutor(workers or usual) as pool:
        hashes, bad = _hash_files(paths, pool)
        job = _Job(manifest, _group(manifest.samples, hashes), size, root / "decoded", pool, progress)
        if bad:  # Look through the other files all the same, to report everything at once.
            raise job.unusable(bad + [result for result in job.decode() if isinstance(result, BadImageError)])
        levels = job.stored_levels()
        if isinstance(levels, str):
            levels = job.build_once()
    row = {content: i for i, content in enumerate(job.copies)}
    file_hashes = [h for h in hashes if h is not None]
    contents = [content_key(h, s.window) for h, s in zip(file_hashes, manifest.samples, strict=True)]
    rows = np.array([row[content] for content in contents], dtype=np.int64)
    return DecodedCache(job.folder, rows, file_hashes, levels[rows])


def _hash_files(paths: Sequence[Path], pool: Executor) -> tuple[list[str | None], list[BadImageError]]:
    """sha256 of each file, in order; None, and an error in the second list, for each that cannot be read."""

    def hash_one(path: Path) -> str | BadImageError:
        try:
            return hashlib.sha256(read_bytes(path)).hexdigest()
        except BadImageError as error:
            return error

    files = list(dict.fromkeys(paths))  # a volume has many slices
    of_file = dict(zip(files, pool.map(hash_one, files), strict=True))
    results = [of_file[path] for path in paths]
    bad = [r for r in of_file.values() if isinstance(r, BadImageError)]
    return [r if isinstance(r, str) else None for r in results], bad


def _group(samples: Sequence[Sample], hashes: Sequence[str | None]) -> dict[str, list[Sample]]:
    """Distinct content -> the samples that have it; sorted by content, which is the order of the rows."""
    copies: dict[str, list[Sample]] = {}
    for sample, file_hash in zip(samples, hashes, strict=True):
        if file_hash is not None:
            copies.setdefault(content_key(file_hash, sample.window), []).append(sample)
    return dict(sorted(copies.items()))


@dataclass(frozen=True)
class _Job:
    """One cache to be checked or built; ``decoded`` is the folder that contains all caches."""

    manifest: Manifest
    copies: dict[str, list[Sample]]
    size: int
    decoded: Path
    pool: Executor
    progress: Progress | None

    @property
    def key(self) -> str:
        lines = [f"decoder {DECODER_VERSION}", f"size {self.size}", *self.copies]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]

    @property
    def folder(self) -> Path:
        return self.decoded / self.key

    @property
    def shape(self) -> tuple[int, ...]:
        channels = {channels_of(samples[0].window) for samples in self.copies.values()}
        assert len(channels) == 1, "checked with the configuration"
        return len(self.copies), self.size, self.size, *channels - {1}

    def stored_levels(self) -> np.ndarray | str:
        """Counts of grey levels, int64 ``(distinct contents, 2)``; or what is wrong with the finished cache."""
        return self._stored_levels(self.folder)

    def _stored_levels(self, folder: Path) -> np.ndarray | str:
        array = folder / half_built.ARRAY
        try:
            index = small.cache_index(folder)
            if index["files"] != list(self.copies) or index["size"] != self.size:
                return "index.json describes other images"
            levels = np.array(index["levels"], dtype=np.int64).reshape(-1, 2)
            if len(levels) != len(self.copies):
                return "index.json lacks the counts of grey levels"
            if index["sha256"] != _hash_of(array) or np.load(array, mmap_mode="r").shape != self.shape:
                return "images.npy has changed since it was written"
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{type(error).__name__}: {error}"
        return levels

    def build_once(self) -> np.ndarray:
        """Build the cache unless another process does so first; the counts of grey levels of its rows."""
        with self._explained():
            self.decoded.mkdir(parents=True, exist_ok=True)
            with self._locked():
                found = self.stored_levels()
                if not isinstance(found, str):
                    return found
                if self.folder.exists():
                    logger.warning(
                        "The decoded images in %s are damaged (%s); decoding them again.", self.folder, found
                    )
                _remove_leftovers(self.decoded, older_than=_FORGOTTEN)
                return self._build()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One builder at a time. The lock ends with its owner, however that ends."""
        lock = files.lock(self.decoded / f"{self.key}.lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            logger.info("Another process is decoding these images; waiting for it.")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _build(self) -> np.ndarray:
        """Write array and index, from where another process was stopped; the counts of grey levels of the rows."""
        partial = self.decoded / f"{self.key}{half_built.SUFFIX}"
        shutil.rmtree(self.folder, ignore_errors=True)  # damaged
        if partial.is_symlink():
            partial.unlink()
        levels = self._stored_levels(partial)  # stopped between its last two steps
        if isinstance(levels, str):
            levels = self._write(partial)
        (partial / half_built.JOURNAL).unlink(missing_ok=True)
        partial.rename(self.folder)
        return levels

    def _write(self, partial: Path) -> np.ndarray:
        """Write the rows that are missing and the index, and return the counts of grey levels.

        After the first bad file nothing more is written, but all are decoded, and nothing is left behind. Whatever else
        stops it leaves the rows that are written.
        """
        bad: list[BadImageError] = []
        about = {"decoder": DECODER_VERSION, "pillow": PIL.__version__}
        rows = HalfBuilt(partial, self.shape, {**about, "dataset": self.manifest.dataset})
        try:
            with rows:
                if rows:
                    logger.info("%d of %d images are decoded already; decoding the rest.", len(rows), self.shape[0])
                self._check_space(self.shape[0] - len(rows))
                for result in self.decode(len(rows)):
                    if isinstance(result, BadImageError):
                        bad.append(result)
                    elif not bad:
                        rows.append(*result)
            if bad:
                raise self.unusable(bad)
        except BaseException as error:
            if isinstance(error, UserError) or not rows:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        index = {
            **about,
            "size": self.size,
            "dataset": self.manifest.dataset,
            "sha256": rows.sha256,
            "files": list(self.copies),
            "levels": rows.levels,
        }
        (partial / "index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
        return np.array(rows.levels, dtype=np.int64)

    def decode(self, first: int = 0) -> Iterator[tuple[np.ndarray, tuple[int, int]] | BadImageError]:
        """Each distinct image from a row on and its counts of grey levels, or why it is bad, in the order of the rows.

        At most ``_BATCH`` images are in memory.
        """

        def decode_one(content: str) -> tuple[np.ndarray, tuple[int, int]] | BadImageError:
            sample = self.copies[content][0]
            try:
                if sample.number is not None and isinstance(sample.window, CTWindow):
                    from ddtl.data.images import ct  # the readers of volumes take a moment

                    channels = ct.decode_slice(sample.path, sample.window, content.partition("@")[0])
                    return stacked(channels, self.size), min(map(grey_levels, channels))
                data = read_bytes(sample.path)
                if content_key(hashlib.sha256(data).hexdigest(), sample.window) != content:
                    return BadImageError(sample.path, "changed while it was read")
                channels = decode_channels(data, sample.path, sample.window)
                return stacked(channels, self.size), min(map(grey_levels, channels))
            except BadImageError as error:
                return error

        contents = list(self.copies)
        for start in range(first, len(contents), _BATCH):
            for done, result in enumerate(self.pool.map(decode_one, contents[start : start + _BATCH]), start + 1):
                yield result
                if self.progress is not None:
                    self.progress(done, len(contents))

    def unusable(self, bad: Sequence[BadImageError]) -> UserError:
        """One error for all bad files, in the manifest's order; copies of a bad file are bad too."""
        reasons = {error.path: error.reason for error in bad}
        for samples in self.copies.values():
            if samples[0].path in reasons:
                reasons.update(dict.fromkeys((s.path for s in samples), reasons[samples[0].path]))
        found = [(s.path, reasons[s.path]) for s in self.manifest.samples if s.path in reasons]
        lines = [f"{self.manifest.dataset}: {len(found)} of {len(self.manifest)} image files cannot be used:"]
        lines += [f"  {path} {reason}" for path, reason in found[:_SHOWN]]
        if len(found) > _SHOWN:
            lines.append(f"  ... and {len(found) - _SHOWN} more")
        lines.append("Replace these files, or remove them from the dataset.")
        return UserError("\n".join(lines))

    def _check_space(self, rows: int) -> None:
        """Refuse to write rows for which there is no space, even without what others left."""
        needed = rows * math.prod(self.shape[1:])
        if shutil.disk_usage(self.decoded).free < needed:
            _remove_leftovers(self.decoded)
        free = shutil.disk_usage(self.decoded).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"only {free // 1_000_000} MB are free")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns an ``OSError`` (disk full, no permission, read-only) into a ``UserError`` that says what to do.

        Only writing raises one in here: what goes wrong with an image file is a ``BadImageError``.
        """
        try:
            yield
        except OSError as error:
            raise Unwritable(
                f"Cannot write the decoded images to {self.decoded}: {error.strerror or error}. They need "
                f"{math.ceil(math.prod(self.shape) / 1e6)} MB; paths.cache_dir or DDTL_CACHE moves them."
            ) from error


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_leftovers(decoded: Path, older_than: float = -math.inf) -> None:
    """Remove what killed builders of other caches left, if that was so many seconds ago.

    One that is at work has its lock and is left alone.
    """
    for partial in decoded.glob(f"*{half_built.SUFFIX}"):
        with suppress(Timeout, OSError), FileLock(partial.with_suffix(".lock"), timeout=0):
            if time.time() - half_built.last_change(partial) > older_than:
                shutil.rmtree(partial, ignore_errors=True)
