"""MixUp and CutMix: right images and losses, drawn from seed, step and rank alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ddtl.config.load import load
from ddtl.models.mixing import mix
from ddtl.training.identity import counting
from tests.support.runs import run

IMAGES = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
SHORT = (
    "model=squeezenet1_1",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "trainer.limit_batches=3",
    "dataset.num_workers=0",
)


def test_mixup_is_a_weighted_mean_of_two_images() -> None:
    found = mix(IMAGES, 0.4, 0, (1, 2))
    assert 0 < found.share < 1
    assert sorted(found.partner.tolist()) == list(range(6))
    torch.testing.assert_close(found.images, found.share * IMAGES + (1 - found.share) * IMAGES[found.partner])


@pytest.mark.parametrize("step", range(20))
def test_cutmix_puts_a_rectangle_of_another_image_in(step: int) -> None:
    before = IMAGES.clone()
    found = mix(IMAGES, 0, 1, (step,))
    assert torch.equal(IMAGES, before)
    moves = [i for i, j in enumerate(found.partner.tolist()) if i != j]
    for i in moves:
        cut = found.images[i, 0] != IMAGES[i, 0]
        rows, columns = cut.any(dim=1).nonzero().flatten(), cut.any(dim=0).nonzero().flatten()
        assert int(cut.sum()) == len(rows) * len(columns), "a rectangle"
        assert found.share == pytest.approx(1 - len(rows) * len(columns) / 256)
        assert torch.equal(found.images[i, 0][cut], IMAGES[found.partner[i], 0][cut])


def test_the_area_of_a_cut_is_about_as_it_was_drawn() -> None:
    shares = torch.tensor([mix(IMAGES, 0, 1, (step,)).share for step in range(400)])
    # Uniform, less what is cut off at the edges: a side of sqrt(u) keeps (1 - side / 4)^2 of it on average, so the
    # mean area is the integral of u (1 - sqrt(u) / 4)^2, which is 1/2 - 1/5 + 1/48 = 0.32; pixels round it down.
    assert 1 - float(shares.mean()) == pytest.approx(0.3, abs=0.05)


def test_a_draw_is_a_function_of_its_seed() -> None:
    one, same, other = (mix(IMAGES, 0.4, 1, seed) for seed in ((0, 5, 1, 0), (0, 5, 1, 0), (0, 6, 1, 0)))
    assert torch.equal(one.images, same.images)
    assert not torch.equal(one.images, other.images)


def test_with_both_each_batch_takes_one() -> None:
    cut = 0
    for step in range(200):
        found = mix(IMAGES, 1, 1, (step,))
        whole = found.share * IMAGES + (1 - found.share) * IMAGES[found.partner]
        cut += not torch.allclose(found.images, whole)
    assert 70 < cut < 130


def test_the_loss_is_that_of_both_labels_by_their_shares() -> None:
    found = mix(IMAGES, 0.4, 0, (3,))
    logits, labels = torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 1, 0])
    target = found.share * F.one_hot(labels, 2) + (1 - found.share) * F.one_hot(labels[found.partner], 2)
    torch.testing.assert_close(
        found.loss(lambda of: F.cross_entropy(logits, of), labels), F.cross_entropy(logits, target.float())
    )


def test_a_run_mixes_and_no_stored_activations_stand_in_its_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*SHORT, "finetune=linear_probe", "augment=none")
    plain = run(tmp_path / "a", *words).folder
    mixed = run(tmp_path / "b", *words, "augment.mixup=0.4").folder
    assert "augment.mixup and augment.cutmix mix images" in capsys.readouterr().err
    assert (plain / "model.safetensors").read_bytes() != (mixed / "model.safetensors").read_bytes()


def test_runs_that_mix_nothing_keep_their_names() -> None:
    assert not {"augment.mixup", "augment.cutmix"} & counting(load([])).keys()
    assert counting(load(["augment.mixup=0.2"]))["augment.mixup"] == 0.2
