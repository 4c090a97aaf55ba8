"""Kills sweeps at random and checks that nothing is lost: rounds of a signal at a random moment, then the same command.

  python tools/chaos_sweep.py --rounds 20

Each round is a small sweep on the phantom with two workers. At a random moment the sweep, one of its trials, the server
that trials are forked from, or all of them at once get SIGKILL, SIGTERM or SIGINT, once or twice; the same command is
then typed until it comes to its end. After that no trial may be running, there must be as many as were requested, no
run's folder may have been begun again, and the weights of every trial must be, to the bit, those of the same trial left
alone: of its printed line, typed with another paths.runs_dir. The last line is one JSON object; exit code 1 where
something did not hold, and the folder is then kept.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TARGETS = ("sweep", "trial", "server", "all")
_ATTEMPTS = 8  # of the same command; each but the last may be killed once

# Ten sampled trials are a function of the seed alone, so one reference serves all rounds.
SETTINGS = (
    "search=lr",
    "search.space={optimizer.lr: {float: [1e-4, 1e-2], log: true}, dataset.batch_size: {choice: [8, 16]}}",
    "sweep.name=chaos",
    "sweep.retries=50",
    "sweep.keep=10",
    "pruner.name=NopPruner",
    "engine.workers=2",
    "finalize=false",
    "model=squeezenet1_1",
    "model.weights=none",
    "finetune=full",
    "dataset.phantom.n_patients=60",
    "dataset.phantom.slices_per_patient=4",
    "dataset.phantom.size=64",
    "dataset.image_size=32",
    "trainer=cpu",
    "logger=none",
)


@dataclass
class Evidence:
    """The state of a run's folder when it was first seen: the file that names it, and the first epoch's record."""

    identity: tuple[int, int]
    first: str | None


@dataclass
class Round:
    """What happened in one round."""

    hits: list[str] = field(default_factory=list)
    commands: int = 0
    continued: int = 0
    problems: list[str] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=4, help="of each sweep, at most 10")
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    settings = [*SETTINGS, f"n_trials={arguments.trials}", f"trainer.max_epochs={arguments.epochs}"]
    began = time.monotonic()
    quiet = time.monotonic()
    _typed(folder / "quiet", settings).wait()
    length = time.monotonic() - quiet
    alone = _references(folder)
    chance = random.Random(arguments.seed)
    repetitions = []
    for number in range(arguments.rounds):
        repetitions.append(_round(folder / f"{number}", settings, arguments.trials, length, chance, alone))
        print(
            f"round {number}: {'; '.join(repetitions[-1].hits)}: {repetitions[-1].problems or 'all held'}", flush=True
        )
    problems = [f"round {i}: {problem}" for i, one in enumerate(repetitions) for problem in one.problems]
    found = {
        "rounds": arguments.rounds,
        "trials": arguments.rounds * arguments.trials,
        "commands": sum(one.commands for one in repetitions),
        "hits": dict(Counter(hit for one in repetitions for hit in one.hits)),
        "continued": sum(one.continued for one in repetitions),
        "problems": problems,
        "folder": str(folder) if problems else None,
        "seconds": round(time.monotonic() - began, 1),
    }
    if not problems:
        shutil.rmtree(folder)
    print(json.dumps(found))
    return 1 if problems else 0


def _typed(runs_dir: Path, settings: Sequence[str]) -> subprocess.Popen[bytes]:
    """Return the command, typed once."""
    runs_dir.mkdir(exist_ok=True, parents=True)
    with (runs_dir / "terminal.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "sweep.py"), *settings, f"paths.runs_dir={runs_dir}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _references(folder: Path) -> dict[int, bytes]:
    """Return the weights of each trial, by its number, where its line was typed alone."""
    found = {}
    for trial in _record(folder / "quiet")["trials"]:
        line = shlex.split(trial["line"])
        line = [word if not word.startswith("paths.runs_dir=") else f"paths.runs_dir={folder}/alone" for word in line]
        subprocess.run([sys.executable, str(ROOT / line[1]), *line[2:]], check=True, capture_output=True)
        found[trial["number"]] = (folder / "alone" / "phantom" / trial["run"] / "model.safetensors").read_bytes()
    return found


def _record(runs_dir: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((runs_dir / "sweeps" / "chaos" / "sweep.json").read_text(encoding="utf-8"))
    return record


def _round(
    runs_dir: Path, settings: Sequence[str], trials: int, length: float, chance: random.Random, alone: dict[int, bytes]
) -> Round:
    done = Round()
    seen: dict[Path, Evidence] = {}
    hits = chance.choice((1, 1, 2))
    code: int | None = None
    while done.commands < _ATTEMPTS and code != 0:
        done.commands += 1
        command = _typed(runs_dir, settings)
        if done.commands <= hits:
            target = chance.choice(TARGETS)
            at = time.monotonic() + chance.uniform(0.1, 1) * length
            while command.poll() is None and (time.monotonic() < at or not _parts(command.pid, chance)[target]):
                _record_folders(runs_dir, seen, done.problems)
                time.sleep(0.1)
            done.hits.append(_hit(command.pid, target, chance))
        while command.poll() is None:
            _record_folders(runs_dir, seen, done.problems)
            time.sleep(0.1)
        code = command.returncode
    if code != 0:
        done.problems.append(f"the command ended with {code} at last; see {runs_dir / 'terminal.log'}")
        return done
    _record_folders(runs_dir, seen, done.problems)
    _judge(runs_dir, trials, done, alone)
    return done


def _hit(command: int, target: str, chance: random.Random) -> str:
    """Send a signal to a part of the sweep; what was sent to whom."""
    signum, pids = chance.choice(SIGNALS), _parts(command, chance)[target]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
    return f"{signum.name} to {target}" + ("" if pids else ", which had ended")


def _parts(command: int, chance: random.Random) -> dict[str, list[int]]:
    """Return the numbers of the processes that a signal to a target goes to."""
    servers = _children(command)
    trials = [pid for server in servers for pid in _children(server)]
    one = [chance.choice(trials)] if trials else []
    return {"sweep": [command], "trial": one, "server": servers, "all": [command, *servers, *trials]}


def _children(pid: int) -> list[int]:
    """Numbers of the processes that this one has started."""
    return [child for child, parent in _parents() if parent == pid]


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                yield int(entry.name), int((entry / "stat").read_text().rpartition(")")[2].split()[1])


def _record_folders(runs_dir: Path, seen: dict[Path, Evidence], problems: list[str]) -> None:
    """Compare the folders of runs with what they were when they were first seen."""
    for identity in runs_dir.glob("phantom/*/identity.json"):
        with suppress(FileNotFoundError):
            values = identity.stat()
            now = Evidence((values.st_ino, values.st_mtime_ns), _first_line(identity.with_name("metrics.jsonl")))
            before = seen.setdefault(identity, now)
            if now.identity != before.identity or (before.first is not None and now.first != before.first):
                problems.append(f"{identity.parent.name} was begun again")
                seen[identity] = now
            before.first = before.first or now.first


def _first_line(path: Path) -> str | None:
    try:
        first, end, _ = path.read_text(encoding="utf-8").partition("\n")
    except FileNotFoundError:
        return None
    return first if end else None


def _judge(runs_dir: Path, trials: int, done: Round, alone: dict[int, bytes]) -> None:
    """What must contain once the command has come to its end."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = runs_dir / "sweeps" / "chaos" / "journal.log"
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))  # Optuna itself, without ours
    states = Counter(trial.state.name for trial in optuna.load_study(study_name="chaos", storage=storage).get_trials())
    if states != {"COMPLETE": trials}:
        done.problems.append(f"the trials are {dict(states)}, not {trials} that are complete")
    record = _record(runs_dir)
    if record["counts"] != {"complete": trials, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}:
        done.problems.append(f"the record counts {record['counts']}")
    if [trial["number"] for trial in record["trials"]] != list(range(trials)):
        done.problems.append("the trials' numbers have gaps")
    runs = [path for path in (runs_dir / "phantom").iterdir() if path.is_dir()]
    if len(runs) != trials:
        done.problems.append(f"{len(runs)} runs for {trials} trials")
    for trial in record["trials"]:
        done.continued += len(trial["attempts"]) > 1
        weights = runs_dir / "phantom" / str(trial["run"]) / "model.safetensors"
        if not weights.exists() or weights.read_bytes() != alone[trial["number"]]:
            done.problems.append(f"trial {trial['number']} has other weights than when it is left alone")


if __name__ == "__main__":
    sys.exit(main())
