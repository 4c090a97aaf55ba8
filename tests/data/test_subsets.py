"""Training on fewer patients: which they are, that fewer are a subset of more, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from ddtl.config.load import load
from ddtl.data.loading.datamodule import CTDataModule
from ddtl.data.manifest import Manifest, Sample
from ddtl.data.splits.subsets import train_on
from ddtl.utils.errors import UserError
from tests.support.runs import SMALL


def manifest(negatives: int, positives: int) -> Manifest:
    """Patients of three slices, all in training, and one of each class in validation and test."""
    label = {f"n{i}": 0 for i in range(negatives)} | {f"p{i}": 1 for i in range(positives)}
    samples = [Sample(f"{who}_{k}", Path("x"), y, who, split="train") for who, y in label.items() for k in range(3)]
    for split in ("val", "test"):
        samples += [Sample(f"{split}{y}", Path("x"), y, f"{split}{y}", split=split) for y in (0, 1)]
    return Manifest("some", ("no", "yes"), tuple(samples), "patient", "grouped")


def chosen(table: Manifest) -> set[str]:
    return {table.samples[i].group for i in table.rows("train")}


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 5), st.data())
def test_fewer_are_a_subset_of_more_and_classes_take_turns(n: int, p: int, seed: int, data: st.DataObject) -> None:
    whole = manifest(n, p)
    k = data.draw(st.integers(2, n + p))
    few = train_on(whole, k, seed)
    assert len(chosen(few)) == k
    assert chosen(train_on(whole, max(k - 1, 2), seed)) <= chosen(few)
    negatives = sum(who.startswith("n") for who in chosen(few))
    assert negatives == min(n, max(k - p, (k + 1) // 2)), "even, until a class has no more"
    assert all(len([s for s in few.samples if s.group == who]) == 3 for who in chosen(few))
    for split in ("val", "test"):
        assert [few.samples[i] for i in few.rows(split)] == [whole.samples[i] for i in whole.rows(split)]


def test_a_share_another_seed_and_the_note() -> None:
    whole = manifest(20, 20)
    quarter = train_on(whole, 0.25, 0)
    assert len(chosen(quarter)) == 10
    assert "10 of the 40 patients of the training part (dataset.train_patients=0.25)" in quarter.sentences()[-1]
    assert chosen(train_on(whole, 10, 0)) == chosen(quarter) != chosen(train_on(whole, 10, 1))
    assert len(chosen(train_on(whole, 0.001, 0))) == 2, "one of each class at the least"


@pytest.mark.parametrize(("k", "message"), [(41, "has 40 patients"), (1, "each of 2 classes needs one")])
def test_what_cannot_be_is_refused(k: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train_on(manifest(20, 20), k, 0)


def test_the_run_is_another_one_and_says_so(tmp_path: Path) -> None:
    modules = [CTDataModule(load([*SMALL, *words])) for words in ([], ["dataset.train_patients=8"])]
    for module in modules:
        module.load()
    whole, few = modules
    assert whole.digest != few.digest
    assert len(few.manifest.rows("train")) == 8 * 4
    assert few.manifest.rows("test") == whole.manifest.rows("test")
    assert "Trained on 8 of" in few.manifest.sentences()[-1]
