"""Make the golden archives with the code of another checkout.

    python tests/golden/make.py CHECKOUT [NAME…]

Args: a checkout of the commit whose records are to be kept, with its own ``.venv``; which archives, all by default:
finished, killed, sweep, study, names. ``names`` needs DDTL_DATA. Pages are left out: they are made again.

The archives in this folder were made with commit 27f64be. They are never made again: a later ddtl must read them.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.golden import commands  # noqa: E402

_SCRIPTS = {"train": ["train.py"], "sweep": ["sweep.py"]}


class Maker:
    """Types commands in a folder, with the code of a checkout."""

    def __init__(self, checkout: Path, work: Path) -> None:
        self.checkout, self.work = checkout, work
        # The helpers without the package that lies beside them: the code is to be the checkout's.
        shutil.copytree(HERE, work / "helpers" / "tests" / "golden")
        (work / "helpers" / "tests" / "__init__.py").touch()
        # Of ddtl only the cache: the value of DDTL_DATA would stand in a run's config.yaml.
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("DDTL_")},
            "PYTHONPATH": os.pathsep.join([str(work / "helpers"), str(HERE / "site")]),
            "DDTL_CACHE": str(work / "cache"),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, folder: str, words: tuple[str, ...]) -> subprocess.Popen[bytes]:
        (self.work / folder).mkdir(exist_ok=True)
        command, *rest = words
        script = [str(self.checkout / name) for name in _SCRIPTS.get(command, [])] or ["-m", "ddtl", command]
        python = str(self.checkout / ".venv" / "bin" / "python")
        return subprocess.Popen(
            [python, *script, *rest], cwd=self.work / folder, env=self.environment, start_new_session=True
        )

    def run(self, folder: str, words: tuple[str, ...]) -> None:
        assert self.start(folder, words).wait() == 0, words

    def run_and_kill(self, folder: str, words: tuple[str, ...], when: Callable[[Path], bool]) -> None:
        """Kill a command without a warning, as a machine that loses power does."""
        process = self.start(folder, words)
        while not when(self.work / folder):
            assert process.poll() is None, f"{words} ended before it could be killed"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(5)  # what it started notices, and ends
        assert when(self.work / folder)

    def names(self) -> str:
        python = str(self.checkout / ".venv" / "bin" / "python")
        (self.work / "names").mkdir()
        command = [python, "-m", "tests.golden.names", str(self.work / "names")]
        return subprocess.run(
            command,
            env={**self.environment, "DDTL_DATA": os.environ["DDTL_DATA"]},
            cwd=self.work,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout


def _epochs(folder: Path) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in folder.glob("runs/*/*/metrics.jsonl"))


def killed_in_training(folder: Path) -> bool:
    has_checkpoint = any(folder.glob("runs/phantom/*/checkpoints/last.ckpt"))
    return _epochs(folder) >= commands.KILLED_AFTER and has_checkpoint and not any(folder.glob("runs/*/*/results.json"))


def killed_in_a_trial(folder: Path) -> bool:
    ended = len(list(folder.glob("runs/phantom/*/results.json")))
    begun = len(list(folder.glob("runs/phantom/*/checkpoints/last.ckpt")))
    return ended == commands.SWEEP_KILLED_AFTER and begun > ended


def killed_in_a_study(folder: Path) -> bool:
    ended = len(list(folder.glob("runs/phantom/*/evaluations/*/results.json")))
    begun = len(list(folder.glob("runs/phantom/*/checkpoints/last.ckpt")))
    records = list(folder.glob("runs/studies/*/study.json"))
    done = sum(job["run"] is not None for path in records for job in json.loads(path.read_text())["jobs"])
    return ended >= 1 and done == 1 and begun == 2


_KILLS = {
    "killed": (commands.KILLED, killed_in_training),
    "sweep": (commands.SWEEP, killed_in_a_trial),
    "study": (commands.STUDY, killed_in_a_study),
}


def pack(folder: Path, to: Path) -> None:
    """A folder as a compressed archive, without pages."""
    with lzma.open(to, "wb", preset=9 | lzma.PRESET_EXTREME) as file, tarfile.open(fileobj=file, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".html":
                info = archive.gettarinfo(path, str(path.relative_to(folder)))
                info.uid = info.gid = 0
                info.uname = info.gname = ""
                with path.open("rb") as content:
                    archive.addfile(info, content)


def main(checkout: Path, wanted: list[str]) -> None:
    with tempfile.TemporaryDirectory() as work:
        maker = Maker(checkout.resolve(), Path(work))
        for name in wanted:
            if name == "names":
                (HERE / "names.json").write_text(maker.names())
                continue
            if name == "finished":
                maker.run(name, commands.AUDIT)
                maker.run(name, commands.FINISHED)
            else:
                maker.run_and_kill(name, *_KILLS[name])
            pack(Path(work) / name, HERE / f"{name}.tar.xz")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or ["finished", "killed", "sweep", "study", "names"])
