"""Several datasets as one: what is joined, what stands in it twice, and that each source stays as it is alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ddtl.commands import cli
from ddtl.config.load import check, load
from ddtl.data.datasets import registry
from ddtl.data.datasets.pooled import Source, pool
from ddtl.data.images.perceptual_hash import NEAR, distance, distances, near_any
from ddtl.data.loading.datamodule import CTDataModule
from ddtl.data.manifest import Manifest, Note, Sample
from ddtl.records import settings
from ddtl.reports.run.publish import publish
from ddtl.reports.sections import reproduce
from ddtl.schema.run import Config
from ddtl.training.identity import counting
from ddtl.training.train import train
from ddtl.utils.errors import UserError
from ddtl.utils.reading import read_lines
from tests.support.runs import SMALL

SITES = ["dataset=pooled", "dataset.sources=[phantom:a,phantom:b]", "model.weights=none", *SMALL]


def sample(name: str, label: int = 0, patient: str | None = None, split: str = "train") -> Sample:
    return Sample(name, Path(name), label, patient, split=split)


def dataset(name: str, *samples: Sample, classes: tuple[str, ...] = ("no", "yes")) -> Manifest:
    return Manifest(name, classes, samples, grouping="patient", protocol="grouped", notes=(Note(f"of {name}"),))


def test_samples_keep_split_and_label_and_are_told_apart() -> None:
    one = dataset("one", sample("a", 0, "p"), sample("b", 1, "q", "test"))
    other = replace(dataset("other", sample("a", 1, "p"), classes=("healthy", "ill")), grouping="near_duplicate")
    joined = pool("both", [Source("x", one, [0, 2**200 - 1]), Source("y", other, [2**100 - 1])])
    assert [(s.sample_id, s.group, s.label, s.site, s.split) for s in joined.samples] == [
        ("one/a", "one/p", 0, "x", "train"),
        ("one/b", "one/q", 1, "x", "test"),
        ("other/a", "other/p", 1, "y", "train"),
    ]
    assert (joined.dataset, joined.classes, joined.protocol) == ("both", ("no", "yes"), "grouped")
    assert joined.grouping == "near_duplicate", "the weaker of the two"
    notes = joined.sentences()
    assert {"x: of one", "y: of other"} <= set(notes)
    assert any("healthy as no, ill as yes" in note for note in notes)
    with pytest.raises(UserError, match=r"dataset\.own\.y\.class_map="):
        pool("both", [Source("x", one, [0, 1]), Source("y", dataset("z", sample("a"), classes=("a", "b", "c")), [9])])


def test_an_image_that_stands_in_two_sources_costs_the_later_one_its_patient() -> None:
    one = dataset("one", sample("a", 0, "p"))
    other = dataset("other", sample("a", 1, "q"), sample("b", 1, "q"), sample("c", 1, "r"), sample("d", 0, "s"))
    near, far = 2**NEAR - 1, 2 ** (NEAR + 1) - 1  # 20 and 21 bits from 0
    joined = pool("both", [Source("x", one, [0]), Source("y", other, [near, 2**256 - 1, far, 2**150 - 1])])
    assert [s.sample_id for s in joined.samples] == ["one/a", "other/c", "other/d"]
    assert any("1 images are also in" in note and "2 images, are excluded" in note for note in joined.sentences())


def test_distances_are_those_of_single_bits() -> None:
    random = np.random.default_rng(0)
    hashes = [int.from_bytes(random.bytes(32), "big") for _ in range(6)]
    assert distances(hashes[:4], hashes).tolist() == [[distance(a, b) for b in hashes] for a in hashes[:4]]
    assert near_any(hashes, [hashes[2] ^ 0b111]).tolist() == [False, False, True, False, False, False]
    assert not near_any(hashes, []).any()


def config(runs_dir: Path, *words: str) -> Config:
    return load([*SITES, f"paths.runs_dir={runs_dir}", "dataset.phantom.n_patients=24", *words])


def test_each_source_is_split_as_it_is_alone(tmp_path: Path) -> None:
    pooled = CTDataModule(config(tmp_path))
    pooled.load()
    for site in "ab":
        alone = CTDataModule(
            load(["dataset=phantom", *SMALL, "dataset.phantom.n_patients=24", f"dataset.phantom.sites=[{site}]"])
        )
        alone.load()
        part = [s for s in pooled.manifest.samples if s.site == f"phantom:{site}"]
        assert {(s.sample_id, s.split) for s in part} == {
            (f"phantom/{s.sample_id}", s.split) for s in alone.manifest.samples
        }
    assert len(pooled.manifest) == 2 * 24 * 4


@pytest.mark.slow
def test_a_pool_trains_and_counts_looks_and_what_it_has_seen(tmp_path: Path) -> None:
    made = train(config(tmp_path, "trainer.max_epochs=1", "finetune=full"), publish=publish)
    assert made.results["sources"] == ["phantom:a", "phantom:b"]
    assert made.results["test"]["patients"]["patients"] > 0
    written = yaml.safe_load((made.folder / "config.yaml").read_text())["dataset"]["source_settings"]
    assert [written[name]["phantom"]["sites"] for name in ("phantom:a", "phantom:b")] == [["a"], ["b"]]
    looks = [read_lines(tmp_path / name / "test_looks_grouped.jsonl") for name in ("pooled", "phantom")]
    assert [len(rows) for rows in looks] == [1, 1]
    small = [w for w in SMALL if w.startswith("dataset.phantom.")] + ["dataset.phantom.n_patients=24"]
    target = ["dataset=phantom", "dataset.phantom.sites=[b]", f"paths.runs_dir={tmp_path}", *small]
    there = made.folder / "evaluations" / "phantom-grouped" / "results.json"
    assert cli.main(["evaluate", str(made.folder), *target]) == 0
    assert json.loads(there.read_text())["leaked_share"] == 0
    assert cli.main(["evaluate", str(made.folder), *target, "dataset.split_seed=3"]) == 0
    (other,) = set(there.parents[1].glob("*/results.json")) - {there}
    assert json.loads(other.read_text())["leaked_share"] > 0.2, "training patients of the pool are known again"


def test_a_folder_joins_by_its_declared_name(tmp_path: Path) -> None:
    for label in ("ill", "well"):
        (tmp_path / "third" / label).mkdir(parents=True)
        for i in range(8):
            noise = np.random.default_rng([i, len(label)]).integers(0, 255, (40, 40)).astype(np.uint8)
            Image.fromarray(noise).save(tmp_path / "third" / label / f"P{i}_0.png")
    mapped = "class_map: {well: non-COVID, ill: COVID}"
    own = f"{{third: {{root: {tmp_path}/third, {mapped}, patient_regex: '(P\\d+)_'}}}}"
    words = ["dataset=pooled", "dataset.sources=[phantom:a,third]", f"dataset.own={own}", *SMALL, "logger=none"]
    asked = load([*words, f"paths.runs_dir={tmp_path}"])
    assert asked.dataset.of_sources()["third"].kind == "folder"
    data = CTDataModule(asked)
    data.load()
    third = [s for s in data.manifest.samples if s.site == "third"]
    assert {s.label for s in third if s.sample_id.startswith("third/ill/")} == {1}
    assert {s.group for s in third} == {f"third/P{i}" for i in range(8)}
    assert {s.split for s in third} == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset.sources=[covid19ct]"], "two datasets or more"),
        (["dataset.sources=[covid19ct,sarscov2]"], "Did you mean sarscov2ct?"),
        (["dataset.sources=[phantom,phantom:a]"], "phantom contains its sites"),
        (["dataset.protocol=official"], "pooled has none"),
        (["dataset.own={third: {root: /x}}"], "dataset.own.third: is not among"),
        (["dataset.sources=[phantom,x]", "dataset.own={x: {root: /no/such}}"], r"dataset\.own\.x\.root=/no/such"),
        (["dataset.sources=[phantom,x]", "dataset.own={x: {classes: [a,b]}}"], "needs root=FOLDER"),
        (["dataset.sources=[phantom,x]", "dataset.own={x: {rot: /x}}"], r"dataset\.own\.x\.rot: no such key"),
        (["dataset=phantom", "dataset.val_fraction=null"], "must be numbers"),
    ],
)
def test_a_mistake_names_the_key(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(["dataset=pooled", *words])


def test_the_public_datasets_share_no_image(real_data: Path) -> None:
    manifest = registry.build(load(["dataset=pooled", f"paths.data_dir={real_data}"]))
    assert len(manifest) == 746 + 2481
    assert {s.site for s in manifest.samples} == {"covid19ct", "sarscov2ct"}
    assert not any("excluded" in note for note in manifest.sentences())


def test_a_pools_config_is_a_full_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config_ = load([*SITES, "logger=none", f"paths.runs_dir={tmp_path}", "dataset.split_seed=4"])
    full = config_.dataset
    assert full.source_settings is not None
    site = full.source_settings["phantom:b"]
    assert (site.kind, site.protocol, site.split_seed, site.image_size) == ("phantom", "grouped", 4, 32)
    assert site.phantom is not None
    assert (site.phantom.sites, site.phantom.size) == (("b",), 64)
    assert isinstance(site.val_fraction, float), "resolved, not what conf/ says today"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config_.model_dump(mode="json")))
    without = config_.model_copy(update={"dataset": full.model_copy(update={"source_settings": None})})
    assert counting(without) == counting(config_), "the run keeps its name"
    (tmp_path / "before.yaml").write_text(yaml.safe_dump(without.model_dump(mode="json")))
    monkeypatch.setattr(settings, "NAME", "before.yaml")
    assert settings.config(tmp_path) == config_, "of a run that was made before the sources were recorded"
    monkeypatch.undo()

    monkeypatch.setattr("ddtl.config.sources.usual", lambda option: pytest.fail("the record is not complete"))
    read = settings.config(tmp_path)
    assert read == config_
    sources = read.dataset.of_sources()
    assert {name: source.val_fraction for name, source in sources.items()} == {
        name: source.val_fraction for name, source in full.source_settings.items()
    }


def test_the_record_of_a_pool_hides_own_files_from_pages_and_loggers(tmp_path: Path) -> None:
    own = "dataset.own={mine: {root: /home/me/images, classes: [a, b]}}"
    config_, _ = check_without_files([
        "dataset=pooled", "dataset.sources=[phantom:a,mine]", own, "logger=none", f"paths.runs_dir={tmp_path}",
    ])  # fmt: skip
    full = config_.dataset
    assert full.source_settings is not None
    assert full.source_settings["mine"].root == "/home/me/images"
    shown = reproduce.settings({"dataset": full.model_dump(mode="json")})
    assert "mine" in shown["dataset"]["source_settings"]
    assert "/home/me" not in json.dumps(shown)


def check_without_files(words: list[str]) -> tuple[Config, list[str]]:
    """A configuration whose own files need not be there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ddtl.config.checks._own", lambda c: iter(()))
        return check(words)
