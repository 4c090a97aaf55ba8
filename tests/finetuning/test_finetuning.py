"""Schedules, frozen stages, parameter groups and the learning rate."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ddtl.config.load import load
from ddtl.finetuning.callback import apply_epoch
from ddtl.finetuning.optimizer import build_optimizer, build_scheduler, parameter_groups, rate_of_stage, rate_shape
from ddtl.finetuning.schedule import Schedule, StageState, compile_schedule
from ddtl.models.module import Classifier
from ddtl.models.network import Network
from ddtl.schema.run import Config
from ddtl.training.callbacks import EpochEnd
from tests.support.runs import run, same_tensors, state
from tests.support.tiny import STAGES as TINY_STAGES, tiny

__all__ = ["tiny"]  # a fixture

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
    assert row["stem"].fixed_statistics
    assert row["block1"].fixed_statistics


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
    net.eval()
    for module in net.modules():  # whoever calls it, on whatever
        module.train()
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


# --- a stage that stands still ----------------------------------------------------------------------------------------

PHASES = (
    "finetune.phases=[{name: a, train: [all], epochs: 2}, {name: b, train: [head], epochs: 1}, "
    "{name: c, train: [layer1], epochs: 2}, {name: d, train: [all], epochs: 1}]"
)
FROZEN = {2: {*TINY_STAGES} - {"head"}, 3: {*TINY_STAGES} - {"layer1"}, 4: {*TINY_STAGES} - {"layer1"}}


def stage_of(name: str) -> str:
    """The stage that a name in the module's ``state_dict`` belongs to."""
    return "head" if name.startswith("network.head.") else name.removeprefix("network.backbone.stages.").split(".")[0]


def held(checkpoint: dict, stage: str) -> dict[str, torch.Tensor]:
    """A stage's parameters, statistics and optimiser state."""
    found = {name: value for name, value in checkpoint["state_dict"].items() if stage_of(name) == stage}
    optimizer = checkpoint["optimizer_states"][0]
    for group in optimizer["param_groups"]:
        for number in group["params"] if group["stage"] == stage else ():
            found |= {f"{number}/{key}": value for key, value in optimizer["state"].get(number, {}).items()}
    return found


@pytest.mark.parametrize(
    "options",
    [
        ("optimizer=adamw", "optimizer.weight_decay=0.5", "trainer.precision=32"),
        ("optimizer=adamw", "optimizer.weight_decay=0.5", "trainer.precision=bf16-mixed", "trainer.ema=0.5"),
        ("optimizer=sgd", "optimizer.momentum=0.9", "optimizer.weight_decay=0.5", "trainer.accumulate=2"),
    ],
    ids=["adamw", "adamw-bf16-ema", "sgd-accumulate"],
)
def test_a_frozen_stage_keeps_parameters_statistics_and_optimiser_state_to_the_bit(
    tiny, tmp_path, monkeypatch, options
):
    after: list[dict] = []
    save = EpochEnd._save

    def keeping(self, trainer, improved):
        save(self, trainer, improved)
        after.append(state(self.folder.last))
        assert all(group["fused"] for group in trainer.optimizers[0].param_groups)

    monkeypatch.setattr(EpochEnd, "_save", keeping)
    command = (tiny, "finetune=full", PHASES, "trainer=cpu", "trainer.max_epochs=6", "trainer.limit_batches=4")
    run(tmp_path, *command, *options)
    assert len(after) == 6
    for epoch in range(1, 6):
        for stage in TINY_STAGES:
            before, now = held(after[epoch - 1], stage), held(after[epoch], stage)
            assert before.keys() == now.keys()
            assert len(now) > 2
            if stage in FROZEN.get(epoch, ()):
                assert same_tensors(before, now), (epoch, stage)
            else:
                assert [name for name in now if torch.equal(before[name], now[name])] == [], (epoch, stage)


def test_a_stage_that_has_never_trained_has_no_optimiser_state(tiny):
    c, net = network(tiny, "finetune=linear_probe")
    schedule = compile_schedule(c.finetune, TINY_STAGES, 1)
    apply_epoch(net, schedule, 0)
    optimizer = build_optimizer(net, c.optimizer, fused=True)
    net.train()(torch.rand(4, 1, 32, 32)).logsumexp(1).sum().backward()
    optimizer.step()
    assert {id(p) for p in optimizer.state} == {id(p) for p in net.head.parameters()}


def test_freezing_takes_away_the_gradient_of_the_last_step():
    _, net = network("model=squeezenet1_1")
    net.train()(torch.rand(2, 1, 32, 32)).sum().backward()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    before = [p.detach().clone() for p in net.backbone.parameters()]
    net.freeze([*net.backbone.stages], [])
    optimizer.step()
    assert all(map(torch.equal, before, net.backbone.parameters()))


@pytest.mark.parametrize("model", ["densenet121", "squeezenet1_1"])
def test_a_frozen_prefix_runs_without_autograd_and_to_the_same_bit(model):
    _, net = network(f"model={model}", "model.head.dropout=0")
    stages, images = list(net.stages), torch.rand(4, 1, 64, 64)
    net.train()
    for depth in range(len(stages)):
        net.freeze([], stages[:depth])  # the same statistics, and autograd for all
        net.zero_grad()
        expected = net(images)
        expected.sum().backward()
        gradients = [p.grad.clone() for stage in stages[depth:] for p in net.stages[stage].parameters()]

        net.freeze(stages[:depth], stages[:depth])
        net.zero_grad()
        graph: list[bool] = []
        watch = [
            stage.register_forward_hook(lambda _, __, output, graph=graph: graph.append(output.requires_grad))
            for stage in net.stages.values()
        ]
        running = {name: value.clone() for name, value in net.named_buffers()}
        found = net(images)
        found.sum().backward()
        for handle in watch:
            handle.remove()
        assert graph == [False] * depth + [True] * (len(stages) - depth)
        assert torch.equal(found, expected)
        ours = [p.grad for stage in stages[depth:] for p in net.stages[stage].parameters()]
        assert same_tensors(ours, gradients)
        for name, value in running.items():  # back to where both began, for the next depth
            net.get_buffer(name).copy_(value)


def test_who_asks_for_gradients_of_an_evaluation_gets_them_through_frozen_stages():
    _, net = network("model=squeezenet1_1")
    net.freeze([*net.backbone.stages], [])
    images = torch.rand(2, 1, 32, 32, requires_grad=True)
    net.eval()(images).sum().backward()
    assert float(images.grad.abs().sum()) > 0


# --- warm-up again ----------------------------------------------------------------------------------------------------


def test_a_thawed_stage_warms_up_again_and_the_others_do_not():
    rates = {"stem": [1, 0, 1, 1], "head": [0, 3, 3, 3]}
    rows = tuple({name: StageState(float(rate[e]), False) for name, rate in rates.items()} for e in range(4))
    schedule = Schedule(rows, (), rewarm=1.5)
    found = {name: [rate_of_stage(schedule, name, 2)(step) for step in range(8)] for name in rates}
    assert found["stem"] == pytest.approx([1, 1, 0, 0, 1 / 4, 2 / 4, 3 / 4, 1])
    assert found["head"] == pytest.approx([0, 0, 3 / 4, 6 / 4, 9 / 4, 3, 3, 3])
    assert [rate_of_stage(Schedule(rows, ()), "stem", 2)(step) for step in range(8)] == [1, 1, 0, 0, 1, 1, 1, 1]


# --- torch.compile ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_compiled_network_goes_through_the_phases_as_an_eager_one_does(tiny, tmp_path):
    from torch._dynamo.utils import counters

    command = (
        tiny, "finetune=full", PHASES, "trainer=cpu", "trainer.max_epochs=6", "trainer.limit_batches=4",
        "optimizer=sgd", "model.head.dropout=0",
    )  # fmt: skip
    eager = state(run(tmp_path / "eager", *command).folder / "checkpoints" / "last.ckpt")
    counters.clear()
    compiled = state(run(tmp_path / "compiled", *command, "trainer.compile=true").folder / "checkpoints" / "last.ckpt")
    assert counters["stats"]["unique_graphs"] == 3  # a, which d is again; b; c
    for name, value in eager["state_dict"].items():
        torch.testing.assert_close(compiled["state_dict"][name], value, atol=1e-4, rtol=1e-3)
