"""The schema for editors takes every file of conf/ and finds mistakes in files of one's own."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from omegaconf import OmegaConf

from ddtl.commands import cli
from ddtl.config.json_schema import kinds, schema
from ddtl.config.where import conf_dir
from ddtl.utils.errors import UserError

FILES = sorted(path for path in conf_dir().rglob("*.yaml"))


def mistakes(kind: str, text: str) -> list[str]:
    read = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    tree = json.loads(json.dumps(read))  # with the keys that JSON has
    return [error.message for error in validator(kind).iter_errors(tree)]


@cache
def validator(kind: str) -> Draft202012Validator:
    return Draft202012Validator(schema(kind))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(conf_dir())))
def test_every_file_of_the_configuration_passes(path: Path) -> None:
    kind = path.stem if path.parent == conf_dir() else path.parent.name
    assert mistakes(kind, path.read_text()) == []


@pytest.mark.parametrize("kind", kinds())
def test_each_is_a_schema_with_meanings(kind: str) -> None:
    found = schema(kind)
    Draft202012Validator.check_schema(found)
    assert found["properties"]
    text = json.dumps(found)
    assert '"description"' in text
    assert "``" not in text  # an editor shows it as it is
    assert not re.search(r":\w+:`", text)


PLANTED = [
    # A schedule of one's own.
    ("finetune", "defaults: [full]\nname: mine\nbackbone_lr: 0.1"),
    ("finetune", "defaults: [full]\nname: my schedule"),
    ("finetune", "name: mine\nbatchnorm: frozen"),
    ("finetune", "name: mine\ndecay: 1.5"),
    ("finetune", "name: mine\ncached_views: -1"),
    ("finetune", "name: mine\nrewarm: two"),
    ("finetune", "name: mine\nprobe: 1.0"),
    ("finetune", "name: mine\nphases: {name: all, train: [all], fraction: rest}"),
    ("finetune", "name: mine\nphases: [{name: all, trains: [all], fraction: rest}]"),
    ("finetune", "name: mine\nphases: [{name: all, train: all, fraction: rest}]"),
    # An optimiser, a loss, augmentations, a trainer, a logger.
    ("optimizer", "name: adam"),
    ("optimizer", "name: sgd\nlr: 0"),
    ("optimizer", "name: sgd\nmomentum: 1"),
    ("optimizer", "betas: [0.9]"),
    ("loss", "name: focal\ngama: 2.0"),
    ("augment", "rotate_degrees: ten"),
    ("trainer", "max_epochs: 0"),
    ("trainer", "max_epochs: 2.5"),
    ("trainer", "precision: bf16"),
    ("trainer", "monitor: val/auc"),
    ("logger", "wandb: {modus: offline}"),
    ("logger", "mlflow: {enabled: sure}"),
    # An experiment.
    ("experiment", "optimzer: {lr: 1.0e-3}"),
    ("experiment", "seed: -1"),
    ("experiment", "dataset: {protocol: official_split}"),
    ("experiment", "evaluation: {threshold: best}"),
    # A search.
    ("search", "name: mine\nspace: {optimizer.lrr: {float: [1.0e-5, 1.0e-2]}}"),
    ("search", "name: mine\nspace: {optimizer.lr: {float: [1.0e-5, 1.0e-2], logs: true}}"),
    ("search", "name: mine\nspace: {optimizer.lr: {float: 1.0e-5}}"),
    ("search", "name: mine\nspace: {finetune: {choice: {full: {optimizer.lr: [1.0e-5, 1.0e-2]}}}}"),
    # A study.
    ("study", "kind: cross_dataset\nseeds: none"),
    ("study", "kind: crossdataset"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), PLANTED)
def test_a_mistake_is_found(kind: str, text: str) -> None:
    assert mistakes(kind, text)


def test_a_file_needs_nothing_but_what_differs() -> None:
    assert mistakes("finetune", "defaults: [lp_ft]\nname: mine\nprobe: 0.5\ndecay: ${oc.env:DDTL_DECAY}") == []
    assert mistakes("experiment", "defaults: [{override /finetune: full}]\nrun: {name: mine}") == []


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema("train")
    assert cli.main(["schema", "search"]) == 0
    assert json.loads(capsys.readouterr().out) == schema("search")
    with pytest.raises(UserError, match=r"serch: no such kind of file\. Did you mean search"):
        cli.main(["schema", "serch"])
    with pytest.raises(UserError, match="name one kind"):
        cli.main(["schema", "search", "study"])
