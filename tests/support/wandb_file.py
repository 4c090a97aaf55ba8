"""A reader of the ``.wandb`` file that W&B keeps of an offline run: what ``wandb sync`` would send."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 32 * 1024  # LevelDB's log format, after a header of the file
_FILE_HEADER = 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def find(folder: Path) -> list[Path]:
    """The files of the offline runs in a run's folder, oldest first."""
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)


def payloads(path: Path) -> Iterator[bytes]:
    """The serialised records, each put together from its pieces."""
    data = path.read_bytes()
    assert data[:4] == b":W&B", data[:_FILE_HEADER]
    at, parts = _FILE_HEADER, b""
    while at < len(data):
        left = _BLOCK - at % _BLOCK
        if left < 7:
            assert not any(data[at : at + left])
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        piece = data[at + 7 : at + 7 + length]
        assert len(piece) == length, "the last record was cut off"
        at += 7 + length
        assert kind in (_FULL, _FIRST, _MIDDLE, _LAST), kind
        assert (kind in (_FULL, _FIRST)) == (parts == b"")
        parts += piece
        if kind in (_FULL, _LAST):
            yield parts
            parts = b""
    assert parts == b""


def records(path: Path) -> list[Any]:
    """The records as W&B's protocol buffers; ``record.WhichOneof("record_type")`` says what each holds."""
    from wandb.proto import wandb_internal_pb2

    return [wandb_internal_pb2.Record.FromString(payload) for payload in payloads(path)]


def kinds(path: Path) -> list[str]:
    """The kind of each record."""
    return [record.WhichOneof("record_type") for record in records(path)]


def config(path: Path) -> dict[str, Any]:
    """The run's configuration, as it was last set; without W&B's own part."""
    found: dict[str, Any] = {}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        update = record.run.config.update if kind == "run" else record.config.update if kind == "config" else ()
        found |= _items(update)
    found.pop("_wandb", None)
    return found


def history(path: Path) -> list[dict[str, Any]]:
    """The points of the curves, a dict each, in the order of logging."""
    return [_items(r.history.item) for r in records(path) if r.WhichOneof("record_type") == "history"]


def summary(path: Path) -> dict[str, Any]:
    """The last value of everything."""
    found: dict[str, Any] = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "summary":
            found |= _items(record.summary.update)
    return found


def run(path: Path) -> Any:
    """The run's own record: ``run_id``, ``run_group``, ``display_name``, ``host``, …"""
    return next(r.run for r in records(path) if r.WhichOneof("record_type") == "run")


def exit_code(path: Path) -> int | None:
    """What the run ended with; None where no end was written."""
    codes = [r.exit.exit_code for r in records(path) if r.WhichOneof("record_type") == "exit"]
    return codes[-1] if codes else None


def _items(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def artifacts(path: Path) -> dict[str, list[str]]:
    """The names of the files of each artifact, by its type."""
    found = [r.artifact for r in records(path) if r.WhichOneof("record_type") == "artifact"]
    found += [
        r.request.log_artifact.artifact
        for r in records(path)
        if r.WhichOneof("record_type") == "request" and r.request.WhichOneof("request_type") == "log_artifact"
    ]
    return {one.type: [entry.path for entry in one.manifest.contents] for one in found}
