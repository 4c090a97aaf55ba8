"""Mistakes in data, weights, hardware and folders, as whole commands: exit code 2, one message, nothing left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from tests.support.mistakes import (
    MISTAKES,
    Place,
    a_truncated_png,
    furnished,
    huge_png,
    more_cores_than_exist,
    no_data_folder,
    no_gpu,
    no_two_gpus,
)
from tests.support.mounts import mounted, remount
from tests.support.runs import finish, start

Guarded = Callable[[Sequence[str]], int]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return furnished(tmp_path)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_costs_one_message(
    mistake: Callable[[Place], list[str]],
    place: Place,
    guarded: Guarded,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if mistake in (no_gpu, no_two_gpus) and torch.cuda.device_count() > (mistake is no_two_gpus):
        pytest.skip("this machine has the GPUs")
    argv = [*place.paths(), *mistake(place)]
    before = place.state()
    code = guarded(argv)
    written = capfd.readouterr()
    assert_answered(code, written.err, MISTAKES[mistake])
    assert written.out == ""
    assert place.state() == before


def assert_answered(code: int, text: str, words: Sequence[str]) -> None:
    """That a command ended as mistakes do: one message, behind nothing but progress and warnings."""
    assert code == 2, text
    assert "Traceback" not in text
    assert text.count("error: ") == 1, text
    before, _, message = text.partition("error: ")
    assert all(line.startswith(("preparing images", "warning: ")) for line in before.splitlines()), before
    flat = " ".join(message.split())
    assert [word for word in words if word not in flat] == [], text


MEMORY = """\
import resource, sys
from pathlib import Path
from ddtl.data.images.decode import load_image
from ddtl.data.images.image_file import BadImageError

def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

before = peak()
try:
    load_image(Path(sys.argv[1]), 224)
except BadImageError:
    print(peak() - before)
"""


@pytest.mark.slow
def test_a_huge_image_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """Its 900 megapixels would take 900 MB."""
    huge_png(tmp_path / "huge.png")
    asked = [sys.executable, "-c", MEMORY, str(tmp_path / "huge.png")]
    grown = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=300).stdout
    assert int(grown) < 50


# --- disks that cannot be written to ----------------------------------------------------------------------------------


def test_a_read_only_folder_of_runs(place: Place, guarded: Guarded, capfd: pytest.CaptureFixture[str]) -> None:
    with mounted(place.here / "disk", "1m") as disk:
        remount(disk, "ro")
        before = place.state()
        code = guarded([*place.paths(), *place.folder(f"paths.runs_dir={disk}/runs")])
        assert_answered(code, capfd.readouterr().err, ("disk cannot be written to", "Set another paths.runs_dir"))
        assert place.state() == before


def test_a_full_disk_at_the_start(place: Place, guarded: Guarded, capfd: pytest.CaptureFixture[str]) -> None:
    with mounted(place.here / "disk", "64k") as disk:
        (disk / "full").write_bytes(bytes(64 * 1024))
        before = place.state()
        code = guarded([*place.paths(), *place.folder(f"paths.runs_dir={disk}/runs")])
        assert code == 2
        text = capfd.readouterr().err
        assert all(word in text for word in ("No space left on device", "Make room", "paths.runs_dir"))
        assert place.state() == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "phantom"])
def test_a_read_only_cache(kind: str, place: Place, guarded: Guarded, capfd: pytest.CaptureFixture[str]) -> None:
    """Where it is finished it is read; where it is not, the message says where else it could be."""
    argv = [*place.paths(), *(place.folder() if kind == "folder" else place.phantom())]
    with mounted(place.here / "disk", "4m") as disk:
        remount(disk, "ro")
        before = place.state()
        code = guarded([*argv, f"paths.cache_dir={disk}"])
        assert_answered(code, capfd.readouterr().err, ("disk", "paths.cache_dir"))
        assert place.state() == before

        remount(disk, "rw")
        assert guarded([*argv, f"paths.cache_dir={disk}", f"paths.runs_dir={place.here}/first"]) == 0
        remount(disk, "ro")
        assert guarded([*argv, f"paths.cache_dir={disk}"]) == 0
        assert list(place.runs.glob("*/*/results.json"))


# --- the same as a person types it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mistake", [no_data_folder, more_cores_than_exist, pytest.param(a_truncated_png, marks=pytest.mark.slow)]
)
def test_a_mistake_in_a_process_of_its_own(mistake: Callable[[Place], list[str]], place: Place) -> None:
    argv = [*place.paths(), *mistake(place)]
    before = place.state()
    code, text = finish(start(argv, NO_COLOR="1"))
    assert_answered(code, text, MISTAKES[mistake])
    assert place.state() == before
