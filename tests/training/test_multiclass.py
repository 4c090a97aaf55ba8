"""More than two classes: the scores of an epoch, and a whole run on a person's own images."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console
from torchmetrics import MetricCollection

from ddtl.config.load import load
from ddtl.evaluation.metrics import binary_scores, multiclass_scores
from ddtl.evaluation.score import score
from ddtl.models.metrics import epoch_scores, update
from ddtl.models.module import Classifier
from ddtl.models.network import Network
from ddtl.records import predictions as prediction_table
from ddtl.reports import terminal
from ddtl.reports.run.publish import publish
from ddtl.schema.scores import EPOCH_SCORES, PER_CLASS, SCORES
from ddtl.training.results import RunResult
from ddtl.training.train import train
from ddtl.utils import console
from ddtl.utils.reading import read_lines

CLASSES = ("disc", "square", "stripes")


def scores_of(logits: torch.Tensor, labels: torch.Tensor, batch: int = 7) -> tuple[dict[str, float], MetricCollection]:
    scores = epoch_scores(logits.shape[1])
    for start in range(0, len(labels), batch):
        update(scores, logits[start : start + batch], labels[start : start + batch])
    return {name: float(value) for name, value in scores.compute().items()}, scores


@pytest.mark.parametrize("k", [2, 3, 5])
def test_an_epochs_scores_are_those_of_the_results(k: int) -> None:
    torch.manual_seed(k)
    labels = torch.cat([torch.arange(k), torch.randint(0, k, (60,))])
    logits = torch.randn(len(labels), k) + torch.nn.functional.one_hot(labels, k)
    found, _ = scores_of(logits, labels)
    p = logits.double().softmax(dim=1).numpy()
    expected = binary_scores(labels.numpy(), p[:, 1], 0.5) if k == 2 else multiclass_scores(labels.numpy(), p)[0]
    assert set(found) == set(EPOCH_SCORES) - {"val/loss"}
    for name, value in found.items():
        assert value == pytest.approx(expected[name.removeprefix("val/")], abs=1e-6), name


def test_a_class_without_images_has_no_part_in_an_epochs_means() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
    logits = torch.randn(8, 3) + 2 * torch.nn.functional.one_hot(labels, 3)
    logits[0] = torch.tensor([0.0, 0.0, 3.0])  # the absent class is called once
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics says that a class is absent
        found, _ = scores_of(logits, labels)
    _, each = multiclass_scores(labels.numpy(), logits.double().softmax(dim=1).numpy())
    for name, ours in {
        "roc_auc": "roc_auc",
        "average_precision": "average_precision",
        "balanced_accuracy": "sensitivity",
        "f1": "f1",
    }.items():
        assert found[f"val/{name}"] == pytest.approx(np.mean([scores[ours] for scores in each[:2]]), abs=1e-6), name


def test_an_epochs_scores_start_again() -> None:
    torch.manual_seed(0)
    labels = torch.arange(30) % 3
    first, scores = scores_of(torch.randn(30, 3), labels)
    scores.reset()
    update(scores, 9.0 * torch.nn.functional.one_hot(labels, 3), labels)
    assert first["val/roc_auc"] < 1
    assert {float(value) for value in scores.compute().values()} == {1.0}


@pytest.mark.parametrize("k", [2, 3])
def test_a_batch_of_fillers_alone_changes_nothing(k: int) -> None:
    """The last one of a process in a distributed evaluation can be."""
    network = Network(load(["model=squeezenet1_1", "model.weights=none"]).model, n_classes=k)
    module = Classifier(network, lambda _: None, seed=0).eval()
    labels = torch.arange(6) % k
    batch = {"image": torch.rand(6, 1, 32, 32), "label": labels, "real": torch.ones(6, dtype=torch.bool)}
    results: list[list[float]] = []
    with torch.no_grad():
        module.validation_step(batch, 0)
        for _ in range(2):
            results.append([float(v) for v in (*module.scores.compute().values(), module.val_loss.compute())])
            module.validation_step({**batch, "real": torch.zeros(6, dtype=torch.bool)}, 1)
    assert results[0] == results[1]
    assert np.isfinite(results).all()


# --- a whole run -----------------------------------------------------------------------------------------------------


def draw(shape: str, rng: np.random.Generator) -> np.ndarray:
    """A bright shape on a dark ground, 32 × 32, with noise."""
    image = np.full((32, 32), 40, np.uint8)
    x, y, r = (int(v) for v in (*rng.integers(12, 20, 2), rng.integers(6, 10)))
    if shape == "disc":
        cv2.circle(image, (x, y), r, 200, -1)
    elif shape == "square":
        cv2.rectangle(image, (x - r, y - r), (x + r, y + r), 200, 2)
    else:
        image[:, int(rng.integers(0, 4)) :: 4] = 200
    return np.clip(image + rng.normal(0, 10, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images of 30 patients, in one folder a class."""
    root = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir()
        for i in range(20):
            cv2.imwrite(str(root / name / f"{name}{i // 2:02d}_{i % 2}.png"), draw(name, rng))
    return root


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, str]:
    """(a run that came to its end, what it printed)."""
    overrides = [
        "dataset=folder",
        "dataset.name=shapes",
        f"dataset.root={images}",
        r"dataset.patient_regex='(\w+)_\d'",
        "dataset.image_size=32",
        "dataset.batch_size=6",
        "model=resnet18",
        "model.weights=none",
        "model.grayscale=sum",
        "loss.class_weights=balanced",
        "augment=none",
        "trainer=cpu",
        "trainer.monitor=val/loss",  # the areas are 1 from the first epoch on
        "trainer.max_epochs=3",
        "logger=none",
        "verbose=true",
        f"paths.runs_dir={tmp_path_factory.mktemp('runs')}",
    ]
    screen = Console(width=100, soft_wrap=True)
    with pytest.MonkeyPatch.context() as patch, screen.capture() as printed:
        patch.setattr(console, "out", screen)
        config = load(overrides)
        result = train(config, publish=publish)
        terminal.run_result(config, result)
    return result, printed.get()


@pytest.mark.slow
def test_three_classes_are_learnt(finished: tuple[RunResult, str]) -> None:
    r = finished[0].results
    for split in ("val", "test"):
        assert r[split]["roc_auc"] > 0.8
        assert r[split]["accuracy"] > 0.5  # chance is a third
    assert r["test"]["images"] == 12


def test_the_record_of_three_classes(finished: tuple[RunResult, str]) -> None:
    folder, r = finished[0].folder, finished[0].results
    assert json.loads((folder / "results.json").read_text()) == r
    assert (r["classes"], r["positive"], r["threshold"]) == (list(CLASSES), None, 0.5)
    for split in ("val", "test"):
        found: dict[str, Any] = r[split]
        assert set(SCORES) <= set(found)
        assert (found["averaging"], found["decision"]) == ("macro one-vs-rest", "argmax")
        counts = np.array(found["confusion"]["counts"])
        assert counts.sum(axis=1).tolist() == list(found["classes"].values())
        assert found["accuracy"] == pytest.approx(np.trace(counts) / counts.sum())
        assert all(set(found["per_class"][name]) == {*PER_CLASS, "images"} for name in CLASSES)
    table = prediction_table.read(folder / "predictions.csv")
    assert table.classes == CLASSES
    for split in ("val", "test"):
        assert score(table.of(split), 0.5).items() <= r[split].items()
        assert set(r[split]["intervals"]) == set(SCORES)
        for name, interval in r[split]["intervals"].items():
            assert interval is None or interval["low"] <= r[split][name] <= interval["high"], name
    assert r["test"]["patients"] == {"why_not": "they are for two classes, and there are 3"}
    rows = read_lines(folder / "metrics.jsonl")
    assert rows[r["best_epoch"]]["val/roc_auc"] == pytest.approx(r["val"]["roc_auc"], abs=1e-6)
    assert all(rows[-1][name] is not None for name in EPOCH_SCORES)


def test_the_screen_of_three_classes(finished: tuple[RunResult, str]) -> None:
    r, printed = finished[0].results, finished[1]
    assert "shapes · protocol grouped · classes disc, square, stripes" in printed
    assert "test, each class against all others" in printed
    stripes = next(line for line in printed.splitlines() if "stripes" in line and "│" in line)
    cells = [cell.strip() for cell in stripes.strip("│ ").split("│")]
    of_class = r["test"]["per_class"]["stripes"]
    assert cells == ["stripes", *(f"{of_class[name]:.4f}" for name in PER_CLASS), str(of_class["images"])]


def test_two_classes_are_shown_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(width=100, soft_wrap=True)
    monkeypatch.setattr(console, "out", screen)
    split = {**dict.fromkeys(SCORES, 0.5), "images": 4, "groups": 2}
    results = {
        "dataset": "toy",
        "protocol": "grouped",
        "classes": ["[a]", "[b]"],
        "positive": "[b]",
        "val": split,
        "warnings": [],
    }
    with screen.capture() as printed:
        terminal.score_table(results)
    assert "toy · protocol grouped · positive class [b]" in printed.get()
    assert "against all others" not in printed.get()
