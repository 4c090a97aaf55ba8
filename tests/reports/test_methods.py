"""The methods text and the CLAIM checklist: what the record says, and a blank where it says nothing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from ddtl.reports.prose import escaped
from ddtl.reports.run import methods, stored
from tests.reports.test_run_page import GOLDEN, HOSTILE, golden
from tests.support import records


def text(folder: Path) -> str:
    return methods.render(stored.read(folder))


def items(markdown: str) -> dict[int, str]:
    """The last column of the checklist by item."""
    rows = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", markdown, flags=re.MULTILINE)
    return {int(item): answer for item, answer in rows}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return records.write(tmp_path_factory.mktemp("runs") / "densenet121-full-s0-0123456789")


def test_methods_as_they_were() -> None:
    golden("methods.md", text(GOLDEN / "run"))


def test_the_checklist_has_every_item_and_no_empty_answer(run: Path) -> None:
    found = items(text(run))
    assert sorted(found) == list(range(1, 43))
    assert all(answer.strip() for answer in found.values())


def test_what_no_record_knows_is_a_blank(run: Path) -> None:
    found = items(text(run))
    for item in (2, 3, 4, 5, 6, 8, 11, 12, 13, 14, 15, 16, 17, 18, 19, 31, 33, 34, 39, 40, 41, 42):
        assert found[item].startswith("[to be filled in: "), item
    for item in (1, 9, 10, 20, 21, 22, 23, 24, 26, 27, 28, 29, 35, 36):
        assert "[to be filled in" not in found[item], item


def test_numbers_are_those_of_the_record(run: Path) -> None:
    record, found = json.loads((run / "results.json").read_text()), text(run)
    by_patient = record["test"]["patients"]
    c = by_patient["confusion"]
    assert f"{c['fp']} false positives and {c['fn']} false negative" in items(found)[37]
    assert f"accuracy {by_patient['accuracy']:.3f} (" in items(found)[36]
    assert "500 CT images of 250 patients in 2 classes" in found
    assert "epoch 4 of 6" in found
    assert "test-set use number 1" in found


SPLITS = [
    ({"protocol": "official"}, "those that the dataset's authors published: no patient has images in two of them."),
    ({"protocol": "grouped"}, "Whole patients were assigned at random to training, validation and test set (seed 0)"),
    ({"protocol": "kfold", "fold": 2, "n_folds": 5}, "to 5 folds (seed 0); fold 2, counted from 0, was the test set"),
    ({"protocol": "random", "leaked_share": 0.87}, "in several of them (87 % of the test images) and the scores are"),
    ({"protocol": "grouped", "grouping": "near_duplicate"}, "The dataset names no patients, so images of one patient"),
    ({"protocol": "grouped", "grouping": "none"}, "no patients are named, so images were assigned one by one"),
]


@pytest.mark.parametrize(("changes", "words"), SPLITS)
def test_how_images_were_divided(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    folder = records.write(tmp_path / "run", **changes)
    assert words in text(folder)
    # Nobody can read off a leaky split that its parts are disjoint by patient.
    assert (items(text(folder))[21] == "Patient.") == ("leaked_share" not in changes and "grouping" not in changes)


SETTINGS = {
    "augment=none": "Training images were not augmented.",
    "optimizer=sgd": "with SGD (momentum ",
    "model.class_weights=balanced": "classes weighed by the inverse of their frequency",
    "model.label_smoothing=0.1": "cross-entropy with label smoothing 0.1",
    "model.grayscale=sum": "shown to the network as one channel",
    "model.head.hidden=[256]": "a hidden layer of 256 units, dropout (0.2) and a linear layer",
    "trainer.patience=5": "Training was to stop after 5 epochs without improvement.",
    "trainer.ema=0.99": "a running mean of the weights (decay 0.99) was scored",
    "optimizer.lr=0.01": "peak learning rates 0.001 (backbone) and 0.01 (head)",
    "finetune.backbone_lr_ratio=0.1": "All layers were trained",
    "dataset.sampling=balanced": "each class was drawn equally often",
}


def test_settings_in_words(run: Path, tmp_path: Path) -> None:
    changed = text(records.write(tmp_path / "run", overrides=("dataset=covid19ct", "finetune=full", *SETTINGS)))
    default = text(run)
    for setting, words in SETTINGS.items():
        assert words in changed, setting
        assert words not in default or words == "All layers were trained", setting


def test_one_of_a_thing_is_singular(tmp_path: Path) -> None:
    found = text(records.write(tmp_path / "run", overrides=("model.head.hidden=[1]", "trainer.max_epochs=1")))
    assert "a hidden layer of 1 unit, dropout" in found
    assert "for up to 1 epoch in batches of" in found


def test_another_loss_in_words(tmp_path: Path) -> None:
    words = ("loss=focal", "loss.gamma=1.5", "loss.label_smoothing=0.1")
    found = text(records.write(tmp_path / "run", overrides=("dataset=covid19ct", *words)))
    assert ", on focal loss (gamma 1.5) with label smoothing 0.1, with AdamW" in found
    assert "cross-entropy" not in found


def test_a_linear_probe_in_words(tmp_path: Path) -> None:
    found = text(records.write(tmp_path / "run", overrides=("dataset=covid19ct", "finetune=linear_probe")))
    assert "Only the classification head was trained; the backbone stayed as loaded, on cross-entropy" in found
    assert "peak learning rate 0.005," in found


def test_random_initial_weights_are_named(tmp_path: Path) -> None:
    folder = records.write(tmp_path / "run", weights={"source": "none", "digest": None})
    assert items(text(folder))[24] == "It started from random weights."


def test_validation_alone_claims_no_test(tmp_path: Path) -> None:
    found = text(records.write(tmp_path / "run", test=False))
    assert "No test set was scored" in found
    assert "ROC AUC on test" not in found
    assert "test-set use number" not in found


def test_three_classes(tmp_path: Path) -> None:
    found = text(records.write(tmp_path / "run", records.table(("normal", "CAP", "COVID"))))
    assert "in 3 classes (normal, CAP and COVID)" in found
    assert "There is no threshold" in found
    assert items(found)[21] == "Patient."


def test_external_data(tmp_path: Path) -> None:
    home = records.write(tmp_path / "run")
    trained_on = {"dataset": "covid19ct", "protocol": "official", "run": "run"}
    folder = home / "evaluations" / "other"
    records.write(folder, dataset="sarscov2ct", trained_on=trained_on)
    assert items(text(folder))[32] == "This record is one: trained on covid19ct, tested on sarscov2ct."
    assert "Test: 120 images of 60 patients (non-COVID 60, COVID 60). Training and validation images" in text(folder)
    assert "The dataset sarscov2ct gave 120 CT images of 60 patients" in text(folder)
    assert "threshold and calibration come from the validation images of covid19ct" in text(folder)
    assert "[to be filled in" in items(text(home))[32]


def test_without_settings_there_are_blanks_and_no_error(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    for name in ("config.yaml", "environment.json", "metrics.jsonl"):
        (folder / name).unlink()
    record = json.loads((folder / "results.json").read_text())
    for key in ("weights", "monitor", "best_epoch", "seed", "versions", "interval", "calibration", "baselines"):
        del record[key]
    (folder / "results.json").write_text(json.dumps(record))
    found = items(text(folder))
    for item in (9, 22, 24, 25, 26):
        assert "[to be filled in: " in found[item], item


def test_names_stay_letters_and_rows_stay_rows(tmp_path: Path) -> None:
    folder = records.write(tmp_path / "run", records.table(HOSTILE), dataset="a|b\n\n# c", warnings=list(HOSTILE))
    found = text(folder)
    assert sorted(items(found)) == list(range(1, 43))
    assert "\n# c" not in found
    unescaped = re.findall(r"(?<!\\)[<>]", found)
    assert unescaped == []
    for line in found.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 4, 5, 6), line[:80]


def test_markdown_shows_escaped_names_letter_by_letter() -> None:
    from markdown_it import MarkdownIt

    html = MarkdownIt("commonmark").enable("table").render
    for name in (*HOSTILE, "a_b_c", "*x*", "`code`", "# heading", "1. list", "[a](b)", "![a](b)", "&lt;", "a\\|b"):
        shown = html(f"x {escaped(name)}")
        plain = re.sub(r"<[^>]+>", "", shown)
        for entity, letter in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
            plain = plain.replace(entity, letter)
        assert plain.strip() == f"x {' '.join(name.split())}"
