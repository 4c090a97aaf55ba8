"""The images that were named: files and folders, DICOM series in order; decoded ahead, a few at a time."""

from __future__ import annotations

import io
import math
import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ddtl.data.datasets.volumes.dicom_patients import patients_of
from ddtl.data.download.published import IMAGE_SUFFIXES
from ddtl.data.images import ct, nifti
from ddtl.data.images.decode import decode_gray, squared, stacked
from ddtl.data.images.dicom import LEVEL, WIDTH, Slice, decode_windows, read_slice
from ddtl.data.images.dicom_header import START, SUFFIXES, is_dicom
from ddtl.data.images.image_file import BadImageError, read_bytes, read_start
from ddtl.data.images.levels import CTWindow, Window, channels_of, grey_levels, has_few_levels
from ddtl.data.images.raster import is_deep, starts_as_image, stored_range
from ddtl.records import small
from ddtl.utils import reading
from ddtl.utils.errors import UserError
from ddtl.utils.progress import Progress
from ddtl.utils.reading import walk


@dataclass(frozen=True)
class InputFile:
    """One image to be predicted.

    Attributes:
        path: of the file, as it was named, or found; of an array its name.
        patient: whom it shows; empty where that is not known.
        slice: the header, of a DICOM file.
        pixels: of an array; None of a file.
        number: of the slice in a NIfTI volume, from 0 at the feet; None of another file.
        position: of that slice along the patient, in mm.
    """

    path: Path
    patient: str = ""
    slice: Slice | None = None
    pixels: np.ndarray | None = None
    number: int | None = None
    position: float | None = None

    @property
    def name(self) -> str:
        """What it is called in tables."""
        text = printable_path(self.path)
        return text if self.number is None else f"{text} slice {self.number + 1}"


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

    files: list[InputFile] = field(default_factory=list)
    bad: list[BadImageError] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    directories: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def find(
    words: Sequence[str], *, by_folder: bool, progress: Progress, patients: Mapping[str, str] | None = None
) -> Found:
    """Return files as they are named, whatever they hold; of folders, at any depth, what is an image by name or
    content.

    Args:
        words: paths.
        by_folder: whether all images of a folder are one patient's.
        progress: called with (files examined, files in all).
        patients: whom the images of a word show, where that is known.

    Raises:
        UserError: there is no such file or folder, or no image in all of them; or a file is of two patients.
    """
    patients = patients or {}
    lacking = [word for word in words if not os.path.exists(Path(word).expanduser())]
    if lacking:
        raise UserError("\n".join(f"{word}: there is no such file or folder." for word in lacking))
    found = Found()
    named = [
        (path, explicit, patients.get(word, ""))
        for word in words
        for path, explicit in _files(Path(word).expanduser(), found)
    ]
    seen, taken = dict[str, str](), 0
    for done, (path, explicit, patient) in enumerate(named, start=1):
        real = os.path.realpath(path)
        if seen.setdefault(real, patient) != patient:
            raise UserError(f"{printable_path(path)}: is named for two patients. Name it once, for the one it shows.")
        if len(seen) > taken:
            taken = len(seen)
            _take(path, explicit, printable_path(path.parent) if by_folder else patient, found)
        progress(done, len(named))
    if not found.files and not found.bad and found.directories:
        raise UserError(
            f"{printable_path(found.directories[0])}: is a DICOMDIR, a list of slices, and none of these is there. "
            "Name the folder that contains the slices instead."
        )
    if not found.files and not found.bad:
        raise UserError(
            f"{', '.join(words)}: no image in {found.others.total()} files. Images are PNG, JPEG, TIFF, BMP, DICOM and "
            "NIfTI."
        )
    _assign_patients(found)
    unknown = sum(not file.patient for file in found.files)
    if unknown and any(patients.values()):
        found.warnings.append(
            f"{unknown} of {len(found.files)} images name no patient (patient_id): they are in no patient's score."
        )
    _warn_of_copies(found)
    found.files = _in_series(found.files)
    return found


def of_arrays(arrays: Sequence[np.ndarray]) -> Found:
    """Return images that are in memory, each called by its number from 0: ``array 0``.

    Args:
        arrays: of each image (H, W) or (H, W, 3), uint8 or uint16.

    Raises:
        UserError: one is of another shape or type, a line each.
    """
    problems = []
    for number, array in enumerate(arrays):
        is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
        if not is_image or array.dtype.newbyteorder("=") not in (np.uint8, np.uint16) or not array.size:
            shape = " × ".join(map(str, array.shape))
            problems.append(
                f"array {number}: is {array.dtype} of shape {shape or 'a number'}. An image is an array of uint8 or "
                "uint16, H × W or H × W × 3; several are a list of them."
            )
    if problems:
        raise UserError("\n".join(problems))
    return Found([InputFile(Path(f"array {number}"), pixels=array) for number, array in enumerate(arrays)])


def _as_png(pixels: np.ndarray) -> bytes:
    """Return the file of an array, which is then decoded as every other file. Of 16-bit colours the upper 8 count."""
    if pixels.ndim == 3 and pixels.dtype == np.uint16:
        pixels = pixels >> 8
    buffer = io.BytesIO()
    native = np.uint8 if pixels.ndim == 3 or pixels.dtype == np.uint8 else np.uint16
    Image.fromarray(np.ascontiguousarray(pixels, dtype=native)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _files(path: Path, found: Found) -> Iterator[tuple[Path, bool]]:
    """Yield each file, and whether it was named itself."""
    if not path.is_dir():
        yield path, True
        return

    def unreadable(folder: Path, why: str) -> None:
        found.bad.append(BadImageError(folder, why))

    for files in walk(path, unreadable, inside=True, wanted=lambda name: not name.startswith(".")):
        yield from ((Path(file.path), False) for file in files)


def _take(path: Path, explicit: bool, patient: str, found: Found) -> None:
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe, which would be waited for
        found.bad.append(BadImageError(path, "is not a regular file"))
        return
    try:
        kind = _kind(path)
    except OSError as error:  # a link to what this user may not see
        found.bad.append(BadImageError(path, f"cannot be read: {error.strerror or error}"))
        return
    if kind == "dicom":
        try:
            header = read_slice(path)
        except Exception as error:
            found.bad.append(_reason(path, error))
        else:
            if header is None:
                found.directories.append(path)
            else:
                found.files.append(InputFile(path, patient, header))
    elif kind == "nifti":
        try:
            volume = nifti.read_header(path)
        except BadImageError as error:
            found.bad.append(error)
        else:
            found.files += [
                InputFile(path, patient, number=number, position=volume.position(number))
                for number in range(volume.slices)
            ]
    elif explicit or kind == "image" or path.suffix.lower() in IMAGE_SUFFIXES:
        found.files.append(InputFile(path, patient))
    else:
        found.others[path.suffix.lower()] += 1


def _kind(path: Path) -> Literal["dicom", "nifti", "image", ""]:
    """Return what a file is by its first bytes, and by a suffix of DICOM where these do not tell."""
    start = read_start(path, max(START, nifti.START))
    if nifti.is_nifti(start):
        return "nifti"
    if is_dicom(start[:START]):
        return "dicom"
    if starts_as_image(start[:32]):
        return "image"
    return "dicom" if path.suffix.lower() in SUFFIXES else ""


def _reason(path: Path, error: Exception) -> BadImageError:
    """Return what went wrong with one file as an error that affects no other file."""
    if isinstance(error, BadImageError):
        return error
    if isinstance(error, MemoryError):
        return BadImageError(path, "needs more memory to decode than there is")
    return BadImageError(path, f"is damaged, or of a kind that is not known ({type(error).__name__})")


def _assign_patients(found: Found) -> None:
    """Set the patients of DICOM slices by their headers, where the folder does not identify the patient."""
    numbers = [i for i, file in enumerate(found.files) if file.slice and not file.patient]
    slices = [file.slice for file in found.files if file.slice and not file.patient]
    patients, found.warnings = patients_of(slices)
    for i, patient in zip(numbers, patients, strict=True):
        found.files[i] = replace(found.files[i], patient=patient)


def _warn_of_copies(found: Found) -> None:
    """Report slices that are there twice: they count twice in their patient's score."""
    seen: dict[tuple[object, ...], Path] = {}
    copies: list[tuple[Path, Path]] = []
    for file in found.files:
        part = file.slice
        if part and part.instance:
            key = (file.patient, part.series, part.instance, part.position, part.number)
            if (first := seen.setdefault(key, file.path)) != file.path:
                copies.append((file.path, first))
    if copies:
        one, other = map(printable_path, copies[0])
        found.warnings.append(
            f"{len(copies)} slices are there twice, as {one} is {other} (SOPInstanceUID), and count twice in their "
            "patient's score. Name only one of the copies."
        )


def _in_series(files: Sequence[InputFile]) -> list[InputFile]:
    """Return the slices of a series one after the other, by position, where the first of them was found."""
    series: dict[object, list[InputFile]] = defaultdict(list)
    for number, file in enumerate(files):
        part = file.slice
        series[(file.patient, part.series) if part and part.series else number].append(file)
    return [file for slices in series.values() for file in _sort_slices(slices)]


def _sort_slices(slices: list[InputFile]) -> list[InputFile]:
    """Return the slices by position; by number where a position is not known; those without either behind the
    others, as found.
    """

    def place(key: str) -> Callable[[InputFile], float]:
        def at(file: InputFile) -> float:
            where = getattr(file.slice, key, None)
            return math.inf if where is None else float(where)

        return at

    if all(file.slice is not None and file.slice.position is not None for file in slices):
        return sorted(slices, key=place("position"))
    if all(file.slice is not None and file.slice.number is not None for file in slices):
        return sorted(slices, key=place("number"))
    return sorted(slices, key=place("position"))


def printable_path(path: Path) -> str:
    """Return a path as text: file names need not be UTF-8, and what isn't is written as an escape."""
    return os.fsencode(path).decode(errors="backslashreplace")


Note = Callable[[str], None]

_KNOWN = "is one of the images that the run trained on: its answer to it tells nothing about other patients"


def decode(file: InputFile, size: int, window: Window | CTWindow | None, note: Note) -> np.ndarray:
    """Return the image as training prepares its images: uint8, ``(size, size)``, or ``(size, size, 3)`` of a run with
    three windows.

    Args:
        file: the file.
        size: side of the result, in pixels.
        window: through which the run's own images were decoded.
        note: called with each doubt about the pixels, a predicate.

    Raises:
        BadImageError: it cannot be used.
    """
    if file.slice is not None:
        through = _ct_window(window)
        return stacked(decode_windows(read_bytes(file.path), file.path, through.all, note, through.extent), size)
    if file.number is not None:
        return stacked(ct.decode_slice(file.path, replace(_ct_window(window), number=file.number)), size)
    if channels_of(window) > 1:
        raise BadImageError(
            file.path, "contains no Hounsfield units, of which the run sees three windows: predict DICOM or NIfTI files"
        )
    data = read_bytes(file.path) if file.pixels is None else _as_png(file.pixels)
    deep = is_deep(data, file.path)
    if window is not None and not deep:
        note("contains 8-bit grey levels, which are taken as they are: the run's dataset.window is for more bits")
    if deep and isinstance(window, CTWindow):
        raise BadImageError(
            file.path,
            "stores values of more than 8 bits and does not say what they mean, as the run's DICOM or NIfTI files do: "
            "predict those, or 8-bit grey levels of the run's dataset.window",
        )
    gray = decode_gray(data, file.path, window if deep else None)
    levels, spread = grey_levels(gray)
    if has_few_levels(levels, spread):
        text = f"has {levels} of 256 grey levels over a range of {spread}"
        if deep and (stored := stored_range(data, file.path)) is not None:
            bits, low, high = stored
            raise BadImageError(
                file.path,
                f"{text}: it stores {bits}-bit values from {low:.0f} to {high:.0f}, and the run "
                f"{'has another' if window else 'was trained without'} dataset.window (docs/own_data.md)",
            )
        note(f"{text}: it may be blank or scaled wrongly")
    return squared(gray, size)


def _ct_window(window: Window | CTWindow | None) -> CTWindow:
    """Return how Hounsfield units become grey levels for a run whose own images were decoded through a window."""
    if isinstance(window, CTWindow):
        return window
    return CTWindow(window.center, window.width) if window else CTWindow(LEVEL, WIDTH)


@lru_cache(maxsize=8)  # a volume has many slices
def _content(path: Path, changed: int) -> str:
    """What tells a file's content, of the file as it was ``changed`` last."""
    return small.content(reading.sha256(path, reading.IMAGE))


@dataclass(frozen=True)
class Decoded:
    """An image with its pixels, or with what is wrong with it.

    Attributes:
        file: the file.
        image: uint8, ``(size, size)``, or why it cannot be used.
        notes: doubts about it, as predicates.
    """

    file: InputFile
    image: np.ndarray | BadImageError
    notes: tuple[str, ...] = ()


def decode_all(
    files: Sequence[InputFile], size: int, ahead: int, workers: int, window: Window | CTWindow | None = None, *,
    known: Collection[str] = (), in_turns: bool = False,
) -> Iterator[Decoded]:  # fmt: skip
    """Yield each image with its pixels, or with what is wrong with it; in order.

    Args:
        size: side of the result, in pixels.
        window: through which the run's own images were decoded.
        ahead: how many are decoded ahead of the one that is yielded, and so are in memory.
        workers: threads.
        known: the contents of files that the run trained on, as :func:`ddtl.records.small.content` gives them.
        in_turns: decode only while the caller waits, ``ahead`` images at a time. For a caller that keeps every core
            busy itself: each of its parallel steps would wait for the core that decodes, and for Python's lock.
    """

    def one(file: InputFile) -> Decoded:
        notes = list(file.slice.notes) if file.slice else []
        try:
            image: np.ndarray | BadImageError = decode(file, size, window, notes.append)
            if known and file.pixels is None and _content(file.path, file.path.stat().st_mtime_ns) in known:
                notes.append(_KNOWN)
        except Exception as error:
            image = _reason(file.path, error)
        return Decoded(file, image, tuple(notes))

    waiting = iter(files)
    pool = ThreadPoolExecutor(workers)
    try:
        running: deque[Future[Decoded]] = deque(pool.submit(one, file) for file in islice(waiting, ahead))
        while running:
            if in_turns:
                wait(running)
                yield from (future.result() for future in running)
                running.clear()
                running.extend(pool.submit(one, file) for file in islice(waiting, ahead))
            else:
                result = running.popleft().result()
                running.extend(pool.submit(one, file) for file in islice(waiting, 1))
                yield result
    finally:
        pool.shutdown(cancel_futures=True)
