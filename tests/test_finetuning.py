"""Schedules, frozen stages, parameter groups and the learning rate."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ddtl.config.load import load
from ddtl.config.schema import Config
from ddtl.finetuning.callback import apply_epoch
from ddtl.finetuning.optimizer import build_optimizer, build_scheduler, parameter_groups, rate_shape
from ddtl.finetuning.schedule import compile_schedule
from ddtl.models.module import Classifier
from ddtl.models.network import Network

STAGES = ["stem", "block1", "head"]


def config(*overrides: str) -> Config:
    return load(["model.weights=none", *overrides])


def network(*overrides: str) -> tuple[Config, Network]:
    c = config(*overrides)
    torch.manual_seed(0)
    return c, Network(c.model, n_classes=2)


def step(c: Config, net: Network, epoch: int = 0) -> None:
    """One optimiser step on random images, as the LightningModule makes it."""
    schedule = compile_schedule(c.finetune, list(net.stages), c.trainer.max_epochs)
    apply_epoch(net, schedule, epoch)
    optimizer = build_optimizer(net, c.optimizer, fused=False)
    net.train()
    net(torch.rand(4, 1, 32, 32)).logsumexp(1).sum().backward()
    optimizer.step()


def test_full_trains_every_stage_at_its_rate():
    c = config("finetune=full", "finetune.backbone_lr_ratio=0.1", "finetune.head_lr_ratio=2")
    row = compile_schedule(c.finetune, STAGES, 3).at(2)
    assert {name: state.rate for name, state in row.items()} == {"stem": 0.1, "block1": 0.1, "head": 2.0}
    assert not any(state.frozen or state.fixed_statistics for state in row.values())


def test_a_linear_probe_freezes_all_but_the_head():
    row = compile_schedule(config("finetune=linear_probe").finetune, STAGES, 3).at(0)
    assert [name for name, state in row.items() if state.frozen] == ["stem", "block1"]
    assert [name for name, state in row.items() if state.fixed_statistics] == ["stem", "block1"]


def test_a_schedule_holds_its_last_row_after_the_end():
    schedule = compile_schedule(config().finetune, STAGES, 3)
    assert len(schedule.epochs) == 3
    assert schedule.at(99) == schedule.at(2)


@pytest.mark.parametrize("model", ["densenet121", "squeezenet1_1"])
def test_a_linear_probe_changes_the_head_and_nothing_else(model):
    c, net = network(f"model={model}", "finetune=linear_probe", "optimizer.weight_decay=0.5")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    step(c, net)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("head.")}
    assert all(p.grad is None for p in net.backbone.parameters())


@pytest.mark.parametrize("model", ["densenet121", "squeezenet1_1"])
def test_full_fine_tuning_changes_every_parameter(model):
    c, net = network(f"model={model}")
    before = {name: value.clone() for name, value in net.named_parameters()}
    step(c, net)
    assert [name for name, value in net.named_parameters() if torch.equal(value, before[name])] == []


def test_fixed_statistics_stay_while_the_weights_train():
    c, net = network("finetune.batchnorm=frozen_stats")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    step(c, net)
    net.eval().train()  # whoever calls it
    net(torch.rand(4, 1, 32, 32))
    after = net.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if "running_" in name or "tracked" in name)
    assert not torch.equal(after["backbone.stages.stem.conv0.weight"], before["backbone.stages.stem.conv0.weight"])


def test_thawing_gives_gradients_and_statistics_back():
    _, net = network()
    net.freeze(["stem"], ["stem"])
    assert not any(p.requires_grad for p in net.stages["stem"].parameters())
    net.freeze([], [])
    net.train()
    assert all(p.requires_grad for p in net.parameters())
    assert all(m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("model", ["densenet121", "squeezenet1_1"])
def test_every_parameter_stands_in_one_group_and_only_matrices_decay(model):
    _, net = network(f"model={model}")
    groups = parameter_groups(net, weight_decay=0.1)
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in net.parameters())
    assert list(dict.fromkeys(group["stage"] for group in groups)) == list(net.stages)
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_the_rate_warms_up_and_falls_as_half_a_cosine():
    c = config("optimizer.warmup=0.1", "optimizer.final_lr_ratio=0.2").optimizer
    shape = rate_shape(c, total_steps=100)
    assert [shape(s) for s in range(10)] == pytest.approx([(s + 1) / 11 for s in range(10)])
    assert shape(10) == 1.0
    assert shape(55) == pytest.approx(0.2 + 0.8 * 0.5)
    assert shape(100) == pytest.approx(0.2)
    assert all(shape(s) >= shape(s + 1) for s in range(10, 100))
    constant = rate_shape(config("optimizer.schedule=constant").optimizer, total_steps=50)
    assert all(constant(s) == 1.0 for s in range(5, 60))


def test_each_group_follows_its_stage_and_the_shape():
    c, net = network("finetune.backbone_lr_ratio=0.1", "finetune.head_lr_ratio=3", "optimizer.warmup=0")
    schedule = compile_schedule(c.finetune, list(net.stages), 2)
    optimizer = build_optimizer(net, c.optimizer, fused=False)
    scheduler = build_scheduler(optimizer, c.optimizer, schedule, steps_per_epoch=5)
    for done in range(10):
        shape = c.optimizer.final_lr_ratio + (1 - c.optimizer.final_lr_ratio) * 0.5 * (
            1 + math.cos(math.pi * done / 10)
        )
        for group in optimizer.param_groups:
            rate = 3 if group["stage"] == "head" else 0.1
            assert group["lr"] == pytest.approx(c.optimizer.lr * rate * shape)
        optimizer.step()
        scheduler.step()


def test_gradients_are_clipped_to_the_norm_asked_for():
    _, net = network("model=squeezenet1_1")
    module = Classifier(net, lambda _: None, seed=0)
    for norm in (0.0, 0.5):
        for p in net.parameters():
            p.grad = torch.ones_like(p)
        module.configure_gradient_clipping(torch.optim.SGD(net.parameters(), lr=0.1), norm)
        total = torch.cat([p.grad.flatten() for p in net.parameters()]).norm()
        assert float(total) == pytest.approx(norm or sum(p.numel() for p in net.parameters()) ** 0.5, rel=1e-3)
