"""The ledger of looks at a test set: each look makes the next score on it a little less honest."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from ddtl.files import append_line, read_lines


def record_look(runs_dir: Path, *, dataset: str, protocol: str, run: str, checkpoint: str, digest: str) -> int:
    """Write down that a checkpoint is about to be scored on a test set, and say the how-manieth look it is.

    The same checkpoint scored again is the same look.

    Args:
        runs_dir: folder of all runs; the ledger is ``<runs_dir>/<dataset>/test_looks_<protocol>.jsonl``.
        dataset, protocol: whose test set.
        run: name of the run's folder.
        checkpoint: what is scored.
        digest: what the images and their split were.
    """
    path = runs_dir / dataset / f"test_looks_{protocol}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        looks = read_lines(path)
        for row in looks:
            if (row["run"], row["checkpoint"], row["digest"]) == (run, checkpoint, digest):
                return int(row["look"])
        look = len(looks) + 1
        when = datetime.now(UTC).isoformat(timespec="seconds")
        append_line(path, {"look": look, "when": when, "run": run, "checkpoint": checkpoint, "digest": digest})
    return look
