"""What a sweep costs in addition to training: time of a trial outside fit and predict, start of its process, idle
workers.

    python -m benchmarks.sweep_overhead

Sweeps of small trainings on the phantom with ``engine=local``, with one worker and with several. Nothing but their
records is read: a trial's time runs from the moment in which its worker takes it until its end is reported to the
store. A child process is timed from its start until it speaks: the first one, for which the training stack is
imported, and those after it, next to ``import ddtl.sweeps.workers.preload`` in a fresh interpreter. The last line is
one JSON object; times in seconds: medians with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks import measuring
from ddtl.reports.sweep import workers as sweep_workers

SMALL = ("model=squeezenet1_1", "trainer=cpu", "trainer.max_epochs=3", "logger=none", "finalize=false")
CHILDREN = 4


def main(trials: int, workers: int, repetitions: int, words: Sequence[str]) -> dict[str, Any]:
    """Return all figures.

    Args:
        trials: of each worker.
        workers: of the second sweep.
        repetitions: of the process starts.
        words: further settings of the sweeps.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for count in dict.fromkeys((1, workers)):
            record = _swept(Path(scratch) / str(count), trials * count, count, words)
            found["1 worker" if count == 1 else f"{count} workers"] = _figures(record)
    starts = [_starts() for _ in range(repetitions)]
    by_name = {name: [each[name] for each in starts] for name in starts[0]}
    return {"sweeps": found, "processes": measuring.summary(by_name)}


def speak(pipe: Connection) -> None:
    """Say when this was reached, by the clock that all processes of a machine share."""
    pipe.send(time.monotonic())


def _starts() -> dict[str, float]:
    """Of one round: import of the stack; start of the first child, and that beyond the import; start of a later one."""
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import ddtl.sweeps.workers.preload"], check=True)
    imported = time.monotonic() - begun
    program = "from benchmarks import sweep_overhead; sweep_overhead.children()"
    ended = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    first, *later = json.loads(ended.stdout.splitlines()[-1])
    print(
        f"import {imported:.2f} s, first child {first:.2f} s, later ones {', '.join(f'{s:.3f}' for s in later)} s",
        flush=True,
    )
    return {
        "import": imported,
        "first_child": first,
        "first_child_beyond_import": first - imported,
        "later_child": sorted(later)[len(later) // 2],
    }


def children() -> None:
    """Print the seconds from the start of each of some children until it speaks, of the first with all preparations."""
    from ddtl.sweeps.workers import processes

    begun = time.monotonic()
    context: Any = processes.prepare()
    found = []
    for number in range(CHILDREN):
        ours, theirs = context.Pipe(duplex=False)
        begun = time.monotonic() if number else begun
        process = context.Process(target=speak, args=(theirs,))
        process.start()
        found.append(ours.recv() - begun)
        process.join()
    print(json.dumps(found))


def _swept(runs: Path, trials: int, workers: int, words: Sequence[str]) -> Mapping[str, Any]:
    """Return the record of a sweep without pruning."""
    reported = {word.partition("=")[0] for word in words}
    arguments = [
        *("search=lr", f"n_trials={trials}", f"engine.workers={workers}", "sampler.name=RandomSampler"),
        *("pruner.name=NopPruner", "sweep.name=overhead", f"paths.runs_dir={runs}"),
        *(word for word in SMALL if word.partition("=")[0] not in reported),
        *words,
    ]
    print(f"{trials} trials, {workers} at a time", flush=True)
    ended = subprocess.run(
        [sys.executable, "-m", "ddtl", "sweep", *arguments], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        sys.exit(f"the sweep ended with {ended.returncode}\n{ended.stderr[-3000:]}")
    found: dict[str, Any] = json.loads((runs / "sweeps" / "overhead" / "sweep.json").read_text(encoding="utf-8"))
    return found


def _figures(record: Mapping[str, Any]) -> dict[str, Any]:
    """Times of its trials, and how idle its workers were."""
    parts = sweep_workers.stretches(record)
    # The first trial of a worker waits for the import of the training stack, which its process's start has below.
    first = {next(part.trial for part in parts if part.worker == name) for name in sweep_workers.workers(parts)}
    outside: dict[str, list[float]] = {"first of a worker": [], "later": []}
    for trial in record["trials"]:
        inside = trial["fit_seconds"] + trial["predict_seconds"]
        outside["first of a worker" if trial["number"] in first else "later"].append(trial["seconds"] - inside)
    whole = [trial["seconds"] for trial in record["trials"]]
    return {
        "trial_seconds": measuring.summary({"all": whole})["all"],
        "outside_fit_and_predict": measuring.summary({name: values for name, values in outside.items() if values}),
        "idle_share": sweep_workers.idle_share(parts),
        "idle_share_to_the_end": _to_the_end(parts),
    }


def _to_the_end(parts: Sequence[sweep_workers.Stretch]) -> float:
    """With the time in which a worker had nothing left to do while another one was still at its last trial."""
    workers = len(sweep_workers.workers(parts))
    return 1 - sum(part.length for part in parts) / (workers * max(part.end for part in parts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="further settings of the sweeps")
    parser.add_argument("--trials", type=int, default=12, help="of each worker")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    result = main(given.trials, given.workers, given.rounds, given.words)
    measuring.finish(benchmark="sweep_overhead", trials=given.trials, **result)
