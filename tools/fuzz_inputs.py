"""Read many image files that were changed by a seed, as ``ddtl predict`` reads them: more than the tests do.

    python tools/fuzz_inputs.py [COUNT] [FIRST]

Prints how many files of each kind were read or excluded and the longest time, and each fault: a file that takes more
than two seconds or a gigabyte, ends the process, or is excluded for a reason that is not about the file.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support import hostile_files

_AT_A_TIME = 1_000


def main(count: int = 5_000, first: int = 0) -> int:
    """Return 1 where there is a fault."""
    read, left_out, longest, wrong = Counter[str](), Counter[str](), 0.0, 0
    for start in range(first, first + count, _AT_A_TIME):
        for one in hostile_files.run(start, min(_AT_A_TIME, first + count - start)):
            (left_out if one.reason else read)[one.kind] += 1
            longest = max(longest, one.seconds)
            for fault in hostile_files.faults(one):
                wrong += 1
                print(f"seed {one.seed} ({one.kind}): {fault}")
    for kind in hostile_files.KINDS:
        print(f"{kind:<24} {read[kind]:>6} read {left_out[kind]:>6} excluded")
    print(f"{count} files, {wrong} faults, at most {longest:.1f} s a file")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
