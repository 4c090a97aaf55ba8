"""``ddtl data cache``: what decoded images there are, and that only they are deleted."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from ddtl.commands.data import main
from ddtl.data.images import cached
from ddtl.data.images.cache import open_cache
from ddtl.data.manifest import Manifest, Sample
from ddtl.utils.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache with two decoded folders, a phantom, and things that are none of the cache's."""
    folder = tmp_path / "images"
    folder.mkdir()
    samples = []
    for number in range(4):
        path = folder / f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        samples.append(Sample(path.name, path, number % 2))
    found = Manifest(dataset="mine", classes=("a", "b"), samples=tuple(samples), grouping="none")
    for size in (32, 64):
        open_cache(found, size=size, root=tmp_path / "cache")
    (tmp_path / "cache" / "phantom-0123456789").mkdir()
    for name in ("phantom-0123456789x", "notes", "decoded/mine", "decoded/0123"):
        (tmp_path / "cache" / name).mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("x")
    (tmp_path / "cache" / "decoded" / ("a" * 32)).symlink_to(tmp_path / "elsewhere")
    return tmp_path / "cache"


def run(root: Path, *words: str) -> int:
    return main(["cache", *words, f"paths.cache_dir={root}"])


def test_what_is_there(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = cached.found(root)
    assert [(one.content, one.dataset, one.images, one.side) for one in found] == [
        ("decoded", "mine", 4, 64),
        ("decoded", "mine", 4, 32),
        ("phantom", "", None, None),
    ]
    assert found[0].size > 4 * 64 * 64
    assert run(root) == 0
    said = capsys.readouterr()
    assert all(one.key in said.out for one in found)
    assert "64 × 64" in said.out
    assert str(root) in said.out.replace("\n", "")


def test_only_caches_are_deleted(root: Path, tmp_path: Path) -> None:
    keys = [one.key for one in cached.found(root)]
    assert run(root, "delete", keys[1][:8], "yes=true") == 0
    assert [one.key for one in cached.found(root)] == [keys[0], keys[2]]
    assert run(root, "delete", "all", "older_than=1", "yes=true") == 0  # all is younger
    assert len(cached.found(root)) == 2
    for one in cached.found(root):
        os.utime(one.folder, (0, 0))
    assert run(root, "delete", "all", "older_than=1", "yes=true") == 0
    assert cached.found(root) == []
    assert (tmp_path / "elsewhere" / "precious").exists()
    assert {path.name for path in root.iterdir()} == {"decoded", "phantom-0123456789x", "notes"}
    assert {path.name for path in (root / "decoded").iterdir() if path.is_dir()} == {"mine", "0123", "a" * 32}


def test_one_that_is_being_made_is_left(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = cached.found(root)[0]
    with FileLock(first.folder.with_name(f"{first.key}.lock")):
        assert run(root, "delete", first.key, "yes=true") == 1
    assert first.folder.exists()
    assert "a process makes it just now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["delete"], "name what to delete"),
        (["delete", "zzz"], "no cache is called so"),
        (["delete", ""], "several caches are called so"),
        (["clean"], "There is delete"),
        (["delete", "all"], "yes=true"),
        (["older_than=-1"], "older_than=-1: must be at least 0"),
        (["size=3"], "size=3: not a setting of `ddtl data cache`"),
    ],
)
def test_mistakes_delete_nothing(root: Path, words: list[str], why: str) -> None:
    with pytest.raises(UserError, match=why):
        run(root, *words)
    assert len(cached.found(root)) == 3


def test_an_index_that_cannot_be_read_hides_nothing(root: Path) -> None:
    first = cached.found(root)[0]
    (first.folder / "index.json").write_text("[")
    again = next(one for one in cached.found(root) if one.key == first.key)
    assert (again.images, again.dataset) == (None, "")


def test_nothing_behind_a_link_is_listed_or_deleted(root: Path, tmp_path: Path) -> None:
    (root / "decoded").rename(tmp_path / "elsewhere" / "decoded")
    (root / "decoded").symlink_to(tmp_path / "elsewhere" / "decoded")
    before = sorted(tmp_path.rglob("*"))
    for words in ((), ("delete", "all", "yes=true")):
        with pytest.raises(UserError, match="decoded: is a link, and nothing behind it is deleted"):
            run(root, *words)
    assert sorted(tmp_path.rglob("*")) == before
