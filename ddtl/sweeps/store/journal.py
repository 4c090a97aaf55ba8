"""Optuna's journal file, made safe against writers that are killed.

A process killed while it appends leaves a line without its end. Optuna's reader leaves such a last line out, but the
next writer's line is glued to it, and from then on no process can read the study. Here every writer examines the file's
end first, under the lock that all writers take, and moves what was torn to a file of its own.

Each line says at which byte of the file it begins, in a key that Optuna's reader passes over. Where lines before it
were removed or added, that is no longer so; lines of other writers (Optuna's dashboard, earlier versions) have no such
key.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from ddtl.utils.errors import UserError
from ddtl.utils.files import append_line, append_to, last_line
from ddtl.utils.reading import TABLE, read_bytes

_BEGIN = "begin"  # of a line, in bytes


def storage(path: Path) -> JournalStorage:
    """Return the storage in a journal file, which is made where there is none."""
    return JournalStorage(_Backend(path))


def repair(path: Path) -> str | None:
    """Move a torn last line to ``journal.torn`` and check all others; a line for the person where there was one.

    Raises:
        UserError: another line is damaged; nothing is changed.
    """
    if not path.exists():
        return None
    with _Locked(path):
        *lines, tail = read_bytes(path, TABLE).split(b"\n")
        begin = 0
        for number, line in enumerate(lines, start=1):
            entry = _entry(line)
            if entry is None:
                raise UserError(
                    f"{path}, line {number}: is damaged, so the sweep cannot be read. Put back a copy of the file; to "
                    "search again, set another sweep.name."
                )
            if entry.get(_BEGIN, begin) != begin:
                raise UserError(
                    f"{path}: lines before line {number} were removed or changed, so its trials cannot be "
                    "distinguished. Put back a copy of the file; to search again, set another sweep.name."
                )
            begin += len(line) + 1
        if not tail:
            return None
        _set_aside(path, tail)
    return (
        f"{path}: its last line was cut off when a process was killed. It is now in {_torn(path).name} "
        f"({len(tail)} bytes); all {len(lines)} lines before it are whole."
    )


class _Backend(JournalFileBackend):
    """Appends whole lines to whole lines only."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Lock(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with _Locked(self._path, self._lock):
            with append_to(self._path) as file:
                tail = last_line(file)
            if tail:
                _set_aside(self._path, tail)
            size = self._path.stat().st_size
            text = b""
            for log in logs:
                text += json.dumps({**log, _BEGIN: size + len(text)}, separators=(",", ":")).encode() + b"\n"
            try:
                with append_to(self._path) as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:  # the disk is full: what did get there would be a torn line
                os.truncate(self._path, size)
                raise


class _Lock(JournalFileOpenLock):
    """Optuna's lock, which others (its dashboard) respect, behind one that the system frees when its holder dies.

    Optuna's lock is a file. The file of a killed process would block everybody for half a minute; whoever has the
    other lock knows that such a file, if it is ours and no symbolic link of Optuna's default lock, is a dead one's.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._file = path.with_name(f"{path.name}.lock")
        self._guard = FileLock(path.with_name(f".{path.name}.guard"))

    def acquire(self) -> bool:
        self._guard.acquire()
        if self._file.exists() and not self._file.is_symlink():
            self._file.unlink(missing_ok=True)
        return super().acquire()

    def release(self) -> None:
        try:
            super().release()
        finally:
            self._guard.release()


class _Locked:
    """While the journal is this process's alone."""

    def __init__(self, path: Path, lock: Any = None) -> None:
        self._lock = lock or _Lock(path)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)  # Optuna's numbers may be NaN
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and "op_code" in entry else None


def _torn(path: Path) -> Path:
    return path.with_suffix(".torn")


def _set_aside(path: Path, tail: bytes) -> None:
    """Keep the torn part in a file of its own, then cut it off; the caller has the lock."""
    append_line(_torn(path), {"after_byte": path.stat().st_size - len(tail), "torn": tail.decode(errors="replace")})
    os.truncate(path, path.stat().st_size - len(tail))
