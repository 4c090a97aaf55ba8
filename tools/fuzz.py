"""Changes records of every kind at random and runs the commands that read them: ``make fuzz``.

    python -m tools.fuzz                    # 5,000 mutations of fixed seeds; the table that docs/security.md contains
    python -m tools.fuzz --count 500 --first 5000 --only sweep.json

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
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["DDTL_CACHE"] = f"{home}/cache"
        os.environ["WANDB_MODE"] = "offline"
        from tests.support.mutations import Workplace, planned, registered

        with registered():
            tried = [one for one in planned(given.first, given.count) if given.only in one[0].name]
            return fuzz(Workplace(Path(home)), tried)


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
