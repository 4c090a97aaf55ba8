"""What makes a run the run that it is: every setting is either part of it or listed here as neutral."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from ddtl.config.load import load
from ddtl.models.weights import Weights
from ddtl.records.identity import differences, short_hash
from ddtl.schema.run import Config, PublishedConfig, WindowConfig
from ddtl.training.hardware import Hardware
from ddtl.training.identity import identity, run_name

# A new setting under these headings must be decided about: listed here, or taken out of what is neutral.
NEUTRAL = {
    "evaluation.design",
    "dataset.num_workers",
    "trainer.profiler",
    "trainer.detect_anomaly",
    "finetune.probe",
    "trainer.checkpoint_seconds",
    "paths.data_dir",
    "paths.cache_dir",
    "paths.runs_dir",
    "paths.weights_mirror",
    "paths.data_mirror",
    "dataset.root",
    "dataset.table",
    "dataset.labels",
    "dataset.patient_regex",
    "dataset.patients",
    "dataset.own",
    "dataset.source_settings",
    "dataset.exclude",
    "dataset.allow_label_conflicts",
    "dataset.allow_few_grey_levels",
    "logger.wandb.mode",
    "logger.wandb.project",
    "logger.wandb.entity",
    "logger.wandb.group",
    "logger.wandb.tags",
    "logger.wandb.artifacts",
    "logger.wandb.timeout",
    "logger.mlflow.enabled",
    "logger.mlflow.store",
    "logger.mlflow.experiment",
    "logger.tensorboard",
    "logger.csv",
    "logger.upload_samples",
    "verbose",
    "run.name",
    "run.overwrite",
    "run.published.source",
    "run.published.protocol",
    "run.published.scores",
    "evaluation.test",
    "evaluation.threshold",
    "evaluation.threshold_unit",
    "evaluation.target",
    "evaluation.patient",
    "evaluation.interval",
    "evaluation.level",
    "evaluation.replicates",
    "evaluation.prevalences",
    "evaluation.batchnorm",
    "evaluation.batchnorm_prior",
    "evaluation.refit",
    "model.file",  # its hash counts, in its place
    "model.trusted",
}
# Part of it by what they come to on this machine, not by how they are written.
RESOLVED = {"trainer.accelerator", "trainer.precision", "model.weights"}

HARDWARE = Hardware("cpu", "32-true", "a reason")
WEIGHTS = Weights("imagenet (x.pth)", Path("/home/me/x.pth"), "ab" * 32)


def arguments(annotation: Any) -> Iterator[Any]:
    """The members of a union, Annotated taken off; the annotation itself if it is none."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for member in typing.get_args(annotation):
            yield from arguments(member)
    else:
        yield annotation


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, annotation) of every setting."""
    for name, field in model.model_fields.items():
        section = next(
            (a for a in arguments(field.annotation) if isinstance(a, type) and issubclass(a, BaseModel)), None
        )
        if section is not None:
            yield from leaves(section, f"{prefix}{name}.")
        else:
            yield prefix + name, field.annotation


LEAVES = dict(leaves(Config))


@pytest.fixture(scope="module")
def config() -> Config:
    """A configuration in which every optional section is there."""
    loaded = load(["dataset=phantom", "logger=none"])
    assert loaded.dataset.phantom is not None
    published = PublishedConfig(source="a paper", protocol="random", scores={"accuracy": 0.9})
    window = WindowConfig(center=-600, width=1500)
    loaded = loaded.model_copy(update={"dataset": loaded.dataset.model_copy(update={"window": window})})
    return loaded.model_copy(update={"run": loaded.run.model_copy(update={"published": published})})


def another(value: Any, annotation: Any) -> Any:
    """Another value of the same type."""
    choices = [c for a in arguments(annotation) if typing.get_origin(a) is Literal for c in typing.get_args(a)]
    if choices:
        return next(choice for choice in choices if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, tuple):
        return (*value[:-1], another(value[-1], type(value[-1]))) if value else (1,)
    if isinstance(value, (dict, BaseModel)):
        return value | {"another": 0.5} if isinstance(value, dict) else renamed(value)
    kind = next(a for a in arguments(annotation) if a is not type(None))
    return f"{value}-another" if kind is str else ("a", "b") if typing.get_origin(kind) is tuple else 3


def renamed(model: BaseModel) -> BaseModel:
    first = next(iter(type(model).model_fields))
    return model.model_copy(update={first: f"{getattr(model, first)}-another"})


def changed(model: BaseModel, key: str, value: Any) -> Any:
    name, _, rest = key.partition(".")
    return model.model_copy(update={name: changed(getattr(model, name), rest, value) if rest else value})


def value_of(model: Any, key: str) -> Any:
    for name in key.split("."):
        model = getattr(model, name)
    return model


def hash_of(config: Config, hardware: Hardware = HARDWARE, digest: str = "d", weights: Weights = WEIGHTS) -> str:
    return short_hash(identity(config, hardware, digest, weights))


def test_the_lists_name_settings_that_there_are() -> None:
    assert LEAVES.keys() >= NEUTRAL | RESOLVED


@pytest.mark.parametrize("key", LEAVES)
def test_every_setting_is_decided_about(config: Config, key: str) -> None:
    before = value_of(config, key)
    after = another(before, LEAVES[key])
    assert after != before
    same = hash_of(changed(config, key, after)) == hash_of(config)
    assert same == (key in NEUTRAL | RESOLVED), f"{key} must be listed as neutral or be part of the identity"


def test_an_optional_section_is_part_of_it(config: Config) -> None:
    without = config.model_copy(update={"dataset": config.dataset.model_copy(update={"phantom": None})})
    assert hash_of(without) != hash_of(config)


@pytest.mark.parametrize(
    "change",
    [{"accelerator": "gpu"}, {"precision": "bf16-mixed"}],
    ids=lambda c: next(iter(c)),
)
def test_what_auto_came_to_is_part_of_it(config: Config, change: dict[str, Any]) -> None:
    assert hash_of(config, replace(HARDWARE, **change)) != hash_of(config)
    assert hash_of(config, replace(HARDWARE, reason="another machine's name")) == hash_of(config)


def test_of_the_weights_their_bytes_count(config: Config) -> None:
    moved = Weights("y.pth", Path("/elsewhere/y.pth"), WEIGHTS.digest)
    assert hash_of(changed(config, "model.weights", "/elsewhere/y.pth"), weights=moved) == hash_of(config)
    assert hash_of(config, weights=replace(WEIGHTS, digest="cd" * 32)) != hash_of(config)
    assert hash_of(config, weights=Weights("none", None, None)) != hash_of(config)


def test_of_the_data_their_digest_counts(config: Config) -> None:
    assert hash_of(config, digest="e") != hash_of(config)


def test_it_comes_back_from_its_file_unchanged(config: Config) -> None:
    now = identity(config, HARDWARE, "d", WEIGHTS)
    before = json.loads(json.dumps(now))
    assert differences(before, now) == []
    assert short_hash(before) == short_hash(now)


def test_it_holds_no_local_path(config: Config) -> None:
    moved = changed(changed(config, "model.weights", "/home/me/x.pth"), "paths.data_dir", "/home/me/data")
    assert "/home/me" not in json.dumps(identity(moved, HARDWARE, "d", WEIGHTS))


def test_differences_name_the_old_and_the_new_value() -> None:
    assert differences(
        {"a": 1, "b": 2, "c": [1], "e": None, "f": True}, {"a": 1, "b": 3, "d": None, "e": 0.9, "f": False}
    ) == [
        "b: was 2, is 3",
        "c: was [1], is (absent)",
        "d: was (absent), is not set",
        "e: was not set, is 0.9",
        "f: was true, is false",
    ]


def test_names(config: Config) -> None:
    named = identity(config, HARDWARE, "d", WEIGHTS)
    name = run_name(config, named)
    assert name == f"{config.model.name}-{config.finetune.name}-s{config.seed}-{short_hash(named)}"
    assert run_name(changed(config, "run.name", "mine"), named) == "mine"


PRINT_HASH = """
import sys
from types import SimpleNamespace
from ddtl.config.load import load
from ddtl.records.identity import short_hash
from ddtl.training.identity import identity
hardware = SimpleNamespace(accelerator="cpu", precision="32-true")
config = load(["dataset=phantom", "logger=none"])
print(short_hash(identity(config, hardware, "d", SimpleNamespace(digest="ab" * 32))))
"""


def test_it_is_the_same_in_every_process() -> None:
    hashes = {
        subprocess.run(
            [sys.executable, "-c", PRINT_HASH],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert hashes == {hash_of(load(["dataset=phantom", "logger=none"])) + "\n"}
