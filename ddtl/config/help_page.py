"""``--help``: what can be requested, read from the files under ``conf/`` themselves."""

from __future__ import annotations

import textwrap
from pathlib import Path

from ddtl.config.where import bases_of, conf_dir, groups, option_file, options, text_of
from ddtl.schema.backbones import spec_of

_HEAD = """\
Train, score and record one model. The same command resumes a run that was stopped, and shows a finished one.

  python train.py                                   the defaults: DenseNet121 on the built-in phantom
  python train.py dataset=covid19ct                 real images, from paths.data_dir (or the variable DDTL_DATA)
  python train.py dataset=covid19ct finetune=linear_probe optimizer.lr=1e-3 seed=1
  python train.py -m seed=0,1,2                     one run after the other
  python train.py experiment=ddtl_cov_covid19ct     a paper's study; its header says what to expect

Flags
  --help, -h        this page
  --cfg job         print every setting as it would be used, and stop
  --multirun, -m    run every combination of values given as a,b,c
  --config-dir DIR  a folder of your own options: DIR/finetune/mine.yaml is finetune=mine (or the variable DDTL_CONF)

Groups: take another option with group=option; * marks the one taken if none is named
"""

_TAIL = """
Values: change one with group.key=value. The ones most used:
"""

_KEYS = (
    "seed", "trainer.max_epochs", "trainer.devices", "trainer.precision", "trainer.patience", "optimizer.lr",
    "dataset.batch_size", "dataset.image_size", "dataset.protocol", "model.weights", "evaluation.test",
    "paths.data_dir", "paths.runs_dir", "run.name", "run.overwrite",
)  # fmt: skip

_FOOT = """
Every key is explained in conf/<group>/<option>.yaml. Quote values with special signs: run.name="'a, b'".
Exit codes: 0 done, 1 failed in the middle (the same command resumes), 2 a mistake in the command, 129/130/143 stopped.
"""


def render() -> str:
    """The page as text."""
    comments = _key_comments("train")
    keys = [row(f"  {key}", comments[key]) for key in _KEYS]
    return "\n".join([_HEAD, *group_rows("train"), _TAIL, *keys, _FOOT])


def group_rows(config_name: str) -> list[str]:
    """The groups of ``conf/<config_name>.yaml``, each with its options; * marks the one taken if none is named."""
    folder = conf_dir()
    comments = file_comments(folder / f"{config_name}.yaml", "")
    lines = []
    for group, default in groups(config_name).items():
        lines.append(f"  {group}: {comments[f'- {group}']}")
        for option in options(group):
            mark = "*" if option == default else " "
            lines.append(row(f"  {mark} {option}", _first_comment(option_file(group, option))))
    return lines


def _key_comments(config_name: str) -> dict[str, str]:
    """What ``conf/<config_name>.yaml`` and the options taken if none is named say about each key."""
    folder = conf_dir()
    comments = file_comments(folder / f"{config_name}.yaml", "")
    for group, default in groups(config_name).items():
        if default is not None:
            comments = file_comments(folder / group / f"{default}.yaml", f"{group}.") | comments
    return comments


def every_comment(config_name: str) -> dict[str, str]:
    """The comments of ``conf/`` on each key, those of the default options first."""
    comments = _key_comments(config_name)
    for group in groups(config_name):
        for path in (option_file(group, option) for option in options(group)):
            if path.exists():  # that of a backbone may not
                comments = file_comments(path, f"{group}.") | comments
    return comments


def row(name: str, text: str) -> str:
    """A name and what it means, the latter to its right or below it."""
    return textwrap.fill(text, width=118, initial_indent=f"{name:<25} ", subsequent_indent=" " * 26)


def _first_comment(path: Path) -> str:
    if not path.exists():  # of a backbone
        return spec_of(path.stem).about
    lines = text_of(path).splitlines()
    return next((line[2:].strip() for line in lines if line.startswith("# ") and not line.startswith("# @")), "")


def file_comments(path: Path, prefix: str) -> dict[str, str]:
    """The comment on or directly above each line of a file, by dotted key (``- group`` in the defaults list).

    Keys of the files that it begins with are among them.
    """
    found: dict[str, str] = {}
    for base in bases_of(path):
        found |= file_comments(base, prefix)
    lines = text_of(path).splitlines()
    if lines and lines[0].startswith("# @package _global_"):
        prefix = ""
    parents: list[tuple[int, str]] = []
    above = ""
    for line in lines:
        text, _, comment = line.partition(" # ")
        key, colon, _ = text.strip().partition(":")
        if line.lstrip().startswith("#"):
            above = line.lstrip("# ").strip()
        elif colon and key.startswith("-"):
            found[key] = comment.strip()
        elif colon:
            indent = len(text) - len(text.lstrip())
            parents = [(depth, name) for depth, name in parents if depth < indent]
            dotted = prefix + ".".join([*(name for _, name in parents), key])
            found[dotted] = comment.strip() or above
            parents.append((indent, key))
            above = ""
    return found
