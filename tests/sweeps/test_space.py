"""Search spaces: what is read from YAML, what is sampled, and that train.py would take every trial."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import optuna
import pytest
from hypothesis import given, settings, strategies as st

from ddtl.config import where
from ddtl.config.load import ConfigError, check
from ddtl.config.overrides import read
from ddtl.sweeps.plan import settings as sweep_settings
from ddtl.sweeps.space import space
from ddtl.sweeps.space.space import Sampled, read_space

optuna.logging.set_verbosity(optuna.logging.WARNING)
SHIPPED = where.options("search")


def trial_of(seed: int) -> optuna.Trial:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()


@cache
def shipped(name: str, *words: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A shipped space and the words that all its trials share, its trials not yet tried."""
    plan = sweep_settings.read([f"search={name}", *words], tried=False)
    assert plan.settings.search is not None
    return plan.settings.search.space, plan.fixed


def by_key(words: list[str]) -> dict[str, Any]:
    asked = read(words, {})
    assert not asked.problems
    assert len({setting.key for setting in asked.settings}) == len(words)
    return {setting.key: setting.value for setting in asked.settings}


def expected(tree: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[str]:
    """The keys that a trial must have, read from the tree by itself."""
    for key, spec in tree.items():
        yield key
        branches = spec.get("choice")
        if isinstance(branches, dict):
            yield from expected(branches[values[key]], values)


def within(spec: Mapping[str, Any], value: Any) -> bool:
    if "choice" in spec:
        return value in list(spec["choice"])
    low, high = spec.get("float") or spec["int"]
    return bool(low <= value <= high) and ("float" in spec or isinstance(value, int))


# --- any tree ---------------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.tuples(st.integers(-5, 5), st.integers(1, 9)).map(lambda p: {"int": [p[0], p[0] + p[1]]}),
    st.tuples(st.integers(1, 5), st.integers(1, 90)).map(lambda p: {"int": [p[0], p[0] + p[1]], "log": True}),
    st.tuples(st.floats(-10, 10), st.floats(0.01, 5)).map(lambda p: {"float": [p[0], p[0] + p[1]]}),
    st.tuples(st.floats(1e-9, 1), st.floats(2, 1e3)).map(lambda p: {"float": list(p), "log": True}),
    st.integers(2, 6).map(lambda steps: {"float": [0.0, steps * 0.125], "step": 0.125}),
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(2, 99), st.floats(1.5, 9), st.text("ab c,'=\\$[]{}:", max_size=4),
    st.lists(st.sampled_from(["x", "y, z"]), min_size=1, max_size=2),
).filter(lambda value: not (isinstance(value, str) and "$" in value))  # fmt: skip


@st.composite
def trees(draw: st.DrawFn, depth: int = 2, path: str = "k") -> dict[str, Any]:
    """A space in which no key stands twice."""
    tree: dict[str, Any] = {}
    for i in range(draw(st.integers(1, 3))):
        key = f"{path}{i}"
        kind = draw(st.integers(0, 2 if depth else 1))
        if kind == 0:
            tree[key] = draw(NUMBERS)
        elif kind == 1:
            tree[key] = {"choice": draw(st.lists(VALUES, min_size=1, max_size=3, unique_by=repr))}
        else:
            names = draw(st.lists(st.sampled_from(["one", "two", "three"]), min_size=1, unique=True))
            inner = {name: draw(st.just({}) | trees(depth - 1, f"{key}.{name}.p")) for name in names}
            tree[key] = {"choice": inner}
    return tree


def flat(tree: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, spec in tree.items():
        yield key, spec
        if isinstance(spec.get("choice"), dict):
            for inner in spec["choice"].values():
                yield from flat(inner)


@settings(max_examples=60, deadline=None)
@given(trees(), st.integers(0, 10**6))
def test_a_trial_has_the_keys_of_the_branches_it_took_and_values_within_bounds(tree: dict[str, Any], seed: int) -> None:
    values = by_key(read_space(tree).suggest(trial_of(seed)))
    assert list(values) == list(expected(tree, values))
    specs = dict(flat(tree))
    assert all(within(specs[key], value) for key, value in values.items())


@settings(max_examples=40, deadline=None)
@given(trees(), st.integers(0, 10**6))
def test_a_seed_gives_the_same_trial_and_a_tree_the_same_description(tree: dict[str, Any], seed: int) -> None:
    one, other = read_space(tree), read_space(json.loads(json.dumps(tree)))
    assert one.suggest(trial_of(seed)) == other.suggest(trial_of(seed))
    described = one.described()
    assert described == json.loads(json.dumps(other.described()))
    assert read_space(dict(reversed(tree.items()))).described() == described
    assert set(trial_params(one, seed)) <= set(described)


def trial_params(of: Sampled, seed: int) -> dict[str, Any]:
    trial = trial_of(seed)
    of.suggest(trial)
    return trial.params


# --- names, order and digits ------------------------------------------------------------------------------------------


def test_a_key_below_two_options_has_one_name_where_its_range_is_one() -> None:
    decay, other = {"float": [0.3, 1.0]}, {"float": [0.5, 1.0]}
    same = {"finetune": {"choice": {"gradual": {"finetune.decay": decay}, "layer_decay": {"finetune.decay": decay}}}}
    described = read_space(same).described()
    assert set(described) == {"finetune", "finetune.decay"}
    assert described["finetune.decay"]["where"] == ["finetune=gradual", "finetune=layer_decay"]
    differs = {"finetune": {"choice": {"gradual": {"finetune.decay": decay}, "layer_decay": {"finetune.decay": other}}}}
    names = {"finetune", "gradual/finetune.decay", "layer_decay/finetune.decay"}
    assert set(read_space(differs).described()) == names
    found = {tuple(word.split("=")[0] for word in read_space(differs).suggest(trial_of(seed))) for seed in range(20)}
    assert found == {("finetune", "finetune.decay")}


def test_a_changed_bound_changes_the_description() -> None:
    assert read_space({"a": {"float": [1, 2]}}).described() != read_space({"a": {"float": [1, 3]}}).described()
    assert (
        read_space({"a": {"float": [1, 2]}}).described()
        != read_space({"a": {"float": [1, 2], "log": True}}).described()
    )


def test_numbers_are_short_and_stay_within_bounds() -> None:
    wide = read_space({"optimizer.lr": {"float": [1e-5, 1e-2], "log": True}})
    narrow = read_space({"optimizer.lr": {"float": [0.12344, 0.123449]}})
    for seed in range(30):
        (word,) = wide.suggest(trial_of(seed))
        digits = word.partition("=")[2].split("e")[0].replace(".", "").lstrip("0")
        assert len(digits) <= 4
        assert 0.12344 <= by_key(narrow.suggest(trial_of(seed)))["optimizer.lr"] <= 0.123449


def test_a_log_range_is_even_in_the_logarithm() -> None:
    wide = read_space({"optimizer.lr": {"float": [1e-4, 1.0], "log": True}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [by_key(wide.suggest(study.ask()))["optimizer.lr"] for _ in range(400)]
    for low in (1e-4, 1e-3, 1e-2, 1e-1):
        assert 70 <= sum(low <= value < 10 * low for value in drawn) <= 130  # 100 ± 3.5 standard deviations


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "parts"),
    [
        ({}, ["search.space is empty"]),
        ({"a": {"float": [2, 1]}}, ["search.space.a={float: [2, 1]}", "the lower bound comes first: [1, 2]"]),
        ({"a": {"float": [2, 2]}}, ["leaves one value", "Set a=2"]),
        ({"a": {"float": [0, 1], "log": True}}, ["log: true needs bounds above 0"]),
        ({"a": {"float": [1, 2], "log": True, "step": 0.5}}, ["log and step do not go together"]),
        ({"a": {"float": [0, 1], "step": 0.3}}, ["steps of 0.3 do not lead from 0 to 1"]),
        ({"a": {"float": [0, 1], "step": 0}}, ["step must be a number above 0"]),
        ({"a": {"int": [0, 4], "step": 0.5}}, ["step must be a whole number above 0"]),
        ({"a": {"int": [0.5, 4]}}, ["takes two whole numbers"]),
        ({"a": {"float": [0, float("inf")]}}, ["takes two numbers"]),
        ({"a": {"float": [0, True]}}, ["takes two numbers"]),
        ({"a": {"float": 3}}, ["takes two numbers"]),
        ({"a": {"float": [0, 1], "log": "yes"}}, ["log must be true or false"]),
        ({"a": {"float": [0, 1], "logs": True}}, ["logs means nothing together with float", "Did you mean log?"]),
        ({"a": {"floats": [0, 1]}}, ["says neither float, int nor choice", "Did you mean float?"]),
        ({"a": {"float": [0, 1], "int": [0, 1]}}, ["says float and int"]),
        ({"a": [0, 1]}, ["a range or a choice is wanted", "Write {float: [low, high]}"]),
        ({"a": {"choice": []}}, ["choice is empty"]),
        ({"a": {"choice": {}}}, ["choice is empty"]),
        ({"a": {"choice": "full"}}, ["choice takes a list of values"]),
        ({"a": {"choice": [1, 2, 1]}}, ["choice names 1 twice"]),
        ({"a": {"choice": [1, True]}}, ["choice names true twice"]),
        ({"a": {"choice": {"full": 3}}}, ["below full are the parameters"]),
        ({"a": {"choice": {"full": {"b": {"int": [2, 1]}}}}}, ["search.space.b={int: [2, 1]}"]),
        ({"a": {"choice": {"full": {"b": {"int": [1, 2]}}}}, "b": {"int": [1, 2]}}, ["search.space.b", "two places"]),
        ({"a": {"choice": {"full": {"a": {"int": [1, 2]}}}}}, ["search.space.a", "two places"]),
    ],
)
def test_a_space_that_cannot_be_is_refused_in_a_line(tree: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read_space(tree)
    (line,) = caught.value.problems
    assert "\n" not in line
    for part in parts:
        assert part in line


def test_every_mistake_comes_in_one_message() -> None:
    with pytest.raises(ConfigError) as caught:
        read_space({"a": {"float": [2, 1]}, "b": 3, "c": {"choice": {"x": {"d": {"int": [0, 0]}}}}})
    assert [line.partition("=")[0] for line in caught.value.problems] == [f"search.space.{key}" for key in "abd"]


# --- the shipped spaces -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(SHIPPED),
    st.sampled_from(["densenet121", "resnet18", "squeezenet1_1"]),
    st.sampled_from(["phantom", "covid19ct"]),
    st.integers(0, 10**6),
)
def test_train_takes_every_trial(name: str, model: str, dataset: str, seed: int) -> None:
    tree, fixed = shipped(name, f"model={model}", f"dataset={dataset}", "model.weights=none")
    words = read_space(tree).suggest(trial_of(seed))
    config, _ = check([*fixed, *words])
    assert not config.evaluation.test
    for word in words:
        key, _, value = word.partition("=")
        if key in where.groups():
            assert getattr(config, key).name == value


def test_the_unfreezing_space_reaches_every_schedule_and_its_settings() -> None:
    tree, _ = shipped("lr_unfreeze")
    found = {word.partition("=")[0] for seed in range(60) for word in read_space(tree).suggest(trial_of(seed))}
    assert found == {"optimizer.lr", "optimizer.weight_decay", "finetune"} | {
        f"finetune.{key}" for key in ("probe", "trainable_stages", "backbone_lr_ratio", "batchnorm", "decay")
    }
    assert set(tree["finetune"]["choice"]) == set(where.options("finetune")) - {
        "surgical",
        "bitfit",
        "norm_affine",
        "ssf",
        "lora",
        "logistic_probe",  # takes no steps, so it has no rate
    }
    of_a_probe = [
        words
        for words in (read_space(tree).suggest(trial_of(seed)) for seed in range(60))
        if "finetune=linear_probe" in words
    ]
    assert of_a_probe
    assert all(not word.startswith("finetune.") for words in of_a_probe for word in words)


# --- lists of jobs ----------------------------------------------------------------------------------------------------


def test_a_trials_number_says_which_job_it_is() -> None:
    jobs = [["finetune=full", "seed=0"], ["finetune=full", "seed=1"], ["optimizer.lr=1e-3", "seed=0"]]
    listed = space.list_jobs(jobs)
    study = optuna.create_study(sampler=listed.sampler())
    trials = [study.ask() for _ in jobs]
    assert [listed.suggest(trial) for trial in reversed(trials)] == jobs[::-1]
    assert [trial.params for trial in trials] == [
        {"finetune": "full", "seed": "0"},
        {"finetune": "full", "seed": "1"},
        {"optimizer.lr": "1e-3", "seed": "0"},
    ]
    assert listed.described() == {"jobs": ["finetune=full seed=0", "finetune=full seed=1", "optimizer.lr=1e-3 seed=0"]}


def test_what_all_jobs_share_is_no_parameter() -> None:
    listed = space.list_jobs([["trainer=cpu", "seed=0"], ["trainer=cpu", "seed=1"]])
    trial = optuna.create_study(sampler=listed.sampler()).ask()
    assert listed.suggest(trial) == ["trainer=cpu", "seed=0"]
    assert trial.params == {"seed": "0"}
