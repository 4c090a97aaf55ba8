"""``ddtl lr-find``: a learning-rate range test of what ``train.py`` would train, and the rates that it suggests."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from rich.markup import escape

from ddtl.commands.arguments import Command, OutputFolder, Words
from ddtl.config import command_line, load
from ddtl.lr_find.rules import LEAST_STEPS, RULES, ramp, settings_for, suggest
from ddtl.schema.run import Config
from ddtl.schema.section import Section
from ddtl.utils import console
from ddtl.utils.errors import UserError
from ddtl.utils.files import write_json, write_text

if TYPE_CHECKING:
    from ddtl.training.run import Run

# What a range test looks for: given values are replaced by those that it finds.
_MOST_STEPS = 10_000
_SOUGHT = ("optimizer.lr", "finetune.backbone_lr_ratio", "finetune.head_lr_ratio")


class LrFindSettings(Section):
    """Settings of ``ddtl lr-find``."""

    lr_min: float = Field(1e-7, gt=0, allow_inf_nan=False, description="where the rate begins")
    lr_max: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="where it ends, if the loss has not diverged before"
    )
    steps: int = Field(100, ge=LEAST_STEPS, le=_MOST_STEPS, description="of the optimiser")
    output: OutputFolder | None = Field(
        None,
        description="a folder for lr_find.json and lr_find.html; else <paths.runs_dir>/lr_find/<dataset>-<run>/",
    )


COMMAND = Command(
    "lr-find",
    LrFindSettings,
    intro="Look for a learning rate: train a copy of the network while the rate rises from far too small to far too "
    "large, and read the rate off the curve of the loss. Nothing of a run is touched, and only training images are "
    "examined.",
    examples=(
        ("lr-find dataset=covid19ct", ""),
        ("lr-find dataset=covid19ct model=squeezenet1_1 finetune=full optimizer=sgd lr_max=10", ""),
        ("lr-find finetune=linear_probe steps=200 output=lr/", ""),
    ),
    notes=(
        "It takes what train.py takes besides, and so tests what that would train: images, augmentation, optimiser and "
        "precision. The head alone and the whole network are tested one after the other, in this process. The line at "
        "the end is train.py with the rates suggested; docs/lr_find.md says how they are read and what they are worth.",
    ),
    exit_codes="0 there is a suggestion, 1 there is none (the message says why), 2 a mistake in the command",
    configures=True,
)


def main(argv: Sequence[str]) -> int:
    """Run ``ddtl lr-find`` with the words that follow it; return the exit code.

    Raises:
        UserError: a mistake in the command, the configuration or the data, before anything is trained.
    """
    command = command_line.parse(argv)
    if command.help:
        COMMAND.wants_help(["--help"])
        return 0
    if command.multirun or command.show_config:
        raise UserError("`ddtl lr-find` takes one configuration and no flag but --help; train.py takes -m and --cfg.")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError("`ddtl lr-find` works in one process: start it without torchrun.")
    words, config = parse(command.overrides)
    settings = words.settings
    from ddtl.data.datasets import registry
    from ddtl.utils.memory import tune_allocator

    registry.require_images(config)
    tune_allocator()
    from ddtl.training.failures import reported_failures
    from ddtl.training.train import assemble

    run = assemble(_in_one_process(config))
    folder = settings.output or run.runs_dir / "lr_find" / f"{config.dataset.name}-{run.path.name}"
    with reported_failures(folder):
        found = measure(run, words)
    _write(folder, found)
    _show(found, folder)
    return 0 if found["command"] else 1


def parse(argv: Sequence[str]) -> tuple[Words[LrFindSettings], Config]:
    """Return own settings and those of train.py, all mistakes in one message.

    Raises:
        UserError: there are mistakes.
    """
    configs: list[Config] = []

    def check(settings: LrFindSettings, others: tuple[str, ...]) -> list[str]:
        found = []
        if settings.lr_min >= settings.lr_max:
            found.append(f"lr_min={settings.lr_min:g}: must be less than lr_max={settings.lr_max:g}.")
        try:
            configs.append(load.load(others, writes=settings.output is None))
        except load.ConfigError as error:
            return [*found, *error.problems]
        if configs[0].finetune.penalties is not None:
            name = configs[0].finetune.name
            found.append(f"finetune={name} takes no steps, so there is no rate to find. Set finetune=linear_probe.")
        return found

    words = COMMAND.read(argv, problems=check)
    for key in sorted({_key(word) for word in words.rest} & {*_SOUGHT}):
        console.line(f"{key} has no effect here: it is what is searched for.")
    return words, configs[0]


def measure(run: Run, words: Words[LrFindSettings]) -> dict[str, Any]:
    """Run the tests that the schedule gives reason for; the record of all that was measured and is suggested.

    Raises:
        UserError: the first loss is not a number.
    """
    from ddtl.lr_find.range_test import plan_of, range_test

    settings, plan = words.settings, plan_of(run)
    rates = ramp(settings.lr_min, settings.lr_max, settings.steps)
    found: dict[str, dict[str, Any]] = {}
    for name, states in (("head", plan.head), ("network", plan.network)):
        if states is None:
            continue
        with console.progress(f"range test, {name}") as bar:
            curve = range_test(run, states, rates, bar)
        if not len(curve.losses):
            raise UserError(
                f"the loss is infinite or no number at the first step, at a rate of {settings.lr_min:g}: the images or "
                "the initial weights are amiss. python train.py with debug=anomaly names the cause."
            )
        estimate = suggest(curve, settings.steps)
        found[name] = {
            "rate": estimate.rate,
            "rules": estimate.rules,
            "why_not": estimate.why_not,
            "notes": list(estimate.notes),
            "ended": curve.ended,
            "lr": curve.rates.tolist(),
            "loss": curve.losses.tolist(),
            "loss_untrained": [] if curve.untrained is None else curve.untrained.tolist(),
            "smoothed": estimate.smoothed.tolist(),
        }
    rate_of = {name: test["rate"] for name, test in found.items()}
    suggestion = settings_for(
        rate_of.get("head"), rate_of.get("network"), plan.head_rate, head_alone=plan.network is None
    )
    return {**_about(run, settings), "suggestion": suggestion, "command": _line(words.rest, suggestion),
            "tests": found}  # fmt: skip


def _about(run: Run, settings: LrFindSettings) -> dict[str, Any]:
    config = run.config
    return {
        "dataset": config.dataset.name,
        "model": config.model.name,
        "finetune": config.finetune.name,
        "optimizer": config.optimizer.name,
        "batch_size": config.dataset.batch_size,
        "precision": run.machine.precision,
        "accelerator": run.machine.accelerator,
        "seed": config.seed,
        "lr_min": settings.lr_min,
        "lr_max": settings.lr_max,
        "steps": settings.steps,
        "rules": list(RULES),
    }


def _in_one_process(config: Config) -> Config:
    """Return the same batches in one process: what several would process at once is accumulated one after the other."""
    t = config.trainer
    accumulate = t.accumulate * t.devices * t.num_nodes
    alone = {"devices": 1, "num_nodes": 1, "strategy": "auto", "accumulate": accumulate}
    return config.model_copy(update={"trainer": t.model_copy(update=alone)})


def _line(words: Sequence[str], suggestion: Mapping[str, float]) -> str | None:
    """Return the command that trains with the suggestion; None where there is none."""
    if not suggestion:
        return None
    kept = [word for word in words if _key(word) not in _SOUGHT]
    return shlex.join(["python", "train.py", *kept, *(f"{key}={value:g}" for key, value in suggestion.items())])


def _key(word: str) -> str:
    return word.lstrip("+").partition("=")[0]


def _write(folder: Path, found: Mapping[str, Any]) -> None:
    from ddtl.reports.run.lr_find import page

    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "lr_find.json", found)
        write_text(folder / "lr_find.html", page(found))
    except OSError as error:
        reason = f"{error.filename or folder}: cannot be written ({error.strerror})"
        raise UserError(f"{reason}. Name another folder with output=FOLDER.") from error


def _show(found: Mapping[str, Any], folder: Path) -> None:
    from ddtl.reports.comparison.tables import for_terminal
    from ddtl.reports.run.lr_find import answer, remarks, suggestions

    console.out.print(escape(answer(found)))
    console.out.print(for_terminal(suggestions(found)), soft_wrap=False)
    for remark in remarks(found):
        console.out.print(f"! {escape(remark)}", style="yellow")
    if found["command"]:
        console.out.print(escape(found["command"]))
    console.line(f"curves: {folder / 'lr_find.html'}")
