"""The ledger of looks at a test set."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ddtl.files import read_lines
from ddtl.training.ledger import record_look


def look(runs_dir: Path, run: str = "a", checkpoint: str = "epoch 1", digest: str = "d", **where: str) -> int:
    where = {"dataset": "toy", "protocol": "grouped"} | where
    return record_look(runs_dir, run=run, checkpoint=checkpoint, digest=digest, **where)


def test_each_checkpoint_is_a_look_and_the_same_one_is_the_same_look(tmp_path: Path) -> None:
    assert look(tmp_path) == 1
    assert look(tmp_path, run="b") == 2
    assert look(tmp_path, checkpoint="epoch 2") == 3
    assert look(tmp_path, digest="other images") == 4
    assert look(tmp_path) == 1
    assert look(tmp_path, run="b") == 2
    rows = read_lines(tmp_path / "toy" / "test_looks_grouped.jsonl")
    assert [row["look"] for row in rows] == [1, 2, 3, 4]
    assert all(row["when"].endswith("+00:00") for row in rows)


def test_each_dataset_and_protocol_is_counted_apart(tmp_path: Path) -> None:
    assert look(tmp_path) == 1
    assert look(tmp_path, protocol="random") == 1
    assert look(tmp_path, dataset="another") == 1


def test_a_look_cut_off_by_a_crash_was_none(tmp_path: Path) -> None:
    look(tmp_path)
    look(tmp_path, run="b")
    path = tmp_path / "toy" / "test_looks_grouped.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert look(tmp_path, run="c") == 2
    assert look(tmp_path, run="b") == 3
    assert [row["run"] for row in read_lines(path)] == ["a", "c", "b"]


def test_an_edited_ledger_without_its_last_line_break_keeps_all_looks(tmp_path: Path) -> None:
    look(tmp_path)
    look(tmp_path, run="b")
    path = tmp_path / "toy" / "test_looks_grouped.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    assert look(tmp_path, run="c") == 3
    assert look(tmp_path, run="b") == 2


WRITER = """
import sys
from pathlib import Path
from ddtl.training.ledger import record_look
for i in range(20):
    look = record_look(Path(sys.argv[1]), dataset="toy", protocol="grouped",
                       run=sys.argv[2], checkpoint=f"epoch {i}", digest="d")
    print(look)
"""


def test_processes_at_once_never_share_a_number_or_lose_a_line(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), f"run{w}"], stdout=subprocess.PIPE, text=True)
        for w in range(4)
    ]
    looks = [int(line) for writer in writers for line in writer.communicate(timeout=60)[0].split()]
    assert sorted(looks) == list(range(1, 81))
    rows = read_lines(tmp_path / "toy" / "test_looks_grouped.jsonl")
    assert [row["look"] for row in rows] == list(range(1, 81))
    assert len({(row["run"], row["checkpoint"]) for row in rows}) == 80


def test_the_ledger_does_without_torch() -> None:
    code = (
        "import sys, ddtl.training.ledger, ddtl.training.run_folder, ddtl.training.identity; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
