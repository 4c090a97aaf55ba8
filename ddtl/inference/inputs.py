"""The images that were named: files and folders, DICOM series in order; decoded ahead, a few at a time."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from ddtl.data.download.published import IMAGE_SUFFIXES
from ddtl.data.images.decode import (
    BadImageError,
    Window,
    decode_gray,
    grey_levels,
    has_few_levels,
    is_deep,
    read_bytes,
    read_start,
    squared,
    starts_as_image,
    stored_range,
)
from ddtl.data.images.dicom import LEVEL, WIDTH, Slice, decode_slice, read_slice
from ddtl.data.images.dicom_header import START, SUFFIXES, is_dicom
from ddtl.inference.patients import patients_of
from ddtl.utils.errors import UserError
from ddtl.utils.progress import Progress
from ddtl.utils.reading import walk


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
        images: in order: as named, folders by name, the slices of a series from one end to the other.
        bad: files that cannot be used, as far as that is known before they are decoded.
        others: how many files in folders are not images, by suffix.
        directories: DICOMDIR files, which list the slices of a medium and are none.
        warnings: doubts about who the patients are and what counts twice, a line each.
    """

    pictures: list[Picture] = field(default_factory=list)
    bad: list[BadImageError] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    directories: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def find(words: Sequence[str], *, by_folder: bool, progress: Progress) -> Found:
    """Files as they are named, whatever they hold; of folders, at any depth, what is an image by name or content.

    Args:
        words: paths.
        by_folder: whether all images of a folder are one patient's.
        progress: called with (files examined, files in all).

    Raises:
        UserError: there is no such file or folder, or no image in all of them.
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
    if not found.pictures and not found.bad and found.directories:
        raise UserError(
            f"{shown(found.directories[0])}: is a DICOMDIR, a list of slices, and none of these is there. Name the "
            "folder that contains the slices instead."
        )
    if not found.pictures and not found.bad:
        raise UserError(
            f"{', '.join(words)}: no image in {found.others.total()} files. Images are PNG, JPEG, TIFF, BMP and "
            "DICOM."
        )
    _assign_patients(found)
    _warn_of_copies(found)
    found.pictures = _in_series(found.pictures)
    return found


def _files(path: Path, found: Found) -> Iterator[tuple[Path, bool]]:
    """Each file, and whether it was named itself."""
    if not path.is_dir():
        yield path, True
        return

    def unreadable(folder: Path, why: str) -> None:
        found.bad.append(BadImageError(folder, why))

    for files in walk(path, unreadable, wanted=lambda name: not name.startswith(".")):
        yield from ((Path(file.path), False) for file in files)


def _take(path: Path, explicit: bool, by_folder: bool, found: Found) -> None:
    patient = shown(path.parent) if by_folder else ""
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe, which would be waited for
        found.bad.append(BadImageError(path, "is not a regular file"))
        return
    kind = _kind(path)
    if kind == "dicom":
        try:
            header = read_slice(path)
        except Exception as error:
            found.bad.append(_reason(path, error))
        else:
            if header is None:
                found.directories.append(path)
            else:
                found.pictures.append(Picture(path, patient, header))
    elif explicit or kind == "image" or path.suffix.lower() in IMAGE_SUFFIXES:
        found.pictures.append(Picture(path, patient))
    else:
        found.others[path.suffix.lower()] += 1


def _kind(path: Path) -> Literal["dicom", "image", ""]:
    """What a file is by its first bytes, and by a suffix of DICOM where these do not tell."""
    start = read_start(path, START)
    if is_dicom(start):
        return "dicom"
    if starts_as_image(start[:32]):
        return "image"
    return "dicom" if path.suffix.lower() in SUFFIXES else ""


def _reason(path: Path, error: Exception) -> BadImageError:
    """Whatever went wrong with one file: the others are none the worse for it."""
    if isinstance(error, BadImageError):
        return error
    if isinstance(error, MemoryError):
        return BadImageError(path, "needs more memory to decode than there is")
    return BadImageError(path, f"is damaged, or of a kind that is not known ({type(error).__name__})")


def _assign_patients(found: Found) -> None:
    """Set the patients of DICOM slices by their headers, where the folder does not say who it is."""
    numbers = [i for i, picture in enumerate(found.pictures) if picture.slice and not picture.patient]
    slices = [picture.slice for picture in found.pictures if picture.slice and not picture.patient]
    patients, found.warnings = patients_of(slices)
    for i, patient in zip(numbers, patients, strict=True):
        found.pictures[i] = replace(found.pictures[i], patient=patient)


def _warn_of_copies(found: Found) -> None:
    """Report slices that are there twice: they count twice in their patient's score."""
    seen: dict[tuple[object, ...], Path] = {}
    copies: list[tuple[Path, Path]] = []
    for picture in found.pictures:
        part = picture.slice
        if part and part.instance:
            key = (picture.patient, part.series, part.instance, part.position, part.number)
            if (first := seen.setdefault(key, picture.path)) != picture.path:
                copies.append((picture.path, first))
    if copies:
        one, other = map(shown, copies[0])
        found.warnings.append(
            f"{len(copies)} slices are there twice, as {one} is {other} (SOPInstanceUID), and count twice in their "
            "patient's score. Name only one of the copies."
        )


def _in_series(pictures: Sequence[Picture]) -> list[Picture]:
    """The slices of a series one after the other, by position, where the first of them was found."""
    series: dict[object, list[Picture]] = defaultdict(list)
    for number, picture in enumerate(pictures):
        part = picture.slice
        series[(picture.patient, part.series) if part and part.series else number].append(picture)
    return [picture for slices in series.values() for picture in _sorted(slices)]


def _sorted(slices: list[Picture]) -> list[Picture]:
    """By position; by number where a position is not known; those without either behind the others, as found."""

    def place(key: str) -> Callable[[Picture], float]:
        def at(picture: Picture) -> float:
            where = getattr(picture.slice, key, None)
            return math.inf if where is None else float(where)

        return at

    if all(picture.slice is not None and picture.slice.position is not None for picture in slices):
        return sorted(slices, key=place("position"))
    if all(picture.slice is not None and picture.slice.number is not None for picture in slices):
        return sorted(slices, key=place("number"))
    return sorted(slices, key=place("position"))


def shown(path: Path) -> str:
    """A path as text: file names need not be UTF-8, and what isn't is written as an escape."""
    return os.fsencode(path).decode(errors="backslashreplace")


Note = Callable[[str], None]


def decode(picture: Picture, size: int, window: Window | None, note: Note) -> np.ndarray:
    """The image as training prepares its images: uint8, ``(size, size)``.

    Args:
        image: one file.
        size: side of the result, in pixels.
        window: through which the run's own images were decoded.
        note: called with each doubt about the pixels, a predicate.

    Raises:
        BadImageError: it cannot be used.
    """
    if picture.slice is not None:
        shown_through = (window.center, window.width) if window else (LEVEL, WIDTH)
        return squared(decode_slice(picture.path, note, *shown_through), size)
    data = read_bytes(picture.path)
    deep = is_deep(data, picture.path)
    if window is not None and not deep:
        note(
            "contains 8-bit grey levels, which are taken as they are: the run's dataset.window is for values of more bits"
        )
    gray = decode_gray(data, picture.path, window if deep else None)
    levels, spread = grey_levels(gray)
    if has_few_levels(levels, spread):
        text = f"has {levels} of 256 grey levels over a range of {spread}"
        if deep and (stored := stored_range(data, picture.path)) is not None:
            bits, low, high = stored
            raise BadImageError(
                picture.path,
                f"{text}: it stores {bits}-bit values from {low:.0f} to {high:.0f}, and the run "
                f"{'has another' if window else 'was trained without'} dataset.window (docs/own_data.md)",
            )
        note(f"{text}: it may be blank or scaled wrongly")
    return squared(gray, size)


@dataclass(frozen=True)
class Decoded:
    """An image with its pixels, or with what is wrong with it.

    Attributes:
        image: one file.
        image: uint8, ``(size, size)``, or why it cannot be used.
        notes: doubts about it, as predicates.
    """

    picture: Picture
    image: np.ndarray | BadImageError
    notes: tuple[str, ...] = ()


def decoded(
    pictures: Sequence[Picture], size: int, ahead: int, workers: int, window: Window | None = None
) -> Iterator[Decoded]:
    """Each image with its pixels, or with what is wrong with it; in order.

    Args:
        size: side of the result, in pixels.
        window: through which the run's own images were decoded.
        ahead: how many are decoded ahead of the one that is handed out, and so held in memory.
        workers: threads.
    """

    def one(picture: Picture) -> Decoded:
        notes = list(picture.slice.notes) if picture.slice else []
        try:
            image: np.ndarray | BadImageError = decode(picture, size, window, notes.append)
        except Exception as error:
            image = _reason(picture.path, error)
        return Decoded(picture, image, tuple(notes))

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
