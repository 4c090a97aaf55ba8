"""``ddtl finetune show``: a schedule's table before anything trains."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from rich.markup import escape
from rich.table import Table

from ddtl.commands.arguments import Command
from ddtl.config.load import load
from ddtl.config.where import options
from ddtl.finetuning.schedule import Schedule, compile_schedule
from ddtl.reports.run import schedule_svg
from ddtl.schema.backbones import spec_of, stages_of
from ddtl.schema.section import Section
from ddtl.utils import console
from ddtl.utils.errors import UserError
from ddtl.utils.files import cannot_write, write_text
from ddtl.utils.suggest import did_you_mean
from ddtl.utils.wording import count


def _svg_file(file: object) -> object:
    """Return the file that ``svg=`` names; raises ValueError where it cannot be written, or has another suffix."""
    if not isinstance(file, str):
        return file
    path = Path(file).expanduser()
    if not file or not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} to write to. Name a file in one that is there.")
    if path.is_dir():
        raise ValueError(f"is a folder. Name a file in it: svg={path / 'schedule.svg'}")
    if path.suffix.lower() not in ("", ".svg"):
        raise ValueError(f"the image is an SVG. Name it so: svg={path.with_suffix('.svg')}")
    if problem := cannot_write(path.parent):
        raise ValueError(f"{problem}. Name a file in another folder.")
    return path


SvgFile = Annotated[Path, BeforeValidator(_svg_file)]


class FinetuneSettings(Section):
    """Settings of ``ddtl finetune show``, in addition to those of train.py."""

    svg: SvgFile | None = Field(None, description="a file to draw it into, too; the run's report has the same image")


COMMAND = Command(
    "finetune show",
    FinetuneSettings,
    intro="Show what a fine-tuning schedule makes of each stage in each epoch. Nothing is trained, and no image is "
    "read.",
    examples=(
        ("finetune show finetune=gradual trainer.max_epochs=20", ""),
        ("finetune show finetune=lp_ft model=resnet50 dataset=covid19ct svg=schedule.svg", ""),
    ),
    notes=(
        "It takes the settings of train.py, so what follows `train.py` on a command line can be shown as it is.",
        f"Schedules: {', '.join(options('finetune'))}. docs/finetuning.md says how to write one's own.",
    ),
    exit_codes="0 shown, 2 a mistake in the settings (the message says what to change)",
    configures=True,
)


def main(argv: Sequence[str]) -> int:
    """Run ``ddtl finetune`` with the words that follow it; return the exit code.

    Raises:
        UserError: a mistake in the command or in the settings.
    """
    if COMMAND.wants_help(argv):
        return 0
    action, *words = argv
    if action != "show":
        raise UserError(f"ddtl finetune {action}: no such action.{did_you_mean(action, ['show'])} There is show.")
    typed = COMMAND.read(words)
    config = load(typed.rest, writes=False)
    stages, epochs = stages_of(config.model.key), config.trainer.max_epochs
    schedule = compile_schedule(config.finetune, stages, epochs)
    has_batchnorm = spec_of(config.model.key).has_batchnorm
    title = f"{config.finetune.name} · {config.model.name} · {count(epochs, 'epoch')}"
    console.out.print(table(schedule, title, has_batchnorm))
    if len(stages) > _MOST_COLUMNS + 1:
        console.out.print(escape(f"Stages: {', '.join(stages)}."))
    console.out.print(escape(schedule_svg.note(schedule, has_batchnorm)))
    if typed.settings.svg is not None:
        write_text(typed.settings.svg, schedule_svg.svg(schedule, has_batchnorm))
        console.line(f"image: {typed.settings.svg}")
    return 0


_MOST_COLUMNS = 8  # stages that have one each


def _joined(cells: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    """Return heading and stage of each column: stages in a row that always do the same have one in common."""
    groups = [list(group) for _, group in itertools.groupby(cells, key=lambda stage: cells[stage])]
    return [(group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}", group[0]) for group in groups]


def table(schedule: Schedule, title: str, has_batchnorm: bool) -> Table:
    """Return epochs × stages, the epochs of a phase in one row."""
    *backbone, head = schedule.epochs[0]
    found = Table(title=escape(title), title_justify="left")
    cells = {
        stage: [schedule_svg.cell(phase.states[stage], has_batchnorm).replace(", ", "\n") for phase in schedule.phases]
        for stage in backbone
    }
    columns = _joined(cells) if len(backbone) > _MOST_COLUMNS else [(stage, stage) for stage in backbone]
    for heading in ("phase", "epochs", *(name for name, _ in columns), head):
        found.add_column(escape(heading), justify="left" if heading == "phase" else "right")
    for number, phase in enumerate(schedule.phases):
        states = [cells[stage][number] for _, stage in columns]
        found.add_row(
            escape(phase.name), schedule_svg.span(phase), *states, schedule_svg.cell(phase.states[head], False)
        )
    return found
