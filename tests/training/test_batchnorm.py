"""BatchNorm's statistics measured anew, and thresholds refitted: known answers, and what records say of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from ddtl.commands import cli
from ddtl.config.load import load
from ddtl.evaluation import calibration, thresholds
from ddtl.evaluation.patients import PatientTable, by_patient
from ddtl.models.network import BatchNorm
from ddtl.records import predictions as prediction_table
from ddtl.training.batchnorm import adapt_statistics, layers_of, measure, statistics
from ddtl.training.run import Run
from ddtl.training.train import assemble
from ddtl.utils.errors import UserError
from tests.support.runs import SMALL, run, same_tensors
from tests.support.tiny import tiny

__all__ = ["tiny"]  # a fixture

PHANTOM = ["dataset=phantom", *(word for word in SMALL if word.startswith("dataset.phantom."))]


def assembled(*words: str) -> tuple[Run, Any, pl.Trainer]:
    made = assemble(load([*SMALL, "trainer.precision=32", *words]))
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False,
    )  # fmt: skip
    return made, made.module(), trainer


def first_layer_sees(made: Run, split: str) -> torch.Tensor:
    """What the tiny network's first BatchNorm meets, of all images at once: (N, C, H, W)."""
    images = torch.cat([batch["image"] for batch in made.datamodule.eval_loader(split)])
    stem = next(iter(made.network.backbone.stages.values()))
    convolution = next(m for m in stem.modules() if isinstance(m, torch.nn.Conv2d))
    mixed = (images - made.network.mean) / made.network.std
    with torch.no_grad():
        return convolution(mixed.expand(-1, convolution.in_channels, -1, -1))


def test_the_first_layers_statistics_are_those_of_all_images(tiny: str) -> None:
    made, module, trainer = assembled(tiny)
    x = first_layer_sees(made, "train")  # 144 images, in two batches
    layers = layers_of(module)
    module.eval()
    measure(trainer, module, made.datamodule, "train", layers)
    mean, variance = statistics(layers[0])
    assert torch.allclose(mean, x.mean(dim=(0, 2, 3)), atol=1e-5)
    assert torch.allclose(variance, x.var(dim=(0, 2, 3)), rtol=1e-4)
    assert not any(layer.training for layer in layers)
    before = [statistics(layer) for layer in layers]
    measure(trainer, module, made.datamodule, "train", layers)
    assert all(map(same_tensors, before, [statistics(layer) for layer in layers]))


def test_a_prior_counts_as_so_many_images_and_all_is_put_back(tiny: str) -> None:
    made, module, trainer = assembled(tiny, "evaluation.batchnorm=adapt", "evaluation.batchnorm_prior=30")
    n, x = len(made.datamodule.manifest.rows("test")), first_layer_sees(made, "test")
    first = layers_of(module)[0]
    first.register_buffer("running_mean", torch.full((first.num_features,), 5.0))
    stored = {name: value.clone() for name, value in made.network.state_dict().items()}
    with adapt_statistics(trainer, module, made.datamodule, made.config.evaluation):
        mean = (30 * 5.0 + n * x.mean(dim=(0, 2, 3))) / (30 + n)
        assert torch.allclose(statistics(first)[0], mean, atol=1e-5)
    assert all(torch.equal(stored[name], value) for name, value in made.network.state_dict().items())


def test_adaptation_takes_back_an_affine_change_of_grey_levels(tiny: str) -> None:
    made, module, trainer = assembled(tiny)
    data, images = made.datamodule, made.datamodule.cache.images
    layers = layers_of(module)

    def logits(adapt: bool) -> np.ndarray:
        if adapt:
            measure(trainer, module, data, "test", layers)
        found: Any = trainer.predict(module, dataloaders=data.eval_loader("test"))
        return torch.cat([batch["logits"] for batch in found]).numpy()

    object.__setattr__(data.cache, "images", images // 4)
    darker = logits(adapt=True)
    object.__setattr__(data.cache, "images", 2 * (images // 4) + 60)
    stored, adapted_ = (np.abs(logits(adapt) - darker).mean() for adapt in (False, True))
    assert adapted_ < 0.5 * stored, "the convolutions' border stays what it is, so not all of it"


def test_fixed_layers_are_measured_too(tiny: str) -> None:
    made, module, trainer = assembled(tiny)
    for layer in layers_of(module):
        layer.fixed = True
    before = statistics(layers_of(module)[0])
    measure(trainer, module, made.datamodule, "test", layers_of(module))
    assert not same_tensors(before, statistics(layers_of(module)[0]))


def test_a_network_without_batchnorm_is_refused(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="squeezenet1_1 has no BatchNorm"):
        load(["model=squeezenet1_1", "evaluation.batchnorm=adapt"])
    made, module, trainer = assembled(tiny, "evaluation.batchnorm=adapt")
    for name, layer in list(made.network.named_modules()):
        if isinstance(layer, BatchNorm):
            made.network.set_submodule(name, torch.nn.Identity())
    with (
        pytest.raises(UserError, match="has no BatchNorm"),
        adapt_statistics(trainer, module, made.datamodule, made.config.evaluation),
    ):
        pass


def results(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return read


@pytest.mark.slow
def test_a_run_elsewhere_adapted_and_refitted(tiny: str, tmp_path: Path) -> None:
    folder = run(tmp_path, tiny, "trainer.max_epochs=1").folder
    before = results(folder)
    words = [*PHANTOM, "dataset.phantom.sites=[b]", f"paths.runs_dir={tmp_path}", "evaluation.refit=true"]
    assert cli.main(["evaluate", str(folder), *words]) == 0
    there = results(folder / "evaluations" / "phantom-grouped")
    assert cli.main(["evaluate", str(folder), *words, "evaluation.batchnorm=adapt"]) == 0
    adapted_ = results(folder / "evaluations" / "phantom-grouped-adapt")
    assert any("adapted to the test set" in warning for warning in adapted_["warnings"])
    assert adapted_["evaluation"]["batchnorm"] == "adapt"
    assert "batchnorm" not in there["evaluation"]
    assert adapted_["test"]["brier"] != there["test"]["brier"]
    for name, found in (("phantom-grouped", there), ("phantom-grouped-adapt", adapted_)):
        table = prediction_table.read(folder / "evaluations" / name / "predictions.csv")
        val, again = table.of("val"), found["refitted"]
        assert again["val_images"] == len(val) > 0
        by = by_patient(val, "mean", 0.5)
        assert isinstance(by, PatientTable)
        chosen = thresholds.choose(by.label, by.p, "youden")
        assert (again["threshold"], again["threshold_rule"]) == (chosen.value, "youden")
        fitted = calibration.fit(val.label, val.logits)
        assert again["calibration"]["temperature"] == pytest.approx(fitted.temperature)
        assert again["test"]["roc_auc"] == found["test"]["roc_auc"], "a threshold changes no order"
        assert "val" not in found
    assert results(folder) == before


@pytest.mark.slow
def test_a_runs_own_test_set_can_be_adapted_to(tiny: str, tmp_path: Path) -> None:
    words = [tiny, "trainer.max_epochs=1"]
    plain = run(tmp_path / "a", *words)
    own = run(tmp_path / "b", *words, "evaluation.batchnorm=adapt")
    assert own.folder.name == plain.folder.name, "it is the same training"
    assert (own.folder / "model.safetensors").read_bytes() == (plain.folder / "model.safetensors").read_bytes()
    assert own.results["val"]["brier"] == plain.results["val"]["brier"]
    assert own.results["test"]["brier"] != plain.results["test"]["brier"]
    assert cli.main(["evaluate", str(plain.folder), "evaluation.batchnorm=adapt"]) == 0
    again = results(plain.folder / "evaluations" / "phantom-grouped-adapt")
    assert again["test"]["brier"] == pytest.approx(own.results["test"]["brier"], rel=1e-4)
    with pytest.raises(UserError, match="name it: dataset="):
        cli.main(["evaluate", str(plain.folder), "evaluation.refit=true"])
