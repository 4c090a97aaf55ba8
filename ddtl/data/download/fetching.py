"""Fetching the images of the public datasets: from their source, a mirror, an archive or a folder.

Every file is checked before it gets its name, so that whatever is under a name is whole and what it should be, and
a fetch that was stopped resumes where it was.
"""

from __future__ import annotations

import logging
import math
import shutil
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from ddtl.config.checks import no_url
from ddtl.data.download.archives import Member, members
from ddtl.data.download.download import DownloadError, Patience, download, reach
from ddtl.data.download.published import (
    IndexRow,
    Origin,
    class_folders,
    fetch_advice,
    image_files,
    read_index,
    too_deep,
)
from ddtl.data.download.verifying import FINE, Checker, Finding, State, verify
from ddtl.data.images.image_file import BadImageError, read_bytes
from ddtl.utils.errors import UserError
from ddtl.utils.files import write_bytes
from ddtl.utils.progress import Progress
from ddtl.utils.reading import walk

GITHUB = "https://raw.githubusercontent.com"
WORKERS = 8  # files under way at a time
GIVE_UP = 16  # failures in a row after which no further file is requested
PATIENCE = Patience()
_REACH = 10.0  # seconds in which something must answer

_SHOWN = 10  # failures that a message names

logger = logging.getLogger(__name__)


def missing(origin: Origin, data_dir: Path) -> list[IndexRow]:
    """The images without a file; the content of the files is not checked.

    Raises:
        UserError: ``data_dir`` is the dataset's own folder, or a folder cannot be read.
    """
    hint = too_deep(origin, data_dir)
    if hint:
        raise UserError(f"{origin.title}: no images in {(data_dir / origin.name).absolute()}.{hint}")
    rows = read_index(origin.name)
    present = image_files(data_dir / origin.name, rows)
    return [row for row in rows if row.sample_id not in present]


def fetch(
    origin: Origin,
    data_dir: Path,
    wanted: Sequence[IndexRow],
    *,
    mirror: str | None = None,
    source: Path | None = None,
    progress: Progress | None = None,
) -> list[Finding]:
    """Put the images of ``wanted`` into ``data_dir/<dataset>``, over whatever is under their names.

    Any number of processes may call this at once: one fetches, the others wait and then find the files there.

    Args:
        mirror: base URL that serves ``<dataset>/<class folder>/<file>``; None takes the pinned commit at GitHub.
        source: an archive or a folder to take the files from, instead.
        progress: called as ``progress(done, total)`` after each file.

    Returns:
        A finding for each file that was put in place: as published, or the same image in another encoding or size.

    Raises:
        UserError: the source cannot be reached or read, files of it are wrong or absent, or nothing can be written.
            What could be fetched is in place.
    """
    root = data_dir / origin.name
    where = str(source) if source is not None else _base_url(origin, mirror)
    if source is not None and not source.exists():
        raise UserError(f"from={source}: there is no such file or folder.")
    if source is None and wanted:
        _require_answer(origin, _url(where, wanted[0]))
    with _explained(root, wanted), _locked(root, wanted):
        checker = Checker(read_index(origin.name))
        wanted = [finding.row for finding in verify(root, wanted, checker=checker) if finding.state not in FINE]
        _announce(origin, wanted, where, root)
        _check_space(root, wanted)
        if source is not None:
            outcomes = _take(source, wanted, checker, root)
        else:
            outcomes = _download_all(where, wanted, checker, root)
        with closing(outcomes):
            found = []
            for finding in outcomes:
                found.append(finding)
                if progress is not None:
                    progress(len(found), len(wanted))
    return _sorted_out(origin, wanted, found, where)


def _sorted_out(origin: Origin, wanted: Sequence[IndexRow], found: Sequence[Finding], where: str) -> list[Finding]:
    """What was put in place, if that is all; else an error that names the rest."""
    good = [finding for finding in found if finding.state in FINE]
    again = [finding for finding in good if finding.state is State.SAME]
    if again:
        logger.warning(
            "%s: %d files are the same image as the published ones in another encoding or size, the first is %s.",
            origin.name,
            len(again),
            again[0].row.sample_id,
        )
    failed = [finding for finding in found if finding.state not in FINE]
    if not failed:
        return good
    lines = [f"{origin.title}: {len(wanted) - len(good)} of {len(wanted)} images could not be fetched from {where}:"]
    lines += [f"  {finding}" for finding in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        lines.append(f"  … and {len(failed) - _SHOWN} more")
    if len(found) < len(wanted):
        lines.append(f"  {len(wanted) - len(found)} were not tried after {GIVE_UP} failures in a row")
    if good:
        lines.append(f"The other {len(good)} are in place. The same command tries only the rest again.")
    raise UserError("\n".join([*lines, fetch_advice(origin)]))


def _announce(origin: Origin, wanted: Sequence[IndexRow], where: str, root: Path) -> None:
    if wanted:
        what = f"{origin.name}: fetching {len(wanted)} images, {megabytes(wanted)} MB as published"
        logger.info("%s, from %s into %s. Licence: %s.", what, where, root, origin.licence)


def megabytes(rows: Iterable[IndexRow]) -> int:
    """Size of the files as published, rounded up."""
    return math.ceil(sum(row.size for row in rows) / 1e6)


# ---- over the net


def _base_url(origin: Origin, mirror: str | None) -> str:
    if not mirror:
        return f"{GITHUB}/{origin.repository}/{origin.commit}/{quote(origin.folder)}"
    if wrong := no_url(mirror):
        raise UserError(
            f"paths.data_mirror={mirror}: {wrong}. Files in a folder are fetched with "
            f"`ddtl data fetch {origin.name} from=FOLDER`."
        )
    return f"{mirror.rstrip('/')}/{origin.name}"


def _url(base: str, row: IndexRow) -> str:
    return f"{base}/{quote(row.sample_id)}"


def _require_answer(origin: Origin, url: str) -> None:
    """One question before a folder is made: an answer of any kind will do."""
    try:
        reach(url, min(_REACH, PATIENCE.timeout))
    except DownloadError as error:
        host = "/".join(url.split("/")[:3])
        raise UserError(
            f"{origin.title}: its images cannot be fetched, {host}: {error}.\n{fetch_advice(origin)}"
        ) from None


def _download_all(base: str, rows: Sequence[IndexRow], checker: Checker, root: Path) -> Generator[Finding, None, None]:
    """A finding for each file as it comes, until all came or ``GIVE_UP`` failed in a row."""
    stop = threading.Event()

    def get(row: IndexRow) -> Finding:
        # Room for the same image in another encoding, not for whatever someone else sends.
        limit = 4 * row.size + 2**20
        try:
            data = download(_url(base, row), limit, PATIENCE, stop)
        except DownloadError as error:
            return Finding(row, State.MISSING, f"could not be had: {error}")
        return _put(checker.examine(data, row), data, root)

    pool = ThreadPoolExecutor(WORKERS)
    try:
        in_a_row = 0
        for future in as_completed([pool.submit(get, row) for row in rows]):
            finding = future.result()
            yield finding
            in_a_row = 0 if finding.state in FINE else in_a_row + 1
            if in_a_row == GIVE_UP:
                return
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


# ---- from an archive or a folder


def _take(source: Path, rows: Sequence[IndexRow], checker: Checker, root: Path) -> Generator[Finding, None, None]:
    """The wanted files of an archive or a folder, known by class folder and name; folders above those do not matter.

    Where one is there several times, the one as published is taken.
    """
    left = {row.sample_id: row for row in rows}
    best: dict[str, Finding] = {}
    for member in _folder_members(source) if source.is_dir() else members(source):
        sample_id = "/".join(member.name.split("/")[-2:])
        row = left.get(sample_id)
        if row is None:
            continue
        try:
            data = member.read()
        except BadImageError as error:
            finding = Finding(row, State.DAMAGED, error.reason)
        else:
            finding = checker.examine(data, row)
        if finding.state is State.PUBLISHED:
            del left[sample_id]
            yield _put(finding, data, root)
        elif sample_id not in best or (finding.state is State.SAME and best[sample_id].state is not State.SAME):
            best[sample_id] = _put(finding, data, root) if finding.state is State.SAME else finding
    for sample_id, row in left.items():
        yield best.get(sample_id, Finding(row, State.MISSING, "is not in it"))


def _folder_members(folder: Path) -> Iterator[Member]:
    """The files below a folder; named from the folder's own name on, which may be that of a class."""
    folder = folder.resolve()
    for files in walk(folder, partial(logger.warning, "%s %s; it is passed over"), links=False):
        for file in map(Path, files):
            yield Member(file.relative_to(folder.parent).as_posix(), 0, partial(read_bytes, file))


# ---- writing


def _put(finding: Finding, data: bytes, root: Path) -> Finding:
    """Give the file its name, if it is what it should be."""
    if finding.state in FINE:
        write_bytes(root / finding.row.sample_id, data)
    return finding


@contextmanager
def _locked(root: Path, rows: Sequence[IndexRow]) -> Iterator[None]:
    """One process at a time. The lock ends with its owner, however that ends; what a killed one left is removed."""
    for folder in class_folders(rows):
        (root / folder).mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / ".fetch.lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        logger.info("Another process is fetching into %s; waiting for it.", root)
        lock.acquire()
    try:
        for folder in class_folders(rows):
            for remains in (root / folder).glob(".*.partial"):
                remains.unlink()
        yield
    finally:
        lock.release()


def _check_space(root: Path, rows: Sequence[IndexRow]) -> None:
    free = shutil.disk_usage(root).free
    if free < sum(row.size for row in rows):
        raise OSError(f"only {free // 1_000_000} MB are free")


@contextmanager
def _explained(root: Path, rows: Sequence[IndexRow]) -> Iterator[None]:
    """Turns an ``OSError`` (disk full, no permission, read-only) into a ``UserError``: only writing raises one."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"Cannot write the images to {root}: {error.strerror or error}. They need {megabytes(rows)} MB; "
            "paths.data_dir=FOLDER or the variable DDTL_DATA changes the folder."
        ) from error
