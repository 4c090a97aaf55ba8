"""The folder that holds everything about one run: who may work in it, and how far it has come."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ddtl.errors import UserError
from ddtl.files import write_json
from ddtl.training.identity import differences

_LOCK = ".lock"
_OWNER = ".owner.json"
# A killed process's loader workers hold its lock until they notice, which takes them some seconds.
_WORKERS_NOTICE = 30.0


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
    def predictions(self) -> Path:
        return self.path / "predictions.csv"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def wandb_id(self) -> Path:
        return self.path / "wandb_id"

    def finished(self) -> dict[str, Any] | None:
        """The results of a run that came to its end."""
        if not self.results.exists():
            return None
        results: dict[str, Any] = json.loads(self.results.read_text(encoding="utf-8"))
        return results


@contextmanager
def opened(path: Path, identity: Mapping[str, Any], overwrite: bool) -> Iterator[RunFolder]:
    """Own a run's folder: new, or an earlier one of the same identity.

    A process killed in the middle leaves the lock free. Child processes of a distributed run must not call this: their
    parent owns the folder.

    Raises:
        UserError: another process works in it, or it holds another run; nothing is changed.
    """
    fresh = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    lock = _locked(path)
    try:
        folder = RunFolder(path)
        if overwrite and not fresh:
            _empty(path)
        if folder.identity.exists():
            changed = differences(json.loads(folder.identity.read_text(encoding="utf-8")), identity)
            if changed:
                lines = "\n".join(f"  {line}" for line in changed)
                raise UserError(
                    f"{path} holds another run. What differs:\n{lines}\n"
                    "Take another run.name, or run.overwrite=true to delete it and start anew."
                )
        elif any(child.name not in (_LOCK, _OWNER) for child in path.iterdir()):
            raise UserError(f"{path} is not the folder of a run. Take another run.name, or move it away.")
        else:
            write_json(folder.identity, dict(identity))
        folder.last.parent.mkdir(exist_ok=True)
        yield folder
    finally:
        (path / _OWNER).unlink(missing_ok=True)
        lock.release()


def _locked(path: Path) -> FileLock:
    lock = FileLock(path / _LOCK)
    waited_until = time.monotonic() + _WORKERS_NOTICE
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            owner = _owner(path)
            if owner is None or _alive(owner) or time.monotonic() > waited_until:
                who = f" (process {owner['pid']} on {owner['host']})" if owner else ""
                raise UserError(
                    f"{path} is in use by another process{who}. Wait for it, or take another run.name."
                ) from None
            time.sleep(0.2)
    write_json(path / _OWNER, {"pid": os.getpid(), "host": socket.gethostname()})
    return lock


def _owner(path: Path) -> dict[str, Any] | None:
    try:
        owner: dict[str, Any] = json.loads((path / _OWNER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return owner


def _alive(owner: Mapping[str, Any]) -> bool:
    if owner["host"] != socket.gethostname():
        return True  # cannot be seen from here, so it must be taken for alive
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _empty(path: Path) -> None:
    """Delete what a run left in its folder, the lock excepted."""
    if not (path / "identity.json").exists() and any(c.name not in (_LOCK, _OWNER) for c in path.iterdir()):
        raise UserError(f"{path} is not the folder of a run; run.overwrite=true deletes only those. Move it away.")
    for child in path.iterdir():
        if child.name in (_LOCK, _OWNER):
            continue
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()
