"""What training minimises: right values, and the same under every name that its settings have had."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import yaml

from ddtl.config.load import ConfigError, check, load
from ddtl.models.losses import LOSSES, build_loss
from ddtl.records import settings
from ddtl.schema.run import Config
from ddtl.training.callbacks import EarlyEnd
from ddtl.training.identity import counting
from ddtl.training.train import EndedEarly, train
from ddtl.utils.errors import UserError
from tests.support.runs import small, state
from tests.support.tiny import tiny

__all__ = ["tiny"]  # a fixture

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 1.0, 4.0], [1.0, 3.0, -2.0]])
LABELS = torch.tensor([0, 2, 1, 1])
WEIGHTS = torch.tensor([0.5, 2.0, 1.25])


@pytest.mark.parametrize(("smoothing", "weights"), list(product((0.0, 0.1), (None, WEIGHTS))))
def test_focal_without_its_focus_is_cross_entropy(smoothing: float, weights: torch.Tensor | None) -> None:
    expected = F.cross_entropy(LOGITS, LABELS, weight=weights, label_smoothing=smoothing)
    found = LOSSES["focal"](LOGITS, LABELS, weights, label_smoothing=smoothing, gamma=0.0)
    torch.testing.assert_close(found, expected)
    same = build_loss(load([f"loss.label_smoothing={smoothing}"]).loss)(LOGITS, LABELS, weights)
    assert torch.equal(same, expected)


def test_focal_has_the_values_of_its_formula() -> None:
    p = LOGITS.double().softmax(dim=1)[range(4), LABELS].tolist()
    each = [-((1 - x) ** 2) * math.log(x) for x in p]
    loss = build_loss(load(["loss=focal"]).loss)
    assert loss(LOGITS, LABELS, None).item() == pytest.approx(sum(each) / 4, rel=1e-6)
    weights = WEIGHTS[LABELS].tolist()
    weighted = sum(w * x for w, x in zip(weights, each, strict=True)) / sum(weights)
    assert loss(LOGITS, LABELS, WEIGHTS).item() == pytest.approx(weighted, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_has_a_finite_gradient_where_the_answer_is_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [200.0, -200.0]], requires_grad=True)
    loss = LOSSES["focal"](logits, torch.tensor([0, 1]), None, label_smoothing=0.0, gamma=gamma)
    loss.backward()
    assert loss.item() == pytest.approx(200.0)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[0].abs().max() < 1e-6  # right and certain: nothing to change


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["loss=focl"], "loss=focl: no such option. Did you mean focal?"),
        (["loss.name=focl"], "loss.name=focl: no such loss. Did you mean focal?"),
        (["loss.name=focal"], "Set loss=focal instead"),
        (["loss=focal", "loss.name=cross_entropy"], "Set loss=cross_entropy instead"),
        (["loss.gamma=2"], "loss.gamma=2: no such key"),
        (["loss=focal", "loss.gamma=-1"], "loss.gamma=-1: must be at least 0"),
        (["loss=focal", "loss.gamma=two"], "loss.gamma=two: must be a number"),
        (["model.label_smoothing=1"], "must be less than 1"),
        (["model.class_weights=balance"], "must be one of none, balanced"),
    ],
)
def test_mistakes_are_refused(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(words)
    assert says in str(refused.value)


def test_a_file_that_fits_no_function_is_refused() -> None:
    focal = load(["loss=focal"]).loss
    with pytest.raises(UserError, match=r"loss=mine: there is no such function"):
        build_loss(focal.model_copy(update={"name": "mine"}))
    with pytest.raises(UserError, match=r"conf/loss/cross_entropy\.yaml does not fit its function .*gamma"):
        build_loss(focal.model_copy(update={"name": "cross_entropy"}))


def test_labels_are_not_smoothed_for_a_loss_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def squared(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        return ((logits.softmax(1)[:, 1] - labels) ** 2).mean()

    monkeypatch.setitem(LOSSES, "squared", squared)
    loss = load([]).loss.model_copy(update={"name": "squared"})
    assert build_loss(loss)(torch.zeros(2, 2), torch.tensor([0, 1]), None) == 0.25
    with pytest.raises(UserError, match=r"loss\.label_smoothing=0\.1: loss=squared has none"):
        build_loss(loss.model_copy(update={"label_smoothing": 0.1}))


def test_the_names_of_before_are_read() -> None:
    now = load(["loss.label_smoothing=0.1", "loss.class_weights=balanced"])
    assert load(["model.label_smoothing=0.1", "model.class_weights=balanced"]) == now
    _, warnings = check(["model.class_weights=balanced", "dataset.sampling=balanced"])
    assert any("loss.class_weights=balanced" in line for line in warnings)


def test_a_record_of_before_is_read(tmp_path: Path) -> None:
    config = load(["loss.label_smoothing=0.1"])
    tree: dict[str, Any] = config.model_dump(mode="json")
    del tree["loss"]
    tree["model"] |= {"label_smoothing": 0.1, "class_weights": "none"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    assert settings.config(tmp_path) == config
    assert settings.read(tmp_path)["loss"] == config.loss.model_dump()
    assert "label_smoothing" not in settings.read(tmp_path)["model"]


def test_an_identity_spells_them_as_before() -> None:
    found = counting(load([]))
    assert found["model.label_smoothing"] == 0
    assert found["model.class_weights"] == "none"
    assert not [key for key in found if key.startswith("loss.")]
    focal = counting(load(["loss=focal", "loss.gamma=1.5"]))
    assert focal == {**found, "loss.name": "focal", "loss.gamma": 1.5}


def test_a_record_says_which_loss(tmp_path: Path) -> None:
    config = load(["loss=focal", "loss.gamma=1.5"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    found = settings.config(tmp_path)
    assert found == config
    assert found.loss.model_extra == {"gamma": 1.5}
    assert isinstance(found, Config)


class _AfterFirst(EarlyEnd):
    """Ends a fit after its first epoch."""

    def decide(self, trainer: pl.Trainer) -> str | None:
        return "the first epoch is over" if trainer.global_step else None


@pytest.mark.slow
def test_a_resumed_run_with_focal_loss_equals_a_whole_one(tmp_path: Path, tiny: str) -> None:
    words = small(tmp_path, tiny, "loss=focal", "loss.class_weights=balanced", "trainer.max_epochs=2")
    whole = train(load([*words, "run.name=whole"]))
    plain = train(load([*words, "run.name=plain", "loss=cross_entropy"]))
    with pytest.raises(EndedEarly):
        train(load([*words, "run.name=parts"]), [_AfterFirst()])
    parts = train(load([*words, "run.name=parts"]))
    ours, theirs, others = (
        state(made.folder / "checkpoints" / "last.ckpt")["state_dict"] for made in (parts, whole, plain)
    )
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert not all(torch.equal(others[name], value) for name, value in theirs.items())


# --- AUC margin -------------------------------------------------------------------------------------------------------


def test_auc_margin_has_the_values_of_its_formula() -> None:
    logits = torch.tensor([[0.0, 1.0], [0.5, -0.5], [0.0, 3.0], [2.0, 0.0]])
    labels = torch.tensor([1, 0, 1, 0])
    h = [1 / (1 + math.exp(a - b)) for a, b in logits.tolist()]
    positive, negative = (h[0] + h[2]) / 2, (h[1] + h[3]) / 2
    spread = ((h[0] - positive) ** 2 + (h[2] - positive) ** 2 + (h[1] - negative) ** 2 + (h[3] - negative) ** 2) / 2
    loss = build_loss(load(["loss=auc_margin"]).loss)
    assert loss(logits, labels, None).item() == pytest.approx(spread + (1 - positive + negative) ** 2, rel=1e-5)
    met = build_loss(load(["loss=auc_margin", "loss.margin=0.1"]).loss)
    assert met(logits, labels, None).item() == pytest.approx(spread, rel=1e-5)


def test_auc_margin_is_the_saddle_point_of_the_papers_problem() -> None:
    """Equation 5 of Yuan et al. at its best a, b and its worst alpha, found by search."""
    h = torch.tensor([0.2, 0.7, 0.4, 0.9, 0.3], dtype=torch.double)
    labels = torch.tensor([0, 1, 0, 1, 1])
    logits = torch.stack([torch.zeros(5, dtype=torch.double), h.logit()], dim=1)
    found = LOSSES["auc_margin"](logits, labels, None, margin=1.0).item()
    grid = torch.linspace(0, 1, 2001, dtype=torch.double)
    plus, minus = h[labels == 1], h[labels == 0]
    a = ((plus[None] - grid[:, None]) ** 2).mean(dim=1).min()
    b = ((minus[None] - grid[:, None]) ** 2).mean(dim=1).min()
    unmet = 1.0 - plus.mean() + minus.mean()
    alpha = (2 * grid * unmet - grid**2).max()
    assert found == pytest.approx(float(a + b + alpha), abs=1e-6)


def test_auc_margin_of_a_batch_of_one_kind_is_its_spread_and_its_gradient_is_finite() -> None:
    logits = torch.tensor([[0.0, 1.0], [0.0, 2.0]], requires_grad=True)
    loss = LOSSES["auc_margin"](logits, torch.tensor([1, 1]), None, margin=1.0)
    h = torch.tensor([1.0, 2.0]).sigmoid()
    assert loss.item() == pytest.approx(float(h.var(correction=0)), rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_auc_margin_of_more_classes_is_the_mean_over_them() -> None:
    found = LOSSES["auc_margin"](LOGITS, LABELS, None, margin=1.0)
    each = []
    for label in range(3):
        p = LOGITS.softmax(dim=1)[:, label]
        logits = torch.stack([(1 - p).log(), p.log()], dim=1)
        each.append(LOSSES["auc_margin"](logits, (label == LABELS).long(), None, margin=1.0))
    torch.testing.assert_close(found, torch.stack(each).mean())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["loss.class_weights=balanced"],
            "loss=auc_margin weighs the classes alike by itself. Set loss.class_weights=none",
        ),
        (["loss.label_smoothing=0.1"], "loss=auc_margin has none. Set it to 0."),
    ],
)
def test_what_auc_margin_does_not_have_is_refused(words: list[str], line: str) -> None:
    with pytest.raises(UserError) as refused:
        build_loss(load(["loss=auc_margin", *words]).loss)
    assert line in str(refused.value)
