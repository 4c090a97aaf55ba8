"""The folder that contains everything about one run: who may work in it, and how far it has come."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ddtl.records import epochs, run as results, small
from ddtl.records.identity import differences
from ddtl.utils import processes
from ddtl.utils.errors import UserError
from ddtl.utils.files import folder_in, is_partial, write_json
from ddtl.utils.reading import Unreadable

LOCK = ".lock"
OWNER = ".owner.json"
LOG = "log.txt"
# The key under which a checkpoint contains what its epoch was computed on.
MACHINE = "machine"
# A killed process's loader workers hold its lock until they notice, which takes them some seconds.
_WORKERS_NOTICE = 30.0
_CLOCKS = 5.0  # seconds by which the clocks of a file system and of a machine may differ


class InUse(UserError):
    """Another process works in the run's folder."""


@dataclass(frozen=True)
class RunFolder:
    """Where the parts of a run lie."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def identity(self) -> Path:
        return self.path / "identity.json"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def split(self) -> Path:
        return self.path / "split.csv"

    @property
    def histogram(self) -> Path:
        return self.path / "histogram.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def weights(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter.safetensors"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.csv"

    @property
    def ended_early(self) -> Path:
        return self.path / "ended_early.json"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def log(self) -> Path:
        return self.path / LOG

    @property
    def wandb_id(self) -> Path:
        return self.path / "wandb_id"

    @property
    def mlflow_id(self) -> Path:
        return self.path / "mlflow_id"

    def epochs(self) -> list[dict[str, Any]]:
        """Return the rows of ``metrics.jsonl`` that are of one epoch each."""
        return epochs.of_epochs(self.path)

    def finished(self) -> dict[str, Any] | None:
        """Return the results of a run that came to its end; None of one that did not.

        Raises:
            Unreadable: they are damaged.
        """
        try:
            return results.read(self.path)
        except FileNotFoundError:
            return None


@contextmanager
def open_run(path: Path, identity: Mapping[str, Any], overwrite: bool) -> Iterator[RunFolder]:
    """Own a run's folder: new, or an earlier one of the same identity.

    A process killed in the middle leaves the lock free. Child processes of a distributed run must not call this: their
    parent owns the folder.

    Raises:
        InUse: another process works in it.
        UserError: it contains another run or something else, or nothing can be written there; nothing is changed.
    """
    if path.exists() and _is_foreign(path):
        raise UserError(
            f"{path} is not the folder of a run, and is left as it is (run.overwrite=true, too, deletes only runs). "
            "Take another run.name, or move it."
        )
    new_folders = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
        try:
            folder = _claim(path, identity, overwrite)
        except BaseException:
            _release(path, lock)
            raise
    except OSError as error:
        _remove(new_folders)
        raise UserError(
            f"{path}: cannot write there ({error.strerror or error}). Make room, or set another paths.runs_dir."
        ) from error
    try:
        yield folder
    finally:
        _release(path, lock)


@contextmanager
def announced(path: Path) -> Iterator[None]:
    """Name this process as the one that works in the folder of a sweep or a study, for who shows it.

    This is not a lock: several commands may work at one sweep, and a disk that is full harms none.
    """
    with suppress(OSError):
        write_json(path / OWNER, processes.me())
    try:
        yield
    finally:
        owner = owner_of(path)
        if owner is not None and processes.me().items() <= owner.items():
            with suppress(OSError):
                (path / OWNER).unlink(missing_ok=True)


@contextmanager
def own_for_deletion(path: Path) -> Iterator[None]:
    """Own a folder while it is deleted.

    Raises:
        InUse: another process works in it.
    """
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InUse(f"{path} is in use by another process.") from None
    try:
        yield
    finally:
        lock.release()


def _claim(path: Path, identity: Mapping[str, Any], overwrite: bool) -> RunFolder:
    """Return the folder with this run's identity in it."""
    if overwrite:
        _empty(path)
    folder = RunFolder(path)
    earlier = _identity(path)
    if earlier is None:
        write_json(folder.identity, dict(identity))
    elif changed := differences(earlier, identity):
        lines = "\n".join(f"  {line}" for line in changed)
        raise UserError(
            f"{path} contains another run. What differs:\n{lines}\n"
            "Take another run.name, or run.overwrite=true to delete it and start again."
        )
    for parent in (path, folder_in(path, folder.last.parent.name)):
        for left in filter(is_partial, parent.iterdir()):  # by a killed process of this run; nobody else may work in it
            left.unlink()
    return folder


def _release(path: Path, lock: FileLock) -> None:
    with suppress(OSError):  # on a disk that has become read-only; a dead owner is known as such
        (path / OWNER).unlink(missing_ok=True)
    lock.release()


def _remove(new_folders: Sequence[Path]) -> None:
    """Undo the folders that a failed start made, the innermost first."""
    for folder in new_folders[:1]:
        shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        for folder in new_folders[1:]:
            folder.rmdir()


def _lock(path: Path) -> FileLock:
    lock = FileLock(path / LOCK)
    waited_until = time.monotonic() + _WORKERS_NOTICE
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            owner = owner_of(path)
            if owner is None or alive(owner) or time.monotonic() > waited_until:
                who = f" (process {owner['pid']} on {owner['host']})" if owner else ""
                raise InUse(
                    f"{path} is in use by another process{who}. Wait for it, or take another run.name."
                ) from None
            time.sleep(0.2)
    write_json(path / OWNER, processes.me())
    return lock


def owner_of(path: Path) -> dict[str, Any] | None:
    """Return which process says that it works in a folder, and when it ``wrote`` that; None where none does."""
    owner = small.owner(path / OWNER)
    try:
        return None if owner is None else {**owner, "wrote": (path / OWNER).stat().st_mtime}
    except OSError:
        return None


def alive(owner: Mapping[str, Any]) -> bool:
    """Return whether that process is still there; one that cannot be seen from here is taken for alive."""
    if "started" in owner:
        found = processes.alive(owner)
        return not processes.has_rebooted(owner) if found is None else found
    # Earlier versions wrote down the number alone: a process that began later has taken it over.
    if owner["host"] != socket.gethostname():
        return True
    pid = int(owner["pid"])
    began = processes.began(pid)
    return processes.exists(pid) and not (began is not None and began > owner["wrote"] + _CLOCKS)


def _identity(path: Path) -> dict[str, Any] | None:
    """Return the identity of the folder's run; None where there is none."""
    try:
        found = small.identity(path)
    except (OSError, Unreadable):
        return None
    return found if found is not None and "dataset.digest" in found else None


def _is_foreign(path: Path) -> bool:
    """Return whether the path contains something that is not a run's."""
    return not path.is_dir() or (_identity(path) is None and any(map(_is_content, path.iterdir())))


def _is_content(child: Path) -> bool:
    """Return whether a file is more than what a start leaves when it is killed at its first steps."""
    return child.name not in (LOCK, OWNER) and not is_partial(child)


def _empty(path: Path) -> None:
    """Delete what a run left in its folder.

    In an order that makes a kill harmless: without results a run is not finished, without its last checkpoint it
    starts at the first epoch, and as long as its identity is there the folder is known as a run's.
    """
    order = {"results.json": 0, "checkpoints": 1, "identity.json": 3}
    children = (child for child in path.iterdir() if child.name not in (LOCK, OWNER))
    for child in sorted(children, key=lambda child: order.get(child.name, 2)):
        if child.is_dir() and not child.is_symlink():
            (child / "last.ckpt").unlink(missing_ok=True)
            shutil.rmtree(child)
        else:
            child.unlink()
