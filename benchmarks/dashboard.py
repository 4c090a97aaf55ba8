"""How long ddtl dashboard takes: from the command to its first answer, and to the table, at 500 and at 10,000 runs.

    python -m benchmarks.dashboard                 # runs made of one real record, copied under other names
    python -m benchmarks.dashboard --runs 500

- start: seconds from the command to the first page.
- first_table: seconds of the first request for all rows, which reads every record.
- table: median seconds of further ones, in each of which one run has another epoch; those look through all folders.
- unchanged: median seconds of an answer that nothing has changed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.measuring import finish

_TAKEN = ("config.yaml", "identity.json", "metrics.jsonl", "results.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[500, 10_000])
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        found = {str(runs): measure(Path(home), runs, given.rounds) for runs in given.runs}
    finish(benchmark="dashboard", runs=found)


def measure(home: Path, runs: int, repetitions: int) -> dict[str, float]:
    """Return the figures of a folder with so many runs."""
    root = home / f"runs-{runs}"
    made = trained(home)
    for number in range(runs):
        folder = root / f"dataset{number % 10}" / f"{made.name}-{number:05}"
        folder.mkdir(parents=True)
        for name in _TAKEN:
            shutil.copy(made / name, folder / name)
    begun = time.perf_counter()
    command = [sys.executable, "-m", "ddtl", "dashboard", f"paths.runs_dir={root}", "port=0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = process.stderr.readline().split(": ", 1)[1].split()[0]
        _until_it_answers(address)
        start = time.perf_counter() - begun
        first, tag = _time_request(f"{address}/api/rows")
        table, unchanged = [], []
        for round_ in range(repetitions):
            time.sleep(0.6)  # rows are not searched for again within half a second
            with (root / "dataset0" / f"{made.name}-00000" / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"epoch": 100 + round_}) + "\n")
            seconds, tag = _time_request(f"{address}/api/rows", tag)
            table.append(seconds)
            unchanged.append(_time_request(f"{address}/api/rows", tag)[0])
    finally:
        process.terminate()
        process.wait()
    medians = {"table": statistics.median(table), "unchanged": statistics.median(unchanged)}
    return {name: round(value, 4) for name, value in {"start": start, "first_table": first, **medians}.items()}


def trained(home: Path) -> Path:
    """Return a real run's folder."""
    words = [
        "model=resnet18", "dataset=phantom", "dataset.image_size=32", "dataset.phantom.n_patients=40", "logger=none",
        f"paths.runs_dir={home / 'made'}", f"paths.cache_dir={home / 'cache'}",
    ]  # fmt: skip
    if not (home / "made").exists():
        subprocess.run([sys.executable, "-m", "ddtl", "train", *words], check=True, capture_output=True, env=os.environ)
    (folder,) = (home / "made" / "phantom").glob("*/")
    return folder


def _until_it_answers(address: str) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(address).read()
            return
        except OSError:
            assert time.monotonic() < end, f"{address} does not answer"
            time.sleep(0.01)


def _time_request(address: str, tag: str = "") -> tuple[float, str]:
    """Return seconds of an answer, and its tag."""
    begun = time.perf_counter()
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers={"If-None-Match": tag})) as answer:
            answer.read()
            tag = answer.headers["ETag"]
    except urllib.error.HTTPError as error:
        if error.code != 304:  # nothing has changed
            raise
    return time.perf_counter() - begun, tag


if __name__ == "__main__":
    main()
