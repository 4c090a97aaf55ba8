"""A cache whose building was stopped: the next command decodes the rest alone, and ends with the same bytes."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given, settings, strategies as st
from PIL import Image

from ddtl.data.images import cache as cache_module, cached, half_built
from ddtl.data.images.cache import open_cache
from ddtl.data.images.half_built import HalfBuilt
from ddtl.data.manifest import Manifest, Sample
from ddtl.utils.errors import UserError
from tests.support.cache_builders import build_and_stop, build_up_to

SIZE, N = 16, 150
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(N):
        Image.fromarray(rng.integers(0, 256, (20, 30), dtype=np.uint8)).save(folder / f"{i:03}.png")
    return manifest_of(folder)


def manifest_of(folder: Path) -> Manifest:
    samples = tuple(Sample(path.name, path, i % 2) for i, path in enumerate(sorted(folder.iterdir())))
    return Manifest("toy", ("no", "yes"), samples, "none")


@pytest.fixture(scope="module")
def whole(toy: Manifest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the cache, built at once."""
    return contents(open_cache(toy, size=SIZE, root=tmp_path_factory.mktemp("whole"), workers=1).folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def finish(manifest: Manifest, root: Path, size: int = SIZE) -> tuple[Path, int]:
    """The folder of the finished cache, and how many images were decoded for it."""
    decoded: list[int] = []
    cache = open_cache(manifest, size=size, root=root, workers=2, progress=lambda done, total: decoded.append(done))
    assert decoded == list(range(N - len(decoded) + 1, N + 1))
    (folder,) = (p for p in (root / "decoded").iterdir() if p.suffix != ".lock")
    assert folder == cache.folder
    return folder, len(decoded)


def stop_at(image: int, how: Callable[[], Any]) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == image:
            how()

    return progress


def stopped(manifest: Manifest, root: Path, at: int) -> Path:
    """The folder that a build leaves which is interrupted after so many images."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_cache(manifest, size=SIZE, root=root, workers=1, progress=stop_at(at, interrupt))
    (partial,) = (root / "decoded").glob("*.partial")
    return partial


# --- processes that are stopped -------------------------------------------------------------------------------------


def wait_until(condition: Callable[[], bool], builder: Any) -> None:
    while not condition():
        assert builder.is_alive() or condition(), "it has ended"
        time.sleep(0.001)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_process_is_continued(
    signum: signal.Signals, toy: Manifest, whole: dict[str, bytes], tmp_path: Path
) -> None:
    builder = SPAWN.Process(target=build_and_stop, args=(toy, SIZE, tmp_path, 100, signum))
    builder.start()
    builder.join(300)
    assert builder.exitcode not in (0, None)
    folder, decoded = finish(toy, tmp_path)
    assert N - 100 <= decoded <= N - (64 if signum == signal.SIGKILL else 100)
    assert contents(folder) == whole


def test_killed_at_any_moment_again_and_again(toy: Manifest, whole: dict[str, bytes], tmp_path: Path) -> None:
    """No image is decoded twice but those under way at a kill."""
    decoded, most, kills = SPAWN.Value("i", 0), SPAWN.Value("i", 0), 2
    for number in range(1, kills + 1):
        most.value = 50 * number + 20
        builder = SPAWN.Process(target=build_up_to, args=(toy, SIZE, tmp_path, decoded, most))
        builder.start()
        wait_until(lambda number=number: decoded.value >= 50 * number, builder)
        time.sleep(random.random() * 0.01)
        builder.kill()
        builder.join(300)
        assert builder.exitcode == -signal.SIGKILL
    folder, rest = finish(toy, tmp_path)
    assert N - kills <= decoded.value + rest <= N
    assert contents(folder) == whole


def test_of_two_processes_the_second_continues_what_the_first_left(
    toy: Manifest, whole: dict[str, bytes], tmp_path: Path
) -> None:
    decoded, most = SPAWN.Value("i", 0), SPAWN.Value("i", 60)
    builder = SPAWN.Process(target=build_up_to, args=(toy, SIZE, tmp_path, decoded, most))
    builder.start()
    wait_until(lambda: bool(decoded.value), builder)
    lock = next((tmp_path / "decoded").glob("*.lock"))
    waiting = SPAWN.Process(target=build_up_to, args=(toy, SIZE, tmp_path, decoded, most))
    waiting.start()
    wait_until(lambda: decoded.value >= 60, builder)
    builder.kill()
    builder.join(300)
    most.value = 2 * N
    waiting.join(300)
    assert waiting.exitcode == 0
    assert N - 1 <= decoded.value <= N
    assert contents(lock.with_suffix("")) == whole


# --- what a stop leaves on the disk ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def half(toy: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with a half of 140 images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(half_built, "_SECONDS", 0.0)  # each row by itself
        return stopped(toy, tmp_path_factory.mktemp("half"), 140).parent.parent


@pytest.mark.parametrize("at", [64, 100])
def test_rows_that_are_written_together_count_together(
    at: int, toy: Manifest, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 64 and 36 rows: damage to a row of the second group leaves the first."""
    monkeypatch.setattr(half_built, "_SECONDS", 1000.0)
    array = stopped(toy, tmp_path, 100) / "images.npy"
    content = bytearray(array.read_bytes())
    content[len(content) - (100 - at) * SIZE * SIZE - 1] ^= 1  # the last byte of row number ``at``
    array.write_bytes(content)
    folder, decoded = finish(toy, tmp_path)
    assert decoded == (N if at == 64 else N - 64)
    assert contents(folder) == whole


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_a_damaged_half_is_decoded_from_the_damage_on(
    data: st.DataObject, toy: Manifest, whole: dict[str, bytes], half: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any byte of array or journal changed, either file ended anywhere, bytes behind its end."""
    root = tmp_path_factory.mktemp("cache")
    shutil.copytree(half, root, dirs_exist_ok=True)
    (partial,) = root.glob("decoded/*.partial")
    path = partial / data.draw(st.sampled_from(["images.npy", "journal"]))
    content = path.read_bytes()
    offset = data.draw(st.integers(0, len(content) - 1))
    kept, rest = content[:offset], content[offset:]
    match data.draw(st.sampled_from(["cut", "changed", "longer"])):
        case "cut":
            path.write_bytes(kept)
        case "changed":
            path.write_bytes(kept + bytes([rest[0] ^ data.draw(st.integers(1, 255))]) + rest[1:])
        case _:
            kept = content
            path.write_bytes(content + data.draw(st.binary(min_size=1, max_size=600)))
    if path.name == "images.npy":
        good = max(0, len(kept) - (len(whole["images.npy"]) - N * SIZE * SIZE)) // (SIZE * SIZE)
    else:
        good = max(0, kept.count(b"\n") - 1)
    folder, decoded = finish(toy, root)
    assert contents(folder) == whole
    is_in_the_name = path.name == "journal" and good == 0  # of the dataset, in the first line: for people
    assert decoded == N - good or (is_in_the_name and decoded == N - 140)


def test_a_signal_while_rows_are_written_loses_those_alone(tmp_path: Path) -> None:
    row = np.zeros((2, 2), dtype=np.uint8)

    class Interrupting:
        """The rows are written when a signal comes, and their lines are not."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: bytes) -> None:
            self.close()
            raise KeyboardInterrupt

        def close(self) -> None:
            self.file.close()

    def interrupted() -> None:
        with HalfBuilt(tmp_path / "x", (9, 2, 2), {}) as rows:
            rows.append(row, (1, 0))
            rows._write()
            rows.append(row, (2, 0))
            rows._journal = Interrupting(rows._journal)  # type: ignore[assignment]
            rows._write()

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with HalfBuilt(tmp_path / "x", (9, 2, 2), {}) as again:
        assert again.levels == [(1, 0)]
        again.append(row, (3, 0))
    with HalfBuilt(tmp_path / "x", (9, 2, 2), {}) as again:
        assert again.levels == [(1, 0), (3, 0)]


@pytest.mark.parametrize("last_step", ["index", "journal"])
def test_stopped_at_the_last_steps(
    last_step: str, toy: Manifest, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text" if last_step == "index" else "rename", interrupt)
        with pytest.raises(KeyboardInterrupt):
            open_cache(toy, size=SIZE, root=tmp_path, workers=1)
    folder, decoded = finish(toy, tmp_path)
    assert decoded == 0
    assert contents(folder) == whole


def test_an_earlier_version_s_half_is_not_continued(
    toy: Manifest, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cache_module.PIL, "__version__", "1.0")
        partial = stopped(toy, tmp_path, 30)
    (partial / "images.npy").write_bytes((partial / "images.npy").read_bytes()[:-1] + b"x")
    folder, decoded = finish(toy, tmp_path)
    assert decoded == N
    assert contents(folder) == whole


def test_a_half_without_a_journal_is_not_continued(toy: Manifest, whole: dict[str, bytes], tmp_path: Path) -> None:
    (stopped(toy, tmp_path, 30) / "journal").unlink()
    folder, decoded = finish(toy, tmp_path)
    assert decoded == N
    assert contents(folder) == whole


def test_a_file_that_changed_meanwhile_is_decoded_again(toy: Manifest, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(toy.samples[0].path.parent, images)
    manifest = manifest_of(images)
    stopped(manifest, tmp_path, 100)
    Image.new("L", (30, 20), 77).save(images / "003.png")
    cache = open_cache(manifest, size=SIZE, root=tmp_path)
    assert (cache[3] == 77).all()
    assert len(np.unique(cache[4])) > 2


def test_nothing_is_written_through_a_link(toy: Manifest, tmp_path: Path) -> None:
    partial = stopped(toy, tmp_path, 30)
    precious = tmp_path / "precious"
    precious.write_bytes((partial / "images.npy").read_bytes())
    before = precious.read_bytes()
    (partial / "images.npy").unlink()
    (partial / "images.npy").symlink_to(precious)
    with pytest.raises(UserError, match="is a link, and nothing is written through it"):
        open_cache(toy, size=SIZE, root=tmp_path)
    assert precious.read_bytes() == before
    shutil.rmtree(partial)
    (tmp_path / "elsewhere").mkdir()
    partial.symlink_to(tmp_path / "elsewhere")
    assert finish(toy, tmp_path)[1] == N
    assert list((tmp_path / "elsewhere").iterdir()) == []


# --- disks ----------------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_midway(
    toy: Manifest, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = half_built.files.append_to

    monkeypatch.setattr(half_built, "_SECONDS", 0.0)

    def full(path: Path) -> Any:
        file = real(path)
        if path.name != "images.npy":
            return file
        write = file.write

        class Full:
            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def write(self, data: bytes) -> int:
                if file.tell() > 100 * SIZE * SIZE:
                    write(data[:7])
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return int(write(data))

        return Full()

    with monkeypatch.context() as patch:
        patch.setattr(half_built.files, "append_to", full)
        with pytest.raises(UserError, match="No space left on device"):
            open_cache(toy, size=SIZE, root=tmp_path)
    folder, decoded = finish(toy, tmp_path)
    assert decoded == N - 100
    assert contents(folder) == whole


def test_space_for_the_missing_rows_is_enough(toy: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(toy, tmp_path, 100)
    free = (N - 100) * SIZE * SIZE
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=free - 1))
    with pytest.raises(UserError, match="only 0 MB are free"):
        open_cache(toy, size=SIZE, root=tmp_path)
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert finish(toy, tmp_path)[1] == N - 100


def test_a_bad_file_among_the_rest_leaves_nothing(toy: Manifest, tmp_path: Path) -> None:
    stopped(toy, tmp_path, 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "decode_channels", broken)
        with pytest.raises(UserError, match="50 of 150 image files cannot be used"):
            open_cache(toy, size=SIZE, root=tmp_path)
    assert [p for p in (tmp_path / "decoded").iterdir() if p.suffix != ".lock"] == []


def broken(data: bytes, path: Path, window: object) -> None:
    raise cache_module.BadImageError(path, "is broken")


# --- two who write, and what is left over ---------------------------------------------------------------------------


def test_two_who_write_without_a_lock_notice_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half_built, "_SECONDS", 0.0)
    row = np.zeros((2, 2), dtype=np.uint8)
    with HalfBuilt(tmp_path / "x", (3, 2, 2), {}) as first, HalfBuilt(tmp_path / "x", (3, 2, 2), {}) as second:
        first.append(row, (1, 0))
        with pytest.raises(OSError, match="another process writes them at the same time"):
            second.append(row, (1, 0))
        with pytest.raises(OSError, match="another process writes them at the same time"):
            first.append(row, (1, 0))
    with HalfBuilt(tmp_path / "x", (3, 2, 2), {}) as again:
        assert again.levels == [(1, 0)]


def make_old(partial: Path, days: float) -> None:
    for path in (partial, *partial.iterdir()):
        os.utime(path, (time.time() - 86400 * days,) * 2)


@pytest.mark.parametrize(("days", "is_left"), [(0.0, True), (6.9, True), (7.1, False)])
def test_the_half_of_other_images_is_left_for_a_week(days: float, is_left: bool, toy: Manifest, tmp_path: Path) -> None:
    partial = stopped(toy, tmp_path, 30)
    make_old(partial, days)
    open_cache(toy, size=SIZE + 1, root=tmp_path)
    assert partial.exists() == is_left


def test_the_half_of_other_images_makes_room(toy: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = stopped(toy, tmp_path, 30)
    usage = {True: 1000, False: 10**9}
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=usage[partial.exists()]))
    open_cache(toy, size=SIZE + 1, root=tmp_path)
    assert not partial.exists()


def test_a_half_is_listed_and_deleted(toy: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    partial = stopped(toy, tmp_path, 30)
    (one,) = cached.found(tmp_path)
    assert (one.folder, one.content, one.dataset, one.images, one.side) == (partial, "half-built", "toy", 30, SIZE)
    from ddtl.commands.data import main  # not for the processes that are started here

    where = f"paths.cache_dir={tmp_path}"
    assert main(["cache", where]) == 0
    assert "part of the images" in capsys.readouterr().out
    lock = partial.with_suffix(".lock")
    with FileLock(lock):
        assert main(["cache", "delete", "all", "yes=true", where]) == 1
    assert "a process makes it just now" in capsys.readouterr().err
    assert partial.exists()
    assert main(["cache", "delete", "all", "yes=true", where]) == 0
    assert list((tmp_path / "decoded").iterdir()) == []


@pytest.mark.parametrize("line", ["", "[", "[1]\n", json.dumps({"shape": [3]}) + "\n", json.dumps({"dataset": 1})])
def test_a_half_that_cannot_be_read_is_listed(line: str, toy: Manifest, tmp_path: Path) -> None:
    partial = stopped(toy, tmp_path, 30)
    (partial / "journal").write_text(line)
    (one,) = cached.found(tmp_path)
    assert (one.folder, one.images, one.side, one.dataset) == (partial, None, None, "")
    assert finish(toy, tmp_path)[1] == N
