"""From words to a ``Config``: what is accepted, and what the person who mistyped something is told."""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from hypothesis import given, settings, strategies as st
from omegaconf import OmegaConf

from ddtl.config import checks, compose, sources, where
from ddtl.config.convert import convert
from ddtl.config.load import ConfigError, check, composed_yaml, load
from ddtl.models.losses import LOSSES
from ddtl.schema import run
from ddtl.schema.run import Config, DatasetConfig, FinetuneConfig, ModelConfig
from ddtl.schema.section import Section
from ddtl.utils.errors import UserError
from ddtl.utils.suggest import closest

JARGON = (
    "input should", "full_key", "object_type", "interpolation", "could not override", "to append", "pydantic",
    "literal", "dictionary", "tuple", "instance of", "extra inputs", "traceback", "omegaconf", "struct",
    "valid integer",
)  # fmt: skip
FILES = sorted(where.conf_dir().rglob("*.yaml"))
OPTIONS = [(group, option) for group in where.groups() for option in where.options(group)]


FROM_FOLDER = ("dataset=folder", f"dataset.root={Path(__file__).parent}")


def complaint(*overrides: str) -> str:
    """What a command with mistakes is answered."""
    with pytest.raises(ConfigError) as caught:
        load(overrides)
    message = str(caught.value)
    assert not [word for word in JARGON if word in message.lower()], message
    return message


def value_at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part] if isinstance(config, dict) else getattr(config, part)
    return config


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        # keys
        ("trainer.max_epoch=3", ["no such key", "Did you mean trainer.max_epochs?"]),
        ("lr=3", ["no such key", "Did you mean optimizer.lr?"]),
        ("optimzer=sgd", ["Did you mean optimizer?"]),
        ("experimnt=x", ["Did you mean experiment?"]),
        ("+lerning_rate=1", ["+lerning_rate=1: no such key"]),
        ("++foo.bar=1", ["no such key"]),
        ("search=tpe", ["no such key"]),
        ("seed.x=1", ["seed has no keys of its own"]),
        ("augment.scale.0=1", ["augment.scale has no keys of its own"]),
        ("hydra.run.dir=x", ["paths.runs_dir"]),
        ("hydra/launcher=joblib", ["none of its settings"]),
        # options of groups
        (
            "dataset=phantum",
            [
                "no such option",
                "Did you mean phantom?",
                "covid19ct, dicom, folder, nifti, phantom, pooled, sarscov2ct, table",
            ],
        ),
        ("dataset=", ["no such option", "covid19ct"]),
        ("model=null", ["no such option", "densenet121"]),
        ("trainer={max_epochs:3}", ["no such option"]),
        ("optimizer@trainer=adamw", ["without @"]),
        # types and bounds
        ("trainer.max_epochs=ten", ["trainer.max_epochs=ten: must be a whole number."]),
        ("trainer.max_epochs=1.5", ["must be a whole number"]),
        ("trainer.max_epochs=true", ["trainer.max_epochs=true: must be a whole number"]),
        ("trainer.max_epochs=null", ["trainer.max_epochs=null: must be a whole number"]),
        ("trainer.max_epochs=0", ["at least 1"]),
        ("trainer.max_epochs={a:1}", ["must be a whole number"]),
        ("trainer.patience=none", ["whole number, or null"]),
        ("seed=", ["seed=: must be a whole number"]),
        ("seed=-1", ["at least 0"]),
        ("seed=99999999999", ["less than 4294967296"]),
        ("optimizer.lr=fast", ["must be a number"]),
        ("optimizer.lr=0", ["more than 0"]),
        ("optimizer.lr=nan", ["finite"]),
        ("augment.noise=2", ["at most 1"]),
        ("model.head.dropout=1", ["less than 1"]),
        ("trainer.deterministic=yes", ["must be true or false"]),
        ("run.name=123", ["must be text", "run.name=\"'123'\""]),
        ("logger.wandb.project=null", ["must be text"]),
        ("paths.runs_dir=", ["must not be empty"]),
        ("trainer.precision=bf16", ["must be one of auto, 32,", "Did you mean bf16-mixed?"]),
        ("trainer.precision='32'", ["without quotes"]),
        ("trainer.profiler=simpel", ["simple, advanced, null", "Did you mean simple?"]),
        ("trainer.channels_last=auto", ["true or false"]),
        # lists and sections
        ("augment.scale=3", ["must be a list in brackets", "augment.scale=[3]"]),
        ("augment.scale=[1]", ["augment.scale=[1]: takes two values"]),
        ("augment.scale=[1,2,3]", ["takes 2 values"]),
        ("augment.scale=[a,2]", ["augment.scale=[a, 2]: a must be a number"]),
        ("augment.scale=[2,1]", ["the smaller one first"]),
        ("augment.gamma=[0,1]", ["0 must be at least 0.1"]),
        ("augment.gamma=[1,inf]", ["inf must be a finite number"]),
        ("optimizer.betas=[0.9,1]", ["optimizer.betas=[0.9, 1.0]", "under 1"]),
        ("model.head.hidden=[64,x]", ["x must be a whole number"]),
        ("logger.wandb.tags=[a,1]", ["1 must be text"]),
        ("model.head=3", ["model.head=3: is a section", "such as model.head.hidden"]),
        ("model.head=[3]", ["model.head=[3]: is a section"]),
        ("augment.scale={a:1}", ["augment.scale={a: 1}: must be a list in brackets"]),
        ("model.head={droput:0.1}", ["model.head.droput=0.1: no such key", "Did you mean model.head.dropout?"]),
        ("run.published={source:a,scores:{}}", ["run.published.protocol: missing"]),
        ("run.published={source:a,protocol:b,scores:{acuracy:1}}", ["Did you mean accuracy?"]),
        ("run.published={source:a,protocol:b,scores:{accuracy:x}}", ["must be a number"]),
        ("run.published={source:a,protocol:b,scores:{},x:1}", ["run.published.x: no such key"]),
        # references
        ("run.name=${seeds}", ["refers to seeds", "Did you mean seed?"]),
        ("run.name=${run.name}", ["refers to itself"]),
        ("run.name=${oc.env:DDTL_NOT_SET}", ["'DDTL_NOT_SET' not found"]),
        ("run.name=${nope:1}", ["no function is called nope"]),
        # grammar
        ("seed=1,2", ["Add -m", "seed=[…]"]),
        ("seed=range(3)", ["Add -m"]),
        ("seed=[1", ["cannot be read", "quotes"]),
        ("run.name='a", ["cannot be read"]),
        ("phantom", ["phantom: cannot be read. Write key=value"]),
        ("", ["'': cannot be read"]),
        ("=3", ["no such key"]),
        ("~optimizer", ["nothing can be removed"]),
        ("--foo", ["--foo: no such flag", "--help"]),
        ("--halp", ["Did you mean --help?"]),
        ("--seed=3", ["without dashes: seed=3"]),
        # values that only the checks know
        ("trainer.monitor=val/auc", ["no such score", "Did you mean val/roc_auc?", "val/loss"]),
        ("dataset.kind=covid19", ["Did you mean covid19ct?", "There are covid19ct"]),
        ("dataset.name=../x", ["plain folder name"]),
        ("dataset.name=' '", ["plain folder name"]),
        ("dataset.protocol=official", ["phantom has none", "grouped, random"]),
        ("model.name=densenet", ["Did you mean densenet121?"]),
        ("model.weights=imagenett", ["Did you mean imagenet?"]),
        ("model.weights=~nobody-here/a.ckpt", ["no such file or folder"]),
        ("dataset.phantom=null", ["take the dataset with dataset=phantom"]),
        ("dataset.phantom.sites=[a,c]", ["takes a, b or both"]),
        ("dataset.phantom.sites=[]", ["takes a, b or both"]),
        ("run.name=", ["run.name="]),
        ("run.name=../x", ["plain folder name", "paths.runs_dir"]),
        ("run.name=.x", ["plain folder name"]),
        ("run.name='a\tb'", ["printable"]),
        ("paths.data_dir=~nobody-here/x", ["no such user"]),
    ],
)
def test_a_mistake_is_named_with_its_mending(override: str, parts: list[str]) -> None:
    message = complaint(override)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (("dataset.val_fraction=0.6", "dataset.test_fraction=0.4"), ["under 1"]),
        (("finetune=linear_probe", "finetune.batchnorm=train"), ["Set finetune.batchnorm=frozen_stats"]),
        (("dataset.batch_size=30", "trainer.accumulate=4"), ["Set dataset.batch_size=32"]),
        (("dataset.batch_size=30", "trainer.devices=4096"), ["Set fewer trainer.devices", "of this machine"]),
        (("trainer=cpu", "trainer.precision=16-mixed"), ["needs a GPU", "bf16-mixed or 32"]),
        (("trainer.num_nodes=2",), ["trainer.strategy=ddp"]),
        (("dataset.protocol=kfold", "dataset.n_folds=4", "dataset.fold=4"), ["count from 0"]),
        (("dataset=covid19ct", "dataset.name=mine"), ["filed under its own name"]),
        (("dataset=phantom", "dataset.name=mine"), ["phantom is filed under its own name", "Leave dataset.name out"]),
        *(
            (("dataset=folder", "dataset.root=/tmp", f"dataset.name={name}"), [f"dataset.name=my_{name}"])
            for name in (*sources.RESERVED, "phantom", "covid19ct", "SARSCoV2CT")
        ),
        (
            ("dataset=pooled", "dataset.sources=[phantom:a,sweeps]", "dataset.own={sweeps: {root: /tmp}}"),
            ["dataset.own.sweeps: take another name"],
        ),
        (("trainer.max_epochs=99999999999999999999999",), ["at most 100000"]),
        (("dataset.batch_size=10000000",), ["at most 1000000"]),
        (("dataset.num_workers=5000",), ["at most 1000"]),
        (("dataset.phantom.n_patients=10000000",), ["at most 100000"]),
        (("dataset.phantom.size=1000000",), ["at most 4096"]),
        (("trainer.patience=99999999999",), ["at most 1000000"]),
        (("dataset=folder",), ["dataset.root=FOLDER"]),
        (("dataset=table",), ["dataset.table=FILE"]),
        (("dataset=folder", "dataset.root=/nowhere"), ["dataset.root=/nowhere", "no such folder"]),
        (("dataset=table", "dataset.table=/nowhere.csv"), ["dataset.table=/nowhere.csv", "no such file"]),
        ((*FROM_FOLDER, "dataset.patient_regex='(P'"), ["not a regular expression"]),
        ((*FROM_FOLDER, "dataset.patient_regex=P", f"dataset.patients={__file__}"), ["set one of them to null"]),
        ((*FROM_FOLDER, "dataset.classes=[a]"), ["two classes or more"]),
        (("experiment=ddtl_cov_covid19ct", "dataset=phantom"), ["phantom has none", "grouped, random"]),
    ],
)
def test_contradictory_settings_name_the_key_to_change(overrides: tuple[str, ...], parts: list[str]) -> None:
    message = complaint(*overrides)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_null_is_not_proposed_where_it_would_be_refused() -> None:
    assert complaint(*_LORA.split(), "finetune.rank=0").endswith("finetune.rank=0: must be at least 1.")


def test_every_mistake_comes_in_one_message() -> None:
    message = complaint(
        "--fast", "seed=x", "seeds=1", "dataset=phantum", "trainer.monitor=val/auc", "optimizer.lr=[",
        "run.name=${nope}", "model.head=3", "trainer.max_epochs=0", "dataset.batch_size=1,2", "augment.scale=[2,1]",
    )  # fmt: skip
    assert message.startswith("11 problems in the configuration:\n")
    for start in ("--fast:", "seed=x:", "seeds=1:", "dataset=phantum:", "trainer.monitor=val/auc:", "optimizer.lr=[:",
                  "run.name=${nope}:", "model.head=3:", "trainer.max_epochs=0:", "dataset.batch_size=1,2:",
                  "augment.scale=[2, 1]:"):  # fmt: skip
        assert message.count(f"\n  {start}") == 1


def test_a_mistake_has_no_echo() -> None:
    """Nothing is said about values that stand in for mistyped ones."""
    assert "\n" not in complaint("dataset=covid19c", "dataset.protocol=official")
    assert "\n" not in complaint("dataset=zzzzz", "dataset.protocol=official")
    assert "\n" not in complaint("dataset.batch_size=abc", "trainer.devices=3")
    assert "\n" not in complaint("seed=x", "seed=y")


def test_a_section_and_a_key_of_it_contradict() -> None:
    for overrides in (("model.head=3", "model.head.dropout=0.1"), ("model.head.dropout=0.1", "model.head=3")):
        assert "model.head=3: is a section" in complaint(*overrides)


def test_every_wrong_type_has_words_of_its_own() -> None:
    """No value of any key is answered with pydantic's sentence about it."""
    sound = yaml.safe_load(composed_yaml(["run.published={source: a, protocol: b, scores: {}}"]))
    sound["dataset"]["window"] = {"center": -600, "width": 1500, "slope": 1, "intercept": 0}
    for key in leaves(Config):
        for value in ("zzz", 1.5, -1, 10**12, True, None, [], [1], ["x", {}], {"a": 1}, float("nan"), float("inf")):
            tree = copy.deepcopy(sound)
            above, _, name = key.rpartition(".")
            (value_at(tree, above) if above else tree)[name] = value
            for named, line in convert(tree, Config)[1].items():
                assert named.startswith(key)
                assert line.startswith(f"{named}=") or "missing" in line or "no such key" in line
                assert not [word for word in JARGON if word in line.lower()], line


def test_paths_that_cannot_be_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for key in ("paths.data_dir", "paths.runs_dir", "paths.cache_dir"):
        assert "is not a folder" in complaint(f"{key}={tmp_path}/file/runs")
        load([f"{key}={tmp_path}/not/yet/there"])


def test_weights_are_looked_for_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_text("")
    (tmp_path / "epoch=3-val=0.9.ckpt").write_text("")
    (tmp_path / "run").mkdir()
    assert "ends in .safetensors" in complaint(f"model.weights={tmp_path}/w.txt")
    assert "no model.safetensors" in complaint(f"model.weights={tmp_path}/run")
    (tmp_path / "run" / "model.safetensors").write_text("")
    load([f"model.weights={tmp_path}/run"])
    load([f"model.weights={tmp_path}/epoch=3-val=0.9.ckpt"])
    assert "no such file" in complaint(f"model.weights={tmp_path}/{'x' * 300}")


def test_tensorboard_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'ddtl[tensorboard]'" in complaint("logger=tensorboard")


# --- what is accepted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=0", "seed", 0),
        ("seed=1_000", "seed", 1000),
        ("optimizer=sgd", "optimizer.name", "sgd"),
        ("+optimizer=sgd", "optimizer.name", "sgd"),
        ("optimizer.lr=1e-4", "optimizer.lr", 1e-4),
        ("+optimizer.lr=.5", "optimizer.lr", 0.5),
        ("++optimizer.lr=1", "optimizer.lr", 1.0),
        ("optimizer.lr=${optimizer.weight_decay}", "optimizer.lr", 0.01),
        ("trainer.patience=3", "trainer.patience", 3),
        ("trainer.patience=null", "trainer.patience", None),
        ("trainer.precision=32", "trainer.precision", 32),
        ("trainer.precision=bf16-mixed", "trainer.precision", "bf16-mixed"),
        ("trainer.channels_last=false", "trainer.channels_last", False),
        ("trainer.deterministic=False", "trainer.deterministic", False),
        ("augment.scale=[0.5,2]", "augment.scale", (0.5, 2.0)),
        ("augment.scale=[0.5, 2]", "augment.scale", (0.5, 2.0)),
        ("model.head.hidden=[]", "model.head.hidden", ()),
        ("model.head.hidden=[256,64]", "model.head.hidden", (256, 64)),
        ("model.head={dropout: 0.5}", "model.head", run.HeadConfig(hidden=(), dropout=0.5)),
        ("logger.wandb={mode: offline}", "logger.wandb.mode", "offline"),
        ("dataset.phantom.sites=[a,b]", "dataset.phantom.sites", ("a", "b")),
        ("logger.wandb.tags=[x y,'b,c']", "logger.wandb.tags", ("x y", "b,c")),
        ("run.name=null", "run.name", None),
        ("run.name='null'", "run.name", "null"),
        ("run.name='12'", "run.name", "12"),
        ('run.name="a, b"', "run.name", "a, b"),
        ("run.name=two words", "run.name", "two words"),
        ("run.name=50% [x]", "run.name", "50% [x]"),
        ("run.name='50% [x]'", "run.name", "50% [x]"),
        ("run.name=lr=0.1", "run.name", "lr=0.1"),
        ("run.name='lr=0.1'", "run.name", "lr=0.1"),
        ("run.name=s${seed}", "run.name", "s0"),
        ("paths.data_dir=~/my data", "paths.data_dir", "~/my data"),
        ("paths.data_dir=/tmp/x y/50%", "paths.data_dir", "/tmp/x y/50%"),
        ("logger.wandb.entity=", "logger.wandb.entity", ""),
        ("experiment=null", "run.published", None),
        ("+experiment=ddtl_cov_covid19ct", "run.published.scores", {"accuracy": 0.89}),
    ],
)
def test_hydras_grammar(override: str, key: str, value: Any) -> None:
    if override == "run.name=50% [x]":
        assert "quotes" in complaint(override)  # brackets start a list, so they want quotes
        return
    found = value_at(load([override]), key)
    assert found == value
    assert type(found) is type(value)


def test_the_last_of_several_counts() -> None:
    assert load(["seed=1", "seed=2"]).seed == 2
    assert load(["run.name=${nope}", "run.name=x"]).run.name == "x"
    assert load(["optimizer=sgd", "optimizer=adamw"]).optimizer.name == "adamw"
    assert load(["experiment=ddtl_cov_covid19ct", "experiment=null"]).dataset.name == "phantom"
    assert load(["model.head.dropout=0.1", "model.head={dropout: 0.3}"]).model.head.dropout == 0.3


def test_values_win_over_groups_and_experiments() -> None:
    config = load(["optimizer.lr=0.5", "experiment=ddtl_cov_covid19ct", "dataset.batch_size=8", "run.published=null"])
    assert (config.optimizer.lr, config.dataset.batch_size, config.run.published) == (0.5, 8, None)
    assert (config.dataset.name, config.trainer.max_epochs) == ("covid19ct", 30)


def test_the_environment_says_where_things_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DDTL_DATA", "DDTL_CACHE", "DDTL_WEIGHTS_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    paths = load().paths
    assert (paths.data_dir, paths.cache_dir, paths.weights_mirror) == ("data", "~/.cache/ddtl", None)
    monkeypatch.setenv("DDTL_DATA", "/tmp/x=[y] 12")
    monkeypatch.setenv("DDTL_CACHE", "12")
    monkeypatch.setenv("DDTL_WEIGHTS_MIRROR", "https://m")
    paths = load().paths
    assert (paths.data_dir, paths.cache_dir, paths.weights_mirror) == ("/tmp/x=[y] 12", "12", "https://m")
    monkeypatch.setenv("DDTL_DATA", "")
    assert "paths.data_dir=: must not be empty" in complaint()


def test_a_config_does_not_change() -> None:
    config = load()
    with pytest.raises(ValueError, match="frozen"):
        config.trainer.max_epochs = 3
    assert load() == config
    load(["seed=3", "model.head.hidden=[3]"])
    assert load() == config


@pytest.mark.parametrize(
    "overrides", [[], ["experiment=ddtl_cov_covid19ct", "seed=3"], ["optimizer.lr=1e-5", "run.name='12'"]]
)
def test_the_printed_configuration_is_the_configuration(overrides: list[str]) -> None:
    printed = yaml.safe_load(composed_yaml(overrides))
    assert Config.model_validate(printed) == load(overrides)
    assert "${" not in str(printed)


# --- the files --------------------------------------------------------------------------------------------------------


def leaves(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Dotted keys of all fields that are no section; a list of sections is a field."""
    for name, field in section.model_fields.items():
        inner = [
            each
            for each in (field.annotation, *get_args(field.annotation))
            if isinstance(each, type) and issubclass(each, Section)
        ]
        if inner and get_origin(field.annotation) is not tuple:
            yield from leaves(inner[0], f"{prefix}{name}.")
        else:
            yield prefix + name


def keys_of(tree: dict[str, Any], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in tree.items():
        found |= keys_of(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found


# What has no default: a person's own files, which of timm's networks, and one with attention.
_VOLUMES = [FROM_FOLDER[1], f"dataset.labels={__file__}"]
NEEDED = {
    "folder": [FROM_FOLDER[1]],
    "table": [f"dataset.table={__file__}"],
    "dicom": _VOLUMES,
    "nifti": _VOLUMES,
    "timm": ["model.name=resnet18"],
    "lora": ["model=timm:test_vit"],
    "features": ["finetune=linear_probe"],
}


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes(group: str, option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if option not in ("timm", "lora"):  # of which timm is imported here, and looks for packages itself
        monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: object())
    words = [f"{group}={option}", *NEEDED.get(option, [])]
    if option == "features":
        (tmp_path / "encoder.onnx").touch()
        words.append(f"model.file={tmp_path / 'encoder.onnx'}")
    config, warnings = check(words)
    if option in where.options(group) and group in Config.model_fields and hasattr(getattr(config, group), "name"):
        assert getattr(config, group).name == option or (option == "timm" and config.model.key == "timm:resnet18")
    # The phantom starts from random weights.
    assert not warnings or option in ("linear_probe", "logistic_probe", "lp_ft", "gradual", "features")


def test_every_folder_is_a_group_and_every_default_an_option() -> None:
    folders = {path.name for path in where.conf_dir().iterdir() if path.is_dir()}
    every = where.groups() | where.groups("sweep")
    assert folders == set(every)
    for group, default in every.items():
        assert default is None or default in where.options(group)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_key_in_the_files_has_a_comment(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("# ") and not line.startswith("# @") for line in lines[:2]), "says what it is for"
    if path.parent.name in ("experiment", "debug", "search"):
        return
    for before, line in zip(["", *lines], lines, strict=False):
        key, colon, value = line.partition(" #")[0].partition(":")
        if colon and value.strip() and not key.strip().startswith(("-", "#")):
            assert " # " in line or before.lstrip().startswith("# "), line


@pytest.mark.parametrize(("group", "option"), [each for each in OPTIONS if each[0] in Config.model_fields])
def test_every_field_is_in_every_option_of_its_group(group: str, option: str) -> None:
    tree = OmegaConf.to_container(compose.composed("train", {group: option}), resolve=False)
    found = keys_of(tree[group], f"{group}.")
    wanted = {key for key in leaves(Config) if key.startswith(f"{group}.")}
    if group == "dataset" and option not in ("phantom", "pooled"):
        wanted = {key for key in wanted if not key.startswith("dataset.phantom.")} | {"dataset.phantom"}
    wanted = {key for key in wanted if not key.startswith("dataset.window.")}  # null, or all of its keys
    sections = (("dataset", DatasetConfig), ("finetune", FinetuneConfig), ("model", ModelConfig))
    optional = {
        f"{above}.{name}"
        for above, section in sections
        for name, field in section.model_fields.items()
        if not field.is_required()
    }
    if group == "loss":
        # Every loss has the key for smoothing; one whose function takes none refuses all but 0.
        taken = {*inspect.signature(LOSSES[option]).parameters, "label_smoothing"}
        optional = taken - {"logits", "labels", "weights"}
        assert optional == {key.removeprefix("loss.") for key in found} - {"name", "class_weights"}
        optional = {f"loss.{key}" for key in optional}
    assert found | optional == wanted | optional


def test_every_other_field_stands_in_the_main_file() -> None:
    tree = yaml.safe_load((where.conf_dir() / "train.yaml").read_text(encoding="utf-8"))
    found = keys_of({key: value for key, value in tree.items() if key != "defaults"})
    wanted = {key for key in leaves(Config) if key.split(".")[0] not in where.groups()}
    published = {key for key in wanted if key.startswith("run.published.")}
    assert found == wanted - published | {"run.published"}


@pytest.fixture
def own_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, to be changed."""
    folder = tmp_path / "conf"
    shutil.copytree(where.conf_dir(), folder)
    for module in (where, compose):
        monkeypatch.setattr(module, "conf_dir", lambda: folder)
    return folder


def test_a_new_file_is_an_option(own_conf: Path) -> None:
    (own_conf / "experiment" / "42.yaml").write_text("# @package _global_\n# mine\nseed: 7\n")
    (own_conf / "experiment" / "my plan.yaml").write_text("# @package _global_\n# mine\nseed: 8\n")
    assert load(["experiment=42"]).seed == 7
    assert load(["experiment=my plan"]).seed == 8
    (own_conf / "experiment" / "42.yaml").write_text("# @package _global_\n# mine\nseed: 12\n")
    assert load(["experiment=42"]).seed == 12


def test_a_file_with_names_of_before_is_read(own_conf: Path) -> None:
    (own_conf / "experiment" / "old.yaml").write_text(
        "# @package _global_\n# mine\nmodel:\n  class_weights: balanced\n  label_smoothing: 0.1\n"
    )
    found = load(["experiment=old"]).loss
    assert (found.class_weights, found.label_smoothing) == ("balanced", 0.1)
    for word in ("model.class_weights=none", "loss.class_weights=none"):
        assert load(["experiment=old", word]).loss.class_weights == "none", "the command line counts more"
    with pytest.raises(ConfigError, match=r"loss.label_smoothing=7: must be less than 1"):
        load(["experiment=old", "loss.label_smoothing=7"])


def test_a_file_of_ones_own_counts_more_than_a_backbone_without_one(own_conf: Path) -> None:
    assert load(["model=resnet50"]).model.head.dropout == 0.2
    (own_conf / "model" / "resnet50.yaml").write_text(
        "# mine\ndefaults: [densenet121]\nname: resnet50\nhead: {dropout: 0.5}\n"
    )
    assert load(["model=resnet50"]).model.head.dropout == 0.5
    assert load(["model=resnet18"]).model.head.dropout == 0.2


def test_mistakes_in_files_are_mistakes_too(own_conf: Path) -> None:
    mine = own_conf / "experiment" / "mine.yaml"
    mine.write_text("# @package _global_\n# mine\noptimizer:\n  lrr: 1\ntrainer:\n  max_epochs: ten\n")
    message = complaint("experiment=mine")
    assert "optimizer.lrr: no such key. Did you mean optimizer.lr? It is set in a file under conf/." in message
    assert "trainer.max_epochs=ten: must be a whole number. It is set in a file under conf/." in message
    for text in ("seed: [", "defaults:\n  - override /dataset: nope", "seed: ${nope}", "trainer: 3"):
        mine.write_text(f"# @package _global_\n# mine\n{text}\n")
        with pytest.raises(UserError, match=r"conf|trainer"):
            load(["experiment=mine"])


def test_missing_or_broken_main_file(own_conf: Path) -> None:
    for text in ("defaults: [", "seed: 1", ""):
        (own_conf / "train.yaml").write_text(text)
        with pytest.raises(UserError, match=r"train\.yaml: cannot be read"):
            load()
    (own_conf / "train.yaml").unlink()
    with pytest.raises(UserError, match="Install ddtl again"):
        load()


# --- settings without effect ------------------------------------------------------------------------------------------

_WANDB = [
    (f"logger.wandb.{key}={value}", "logger=none", "logger=wandb")
    for key, value in (
        ("project", "x"),
        ("entity", "x"),
        ("group", "x"),
        ("tags", "[x]"),
        ("artifacts", "false"),
        ("timeout", "3"),
    )
]
_LORA = "model=timm:test_vit model.weights=none dataset.image_size=64 finetune=lora"
IDLE = [
    ("evaluation.replicates=500", "evaluation.interval=default", "evaluation.interval=bca"),
    ("evaluation.batchnorm=adapt", "evaluation.test=false", "evaluation.test=true"),
    ("evaluation.batchnorm_prior=16", "evaluation.batchnorm=stored", "evaluation.batchnorm=adapt"),
    ("dataset.harmonize=match", "dataset=sarscov2ct", "dataset=pooled"),
    ("evaluation.target=0.9", "evaluation.threshold=youden", "evaluation.threshold=sensitivity"),
    ("evaluation.threshold_unit=image", "evaluation.threshold=0.4", "evaluation.threshold=youden"),
    ("optimizer.momentum=0.5", "optimizer=adamw", "optimizer=sgd"),
    ("optimizer.betas=[0.5,0.5]", "optimizer=sgd", "optimizer=adamw"),
    ("optimizer.final_lr_ratio=0.5", "optimizer.schedule=constant", "optimizer.schedule=cosine"),
    ("finetune.backbone_lr_ratio=0.5", "finetune=linear_probe model.weights=imagenet", "finetune=full"),
    ("finetune.batchnorm=frozen_stats", "model=squeezenet1_1", "model=densenet121"),
    (
        "finetune.cached_views=4",
        "finetune=linear_probe model.weights=imagenet augment=none",
        "finetune=linear_probe model.weights=imagenet augment=standard",
    ),
    ("finetune.cache_gb=1", "finetune=full", "finetune=lp_ft model.weights=imagenet"),
    (
        "finetune.probe=0.5",
        "model.weights=imagenet finetune=lp_ft finetune.phases=[{name:a,train:[all],fraction:1.0}]",
        "model.weights=imagenet finetune=lp_ft",
    ),
    *(
        (f"finetune.{key}=4", f"{_LORA} finetune.phases=[{{name:a,train:[all],fraction:1.0}}]", _LORA)
        for key in ("rank", "alpha")
    ),
    *(
        (f"{key}=0.3", "finetune=logistic_probe model.weights=imagenet", "finetune=full")
        for key in ("optimizer.lr", "optimizer.weight_decay", "model.head.dropout", "finetune.head_lr_ratio")
    ),
    ("dataset.split_seed=1", "dataset=covid19ct", "dataset=sarscov2ct"),
    ("dataset.val_fraction=0.2", "dataset=covid19ct", "dataset=sarscov2ct"),
    ("dataset.test_fraction=0.3", "dataset=covid19ct", "dataset=sarscov2ct"),
    ("dataset.fold=1", "dataset=covid19ct", "dataset.protocol=kfold"),
    ("dataset.n_folds=4", "dataset=covid19ct", "dataset.protocol=kfold"),
    ("dataset.phantom.gap=grey", "dataset.phantom.sites=[a]", "dataset.phantom.sites=[a,b]"),
    ("trainer.strategy=ddp", "trainer=gpu", "trainer.devices=2"),
    ("logger.upload_samples=true", "logger=none", "logger=wandb"),
    ("logger.mlflow.store=http://127.0.0.1:5000", "logger=none", "logger=mlflow"),
    ("logger.mlflow.experiment=x", "logger=none", "logger=mlflow"),
    *_WANDB,
]


def test_every_setting_without_effect_has_a_case() -> None:
    assert {key for key, _, _ in checks.WITHOUT_EFFECT} == {override.partition("=")[0] for override, _, _ in IDLE}


@pytest.mark.parametrize(("override", "idle", "busy"), IDLE, ids=[override for override, _, _ in IDLE])
def test_a_setting_without_effect_is_told_where_it_was_typed(override: str, idle: str, busy: str) -> None:
    key = override.partition("=")[0]
    _, warnings = check([*idle.split(), override])
    assert [line for line in warnings if line.startswith(f"{key} has no effect: ")] == warnings
    assert len(warnings) == 1
    assert check(idle.split())[1] == []
    assert check([*busy.split(), override])[1] == []


def test_a_dict_is_typed_too() -> None:
    _, warnings = check(["logger=none", "logger.wandb={group: x}"])
    assert [line.partition(" ")[0] for line in warnings] == ["logger.wandb.group"]


def test_warnings_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("ddtl.config.load")
    logger.addHandler(handler)
    try:
        load(["finetune=linear_probe", "optimizer.momentum=0.5"])
    finally:
        logger.removeHandler(handler)
    assert [line.partition(" ")[0] for line in seen] == ["optimizer.momentum", "finetune=linear_probe"]


# --- anything at all --------------------------------------------------------------------------------------------------

_KEYS = st.sampled_from([*leaves(Config), "model.head", "dataset.phantom", "run.published", "logger.wandb"])
_VALUES = st.one_of(
    st.text(max_size=12),
    st.text(alphabet="[]{}()',\"$:=~\\.ab1-e ", max_size=10),
    st.sampled_from(["null", "true", "1", "-1", "1e-4", "inf", "[1,2]", "{a:1}", "${seed}", "${.x}", "???", "'q'"]),
)


def answered(overrides: list[str]) -> None:
    """A configuration or a message; any other exception is a bug."""
    with contextlib.suppress(UserError):
        assert isinstance(load(overrides), Config)


@pytest.mark.slow
@given(st.lists(st.tuples(_KEYS, _VALUES).map("=".join), min_size=1, max_size=3))
@settings(max_examples=120, deadline=None)
def test_any_value_is_taken_or_answered(overrides: list[str]) -> None:
    answered(overrides)


@given(st.one_of(st.text(max_size=15), st.tuples(st.text(max_size=10), _VALUES).map("=".join)), _KEYS, st.randoms())
@settings(max_examples=80, deadline=None)
def test_any_word_is_taken_or_answered(word: str, key: str, random: Any) -> None:
    letters = list(key)
    letters[random.randrange(len(letters))] = random.choice("abc._-")
    for text in (word, f"{''.join(letters)}=1"):
        answered([text])


@given(st.sampled_from([*leaves(Config)]), st.randoms())
@settings(max_examples=60, deadline=None)
def test_a_key_with_one_letter_missing_is_recognised(key: str, random: Any) -> None:
    at = random.randrange(len(key.rpartition(".")[0]) + 1, len(key))
    mistyped = key[:at] + key[at + 1 :]
    if mistyped not in leaves(Config):
        assert closest(mistyped, list(leaves(Config))) is not None


# --- what other modules hold ------------------------------------------------------------------------------------------


def test_the_lists_agree_with_the_code() -> None:
    from ddtl.data.datasets.registry import DATASETS
    from ddtl.schema.backbones import BACKBONES

    assert {*BACKBONES, "timm", "features"} == set(where.options("model"))
    assert set(LOSSES) == set(where.options("loss"))
    assert set(DATASETS) == set(where.options("dataset"))


def test_seed_0_is_a_seed() -> None:
    from ddtl.models.weights import Weights
    from ddtl.training.hardware import Hardware
    from ddtl.training.identity import identity, run_name

    machine = Hardware("cpu", "32-true", "")
    names = []
    for seed in range(3):
        config = load([f"seed={seed}"])
        assert config.seed == seed
        names.append(run_name(config, identity(config, machine, "digest", Weights("none", None, None))))
    assert len(set(names)) == 3
    assert all(f"-s{seed}-" in name for seed, name in enumerate(names))
