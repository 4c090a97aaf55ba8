"""The pictures that were named: files and folders, DICOM series in order; decoded ahead, a few at a time."""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from ddtl.data.images import BadImageError, load_image, squared
from ddtl.data.published import IMAGE_SUFFIXES
from ddtl.errors import UserError
from ddtl.inference.dicom import Slice, decode_slice, is_dicom, read_slice

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Picture:
    """One file to be predicted.

    Attributes:
        path: as it was named, or found.
        patient: whom it shows; empty where that is not known.
        slice: what the header says, of a DICOM file.
    """

    path: Path
    patient: str = ""
    slice: Slice | None = None


@dataclass
class Found:
    """What the words on a command line stand for.

    Attributes:
        pictures: in order: as named, folders by name, the slices of a series from one end to the other.
        bad: files that cannot be used, as far as that is known before they are decoded.
        others: how many files in folders are no pictures.
    """

    pictures: list[Picture] = field(default_factory=list)
    bad: list[BadImageError] = field(default_factory=list)
    others: int = 0


def find(words: Sequence[str], *, by_folder: bool, progress: Progress) -> Found:
    """Files as they are named, whatever they hold; of folders, at any depth, what is a picture by name or content.

    Args:
        words: paths.
        by_folder: whether all pictures of a folder are one patient's.
        progress: called with (files looked at, files in all).

    Raises:
        UserError: there is no such file or folder, or no picture in all of them.
    """
    lacking = [word for word in words if not os.path.exists(Path(word).expanduser())]
    if lacking:
        raise UserError("\n".join(f"{word}: there is no such file or folder." for word in lacking))
    found = Found()
    named = [(path, explicit) for word in words for path, explicit in _files(Path(word).expanduser(), found)]
    seen: set[str] = set()
    for done, (path, explicit) in enumerate(named, start=1):
        real = os.path.realpath(path)
        if real not in seen:
            seen.add(real)
            _take(path, explicit, by_folder, found)
        progress(done, len(named))
    if not found.pictures and not found.bad:
        raise UserError(
            f"{', '.join(words)}: no picture in {found.others} files. Pictures are PNG, JPEG, TIFF, BMP and DICOM."
        )
    found.pictures = _in_series(found.pictures)
    return found


def _files(path: Path, found: Found) -> Iterator[tuple[Path, bool]]:
    """Each file, and whether it was named itself."""
    if not path.is_dir():
        yield path, True
        return

    def unreadable(error: OSError) -> None:
        found.bad.append(BadImageError(error.filename, f"cannot be read: {error.strerror}"))

    walked: set[str] = set()
    for folder, folders, names in os.walk(path, followlinks=True, onerror=unreadable):
        real = os.path.realpath(folder)
        if real in walked:  # a link back to where we were
            folders.clear()
            continue
        walked.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from ((Path(folder) / name, False) for name in sorted(names) if not name.startswith("."))


def _take(path: Path, explicit: bool, by_folder: bool, found: Found) -> None:
    patient = shown(path.parent) if by_folder else ""
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe, which would be waited for
        found.bad.append(BadImageError(path, "is no file"))
    elif is_dicom(path):
        try:
            header = read_slice(path)
        except BadImageError as error:
            found.bad.append(error)
        else:
            found.pictures.append(Picture(path, patient or header.patient, header))
    elif explicit or path.suffix.lower() in IMAGE_SUFFIXES:
        found.pictures.append(Picture(path, patient))
    else:
        found.others += 1


def _in_series(pictures: Sequence[Picture]) -> list[Picture]:
    """The slices of a series one after the other, by position, where the first of them was found."""
    series: dict[object, list[Picture]] = defaultdict(list)
    for number, picture in enumerate(pictures):
        series[picture.slice.series if picture.slice and picture.slice.series else number].append(picture)
    return [picture for slices in series.values() for picture in _sorted(slices)]


def _sorted(slices: list[Picture]) -> list[Picture]:
    """By position; by number where a position is not known; as found where a number isn't, either."""
    for key in ("position", "number"):
        places = [getattr(picture.slice, key, None) for picture in slices]
        if None not in places:
            return [slices[i] for i in np.argsort(np.array(places, dtype=float), kind="stable")]
    return slices


def shown(path: Path) -> str:
    """A path as text: file names need not be UTF-8, and what isn't stands as an escape."""
    return os.fsencode(path).decode(errors="backslashreplace")


def decode(picture: Picture, size: int) -> np.ndarray:
    """The picture as training prepares its images: uint8, ``(size, size)``.

    Raises:
        BadImageError: it cannot be used.
    """
    return load_image(picture.path, size) if picture.slice is None else squared(decode_slice(picture.path), size)


Decoded = tuple[Picture, "np.ndarray | BadImageError"]


def decoded(pictures: Sequence[Picture], size: int, ahead: int, workers: int) -> Iterator[Decoded]:
    """Each picture with its pixels, or with what is wrong with it; in order.

    Args:
        size: side of the result, in pixels.
        ahead: how many are decoded ahead of the one that is handed out, and so held in memory.
        workers: threads.
    """

    def one(picture: Picture) -> Decoded:
        try:
            return picture, decode(picture, size)
        except BadImageError as error:
            return picture, error

    waiting = iter(pictures)
    pool = ThreadPoolExecutor(workers)
    try:
        running: deque[Future[Decoded]] = deque(pool.submit(one, picture) for picture in islice(waiting, ahead))
        while running:
            result = running.popleft().result()
            running.extend(pool.submit(one, picture) for picture in islice(waiting, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
