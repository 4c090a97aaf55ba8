"""What a study's scores are held against: shared pictures, and classifiers that see no pixel."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddtl.audits import file_metadata
from ddtl.data.datasets.pooled import image_hashes
from ddtl.data.manifest import Manifest, Sample
from ddtl.records import study_controls
from ddtl.studies import controls, settings, subjects
from ddtl.studies.controls import ControlSubject
from ddtl.utils.errors import UserError

SPLITS = ("train", "train", "val", "test")


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_metadata, "forest", functools.partial(file_metadata.forest, trees=20))


def subject(
    folder: Path, name: str, *, seed: int, formats: tuple[str, str] = ("png", "png"), n: int = 40
) -> ControlSubject:
    """Patients of two pictures each, of noise; the classes may differ in their file format."""
    folder = folder / name
    folder.mkdir()
    random = np.random.default_rng(seed)
    samples = []
    for i in range(n):
        label = i // 2 % 2
        path = folder / f"{i:02d}.{formats[label]}"
        Image.fromarray(random.integers(0, 256, (32, 32), dtype=np.uint8)).save(path)
        split = SPLITS[i // 4 % 4]
        samples.append(Sample(path.name, path, label, patient_id=f"p{i // 2:02d}", split=split))
    manifest = Manifest(name, ("no", "yes"), tuple(samples), "patient", protocol="official")
    return ControlSubject(name, manifest, image_hashes(manifest, published=False))


def test_a_shared_image_takes_its_patient_out_of_the_test(tmp_path: Path) -> None:
    source, target = subject(tmp_path, "a", seed=0), subject(tmp_path, "b", seed=1)
    test, train = target.manifest.rows("test")[0], source.manifest.rows("train")[0]
    hashes = list(target.hashes)
    hashes[test] = source.hashes[train] ^ 0b1011  # saved again, three bits away
    patient = target.manifest.samples[test].group
    theirs = [sample.sample_id for sample in target.manifest.samples if sample.group == patient]
    found = controls.between(source, ControlSubject("b", target.manifest, hashes))
    assert found["duplicates"] == theirs
    assert len(theirs) == 2


def test_what_only_stands_in_the_sources_test_is_no_leak(tmp_path: Path) -> None:
    source, target = subject(tmp_path, "a", seed=0), subject(tmp_path, "b", seed=1)
    hashes = list(target.hashes)
    hashes[target.manifest.rows("test")[0]] = source.hashes[source.manifest.rows("test")[0]]
    assert controls.between(source, ControlSubject("b", target.manifest, hashes))["duplicates"] == []


def test_file_facts_are_carried_across(tmp_path: Path) -> None:
    """Learned where the format tells the classes; tested where it does so, too, and where it does the other way."""
    source = subject(tmp_path, "a", seed=0, formats=("png", "jpg"), n=64)
    for name, formats, area in (("same", ("png", "jpg"), 1.0), ("turned", ("jpg", "png"), 0.0)):
        found = controls.between(source, subject(tmp_path, name, seed=1, formats=formats, n=64))
        assert found["file_facts"]["roc_auc"] == area
        assert (
            found["file_facts"]["intervals"]["roc_auc"]["low"]
            <= area
            <= found["file_facts"]["intervals"]["roc_auc"]["high"]
        )
        assert found["majority"]["roc_auc"] == 0.5


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    source, target = subject(tmp_path, "a", seed=0), subject(tmp_path, "b", seed=1)
    source.manifest.samples[source.manifest.rows("train")[0]].path.unlink()
    found = controls.between(source, target)
    assert "does not exist" in found["file_facts"]["why_not"]
    assert found["majority"]["accuracy"] is not None


def test_controls_of_the_same_images_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = subject(tmp_path, "a", seed=0), subject(tmp_path, "b", seed=1)
    first = controls.write(tmp_path, [pair])
    assert study_controls.read(tmp_path) == first
    monkeypatch.setattr(controls, "between", lambda *_: pytest.fail("computed again"))
    assert controls.write(tmp_path, [pair]) == first
    monkeypatch.undo()
    other = subject(tmp_path, "c", seed=2)
    changed = controls.write(tmp_path, [(pair[0], ControlSubject("b", other.manifest, other.hashes))])
    assert changed.pairs["a", "b"]["images"] != first.pairs["a", "b"]["images"]


def test_a_damaged_file_is_told_and_written_again(tmp_path: Path) -> None:
    (tmp_path / study_controls.NAME).write_text("{")
    with pytest.raises(UserError, match="damaged"):
        study_controls.read(tmp_path)
    controls.write(tmp_path, [(subject(tmp_path, "a", seed=0), subject(tmp_path, "b", seed=1))])
    assert study_controls.read(tmp_path).twice("a", "b") == frozenset()


@pytest.mark.slow
def test_a_dataset_out_of_reach_keeps_the_others_and_its_earlier_controls(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["study=cross_dataset", "study.datasets=[phantom:a,phantom:b,third]", "study.seeds=1", "model=resnet18"]
    root = tmp_path / "third"
    for name in ("normal", "COVID"):
        (root / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng(number).integers(0, 255, (64, 64), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    own = [f"study.own={{third: {{root: {root}}}}}", "dataset.image_size=32", f"paths.runs_dir={tmp_path / 'runs'}"]
    plan = settings.read([*words, *own, "study.leave_one_out=false", f"paths.cache_dir={tmp_path / 'cache'}"])
    assert len(subjects.pairs(plan)) == 6
    shutil.rmtree(root)
    found = subjects.pairs(plan)
    assert {(source.name, target.name) for source, target in found} == {
        ("phantom:a", "phantom:b"), ("phantom:b", "phantom:a"),
    }  # fmt: skip
    assert "third has no controls" in caplog.text


def test_controls_of_other_pairs_stay(tmp_path: Path) -> None:
    a, b, c = (subject(tmp_path, name, seed=i) for i, name in enumerate("abc"))
    controls.write(tmp_path, [(a, b), (a, c)])
    assert set(controls.write(tmp_path, [(a, b)]).pairs) == {("a", "b"), ("a", "c")}
