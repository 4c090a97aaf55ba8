"""Heat maps against Grad-CAM by hand, the pointing game against known answers, and the choice of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

from ddtl.config.load import load
from ddtl.evaluation.predictions import Predictions
from ddtl.explain import gradcam, pointing
from ddtl.explain.select import groups, predicted_classes
from ddtl.models.network import Network
from ddtl.utils.errors import UserError


class InPlace(nn.Module):
    """What DenseNet ends in: a layer whose output a ReLU overwrites."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.layer(x), inplace=True)
        return self.head(x.mean(dim=(2, 3)))


def test_a_map_is_gradient_times_activation_though_a_relu_overwrites_the_layer() -> None:
    torch.manual_seed(0)
    network, x, k = InPlace().eval(), torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 2, 1])
    found = gradcam.heat_maps(network, network.layer, x, k)
    with torch.no_grad():
        activation = network.layer(x)  # before the ReLU
        p = network(x).softmax(dim=1)
        cells = activation[0, 0].numel()
        for n in range(5):
            # d log-odds of k / d logits: 1 at k, minus the softmax of the others elsewhere.
            others = -p[n] / (1 - p[n, k[n]])
            others[k[n]] = 1.0
            gradient = (others @ network.head.weight)[:, None, None] * (activation[n] > 0) / cells
            weights = gradient.mean(dim=(1, 2))
            expected = (weights[:, None, None] * activation[n]).sum(0)
            np.testing.assert_allclose(found[n], expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("model", ["densenet121", "resnet18", "squeezenet1_1"])
def test_every_backbone_gives_the_map_of_autograd_itself(model: str) -> None:
    config = load(["dataset=phantom", f"model={model}", "model.weights=none"])
    torch.manual_seed(0)
    network, x = Network(config.model, 2).eval(), torch.rand(2, 1, 64, 64)
    cells = gradcam.layers(network, 64)
    layer = list(cells)[-1]
    found = gradcam.heat_maps(network, gradcam.module_of(network, layer), x, torch.tensor([1, 0]))
    kept = []
    hook = gradcam.module_of(network, layer).register_forward_hook(lambda *a: kept.append(a[-1].clone()) or kept[-1])
    logits = network(x)
    hook.remove()
    score = (logits[0, 1] - logits[0, 0]) + (logits[1, 0] - logits[1, 1])  # log odds of two classes
    (gradient,) = torch.autograd.grad(score, kept[-1])
    expected = (gradient.mean(dim=(2, 3), keepdim=True) * kept[-1]).sum(1)
    assert found.shape == (2, *cells[layer])
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5)


def test_the_layer_is_the_last_one_unless_another_is_asked_for() -> None:
    cells = {"stem.0": (56, 56), "block3.dense": (14, 14), "block4.dense": (7, 7), "norm.norm5": (7, 7)}
    assert gradcam.chosen_layer(cells, "auto") == "norm.norm5"
    assert gradcam.chosen_layer(cells, "block3") == "block3.dense"
    with pytest.raises(UserError, match=r"layer=block9.*block3.dense \(14 × 14\)"):
        gradcam.chosen_layer(cells, "block9")


def test_a_perfect_a_blind_and_a_wrong_map_in_the_pointing_game() -> None:
    lesions = []
    for n in range(16):
        mask = np.zeros((64, 64), dtype=bool)
        mask[8 * (n // 4) : 8 * (n // 4) + 8, 8 * (n % 4) : 8 * (n % 4) + 8] = True
        lesions.append(mask)
    patients = np.arange(16).astype(str)
    right = np.stack([mask.reshape(8, 8, 8, 8).mean(axis=(1, 3)) for mask in lesions])
    found = pointing.game(right, lesions, patients, 0.95)
    assert (found["strict"]["hits"], found["strict"]["share"], found["images"]) == (16, 1.0, 16)
    assert found["strict"]["low"] > 0.75
    assert found["strict"]["chance"] == pytest.approx(1 / 64)
    assert found["strict"]["other_patients"] == 0.0
    # The same place in every image is right in one of sixteen.
    assert pointing.game(right[[3] * 16], lesions, patients, 0.95)["strict"]["hits"] == 1
    # A cell beside the lesion is a miss; within 3 % of the side it is a hit by Zhang's rule.
    beside = np.zeros((1, 64, 64))
    beside[0, 4, 8] = 1.0
    one = pointing.game(beside, lesions[:1], patients[:1], 0.95)
    assert (one["strict"]["hits"], one["tolerant"]["hits"]) == (0, 1)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 80))
def test_the_hottest_cell_lies_in_the_image_and_is_the_maximum(h: int, w: int, cell: int) -> None:
    maps = np.zeros((1, h, w))
    maps.reshape(-1)[cell % (h * w)] = 1.0
    ((x, y),) = pointing.hottest(maps)
    assert maps[0, int(y * h), int(x * w)] == 1.0


def predictions(p: list[float], labels: list[int]) -> Predictions:
    logits = np.column_stack([np.zeros(len(p)), np.log(np.array(p) / (1 - np.array(p)))])
    text = np.array([f"i{n}" for n in range(len(p))])
    return Predictions(
        sample_id=text, split=np.full(len(p), "test"), label=np.array(labels), patient_id=text, site=text, group=text,
        logits=logits, classes=("no", "yes"),
    )  # fmt: skip


def test_images_are_grouped_by_the_stored_threshold_the_most_certain_first() -> None:
    table = predictions([0.9, 0.6, 0.45, 0.35, 0.2, 0.05], [1, 0, 1, 1, 0, 0])
    assert predicted_classes(table, 0.4).tolist() == [1, 1, 1, 0, 0, 0]
    found = {group.key: group.rows.tolist() for group in groups(table, 0.4, 1)}
    assert found == {"true_positives": [0], "false_positives": [1], "false_negatives": [3], "true_negatives": [5]}
    assert [group.total for group in groups(table, 0.4, 1)] == [2, 1, 1, 2]
