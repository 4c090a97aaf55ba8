"""What the cache contains, for who must know where patients' pixels are, and how it is deleted."""

from __future__ import annotations

import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ddtl.data.images import half_built
from ddtl.records import small
from ddtl.utils.errors import UserError
from ddtl.utils.reading import walk

_DECODED = re.compile(rf"[0-9a-f]{{32}}({re.escape(half_built.SUFFIX)})?")
_PHANTOM = re.compile(r"phantom-[0-9a-f]{10}")


@dataclass(frozen=True)
class Cached:
    """A folder of the cache.

    Attributes:
        folder: where it is.
        content: ``decoded`` (patients' pixels), ``half-built`` (likewise, of a process that was stopped or is at work)
            or ``phantom`` (nobody's).
        dataset: of which it was made first; empty where that was not written down.
        images, side: how many are there, and of how many pixels; None for a phantom and where that cannot be read.
        size: bytes.
        made: seconds since 1970.
    """

    folder: Path
    content: str
    dataset: str
    images: int | None
    side: int | None
    size: int
    made: float

    @property
    def key(self) -> str:
        return self.folder.name


def found(root: Path) -> list[Cached]:
    """Every cache below the cache folder, the largest first; what else is there is left alone.

    Raises:
        UserError: the folder of the decoded images is a link.
    """
    if (root / "decoded").is_symlink():
        raise UserError(
            f"{root / 'decoded'}: is a link, and nothing behind it is deleted. Set paths.cache_dir to the folder in "
            "which the images are, or delete the link."
        )
    folders = [
        (path, content)
        for parent, pattern, content in ((root / "decoded", _DECODED, "decoded"), (root, _PHANTOM, "phantom"))
        if parent.is_dir()
        for path in sorted(parent.iterdir())
        if pattern.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    ]
    return sorted((_cached(path, content) for path, content in folders), key=lambda one: -one.size)


def _cached(path: Path, content: str) -> Cached:
    dataset, images, side = "", None, None
    if path.name.endswith(half_built.SUFFIX):
        content = "half-built"
        images, side, dataset = half_built.describe(path)
    elif content == "decoded":
        with suppress(OSError, UserError):
            index = small.cache_index(path)
            images, side, dataset = len(index["files"]), index["size"], index.get("dataset", "")
    size = 0
    for files in walk(path, lambda folder, why: None, links=False):
        for entry in files:
            with suppress(OSError):
                size += entry.stat(follow_symlinks=False).st_size
    return Cached(path, content, dataset, images, side, size, path.stat().st_mtime)


def chosen(caches: list[Cached], words: list[str], days: float) -> list[Cached]:
    """Those that are named by ``all`` or by the start of their key, and were made longer ago than that.

    Raises:
        UserError: a word names none, or several.
    """
    picked: dict[Path, Cached] = {}
    for word in words:
        named = caches if word == "all" else [one for one in caches if one.key.startswith(word)]
        if word != "all" and len(named) != 1:
            many = "several caches are" if named else "no cache is"
            raise UserError(f"{word}: {many} called so. `ddtl data cache` lists them; all takes every one.")
        picked |= {one.folder: one for one in named}
    before = time.time() - 86400 * days
    return [one for one in picked.values() if one.made <= before]


def delete(cache: Cached) -> str:
    """Delete it; why not, or nothing. A training that reads it keeps what it has open."""
    lock = FileLock(cache.folder.with_name(f"{cache.key.removesuffix(half_built.SUFFIX)}.lock"))
    try:
        with lock.acquire(timeout=0):
            shutil.rmtree(cache.folder)
            with suppress(OSError):  # while it is held: whoever gets it later would hold a lock without a name
                Path(lock.lock_file).unlink()
    except Timeout:
        return "a process makes it just now"
    except OSError as error:
        return error.strerror or str(error)
    return ""
