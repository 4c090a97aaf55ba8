"""Lists of images to leave out: which images an audit puts on one, and what a dataset makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from ddtl.audits.exclude_list import to_leave_out
from ddtl.audits.pairs import Pair
from ddtl.config.load import ConfigError, load
from ddtl.data.datasets import registry
from ddtl.data.manifest import Exclusions, Manifest, Sample
from ddtl.data.splits import protocols
from ddtl.data.splits.exclusion import leave_out
from ddtl.utils.errors import UserError
from tests.support.audits import pair

SPLIT = st.sampled_from(("train", "val", "test", None))


def dataset(*rows: tuple[str, int, str | None]) -> Manifest:
    """Images by name, label and split."""
    samples = tuple(Sample(name, Path(name), label, split=split) for name, label, split in rows)
    return Manifest("chest", ("normal", "covid"), samples, "none", protocol="official")


def left(found: Manifest, *pairs: tuple[str, str], bad: dict[str, str] | None = None) -> dict[str, str]:
    of = {sample.sample_id: sample for sample in found.samples}
    return dict(to_leave_out(found, [pair(of[a], of[b]) for a, b in pairs], bad or {}))


def listed(path: Path, *names: str) -> Path:
    path.write_text("sample_id,reason\n" + "".join(f'"{name}",copy\n' for name in names), encoding="utf-8")
    return path


# --- the rule --------------------------------------------------------------------------------------------------------


def test_of_copies_in_one_split_the_first_stays() -> None:
    found = dataset(("c", 0, "train"), ("a", 0, "train"), ("b", 0, "train"), ("d", 0, "train"))
    assert left(found, ("c", "b"), ("a", "b")) == {"b": "copy of a, which stays", "c": "copy of a, which stays"}


def test_the_copy_in_the_test_stays_and_those_that_train_go() -> None:
    found = dataset(("a", 0, "train"), ("b", 0, "val"), ("c", 0, "test"), ("d", 0, "test"), ("e", 1, "train"))
    expected = "copy of c, which stays"
    assert left(found, ("a", "b"), ("b", "c"), ("c", "d")) == {
        "a": f"{expected} in test",
        "b": f"{expected} in test",
        "d": expected,
    }


def test_of_copies_with_different_labels_none_stays() -> None:
    found = dataset(("a", 0, "train"), ("b", 1, "test"), ("c", 1, "test"))
    why = "label conflict: the same image content is in normal and covid"
    assert left(found, ("a", "b"), ("b", "c")) == {"a": why, "b": why, "c": why}


def test_unreadable_images_are_listed_and_other_datasets_change_nothing() -> None:
    found = dataset(("a", 0, "train"), ("b", 1, "test"))
    other = Pair(("brain", "a"), ("chest", "a"), "same file", "none", 0, 1.0)
    assert to_leave_out(found, [other], {"b": "is empty (0 bytes)"}) == [("b", "cannot be used: is empty (0 bytes)")]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_after_the_list_no_pair_is_left_and_no_cluster_is_lost(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 9))
    rows = [(f"i{i}", data.draw(st.integers(0, 1)), data.draw(SPLIT)) for i in range(n)]
    found = dataset(*rows)
    links = data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda p: p[0] != p[1])))
    gone = left(found, *((f"i{a}", f"i{b}") for a, b in links))
    assert all(f"i{a}" in gone or f"i{b}" in gone for a, b in links)
    rank = {"test": 3, "val": 2, "train": 1, None: 0}
    split = {name: rank[where] for name, _, where in rows}
    for name, why in gone.items():
        if why.startswith("copy of"):
            kept = why.split()[2].rstrip(",")
            assert kept not in gone
            assert split[kept] >= split[name]


# --- dataset.exclude -------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve images of each of two classes."""
    random = np.random.default_rng(0)
    for name in ("covid", "normal"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(12):
            image = Image.fromarray(random.integers(0, 256, (32, 32), dtype=np.uint8))
            image.save(tmp_path / "images" / name / f"ä{i:02d}.png")
    return tmp_path / "images"


def overrides(root: Path, *more: str) -> list[str]:
    return ["dataset=folder", f"dataset.root={root}", "dataset.classes=[normal,covid]", *more]


def test_a_folder_without_the_listed_images(root: Path, tmp_path: Path) -> None:
    path = listed(tmp_path / "exclude.csv", "covid/ä03.png", "covid/ä03.png", "normal/ä00.png")
    whole, part = (registry.build(load(overrides(root, *more))) for more in ((), (f"dataset.exclude={path}",)))
    assert {s.sample_id for s in whole.samples} - {s.sample_id for s in part.samples} == {
        "covid/ä03.png",
        "normal/ä00.png",
    }
    assert part.left_out is not None
    assert part.left_out.images == 2
    digest = part.left_out.list_digest
    assert part.sentences() == [
        f"2 of the dataset's 24 images are excluded by a list (dataset.exclude, sha256 {digest[:12]})."
    ]
    assert whole.digest("h" * 24) != part.digest("h" * 22)


@pytest.mark.parametrize("kind", ["phantom", "folder", "table"])
def test_every_dataset_takes_a_list(root: Path, tmp_path: Path, kind: str) -> None:
    rows = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted(root.glob("*/*.png"))]
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(rows), encoding="utf-8")
    words = {
        "phantom": ["dataset=phantom", "dataset.phantom.n_patients=6", f"paths.cache_dir={tmp_path}"],
        "folder": overrides(root),
        "table": ["dataset=table", f"dataset.table={tmp_path / 't.csv'}", f"dataset.root={root}"],
    }[kind]
    whole = registry.build(load(words))
    name = whole.samples[3].sample_id
    part = registry.build(load([*words, f"dataset.exclude={listed(tmp_path / 'x.csv', name)}"]))
    assert len(part) == len(whole) - 1
    assert name not in {sample.sample_id for sample in part.samples}
    assert isinstance(part.left_out, Exclusions)


@pytest.mark.parametrize("name", ["covid19ct", "sarscov2ct"])
def test_public_datasets_take_a_list(real_data: Path, tmp_path: Path, name: str) -> None:
    words = [f"dataset={name}", f"paths.data_dir={real_data}"]
    whole = registry.build(load(words))
    names = [sample.sample_id for sample in whole.samples[::50]]
    part = registry.build(load([*words, f"dataset.exclude={listed(tmp_path / 'x.csv', *names)}"]))
    assert len(part) == len(whole) - len(names)
    config = load(words)
    assert registry.split(part, config.dataset).counts()["train"]["images"] > 0


def test_an_empty_list_leaves_the_dataset_as_it_is(root: Path, tmp_path: Path) -> None:
    whole = registry.build(load(overrides(root)))
    part = leave_out(whole, listed(tmp_path / "x.csv"))
    assert part.samples == whole.samples
    assert part.digest("h" * 24) == whole.digest("h" * 24)


def test_images_that_the_dataset_does_not_have(root: Path, tmp_path: Path) -> None:
    path = listed(tmp_path / "x.csv", "covid/ä03.png", "covid/99.png")
    with pytest.raises(UserError, match=r"1 of the 2 images that it lists are not in folder: 'covid/99.png'.*null"):
        registry.build(load(overrides(root, f"dataset.exclude={path}")))


def test_a_list_of_everything(root: Path, tmp_path: Path) -> None:
    whole = registry.build(load(overrides(root)))
    path = listed(tmp_path / "x.csv", *(sample.sample_id for sample in whole.samples))
    with pytest.raises(UserError, match="all 24 images of folder, and none would be left"):
        leave_out(whole, path)


def test_a_class_that_is_left_out_is_named(root: Path, tmp_path: Path) -> None:
    whole = registry.build(load(overrides(root)))
    path = listed(tmp_path / "x.csv", *(s.sample_id for s in whole.samples if s.label == 1))
    config = load(overrides(root, f"dataset.exclude={path}"))
    with pytest.raises(UserError, match="class covid has 0 images"):
        registry.split(registry.build(config), config.dataset)


def test_no_such_list_and_a_list_without_the_column(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset.exclude=nowhere.csv: there is no such file"):
        load(overrides(root, "dataset.exclude=nowhere.csv"))
    (tmp_path / "x.csv").write_text("sample,reason\na,b\n")
    with pytest.raises(UserError, match="lacks the column sample_id"):
        registry.build(load(overrides(root, f"dataset.exclude={tmp_path / 'x.csv'}")))


def test_the_split_of_the_others_is_made_without_the_images(root: Path, tmp_path: Path) -> None:
    path = listed(tmp_path / "x.csv", "covid/ä03.png")
    config = load(overrides(root, f"dataset.exclude={path}"))
    found = registry.split(registry.build(config), config.dataset)
    again = protocols.assign(
        replace(found, left_out=None), "grouped", seed=0, val_fraction=0.15, test_fraction=0.25
    )  # fmt: skip
    assert found.samples == again.samples
