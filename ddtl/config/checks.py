"""What no single field can tell: settings that contradict each other or the dataset, and settings without effect."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ddtl.config.schema import Config
from ddtl.config.suggest import did_you_mean
from ddtl.evaluation.names import MONITORS, SCORES

# What each dataset offers; a new dataset gets its line here and its class in ddtl/data/datamodules.py.
DATASET_PROTOCOLS: dict[str, tuple[str, ...]] = {
    "phantom": ("grouped", "random"),
    "covid19ct": ("official", "grouped", "random"),
    "sarscov2ct": ("grouped", "random"),
}
# The backbones of ddtl/models/backbones.py; a test holds the two lists together.
MODELS: tuple[str, ...] = ("densenet121", "squeezenet1_1")

WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".ckpt")


def problems(config: Config) -> list[str]:
    """A line for each contradiction, naming the key to change."""
    every = (_names, _run, _paths, _ranges, _hardware, _weights, _phantom, _loggers)
    return [line for check in every for line in check(config)]


def _names(c: Config) -> Iterator[str]:
    protocols = DATASET_PROTOCOLS.get(c.dataset.name)
    if protocols is None:
        hint = did_you_mean(c.dataset.name, DATASET_PROTOCOLS)
        yield f"dataset.name={c.dataset.name}: no such dataset.{hint} There are {', '.join(DATASET_PROTOCOLS)}."
    elif c.dataset.protocol not in protocols:
        yield f"dataset.protocol={c.dataset.protocol}: {c.dataset.name} has none. There are {', '.join(protocols)}."
    if c.model.name not in MODELS:
        hint = did_you_mean(c.model.name, MODELS)
        yield f"model.name={c.model.name}: no such model.{hint} There are {', '.join(MODELS)}."
    if c.trainer.monitor not in MONITORS:
        hint = did_you_mean(c.trainer.monitor, MONITORS)
        yield f"trainer.monitor={c.trainer.monitor}: no such score.{hint} There are {', '.join(MONITORS)}."


def _run(c: Config) -> Iterator[str]:
    name = c.run.name
    if name is not None and not (name.strip() and name.isprintable() and len(name.encode(errors="replace")) <= 200):
        yield f"run.name={name!r}: must be 1 to 200 printable characters. Leave it out, and the run is named for you."
    elif name is not None and (name.startswith(".") or set(name) & set("/\\")):
        yield f"run.name={name}: must be a plain folder name; paths.runs_dir says where that folder lies."
    for score in c.run.published.scores if c.run.published is not None else ():
        if score not in SCORES:
            hint = did_you_mean(score, SCORES)
            yield f"run.published.scores.{score}: no such score.{hint} There are {', '.join(SCORES)}."


def _paths(c: Config) -> Iterator[str]:
    for key, text, written in (
        ("paths.data_dir", c.paths.data_dir, False),
        ("paths.runs_dir", c.paths.runs_dir, True),
        ("paths.cache_dir", c.paths.cache_dir, True),
    ):
        path = os.path.expanduser(text)
        if path.startswith("~"):
            yield f"{key}={text}: there is no such user. A folder that is called ~ is written ./~."
            continue
        there = _nearest(path)
        if not os.path.isdir(there):
            yield f"{key}={text}: {there} is not a folder."
        elif written and not os.access(there, os.W_OK | os.X_OK):
            yield f"{key}={text}: {there} cannot be written to."


def _nearest(path: str) -> str:
    """The path itself, or the first folder above it that exists."""
    path = os.path.abspath(path)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _ranges(c: Config) -> Iterator[str]:
    if c.dataset.val_fraction + c.dataset.test_fraction >= 1:
        yield "dataset.val_fraction and dataset.test_fraction leave nothing to train on; their sum must be under 1."
    for key, (low, high) in (("augment.scale", c.augment.scale), ("augment.gamma", c.augment.gamma)):
        if not 0 < low <= high:
            yield f"{key}=[{low}, {high}]: must be a range of positive factors, the smaller one first."
    if not all(0 <= beta < 1 for beta in c.optimizer.betas):
        yield f"optimizer.betas={list(c.optimizer.betas)}: each must be at least 0 and under 1."
    if c.finetune.name == "linear_probe" and c.finetune.batchnorm != "frozen_stats":
        yield "finetune.batchnorm=train: a linear probe leaves the backbone alone. Set finetune.batchnorm=frozen_stats."


def _hardware(c: Config) -> Iterator[str]:
    parts = c.trainer.devices * c.trainer.num_nodes * c.trainer.accumulate
    if c.dataset.batch_size % parts:
        up = -(-c.dataset.batch_size // parts) * parts
        yield (
            f"dataset.batch_size={c.dataset.batch_size} is the whole batch and cannot be shared out evenly over "
            f"trainer.devices × trainer.num_nodes × trainer.accumulate = {parts}. Set dataset.batch_size={up}."
        )
    if c.trainer.precision == "16-mixed" and c.trainer.accelerator == "cpu":
        yield "trainer.precision=16-mixed needs a GPU; on a CPU use trainer.precision=bf16-mixed or 32."
    if c.trainer.num_nodes > 1 and c.trainer.strategy == "auto" and c.trainer.devices == 1:
        yield "trainer.num_nodes > 1 needs trainer.strategy=ddp."


def _weights(c: Config) -> Iterator[str]:
    weights = c.model.weights
    if weights in ("imagenet", "none"):
        return
    path = Path(os.path.expanduser(weights))
    if not os.path.exists(path):
        hint = did_you_mean(weights, ("imagenet", "none"))
        yield f"model.weights={weights}: no such file or folder.{hint} It takes imagenet, none, a file or a run folder."
    elif path.is_dir() and not (path / "model.safetensors").is_file():
        yield f"model.weights={weights}: not the folder of a finished run, it holds no model.safetensors."
    elif path.is_file() and path.suffix not in WEIGHT_FILES:
        yield f"model.weights={weights}: a weights file ends in {', '.join(WEIGHT_FILES)}."


def _phantom(c: Config) -> Iterator[str]:
    if c.dataset.name != "phantom":
        return
    if c.dataset.phantom is None:
        yield "dataset.phantom is empty: take the dataset with dataset=phantom, not with dataset.name=phantom."
        return
    sites = c.dataset.phantom.sites
    if not sites or set(sites) - {"a", "b"} or len(set(sites)) != len(sites):
        yield f"dataset.phantom.sites=[{', '.join(sites)}]: takes a, b or both."


def _loggers(c: Config) -> Iterator[str]:
    if c.logger.tensorboard and importlib.util.find_spec("tensorboard") is None:
        yield "logger.tensorboard=true needs a package that is not here: pip install 'ddtl[tensorboard]'."


# (key, whether it has no effect, why): a line is logged where such a key was set on the command line.
WITHOUT_EFFECT: tuple[tuple[str, Callable[[Config], bool], str], ...] = (
    ("optimizer.momentum", lambda c: c.optimizer.name == "adamw", "adamw has no momentum; see optimizer.betas"),
    ("optimizer.betas", lambda c: c.optimizer.name == "sgd", "sgd has no betas; see optimizer.momentum"),
    ("optimizer.final_lr_ratio", lambda c: c.optimizer.schedule == "constant", "the rate is constant"),
    ("finetune.backbone_lr_ratio", lambda c: c.finetune.name == "linear_probe", "the backbone is frozen"),
    ("dataset.split_seed", lambda c: c.dataset.protocol == "official", "the official split is fixed"),
    ("dataset.val_fraction", lambda c: c.dataset.protocol == "official", "the official split is fixed"),
    ("dataset.test_fraction", lambda c: c.dataset.protocol == "official", "the official split is fixed"),
    ("trainer.strategy", lambda c: c.trainer.devices * c.trainer.num_nodes == 1, "there is one process"),
    *(
        (f"logger.wandb.{key}", lambda c: c.logger.wandb.mode == "disabled", "W&B is off: logger.wandb.mode=disabled")
        for key in ("project", "entity", "group", "tags", "timeout")
    ),
    ("logger.upload_samples", lambda c: c.logger.wandb.mode == "disabled", "nothing is uploaded: W&B is off"),
    ("finetune.batchnorm", lambda c: c.model.name == "squeezenet1_1", "squeezenet1_1 has no BatchNorm"),
)


def warnings(config: Config, explicit: set[str]) -> list[str]:
    """A line for each setting among ``explicit`` that changes nothing, and for likely slips."""
    lines = [f"{key} has no effect: {why}." for key, idle, why in WITHOUT_EFFECT if key in explicit and idle(config)]
    if config.finetune.name == "linear_probe" and config.model.weights == "none":
        lines.append("finetune=linear_probe with model.weights=none trains a head on random features.")
    return lines
