"""The decoded cache: right pixels, one builder at a time, and nothing half-made is ever taken for whole."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddtl.data.images import cache as cache_module
from ddtl.data.images.cache import DecodedCache, open_cache
from ddtl.data.images.decode import load_image
from ddtl.data.manifest import Manifest, Sample
from ddtl.utils.errors import UserError

SIZE = 16
N = 150  # more than two batches of decoding
SPAWN = multiprocessing.get_context("spawn")


def manifest_of(paths: list[Path], **changes: Any) -> Manifest:
    samples = tuple(Sample(f"{i:04}-{path.name}", path, i % 2) for i, path in enumerate(paths))
    return Manifest(**{"dataset": "toy", "classes": ("no", "yes"), "samples": samples, "grouping": "none"} | changes)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    found = [folder / f"{i:03}.png" for i in range(N)]
    for path in found:
        Image.fromarray(rng.integers(0, 256, (20, 30), dtype=np.uint8)).save(path)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def left_in(root: Path) -> list[str]:
    """What lies in the cache, apart from locks."""
    return sorted(p.name for p in (root / "decoded").iterdir() if p.suffix != ".lock")


def calls() -> tuple[list[tuple[int, int]], Callable[[int, int], None]]:
    seen: list[tuple[int, int]] = []
    return seen, lambda done, total: seen.append((done, total))


def test_images_stand_in_the_manifests_order(paths: list[Path], root: Path) -> None:
    seen, progress = calls()
    cache = open_cache(manifest_of(paths), size=SIZE, root=root, workers=2, progress=progress)
    expected = np.stack([load_image(path, SIZE) for path in paths])
    assert seen == [(i, N) for i in range(1, N + 1)]
    assert len(cache) == len(cache.file_hashes) == N
    np.testing.assert_array_equal(cache.take(range(N)), expected)
    np.testing.assert_array_equal(cache[7], expected[7])
    assert cache.images.dtype == np.uint8
    assert not cache.images.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        cache[0][:] = 0


def test_a_second_opening_decodes_nothing(paths: list[Path], root: Path) -> None:
    open_cache(manifest_of(paths), size=SIZE, root=root)
    seen, progress = calls()
    open_cache(manifest_of(paths), size=SIZE, root=root, progress=progress)
    assert seen == []


def test_the_key_is_the_content_and_the_size(paths: list[Path], root: Path, tmp_path: Path) -> None:
    first = open_cache(manifest_of(paths), size=SIZE, root=root)
    moved = tmp_path / "elsewhere"
    shutil.copytree(paths[0].parent, moved)
    renamed = manifest_of([moved / p.name for p in reversed(paths)], dataset="other", classes=("a", "b", "c"))
    second = open_cache(renamed, size=SIZE, root=root)
    assert second.folder == first.folder
    assert second.file_hashes == first.file_hashes[::-1]
    np.testing.assert_array_equal(second.take(range(N)), first.take(range(N))[::-1])
    assert open_cache(manifest_of(paths), size=SIZE + 1, root=root).folder != first.folder
    assert open_cache(manifest_of(paths[1:]), size=SIZE, root=root).folder != first.folder


def test_identical_files_share_a_row(paths: list[Path], root: Path) -> None:
    shutil.copy(paths[3], paths[9])
    cache = open_cache(manifest_of(paths), size=SIZE, root=root)
    assert cache.images.shape == (N - 1, SIZE, SIZE)
    assert cache.rows[3] == cache.rows[9]


def test_a_changed_file_is_decoded_again(paths: list[Path], root: Path) -> None:
    before = open_cache(manifest_of(paths), size=SIZE, root=root)[0].copy()
    Image.new("L", (8, 8), 77).save(paths[0])
    after = open_cache(manifest_of(paths), size=SIZE, root=root)[0]
    assert not (before == 77).all()
    assert (after == 77).all()


def test_pickling_carries_no_pixels(paths: list[Path], root: Path) -> None:
    cache = open_cache(manifest_of(paths), size=64, root=root)
    data = pickle.dumps(cache)
    assert len(data) < 20_000 < cache.images.nbytes
    copy: DecodedCache = pickle.loads(data)
    np.testing.assert_array_equal(copy.images, cache.images)


# -- bad files ---------------------------------------------------------------------------------------------------------


def test_all_bad_files_come_in_one_error(paths: list[Path], root: Path) -> None:
    paths[2].write_bytes(paths[2].read_bytes()[:200])
    paths[5].write_bytes(b"")
    paths[6].write_bytes(b"")
    paths[80].write_text("a note")
    paths[149].write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError) as caught:
        open_cache(manifest_of(paths), size=SIZE, root=root)
    lines = str(caught.value).splitlines()
    assert lines[0] == "toy: 5 of 150 image files cannot be used:"
    assert [line.split()[0] for line in lines[1:6]] == [str(paths[i]) for i in (2, 5, 6, 80, 149)]
    for line, words in zip(lines[1:], ["cut off", "0 bytes", "0 bytes", "contains text", "git lfs pull"], strict=False):
        assert words in line
    assert lines[6] == "Replace these files, or remove them from the dataset."
    assert left_in(root) == []


def test_missing_files_and_undecodable_ones_are_reported_together(paths: list[Path], root: Path) -> None:
    paths[1].unlink()
    paths[4].write_text("a note")
    with pytest.raises(UserError, match=r"2 of 150(.|\n)*001\.png does not exist(.|\n)*004\.png contains text"):
        open_cache(manifest_of(paths), size=SIZE, root=root)
    assert not root.exists()


def test_only_ten_bad_files_are_named(paths: list[Path], root: Path) -> None:
    for i, path in enumerate(paths):
        path.write_text(f"note {i}")
    with pytest.raises(UserError) as caught:
        open_cache(manifest_of(paths), size=SIZE, root=root)
    lines = str(caught.value).splitlines()
    assert len(lines) == 13
    assert lines[-2] == "  ... and 140 more"


# -- damage ------------------------------------------------------------------------------------------------------------


def flip_byte(folder: Path) -> None:
    with (folder / "images.npy").open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))


def truncate(folder: Path) -> None:
    os.truncate(folder / "images.npy", 5000)


def drop_array(folder: Path) -> None:
    (folder / "images.npy").unlink()


def drop_index(folder: Path) -> None:
    (folder / "index.json").unlink()


def garble_index(folder: Path) -> None:
    (folder / "index.json").write_text("[1, 2")


def wrong_type_of_index(folder: Path) -> None:
    (folder / "index.json").write_text(json.dumps([1, 2]))


@pytest.mark.parametrize(
    "damage", [flip_byte, truncate, drop_array, drop_index, garble_index, wrong_type_of_index], ids=lambda f: f.__name__
)
def test_a_damaged_cache_is_rebuilt(
    damage: Callable[[Path], None], paths: list[Path], root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = manifest_of(paths[:20])
    whole = open_cache(manifest, size=SIZE, root=root)
    pixels = whole.images.copy()
    damage(whole.folder)
    with caplog.at_level(logging.WARNING):
        again = open_cache(manifest, size=SIZE, root=root)
    np.testing.assert_array_equal(again.images, pixels)
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "are damaged" in caplog.text
    assert left_in(root) == [whole.folder.name]


# -- processes ---------------------------------------------------------------------------------------------------------


def build_slowly(paths: list[Path], root: Path, decoded: Any, result: Any) -> None:
    def progress(done: int, total: int) -> None:
        with decoded.get_lock():
            decoded.value += 1
        time.sleep(0.005)

    cache = open_cache(manifest_of(paths), size=SIZE, root=root, workers=1, progress=progress)
    result.put(int(cache.take(range(N)).sum()))


def die_midway(paths: list[Path], root: Path, size: int) -> None:
    def progress(done: int, total: int) -> None:
        if done == 100:
            os.kill(os.getpid(), signal.SIGKILL)

    open_cache(manifest_of(paths), size=size, root=root, workers=1, progress=progress)


def test_of_two_builders_at_once_one_builds(paths: list[Path], root: Path) -> None:
    decoded, result = SPAWN.Value("i", 0), SPAWN.Queue()
    builders = [SPAWN.Process(target=build_slowly, args=(paths, root, decoded, result)) for _ in range(2)]
    for builder in builders:
        builder.start()
    sums = [result.get(timeout=300) for _ in builders]
    for builder in builders:
        builder.join(300)
        assert builder.exitcode == 0
    assert decoded.value == N
    assert sums == [sum(int(load_image(path, SIZE).sum()) for path in paths)] * 2
    assert len(left_in(root)) == 1


def test_a_killed_builder_leaves_nothing_that_counts(paths: list[Path], root: Path) -> None:
    builder = SPAWN.Process(target=die_midway, args=(paths, root, SIZE))
    builder.start()
    builder.join(300)
    assert builder.exitcode == -signal.SIGKILL
    (left,) = left_in(root)
    assert left.endswith(".partial")
    cache = open_cache(manifest_of(paths), size=SIZE, root=root)
    assert left_in(root) == [cache.folder.name] == [left.removesuffix(".partial")]
    np.testing.assert_array_equal(cache.take(range(N)), np.stack([load_image(path, SIZE) for path in paths]))


def test_a_builder_at_work_keeps_its_folder(paths: list[Path], root: Path) -> None:
    def build_another(done: int, total: int) -> None:
        if done == 100:
            open_cache(manifest_of(paths), size=SIZE + 1, root=root)

    open_cache(manifest_of(paths), size=SIZE, root=root, progress=build_another)
    assert len(left_in(root)) == 2


# -- disks -------------------------------------------------------------------------------------------------------------


def test_too_little_space_is_seen_before_the_work(
    paths: list[Path], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=2_500_000))
    seen, progress = calls()
    with pytest.raises(UserError) as caught:
        open_cache(manifest_of(paths), size=224, root=root, progress=progress)
    assert str(caught.value) == (
        f"Cannot write the decoded images to {root / 'decoded'}: only 2 MB are free. "
        "They need 8 MB; paths.cache_dir or DDTL_CACHE moves them."
    )
    assert seen == []
    assert left_in(root) == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written(
    code: int, paths: list[Path], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *args: object, **options: object) -> None:
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=rf"Cannot write the decoded images to .*: {os.strerror(code)}.*DDTL_CACHE"):
        open_cache(manifest_of(paths), size=SIZE, root=root)


def test_a_root_that_is_a_file(paths: list[Path], root: Path) -> None:
    root.write_text("")
    with pytest.raises(UserError, match="Not a directory"):
        open_cache(manifest_of(paths), size=SIZE, root=root)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_root(paths: list[Path], root: Path) -> None:
    root.mkdir(mode=0o500)
    with pytest.raises(UserError, match="Permission denied"):
        open_cache(manifest_of(paths), size=SIZE, root=root)


def test_a_finished_cache_is_opened_without_writing(
    paths: list[Path], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_cache(manifest_of(paths), size=SIZE, root=root)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    monkeypatch.setattr(cache_module, "FileLock", None)
    open_cache(manifest_of(paths), size=SIZE, root=root)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize(("name", "images", "distinct"), [("covid19ct", 746, 746), ("sarscov2ct", 2481, 2479)])
def test_the_real_datasets(real_data: Path, root: Path, name: str, images: int, distinct: int) -> None:
    files = sorted(p for p in (real_data / name).rglob("*") if p.suffix in {".png", ".jpg"})
    cache = open_cache(manifest_of(files), size=64, root=root, workers=2)
    assert len(cache) == images
    assert cache.images.shape == (distinct, 64, 64)
    for i in range(0, images, 97):
        np.testing.assert_array_equal(cache[i], load_image(files[i], 64))
