"""``--help``: what can be asked for, read from the files under ``conf/`` themselves."""

from __future__ import annotations

from pathlib import Path

from ddtl.config.where import conf_dir

_GROUPS = (
    ("dataset", "the images"),
    ("model", "backbone and head"),
    ("finetune", "which stages train"),
    ("augment", "how training images are varied"),
    ("optimizer", "optimiser and learning rate"),
    ("trainer", "length, hardware, precision"),
    ("logger", "who is shown the curves"),
    ("evaluation", "what is scored"),
    ("experiment", "a whole study's settings"),
    ("debug", "for finding faults"),
)

_HEAD = """\
Train, score and record one model. The same command goes on with a run that was stopped, and shows one that is finished.

  python train.py                                   the defaults: DenseNet121 on the built-in phantom
  python train.py dataset=covid19ct                 real images, from paths.data_dir (or the variable DDTL_DATA)
  python train.py dataset=covid19ct finetune=linear_probe optimizer.lr=1e-3 seed=1
  python train.py -m seed=0,1,2                     one run after the other
  python train.py experiment=ddtl_cov_covid19ct     a paper's study; its header says what to expect

Flags
  --help, -h        this page
  --cfg job         print every setting as it would be used, and stop
  --multirun, -m    run every combination of values given as a,b,c

Groups: take another option with group=option
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
Every key with its meaning stands in conf/<group>/<option>.yaml.
Exit codes: 0 done, 1 failed in the middle (the same command goes on), 2 a mistake in the command, 130/143 stopped.
"""


def render() -> str:
    """The page as text."""
    folder = conf_dir()
    lines = [_HEAD]
    for group, what in _GROUPS:
        lines.append(f"  {group}: {what}")
        for path in sorted((folder / group).glob("*.yaml")):
            lines.append(f"    {path.stem:<20} {_first_comment(path)}")
    lines.append(_TAIL)
    comments = {key: comment for path in _default_files(folder) for key, comment in _comments(path, folder)}
    lines += [f"  {key:<22} {comments[key]}" for key in _KEYS]
    lines.append(_FOOT)
    return "\n".join(lines)


def _first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(
        line.removeprefix("# ").strip() for line in lines if line.startswith("# ") and not line.startswith("# @")
    )


def _default_files(folder: Path) -> list[Path]:
    names = ("train", "trainer/auto", "optimizer/adamw", "dataset/phantom", "model/densenet121", "evaluation/default")
    return [folder / f"{name}.yaml" for name in names]


def _comments(path: Path, folder: Path) -> list[tuple[str, str]]:
    """(dotted key, comment) of each commented line of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    above = "" if path.parent == folder or lines[0].startswith("# @package _global_") else f"{path.parent.name}."
    found: list[tuple[str, str]] = []
    parents: list[tuple[int, str]] = []
    before = ""
    for line in lines:
        text, _, comment = line.partition(" # ")
        key, colon, _ = text.strip().partition(":")
        if line.lstrip().startswith("#"):
            before = line.lstrip("# ").strip()
        elif colon and not key.startswith("-"):
            indent = len(text) - len(text.lstrip())
            parents = [(i, name) for i, name in parents if i < indent]
            dotted = above + ".".join([*(name for _, name in parents), key])
            if comment or before:
                found.append((dotted, comment.strip() or before))
            parents.append((indent, key))
            before = ""
    return found
