"""The allocator as it is set before a network computes."""

import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import ctypes
import sys
from pathlib import Path

from ddtl.utils.memory import tune_allocator

if sys.argv[1] == "tuned":
    tune_allocator()
    tune_allocator()
before = int(Path("/proc/self/statm").read_text().split()[1])
array = bytearray(2**26)
middle, flags, start, end = ctypes.addressof(ctypes.c_char.from_buffer(array)) + 2**25, "", 0, 0
for line in Path("/proc/self/smaps").read_text().splitlines():
    if not line.split(" ", 1)[0].endswith(":"):
        start, end = (int(part, 16) for part in line.split(" ", 1)[0].split("-"))
    elif line.startswith("VmFlags:") and start <= middle < end:
        flags = line
print(" hg" in flags, before * 4096 < 100e6)
"""


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this kernel has no transparent huge pages"
)
@pytest.mark.parametrize(("what", "huge"), [("tuned", "True"), ("untouched", "False")])
def test_large_arrays_are_put_where_huge_pages_are_asked_for_and_that_takes_no_memory(what: str, huge: str) -> None:
    answer = subprocess.run([sys.executable, "-c", CHILD, what], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [huge, "True"]


def test_a_process_with_few_addresses_left_works_on() -> None:
    child = f"import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\nimport sys\n{CHILD}"
    answer = subprocess.run([sys.executable, "-c", child, "tuned"], capture_output=True, text=True, check=True)
    assert answer.stdout.split()[1] == "True"
