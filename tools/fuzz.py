"""Changes records of every kind at random and runs the commands that read them: ``make fuzz``.

    python -m tools.fuzz                    # 5,000 mutations of fixed seeds; the table that docs/security.md contains
    python -m tools.fuzz --count 500 --first 5000 --only sweep.json
    python -m tools.fuzz --count 0 --keys   # JSON records in which one key is missing, every one of two levels

Exit code 1 where a command ended in a traceback, took over 2 s of computing, or over 1 GiB; each such mutation is
printed with the line that repeats it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.mutations import Kind, Workplace


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--keys", action="store_true", help="then without each key of two levels, each reader")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["DDTL_CACHE"] = f"{home}/cache"
        os.environ["WANDB_MODE"] = "offline"
        from tests.support.mutations import Workplace, planned, registered

        with registered():
            place = Workplace(Path(home))
            tried = [one for one in planned(given.first, given.count) if given.only in one[0].name]
            return max(fuzz(place, tried), lacking(place, given.only) if given.keys else 0)


def fuzz(place: Workplace, tried: Sequence[tuple[Kind, str, int]]) -> int:
    """Try mutations, print the faults and the table; returns the exit code."""
    from tests.support.mutations import consume

    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    readers: dict[str, set[str]] = defaultdict(set)
    slowest: dict[str, float] = defaultdict(float)
    begun = time.monotonic()
    for consumer in sorted({consumer for _, consumer, _ in tried}):
        consume(consumer, place.renew())  # what is imported once is in no mutation's time
    for kind, consumer, seed in tried:
        what, outcome = place.tried(kind, consumer, seed)
        outcomes[kind.name][outcome.state] += 1
        readers[kind.name].add(consumer)
        slowest[kind.name] = max(slowest[kind.name], outcome.seconds)
        if outcome.state == "wrong":
            where = f"{kind.file} ({what}), {consumer}: --first {seed} --count 1"
            sys.stdout.write(f"--- {where}\n{outcome.words}\n")
    sys.stdout.write(table(outcomes, readers, slowest))
    sys.stdout.write(f"{len(tried):,} mutations in {time.monotonic() - begun:.0f} s\n")
    return int(any(found["wrong"] for found in outcomes.values()))


def lacking(place: Workplace, only: str) -> int:
    """Have every reader read the JSON records without one key, print the faults; returns the exit code."""
    from tests.support.mutations import KINDS

    tried = faults = 0
    for kind in (kind for kind in KINDS if kind.form == "json" and only in kind.name):
        for keys in place.keys(kind, 2):
            for consumer in dict.fromkeys(kind.consumers):
                outcome = place.without(kind, keys, consumer)
                tried += 1
                if outcome.state == "wrong":
                    faults += 1
                    sys.stdout.write(f"--- {kind.file} without {'.'.join(keys)}, {consumer}\n{outcome.words}\n")
    sys.stdout.write(f"{tried:,} times a key was missing: {faults} faults\n")
    return int(faults > 0)


def table(outcomes: dict[str, Counter[str]], readers: dict[str, set[str]], slowest: dict[str, float]) -> str:
    """Markdown: a row for each kind of record."""
    lines = [
        "| record | read by | mutations | done | one line | faults | slowest, s |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for kind, found in outcomes.items():
        refused = found["refused"] + found["failed"]
        numbers = f"{found.total():,} | {found['done']:,} | {refused:,} | {found['wrong']:,} | {slowest[kind]:.2f}"
        lines.append(f"| {kind} | {', '.join(sorted(readers[kind]))} | {numbers} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
