"""CT series as sources of a pool and of a study."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddtl.config.load import check, load
from ddtl.data.datasets import registry
from ddtl.data.images.levels import CTWindow
from ddtl.schema.run import OwnDataset
from ddtl.studies import definitions
from ddtl.utils.errors import UserError
from tests.support.ct_series import write_hospital


def test_a_source_of_a_pool_may_be_dicom(tmp_path: Path) -> None:
    labels = write_hospital(tmp_path / "root", 12, slices=2)
    own = f"{{chest: {{kind: dicom, root: {tmp_path}/root, labels: {labels}, slices: [2], spacing: 1.5}}}}"
    phantom = ["dataset.phantom.n_patients=12", "dataset.phantom.slices_per_patient=2", "dataset.phantom.size=64"]
    words = ["dataset=pooled", "dataset.sources=[phantom:a,chest]", f"dataset.own={own}", *phantom]
    config = load([*words, f"paths.cache_dir={tmp_path}/cache", "dataset.batch_size=4", "logger=none"])
    pool = registry.prepared(config)
    slices = [sample for sample in pool.samples if sample.site == "chest"]
    assert len(slices) == 12
    assert {sample.window for sample in slices} == {CTWindow(-600, 1500, extent=1.5 * config.dataset.image_size)}
    assert all(sample.sample_id.startswith("chest") for sample in slices)


def test_a_source_that_lacks_its_table_is_refused(tmp_path: Path) -> None:
    own = f"dataset.own={{chest: {{kind: dicom, root: {tmp_path}}}}}"
    with pytest.raises(UserError, match=r"needs dataset\.own\.chest\.labels=FILE"):
        check(["dataset=pooled", "dataset.sources=[phantom:a,chest]", own])


def test_a_study_takes_it_by_its_kind() -> None:
    own = {"chest": OwnDataset(kind="nifti", root="/data/volumes", labels="/l.csv", slices=(1, 2))}
    found = definitions.dataset_words("chest", own)
    assert found[:2] == ("dataset=nifti", "dataset.name=chest")
    assert {"dataset.root=/data/volumes", "dataset.labels=/l.csv", "dataset.slices=[1, 2]"} <= set(found)
    assert not [word for word in found if word.startswith("dataset.kind")]


def test_earlier_sources_keep_their_kind() -> None:
    assert [OwnDataset(root="/a").reader, OwnDataset(table="/a.csv").reader] == ["folder", "table"]
