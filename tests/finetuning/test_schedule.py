"""Fine-tuning schedules: which stage trains in which epoch at which rate, and what is refused."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
import yaml
from hypothesis import given, strategies as st

from ddtl.config import phases, where
from ddtl.config.load import ConfigError, check, load
from ddtl.finetuning.schedule import Schedule, StageState, compile_schedule
from ddtl.schema.backbones import BACKBONES, stages_of
from ddtl.schema.run import FinetuneConfig, PhaseConfig
from ddtl.utils.errors import UserError

STAGES = stages_of("densenet121")
SCHEDULES = where.options("finetune")
REAL = ("dataset=covid19ct", "model.weights=imagenet")


def finetune(name: str, *overrides: str) -> FinetuneConfig:
    return load([*REAL, f"finetune={name}", "trainer.max_epochs=100", *overrides]).finetune


def compiled(name: str, *overrides: str, epochs: int = 20, stages: tuple[str, ...] = STAGES) -> Schedule:
    return compile_schedule(finetune(name, *overrides), stages, epochs)


def own(*listed: dict[str, Any], **changes: Any) -> FinetuneConfig:
    """A schedule of one's own."""
    usual = {
        "name": "mine", "backbone_lr_ratio": 1.0, "head_lr_ratio": 1.0, "decay": 1.0, "batchnorm": "train",
        "rewarm": 0.0, "cached_views": 0, "cache_gb": 4.0,
    }  # fmt: skip
    return FinetuneConfig.model_validate({**usual, "phases": list(listed), **changes})


def rates(schedule: Schedule, epoch: int) -> dict[str, float]:
    return {stage: state.rate for stage, state in schedule.at(epoch).items()}


def trained(schedule: Schedule, epoch: int) -> list[str]:
    return [stage for stage, rate in rates(schedule, epoch).items() if rate]


def complaint(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load([*REAL, *overrides])
    return str(caught.value)


# --- the schedules that are there -------------------------------------------------------------------------------------


def test_the_default_is_a_probe_and_then_all() -> None:
    config = load(REAL)
    assert config.finetune.name == "lp_ft"
    schedule = compile_schedule(config.finetune, STAGES, 20)
    assert [(phase.name, phase.first, phase.end) for phase in schedule.phases] == [("probe", 0, 6), ("all", 6, 20)]
    assert trained(schedule, 5) == ["head"]
    assert trained(schedule, 6) == list(STAGES)
    assert schedule.thaws("stem") == (6,)
    assert schedule.thaws("head") == ()
    assert (schedule.prefix(0), schedule.prefix(6)) == (6, 0)


def test_the_phantom_has_nothing_to_preserve() -> None:
    assert load().finetune.name == "full"
    assert load(["dataset=phantom", "model.weights=none"]).finetune.name == "full"
    assert load(["dataset=phantom", "finetune=gradual"]).finetune.name == "gradual"
    assert load(["experiment=ddtl_cov_covid19ct"]).finetune.name == "full"


def test_full_and_linear_probe_are_one_phase() -> None:
    assert set(rates(compiled("full"), 0).values()) == {1.0}
    probe = compiled("linear_probe")
    assert len(probe.phases) == 1
    assert rates(probe, 19) == dict.fromkeys(STAGES[:-1], 0.0) | {"head": 10.0}


def test_gradual_unfreezes_one_stage_a_phase_from_the_head_down() -> None:
    schedule = compiled("gradual", epochs=20)
    assert [phase.name for phase in schedule.phases] == ["head", "norm", "block4", "block3", "block2", "block1", "stem"]
    assert [phase.end - phase.first for phase in schedule.phases] == [2, 3, 3, 3, 3, 3, 3]  # 20 / 7, the rest late
    for i, phase in enumerate(schedule.phases):
        assert trained(schedule, phase.first) == list(STAGES[len(STAGES) - 1 - i :])
        assert schedule.prefix(phase.first) == len(STAGES) - 1 - i
    assert [schedule.thaws(stage) for stage in STAGES] == [*((p.first,) for p in reversed(schedule.phases[1:])), ()]


def test_layer_decay_is_per_stage_and_leaves_the_stem_able_to_learn() -> None:
    schedule = compiled("layer_decay")
    assert rates(schedule, 0) == {stage: 0.7 ** (6 - i) for i, stage in enumerate(STAGES)}
    assert rates(schedule, 0)["stem"] > 0.1


def test_surgical_trains_the_named_stages_alone() -> None:
    assert trained(compiled("surgical"), 0) == ["stem", "head"]
    schedule = compiled("surgical", "finetune.stages=[block2,block1]")
    assert trained(schedule, 0) == ["block1", "block2"]
    assert schedule.prefix(0) == 1
    assert schedule.at(0)["head"] == StageState(0.0, fixed_statistics=True)


def test_a_frozen_stage_has_fixed_statistics_and_the_policy_rules_the_others() -> None:
    for policy in ("train", "frozen_stats"):
        row = compiled("surgical", f"finetune.batchnorm={policy}").at(0)
        assert row["block1"].fixed_statistics
        assert row["stem"].fixed_statistics == (policy == "frozen_stats")


def fits(name: str, model: str) -> bool:
    """Whether a model has the stages that a schedule names."""
    listed = yaml.safe_load(where.option_file("finetune", name).read_text(encoding="utf-8")).get("phases") or []
    names = {word for phase in listed if isinstance(phase["train"], list) for word in phase["train"]}
    return names <= {phases.ALL, phases.BACKBONE, *stages_of(model)}


FITTING = [
    (name, model)
    for name in sorted(set(SCHEDULES) - {"lora"})  # trains attention, which these have not got
    for model in BACKBONES
    if fits(name, model)
]


def test_every_schedule_fits_some_backbone() -> None:
    assert {name for name, _ in FITTING} | {"lora"} == set(SCHEDULES)


@pytest.mark.parametrize(("name", "model"), FITTING)
def test_every_schedule_fits_the_backbones_that_have_its_stages(name: str, model: str) -> None:
    schedule = compiled(name, f"model={model}", stages=stages_of(model))
    assert len(schedule.epochs) == 20
    assert all(not row["head"].frozen for row in schedule.epochs)
    assert check([*REAL, f"model={model}", f"finetune={name}", "trainer.max_epochs=20"])[1] == []


# --- one's own --------------------------------------------------------------------------------------------------------


def test_phases_of_ones_own_with_epochs_and_what_they_leave() -> None:
    config = own(
        {"name": "warm", "train": ["head"], "epochs": 3, "rates": {"head": 10.0}},
        {"name": "upper", "train": ["block4", "norm", "head"], "fraction": 0.25},
        {"name": "all", "train": ["all"], "fraction": 0.75, "rates": {"backbone": 0.5}},
        head_lr_ratio=2.0, decay=0.5,
    )  # fmt: skip
    schedule = compile_schedule(config, STAGES, 23)
    assert [(phase.first, phase.end) for phase in schedule.phases] == [(0, 3), (3, 8), (8, 23)]
    assert rates(schedule, 0)["head"] == 20.0
    assert rates(schedule, 3) == dict.fromkeys(STAGES[:4], 0.0) | {"block4": 0.25, "norm": 0.5, "head": 2.0}
    assert rates(schedule, 8)["stem"] == 0.5**6 * 0.5


def test_a_stage_may_freeze_again() -> None:
    config = own(
        {"name": "a", "train": ["head"], "epochs": 1},
        {"name": "b", "train": ["all"], "epochs": 2},
        {"name": "c", "train": ["head"], "epochs": 1},
        {"name": "d", "train": ["all"], "epochs": 1},
    )
    schedule = compile_schedule(config, STAGES, 5)
    assert schedule.thaws("stem") == (1, 4)
    assert [schedule.phase(epoch).name for epoch in (0, 1, 2, 3, 4, 99)] == ["a", "b", "b", "c", "d", "d"]
    assert schedule.at(99) == schedule.at(4)


def test_phases_are_typed_on_the_command_line() -> None:
    typed = load([*REAL, "finetune.phases=[{name: one, train: [head, norm], epochs: 20}]"]).finetune
    assert typed.phases == (PhaseConfig(name="one", train=("head", "norm"), epochs=20),)
    assert trained(compile_schedule(typed, STAGES, 20), 0) == ["norm", "head"]


# --- times ------------------------------------------------------------------------------------------------------------


def shares(*fractions: float) -> list[PhaseConfig]:
    return [PhaseConfig(name=f"p{i}", train=("head",), fraction=share) for i, share in enumerate(fractions)]


@pytest.mark.parametrize(
    ("fractions", "epochs", "expected"),
    [
        ((0.3, 0.7), 10, [3, 7]),
        ((0.3, 0.7), 2, [1, 1]),
        ((0.3, 0.7), 3, [1, 2]),
        ((0.5, 0.5), 3, [1, 2]),  # of equal remainders the later one
        ((0.333, 0.333, 0.333), 10, [3, 3, 4]),
        ((0.1, 0.2, 0.7), 30, [3, 6, 21]),  # 0.1 + 0.2 is not 0.3 in binary
        ((0.7, 0.2, 0.1), 30, [21, 6, 3]),
    ],
)
def test_fractions_are_rounded_by_the_largest_remainder(
    fractions: tuple[float, ...], epochs: int, expected: list[int]
) -> None:
    assert phases.lengths(shares(*fractions), epochs) == expected


@given(st.lists(st.integers(1, 100), min_size=1, max_size=8), st.integers(1, 300))
def test_rounding_fills_the_run_and_is_off_by_less_than_an_epoch(parts: list[int], epochs: int) -> None:
    wanted = [max(0.001, part / sum(parts)) for part in parts]
    found = phases.lengths(shares(*wanted), epochs)
    assert sum(found) == epochs
    for length, share in zip(found, wanted, strict=True):
        assert math.isclose(length, share * epochs, abs_tol=1 + 1e-9)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(1, 40))
def test_the_length_that_a_refusal_names_is_accepted_and_is_the_first(parts: list[int], epochs: int) -> None:
    listed = [{"name": f"p{i}", "train": ["head"], "fraction": part / sum(parts)} for i, part in enumerate(parts)]
    config = own(*listed, batchnorm="frozen_stats")
    found = phases.problems(config, STAGES, epochs)
    if not found:
        assert all(phase.end > phase.first for phase in compile_schedule(config, STAGES, epochs).phases)
        return
    enough = int(found[0].split("Set trainer.max_epochs=")[1].split()[0])
    assert phases.problems(config, STAGES, enough) == []
    assert all(0 in phases.lengths(config.phases, n) for n in range(epochs, enough))


def test_the_rest_is_what_the_other_fractions_leave() -> None:
    listed = [{"name": "a", "train": ["head"], "fraction": 0.1}, {"name": "b", "train": ["head"], "fraction": 0.2}]
    last = {"name": "c", "train": ["all"], "fraction": "rest"}
    assert [phase.fraction for phase in phases.planned(own(*listed, last), STAGES)] == [0.1, 0.2, 0.7]
    first = {"name": "a", "train": ["head"], "epochs": 3}
    assert [phase.end for phase in compile_schedule(own(first, last), STAGES, 10).phases] == [3, 10]


@given(st.floats(0.01, 0.99), st.integers(2, 200))
def test_a_probe_takes_its_share_of_the_run(probe: float, epochs: int) -> None:
    head = {"name": "probe", "train": ["head"], "fraction": probe}
    config = own(head, {"name": "all", "train": ["all"], "fraction": "rest"})
    lengths = phases.lengths(phases.planned(config, STAGES), epochs)
    assert sum(lengths) == epochs
    assert abs(lengths[0] - probe * epochs) <= 0.5 + 1e-9


@pytest.mark.parametrize("name", ["full", "lp_ft", "gradual", "layer_decay"])
@pytest.mark.parametrize("limit", [2, 4])
def test_stages_before_the_trainable_ones_never_train(name: str, limit: int) -> None:
    free, limited = compiled(name), compiled(name, f"finetune.trainable_stages={limit}")
    for epoch in range(20):
        assert not set(trained(limited, epoch)) & set(STAGES[:-limit])
        if name != "gradual":  # of which the phases become fewer and longer
            kept = {stage: rate for stage, rate in rates(free, epoch).items() if stage in STAGES[-limit:]}
            assert rates(limited, epoch) == {**dict.fromkeys(STAGES[:-limit], 0.0), **kept}
    assert trained(limited, 19) == list(STAGES[-limit:])
    assert len(limited.phases) == {"gradual": limit, "lp_ft": 2}.get(name, 1)


# --- what holds for all -----------------------------------------------------------------------------------------------


@st.composite
def schedules(draw: st.DrawFn) -> tuple[FinetuneConfig, int]:
    """Any schedule that is in order, and the length of a run."""
    listed: list[dict[str, Any]] = []
    for i in range(draw(st.integers(1, 5))):
        names = draw(st.sets(st.sampled_from(STAGES), min_size=1))
        rated = draw(st.sets(st.sampled_from(sorted(names))))
        listed.append(
            {
                "name": f"p{i}",
                "train": sorted(names),
                "epochs": draw(st.integers(1, 6)),
                "rates": {name: draw(st.floats(0.01, 10)) for name in sorted(rated)},
            }
        )
    decay = draw(st.floats(0.1, 1)) if any(set(phase["train"]) - {"head"} for phase in listed) else 1.0
    config = own(*listed, decay=decay, batchnorm="frozen_stats")
    return config, sum(phase["epochs"] for phase in listed)


@given(schedules())
def test_every_epoch_belongs_to_one_phase_and_trains_what_it_names(drawn: tuple[FinetuneConfig, int]) -> None:
    config, epochs = drawn
    schedule = compile_schedule(config, STAGES, epochs)
    assert len(schedule.epochs) == epochs
    for epoch, row in enumerate(schedule.epochs):
        (phase,) = [phase for phase in schedule.phases if phase.first <= epoch < phase.end]
        listed = config.phases[schedule.phases.index(phase)]
        assert row == phase.states == schedule.at(epoch)
        assert schedule.phase(epoch) == phase
        assert set(trained(schedule, epoch)) == set(listed.train)
        assert list(row) == list(STAGES)
        for i, (stage, state) in enumerate(row.items()):
            exact = config.decay ** (len(STAGES) - 1 - i) * listed.rates.get(stage, 1.0)
            assert state.rate == (pytest.approx(exact, rel=1e-12) if stage in listed.train else 0)
            assert state.fixed_statistics
        assert all(row[stage].frozen for stage in STAGES[: schedule.prefix(epoch)])
        assert schedule.prefix(epoch) == len(STAGES) or not row[STAGES[schedule.prefix(epoch)]].frozen
    for stage in STAGES:
        for epoch in range(1, epochs):
            thawed = stage in trained(schedule, epoch) and stage not in trained(schedule, epoch - 1)
            assert thawed == (epoch in schedule.thaws(stage))


@given(st.lists(st.text("abcdef", min_size=1), min_size=1, max_size=9, unique=True), st.integers(1, 60))
def test_gradual_only_ever_unfreezes(backbone: list[str], more: int) -> None:
    stages = (*(f"{name}_" for name in backbone), "head")
    schedule = compile_schedule(own(), stages, len(stages) + more - 1)
    sets = [set(trained(schedule, epoch)) for epoch in range(len(schedule.epochs))]
    assert sets[0] == {"head"}
    assert sets[-1] == set(stages)
    assert all(before <= after and len(after - before) <= 1 for before, after in pairwise(sets))


@pytest.mark.parametrize("name", SCHEDULES)
def test_compiling_is_a_pure_function(name: str) -> None:
    config = finetune(name, *(["model=timm:test_vit"] if name == "lora" else []))  # a network with attention
    before = config.model_dump()
    assert compile_schedule(config, list(STAGES), 20) == compile_schedule(config, STAGES, 20)
    assert config.model_dump() == before


def test_a_schedule_needs_no_torch() -> None:
    code = "import sys, ddtl.commands.finetune, ddtl.config.load; print('torch' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# --- mistakes ---------------------------------------------------------------------------------------------------------


def one(text: str) -> str:
    """The override for a schedule of one phase."""
    return f"finetune.phases=[{{name: p, {text}}}]"


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        # stages
        ((one("train: [blok4], epochs: 20"),), ["phase p: train names blok4", "Did you mean block4?", "stem, block1"]),
        ((one("train: [layer4], epochs: 20"), "model=densenet121"), ["no such stage", "norm, head, backbone, all"]),
        ((one("train: [all], epochs: 20, rates: {bloc1: 2}"),), ["rates names bloc1", "Did you mean block1?"]),
        (("finetune=surgical", "finetune.stages=[stem,head,fire1]"), ["train names fire1"]),
        (("finetune=surgical", "finetune.stages=[]"), ["phase chosen: train is empty"]),
        (("finetune=lp_ft", "finetune.stages=[stem]"), ["no such key"]),
        # overlap
        ((one("train: [all, head], epochs: 20"),), ["names head twice, by all and by head. Leave one out."]),
        ((one("train: [stem, stem], epochs: 20"),), ["names stem twice"]),
        ((one("train: [all], epochs: 20, rates: {backbone: 1, stem: 2}"),), ["rates names stem twice"]),
        # times
        ((one("train: [all]"),), ["takes either epochs or fraction, and has neither"]),
        ((one("train: [all], epochs: 20, fraction: 1.0"),), ["either epochs or fraction, not both"]),
        ((one("train: [all], epochs: 5"), "trainer.max_epochs=9"), ["leave a gap", "trainer.max_epochs=5", "1.0"]),
        ((one("train: [all], epochs: 12"), "trainer.max_epochs=9"), ["do not fit", "Set trainer.max_epochs=12"]),
        ((one("train: [all], fraction: 0.5"),), ["sum to 0.5 leave a gap", "must sum to 1"]),
        (
            ("finetune.phases=[{name: a, train: [head], fraction: 0.7}, {name: b, train: [all], fraction: 0.7}]",),
            ["sum to 1.4 overlap"],
        ),
        (("trainer.max_epochs=1",), ["2 phases", "Set trainer.max_epochs=2 or more", "finetune=full"]),
        (("finetune=gradual", "trainer.max_epochs=6"), ["7 phases", "Set trainer.max_epochs=7 or more"]),
        (
            (
                "finetune.phases=[{name: a, train: [head], epochs: 5}, {name: b, train: [all], fraction: 1.0}]",
                "trainer.max_epochs=4",
            ),
            ["Set trainer.max_epochs=6 or more"],
        ),
        # nothing trains
        ((one("train: [], epochs: 20"),), ["phase p: train is empty", "Name stages: stem"]),
        (("finetune=full", "finetune.backbone_lr_ratio=0"), ["backbone_lr_ratio=0", "or finetune=linear_probe"]),
        ((one("train: [all], epochs: 20, rates: {stem: 0}"),), ["phases.0.rates.stem=0: must be more than 0"]),
        # no effect
        (
            (one("train: [head], epochs: 20, rates: {stem: 2}"),),
            ["rates.stem has no effect on stem", "Add it there"],
        ),
        (("finetune=linear_probe", "finetune.batchnorm=train"), ["Set finetune.batchnorm=frozen_stats"]),
        (("finetune=linear_probe", "finetune.decay=0.5"), ["Set finetune.decay=1"]),
        (
            ("finetune=full", "finetune.rewarm=1"),
            ["finetune.rewarm=1: full unfreezes nothing", "Set finetune.rewarm=0"],
        ),
        (("finetune=full", "finetune.cached_views=4"), ["no phase of full freezes the whole backbone"]),
        (
            ("finetune=surgical", "finetune.stages=[stem]", "finetune.head_lr_ratio=3"),
            ["the head never trains", "Set finetune.head_lr_ratio=1"],
        ),
        (
            ("finetune.phases=[{name: a, train: [head], fraction: rest}, {name: b, train: [all], fraction: rest}]",),
            ["a and b both take the rest", "Give all but one of them a number"],
        ),
        (
            ("finetune.phases=[{name: a, train: [head], fraction: 1.0}, {name: b, train: [all], fraction: rest}]",),
            ["leave no rest for b"],
        ),
        (("finetune.probe=1",), ["finetune.probe=1: must be less than 1"]),
        (("finetune=linear_probe", "finetune.probe=0.3"), ["finetune.probe=0.3: no such key"]),
        (("finetune.trainable_stages=7",), ["finetune.trainable_stages=7: there are 7 stages", "or null for all"]),
        (
            (
                "finetune.trainable_stages=1",
                "finetune.phases=[{name: a, train: [stem], epochs: 1}, {name: b, train: [all], fraction: rest}]",
            ),
            ["finetune.trainable_stages=1: leaves phase a nothing to train"],
        ),
        # types
        (("finetune.phases=3",), ["finetune.phases=3: must be a list"]),
        (("finetune.phases=[3]",), ["finetune.phases=[3]: 3 must be a dict of name, train, epochs, fraction, rates"]),
        ((one("train: head, epochs: 20"),), ["finetune.phases.0.train=head: must be a list in brackets"]),
        ((one("train: [head], epoch: 20"),), ["finetune.phases.0.epoch: no such key", "finetune.phases.0.epochs?"]),
        ((one("train: [head], fraction: 2"),), ["finetune.phases.0.fraction=2: must be at most 1"]),
        (("finetune.phases=[{train: [head], epochs: 20}]",), ["finetune.phases.0.name: missing"]),
        (("finetune.name=a/b",), ["finetune.name=a/b: must be made of letters"]),
    ],
)
def test_a_schedule_that_cannot_be_meant_is_refused_with_the_fix(overrides: tuple[str, ...], parts: list[str]) -> None:
    message = complaint(*overrides)
    assert "\n" not in message
    assert "conf/" not in message
    for part in parts:
        assert part in message, message


def test_what_is_refused_before_data_is_touched_is_refused_by_the_table_too() -> None:
    with pytest.raises(UserError, match="Did you mean stem"):
        compile_schedule(own({"name": "p", "train": ["sten"], "epochs": 3}), STAGES, 3)


def test_renaming_a_schedule_takes_no_other_one() -> None:
    (line,) = check([*REAL, "finetune.name=linear_probe"])[1]
    assert "only renames" in line
    assert "write finetune=linear_probe" in line


@pytest.mark.parametrize("name", ["lp_ft", "gradual", "linear_probe"])
def test_a_head_on_random_features_is_warned_of(name: str) -> None:
    (line,) = check(["dataset=covid19ct", "model.weights=none", f"finetune={name}"])[1]
    assert line.startswith(f"finetune={name} with model.weights=none")


def test_the_phases_are_part_of_the_identity() -> None:
    from ddtl.models.weights import Weights
    from ddtl.records.identity import short_hash
    from ddtl.training.hardware import Hardware
    from ddtl.training.identity import identity

    def named(*overrides: str) -> str:
        config = load([*REAL, *overrides])
        return short_hash(identity(config, Hardware("cpu", "32-true", ""), "digest", Weights("none", None, None)))

    spelt = "{name: probe, train: [head], fraction: 0.3, rates: {head: 10.0}}, {name: all, train: [all], fraction: 0.7}"
    assert named() == named("finetune.probe=0.3") == named(f"finetune.phases=[{spelt}]")
    assert len({named(), named("finetune.probe=0.4"), named("finetune.trainable_stages=2")}) == 3
    listed = "finetune.phases=[{{name: {}, train: [head], fraction: {}}}, {{name: b, train: [all], fraction: {}}}]"
    variants = [named(listed.format(*values)) for values in (("a", 0.3, 0.7), ("a", 0.4, 0.6), ("c", 0.3, 0.7))]
    assert len({named(), *variants}) == 4
    assert named() == named("finetune=lp_ft")
