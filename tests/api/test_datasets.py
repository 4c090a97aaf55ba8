"""``ddtl.dataset`` and ``ddtl data show``: the table of images, and the images as training sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ddtl
from ddtl.commands import cli
from ddtl.data.loading.datamodule import CTDataModule
from tests.support.runs import SMALL, config

PHANTOM = [word for word in SMALL if word.startswith("dataset.")]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> ddtl.Dataset:
    return ddtl.dataset("phantom", *PHANTOM, augment="strong")


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> CTDataModule:
    module = CTDataModule(config(tmp_path_factory.mktemp("known"), "augment=strong"))
    module.load()
    return module


def test_the_manifest_is_that_of_training(found: ddtl.Dataset, known: CTDataModule) -> None:
    table = found.manifest
    samples = known.manifest.samples
    assert list(table["sample_id"]) == [sample.sample_id for sample in samples]
    assert list(table["split"]) == [sample.split or "" for sample in samples]
    assert list(table["label"]) == [known.manifest.classes[sample.label] for sample in samples]
    assert list(table["patient_id"]) == [sample.patient_id for sample in samples]
    assert all(Path(path).is_file() for path in table["path"])
    assert table.groupby("patient_id")["split"].nunique().max() == 1
    assert (found.name, found.classes, found.protocol) == ("phantom", ("non-COVID", "COVID"), "grouped")
    assert "<td>train</td>" in found._repr_html_()


def test_a_batch_is_what_the_first_epoch_trains_on(found: ddtl.Dataset, known: CTDataModule) -> None:
    batch = found.batch("train", n=12)
    assert batch.before.shape == batch.after.shape == (12, 1, 32, 32)
    assert batch.before.dtype == batch.after.dtype == np.float32
    rows = {sample.sample_id: row for row, sample in enumerate(known.manifest.samples)}
    trained = {}
    for keys in known._train_batches().in_epoch(0):
        seen = known.train_dataloader().dataset.__getitems__(keys)  # type: ignore[attr-defined]
        trained |= dict(zip(seen["row"].tolist(), seen["image"].numpy(), strict=True))
    for i, name in enumerate(batch.sample_ids):
        row = rows[name]
        np.testing.assert_array_equal(np.rint(batch.before[i, 0] * 255), known.cache[row])
        assert batch.labels[i] == known.labels[row]
        if row in trained:
            np.testing.assert_array_equal(batch.after[i], trained[row])
    assert sum(rows[name] in trained for name in batch.sample_ids) > 6
    assert not np.array_equal(batch.before, batch.after)
    assert set(batch.labels.tolist()) == {0, 1}


def test_validation_and_test_are_not_augmented_and_a_split_may_be_smaller(found: ddtl.Dataset) -> None:
    for split in ("val", "test"):
        batch = found.batch(split, n=100_000)
        np.testing.assert_array_equal(batch.before, batch.after)
        assert list(batch.sample_ids) == list(found.manifest.query("split == @split")["sample_id"])


def test_what_is_no_split_or_no_number_is_refused(found: ddtl.Dataset) -> None:
    with pytest.raises(ddtl.UserError, match="neither 'train', 'val' nor 'test'"):
        found.batch("tets")  # type: ignore[arg-type]
    with pytest.raises(ddtl.UserError, match="at least 1"):
        found.batch(n=0)
    with pytest.raises(ddtl.UserError, match="phantom"):
        ddtl.dataset("phanton")


def show(tmp_path: Path, *words: str) -> Path:
    output = tmp_path / "sheets"
    assert cli.main(["data", "show", "phantom", *PHANTOM, *words, f"output={output}"]) == 0
    (path,) = output.iterdir()
    return path


def test_the_sheet_shows_each_image_before_and_after(found: ddtl.Dataset, tmp_path: Path) -> None:
    path = show(tmp_path, "augment=strong", "images=4")
    assert path.name == "phantom-train.png"
    sheet = np.asarray(Image.open(path))
    batch = found.batch("train", n=4)
    for i in range(4):
        for pixels in (batch.before[i, 0], batch.after[i, 0]):
            side = np.rint(pixels * 255).astype(np.uint8).repeat(7, axis=0).repeat(7, axis=1)
            windows = [(y, x) for y, x in places(sheet.shape, side.shape) if (sheet[y, x, 0] == side[0, 0])]
            assert any(np.array_equal(sheet[y : y + len(side), x : x + len(side), 0], side) for y, x in windows), (
                f"image {i} is not on the sheet"
            )


def places(sheet: tuple[int, ...], side: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(y, x) for y in range(sheet[0] - side[0] + 1) for x in range(sheet[1] - side[1] + 1)]


def test_an_earlier_sheet_is_replaced_only_on_request(tmp_path: Path) -> None:
    path = show(tmp_path, "images=1", "split=val")
    assert path.name == "phantom-val.png"
    with pytest.raises(ddtl.UserError, match="overwrite=true"):
        show(tmp_path, "images=1", "split=val")
    assert show(tmp_path, "images=2", "split=val", "overwrite=true") == path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["phantom", "output={runs}/x"], "is in the runs folder"),
        ([], "name one dataset: .*phantom"),
        (["phantom", "covid19ct"], "name one dataset"),
        (["phanton"], "phantom"),
        (["phantom", "imgaes=3"], "images"),
        (["phantom", "split=tets"], "split"),
        (["phantom", "images=0"], "images"),
        (["phantom", "augment.rotat=3"], "augment.rot"),
    ],
)
def test_mistakes_are_refused(tmp_path: Path, words: list[str], message: str) -> None:
    typed = [word.format(runs=tmp_path) for word in words]
    with pytest.raises(ddtl.UserError, match=message):
        cli.main(["data", "show", *PHANTOM, *typed, f"paths.runs_dir={tmp_path}"])
    assert not list(tmp_path.iterdir())


def test_the_help_says_that_the_sheet_holds_patients_pixels(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "show", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "The sheet contains patients' pixels" in shown
    assert "contact_sheets/covid19ct-train.png" in shown
