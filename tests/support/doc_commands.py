"""The commands of README and docs, and a place in which a shell can be given them exactly as they stand there.

Programs are replaced by scripts that write down their words as the shell hands them over; what those words mean is then
asked of ddtl itself, without training.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ddtl.utils.files import write_json
from tests.support import records, sweep_records
from tests.support.study_records import cross_dataset

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Languages of blocks that nobody types into a shell. Every other block is one of commands.
NO_COMMANDS = ("yaml", "text", "csv", "python", "json")
# Programs that are not run, only written down.
PROGRAMS = ("python", "ddtl", "make", "wandb", "torchrun", "scontrol", "pip", "uv", "docker", "mlflow")

_RECORD = """#!/bin/bash
{ printf '%s\\0' "$(basename "$0")" "$@"; env | grep '^SLURM_STEP' | tr '\\n' '\\0'; printf '\\1\\0'; } >> "$RECORD"
"""
# Runs its command as the first task of a step on this machine.
_SRUN = """#!/bin/bash
nodes=1 each=1
while [ "${1#--}" != "$1" ]; do
  case $1 in --nodes=*) nodes=${1#*=};; --ntasks-per-node=*|--ntasks=*) each=${1#*=};; esac
  shift
done
export SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=$((nodes * each)) SLURM_STEP_NODELIST=localhost
exec "$@"
"""


@dataclass(frozen=True)
class Line:
    """What a person pastes: one command, or a whole script.

    Attributes:
        page: name of the file.
        number: of the line in it.
        text: as it stands there.
    """

    page: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.number}"


@dataclass(frozen=True)
class Call:
    """A program as a shell called it."""

    program: str
    words: tuple[str, ...]
    step: dict[str, str]


@dataclass(frozen=True)
class Block:
    """A block of code of a page.

    Attributes:
        page: name of the file.
        number: of its first line in it.
        language: behind its opening fence; empty where commands are.
        lines: as they are there, without the indentation of a list.
    """

    page: str
    number: int
    language: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.number}"


def blocks(path: Path) -> Iterator[Block]:
    """Every block of code of a page, those within lists too."""
    block: list[str] | None = None
    first, indent, language = 0, 0, ""
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fence = text.strip()
        if not fence.startswith("```"):
            if block is not None:
                block.append(text[indent:] if text[:indent].isspace() else text)
        elif block is None:
            block, first, indent, language = [], number + 1, text.index("`"), fence.removeprefix("```").strip()
        else:
            yield Block(path.name, first, language, tuple(block))
            block = None
    assert block is None, f"{path.name}: a block that does not end"


def lines(path: Path) -> Iterator[Line]:
    """The commands of a page's blocks; a block that begins with ``#!`` is one of them."""
    for block in blocks(path):
        if block.language not in NO_COMMANDS and not block.language.startswith("{"):  # of Sphinx
            yield from _commands(path.name, list(enumerate(block.lines, start=block.number)))


def _commands(page: str, block: list[tuple[int, str]]) -> Iterator[Line]:
    if block[0][1].startswith("#!"):
        yield Line(page, block[0][0], "\n".join(text for _, text in block) + "\n")
        return
    held: list[str] = []
    for number, text in block:
        held.append(text)
        if text.endswith("\\"):
            continue
        whole = "\n".join(held)
        if whole.strip() and not whole.lstrip().startswith("#"):
            yield Line(page, number - len(held) + 1, whole)
        held = []
    assert not held, f"{page}: a line that goes on behind the end of its block"


def furnish(here: Path) -> None:
    """A folder in which every placeholder of the docs is something real: RUN, A and B are finished runs, and so on."""
    shims = here / "shims"
    (here / ".venv" / "bin").mkdir(parents=True)
    shims.mkdir()
    for folder in (shims, here / ".venv" / "bin"):
        for name in PROGRAMS:
            _script(folder / name, _RECORD)
    _script(shims / "srun", _SRUN)
    shutil.copytree(ROOT / "conf", here / "conf")
    own = here / "my_conf" / "finetune" / "long_probe.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("defaults: [lp_ft]\nname: long_probe\nprobe: 0.6\n")
    runs = here / "runs"
    first = records.write(runs / "covid19ct" / "densenet121-full-s0-0123456789")
    (first / "model.safetensors").write_bytes(b"")
    second = runs / "covid19ct" / "squeezenet1_1-full-s0-abcdef0123"
    records.write(second, records.table(seed=1), overrides=("dataset=covid19ct", "model=squeezenet1_1"))
    for name in (
        "RUN",
        "OTHER",
        "THIRD",
        "A",
        "B",
        "runs/sarscov2ct/NAME",
        "runs/covid19ct/densenet121-lp_ft-s0-fedcba9876",
    ):
        shutil.copytree(first, here / name)
    for run in (first, here / "RUN", here / "A", here / "B"):
        home = run / "evaluations" / "sarscov2ct-grouped"
        records.write(home, trained_on={"dataset": "covid19ct", "protocol": "official", "run": run.name})
    (here / "RUN" / "wandb" / "offline-run-20261129-abc").mkdir(parents=True)
    for name in ("folder", "other", "scans", "FOLDER"):
        (here / name).mkdir()
    shutil.copytree(runs / "covid19ct", here / "FOLDER" / "covid19ct")
    for name in (
        "scan.png",
        "study.dcm",
        "folder/a.png",
        "other/b.png",
        "scans/c.png",
        "FILE",
        "A.zip",
        "encoder.onnx",
        "sose2020-idv-6b3a5656.zip",
    ):
        (here / name).write_bytes(b"")
    write_json(_made(runs / "sweeps" / "covid19ct-lr_unfreeze") / "sweep.json", sweep_records.record())
    _made(runs / "studies")
    cross_dataset(here / "study_runs").rename(runs / "studies" / "NAME")
    for name in ("squeezenet1_1-imagenet.safetensors", "runs/audits/sarscov2ct/exclude.csv"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(b"sample_id\n")
    # What the docs call by an absolute path.
    for label in ("covid", "normal"):
        (here / "images" / label).mkdir(parents=True)
        (here / "images" / label / "P001_03.png").write_bytes(b"")
    (here / "images.csv").write_text("path,label\nimages/covid/P001_03.png,covid\n")


def typed(line: Line, here: Path) -> list[Call]:
    """The programs that bash calls when it is given the line, in their order.

    Raises:
        AssertionError: the shell does not take it, or calls nothing.
    """
    record = here / "record"
    record.unlink(missing_ok=True)
    environment = {**os.environ, "PATH": f"{here / 'shims'}:{os.environ['PATH']}", "RECORD": str(record)}
    done = subprocess.run(
        ["bash", "-c", line.text], cwd=here, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), (line.text, done.stderr)
    assert record.exists(), f"{line}: {line.text} calls no program that is known here"
    found = []
    for call in record.read_text().split("\1\0")[:-1]:
        program, *words = call.split("\0")[:-1]
        step = dict(word.split("=", 1) for word in words if word.startswith("SLURM_STEP"))
        found.append(Call(program, tuple(word for word in words if not word.startswith("SLURM_STEP")), step))
    return found


def placed(words: tuple[str, ...], here: Path) -> list[str]:
    """The words with the absolute paths of the docs as those of the furnished folder."""
    for path, real in (
        ("/data/images.csv", "images.csv"), ("/data/labels.csv", "images.csv"), ("/data/third", "images"),
        ("/data/chest", "images"), ("/data/pacs", "images"), ("/data/volumes", "images"),
    ):  # fmt: skip
        words = tuple(word.replace(path, str(here / real)) for word in words)
    return [word.replace("=/images", f"={here}/images").replace(": /images", f": {here}/images") for word in words]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
