"""The learning-rate range test on a network, and its command on the phantom."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ddtl.commands import cli
from ddtl.commands.lr_find import _in_one_process, main, parse
from ddtl.config.load import load
from ddtl.lr_find.range_test import plan_of, range_test
from ddtl.lr_find.rules import Curve, ramp
from ddtl.reports.run import lr_find as page
from ddtl.training.run import Run
from ddtl.training.train import assemble
from ddtl.utils.errors import TrainingFailure, UserError
from tests.lr_find.test_lr_find import v_shape
from tests.support.runs import small

TINY = ("model=squeezenet1_1", "model.weights=none", "dataset.num_workers=0")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    words = small(tmp_path_factory.mktemp("runs"), *TINY, "finetune=full", "trainer.precision=32")
    return assemble(load(words))


def ignore(done: int, total: int) -> None:
    pass


def test_a_range_test_leaves_the_run_as_it_was_and_repeats_itself(run):
    before = copy.deepcopy(run.network.state_dict())
    flags = [p.requires_grad for p in run.network.parameters()], run.network.training
    rates = ramp(1e-6, 1e-2, 25)  # over one epoch's end
    whole = plan_of(run).network
    assert whole is not None
    done: list[int] = []
    first = range_test(run, whole, rates, lambda at, total: done.append(at))
    second = range_test(run, whole, rates, ignore)
    assert first.losses.tolist() == second.losses.tolist()
    assert done == list(range(1, 26))
    assert len(set(first.losses.tolist())) > 20
    assert all(torch.equal(value, before[name]) for name, value in run.network.state_dict().items())
    assert ([p.requires_grad for p in run.network.parameters()], run.network.training) == flags
    assert run.datamodule.trainer is None
    assert not run.path.exists()


def test_head_alone_and_whole_network_are_trained_at_the_ramps_rates(run, monkeypatch):
    from ddtl.lr_find import range_test as lr_range_test

    seen: list[dict[str, Any]] = []
    original = lr_range_test._Ramp.on_train_batch_end

    def look(self: Any, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        groups = {g["stage"]: g["lr"] for g in trainer.optimizers[0].param_groups}
        moving = {n for n, s in module.network.stages.items() if any(p.requires_grad for p in s.parameters())}
        seen.append({"rates": groups, "moving": moving})
        original(self, trainer, module, outputs, batch, batch_idx)

    monkeypatch.setattr(lr_range_test._Ramp, "on_train_batch_end", look)
    plan = plan_of(run)
    rates = ramp(1e-6, 1e-3, 10)
    for states, moving in ((plan.head, {"head"}), (plan.network, set(run.network.stages))):
        assert states is not None
        seen.clear()
        range_test(run, states, rates, ignore)
        assert all(at["moving"] == moving for at in seen)
        # Lightning has set the next step's rate by then.
        assert [at["rates"]["head"] for at in seen[:-1]] == pytest.approx(rates[1:].tolist())


def test_two_batches_accumulated_make_the_loss_of_one(run):
    halves = run.config.model_copy(update={"trainer": run.config.trainer.model_copy(update={"devices": 2})})
    config = _in_one_process(halves)
    assert (config.trainer.devices, config.trainer.accumulate) == (1, 2)
    other = assemble(config)
    states = plan_of(run).head
    assert states is not None
    at_once, in_halves = (range_test(r, states, ramp(1e-6, 1e-4, 12), ignore) for r in (run, other))
    assert len(in_halves.losses) == 12
    # Dropout alone is drawn anew for each half.
    assert in_halves.losses == pytest.approx(at_once.losses, rel=0.2)


def test_a_loss_that_is_no_number_ends_the_ramp(run, monkeypatch):
    from ddtl.models.module import Classifier

    original = Classifier.training_step

    def breaks(self: Classifier, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = original(self, batch, batch_idx)
        return loss * math.nan if self._trainer is not None and self.trainer.global_step == 4 else loss

    monkeypatch.setattr(Classifier, "training_step", breaks)
    states = plan_of(run).head
    assert states is not None
    curve = range_test(run, states, ramp(1e-6, 1, 20), ignore)
    assert (len(curve.losses), len(curve.rates), curve.ended) == (4, 4, "not finite")


def test_a_ramp_is_stopped_when_it_runs_away(run):
    states = plan_of(run).network
    assert states is not None
    curve = range_test(run, states, ramp(1e-4, 1e4, 60), ignore)
    assert curve.ended in ("diverged", "not finite")
    assert len(curve.losses) < 55


@pytest.mark.parametrize(
    ("words", "head", "network", "head_rate"),
    [
        (["finetune=full"], True, "all", 1.0),
        (["finetune=linear_probe"], True, None, 1.0),
        (["finetune=lp_ft"], True, "all", 10.0),
        (["finetune=gradual", "trainer.max_epochs=30"], True, "all", 1.0),
        (["finetune=surgical", "finetune.stages=[stem]"], False, "stem", 0.0),
        (["finetune=full", "finetune.backbone_lr_ratio=0.1", "finetune.head_lr_ratio=7"], True, "all", 1.0),
    ],
)
def test_what_a_schedule_gives_reason_to_test(run, words, head, network, head_rate):
    config = load([*TINY, "finetune.batchnorm=frozen_stats", *words])
    other = Run(config, run.machine, run.datamodule, run.weights, run.network)
    plan = plan_of(other)
    stages = list(run.network.stages)
    assert (plan.head is not None) == head
    assert plan.head_rate == head_rate
    if network is None:
        assert plan.network is None
    else:
        moving = {name for name, state in plan.network.items() if not state.frozen}
        assert moving == (set(stages) if network == "all" else {network})
        assert {plan.network[name].rate for name in moving} == {1.0}


def typed(folder: Path, *words: str) -> list[str]:
    return [*small(folder / "runs", *TINY), f"output={folder / 'lr'}", *words]


@pytest.mark.slow
def test_the_command_measures_writes_and_repeats_itself(tmp_path, capsys):
    words = ["steps=30", "lr_min=1e-6", "finetune=full", "optimizer.lr=0.5"]
    code = cli.main(["lr-find", *typed(tmp_path, *words)])
    out, err = capsys.readouterr()
    before = (tmp_path / "lr" / "lr_find.json").read_bytes()
    found = json.loads(before)
    assert code == (0 if found["command"] else 1)
    assert (found["command"] or "No learning rate can be suggested") in " ".join(out.split())
    assert "optimizer.lr has no effect here" in err
    assert list(found["tests"]) == ["head", "network"]
    for test in found["tests"].values():
        assert len(test["lr"]) == len(test["loss"]) == len(test["loss_untrained"]) == len(test["smoothed"]) > 10
        assert test["lr"][0] == pytest.approx(1e-6)
        assert test["loss"][0] == test["loss_untrained"][0]
    assert not (tmp_path / "runs").exists()
    main(typed(tmp_path, *words))
    assert (tmp_path / "lr" / "lr_find.json").read_bytes() == before


def test_the_command_ends_in_the_line_to_type(tmp_path, capsys, monkeypatch):
    from ddtl.lr_find import range_test as lr_range_test

    curves = iter([(1e-4, 3e-2), (1e-6, 3e-4)])  # where the loss of the head, and of all, begins to fall, and ends to
    monkeypatch.setattr(
        lr_range_test, "range_test", lambda run, states, rates, bar: Curve(rates, v_shape(*next(curves), rates))
    )
    assert main(typed(tmp_path, "finetune=full", "optimizer.lr=0.5")) == 0
    out, _ = capsys.readouterr()
    found = json.loads((tmp_path / "lr" / "lr_find.json").read_text())
    assert found["command"] in out
    assert found["suggestion"] == {
        "optimizer.lr": pytest.approx(3e-4 / 3, rel=0.7),
        "finetune.backbone_lr_ratio": 1.0,
        "finetune.head_lr_ratio": pytest.approx(100, rel=0.3),
    }
    assert "optimizer.lr=0.5" not in found["command"]
    html = (tmp_path / "lr" / "lr_find.html").read_text()
    assert found["command"].partition("'")[0] in html
    assert html.count('class="chart"') == 2


def test_without_a_descent_the_command_ends_in_1_and_says_so(tmp_path, capsys):
    code = main(typed(tmp_path, "finetune=linear_probe", "steps=10", "lr_min=1e-9", "lr_max=1e-8"))
    out, _ = capsys.readouterr()
    assert code == 1
    assert "no descent" in out
    assert "No learning rate can be suggested" in " ".join(out.split())
    found = json.loads((tmp_path / "lr" / "lr_find.json").read_text())
    assert (found["suggestion"], found["command"]) == ({}, None)


def test_the_line_to_type_keeps_the_words_and_replaces_what_was_sought(tmp_path):
    from ddtl.commands.lr_find import _line

    line = _line(["dataset=covid19ct", "optimizer.lr=1", "run.name='a b'"], {"optimizer.lr": 3.2e-5})
    assert line == "python train.py dataset=covid19ct 'run.name='\"'\"'a b'\"'\"'' optimizer.lr=3.2e-05"
    words, _ = parse(["finetune=full", "steps=20"])
    assert words.rest == ("finetune=full",)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["lr_min=1e-2", "lr_max=1e-3"], ["lr_min=0.01: must be less than lr_max=0.001"]),
        (["lr_min=0"], ["lr_min=0: must be more than 0"]),
        (["lr_max=inf"], ["lr_max=inf: must be a finite number"]),
        (["lr_min=tiny"], ["lr_min=tiny: must be a number"]),
        (["steps=9"], ["steps=9: must be at least 10"]),
        (["steps=ten"], ["steps=ten: must be a whole number"]),
        (["step=20"], ["step=20", "Did you mean steps?"]),
        (["lr_mn=1e-6"], ["lr_mn=1e-6", "Did you mean lr_min?"]),
        (["optimizer.lrr=1"], ["Did you mean optimizer.lr?"]),
        (["steps=9", "datset=covid19ct"], ["steps=9", "Did you mean dataset?"]),
        (["-m", "seed=0,1"], ["no flag"]),
        (["--lr_min=1"], ["--lr_min=1"]),
        (["output="], ["output=", "name a folder"]),
    ],
)
def test_mistakes_are_answered_before_anything_is_loaded(words, says):
    with pytest.raises(UserError) as error:
        main(words)
    assert all(part in str(error.value) for part in says)


def test_a_runs_folder_and_a_file_are_no_output(tmp_path):
    (tmp_path / "config.yaml").touch()
    for output in (tmp_path, tmp_path / "config.yaml"):
        with pytest.raises(UserError, match="folder"):
            main([f"output={output}"])


def test_a_schedule_without_steps_is_refused():
    with pytest.raises(UserError, match=r"finetune=logistic_probe takes no steps.*finetune=linear_probe"):
        main(["finetune=logistic_probe", "augment=none", "logger=none"])


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_measured():
    with pytest.raises(UserError, match=r"output=/proc/x: /proc cannot be written to"):
        parse(["output=/proc/x"])


def test_the_page_of_a_record_without_a_suggestion_says_why():
    test = {
        "rate": None, "rules": {}, "why_not": "the loss has no descent to read a rate from", "notes": [], "ended": "",
        "lr": [1e-3, 1e-2], "loss": [0.7, 0.7], "smoothed": [0.7, 0.7],
    }  # fmt: skip
    record = {
        "dataset": "<b>", "model": "m", "finetune": "full", "optimizer": "sgd", "batch_size": 8, "precision": "32-true",
        "seed": 0, "lr_min": 1e-3, "lr_max": 1e-2, "steps": 10, "rules": ["steep", "minimum / 3"], "suggestion": {},
        "command": None, "tests": {"network": test},
    }  # fmt: skip
    html = page.page(record)
    assert "No learning rate can be suggested: the loss did not fall clearly" in html
    assert "no descent to read a rate from" in html
    assert "<b>" not in html


def test_the_answer_is_one_sentence_before_the_figure_and_the_command():
    rules = {"valley": 0.0004, "steep": 0.002, "minimum / 10": 0.003, "minimum / 3": 0.011}
    test = {"rate": 0.011, "rules": rules, "why_not": "", "notes": [], "ended": "diverged", "lr": [1e-3, 1e-2],
            "loss": [0.7, 0.6], "smoothed": [0.7, 0.6]}  # fmt: skip
    record = {
        "dataset": "phantom", "model": "m", "finetune": "full", "optimizer": "sgd", "batch_size": 8,
        "precision": "32-true", "seed": 0, "lr_min": 1e-3, "lr_max": 1e-2, "steps": 10, "rules": list(rules),
        "suggestion": {"optimizer.lr": 0.011, "finetune.head_lr_ratio": 8.6}, "command": "python train.py a=1",
        "tests": {"head": {**test, "rules": {}}, "network": test},
    }  # fmt: skip
    said = "Begin with optimizer.lr=0.011 (other rules read 0.0004 to 0.003), with the head at 8.6 times that rate"
    assert page.answer(record).startswith(said)
    html = page.page(record)
    places = [
        html.index(said),
        *(html.rindex(text) for text in ("Loss against the learning rate", "Train with it", "How the rate was")),
    ]
    assert places == sorted(places)
    alone = {**record, "suggestion": {"optimizer.lr": 0.011, "finetune.head_lr_ratio": 1.0}, "tests": {"head": test}}
    assert "with the head" not in page.answer(alone)


def test_a_gpu_whose_memory_is_full_is_told_in_words(tmp_path, monkeypatch):
    from ddtl.lr_find import range_test

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(range_test, "range_test", full)
    with pytest.raises(TrainingFailure, match="GPU's memory is full"):
        main(typed(tmp_path, "finetune=full"))
