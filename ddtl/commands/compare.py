"""``ddtl compare RUN RUN …``: finished runs against each other on the same test images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from rich.console import Console
from rich.markup import escape

from ddtl.commands.arguments import Command, OutputFile
from ddtl.commands.run_names import named_folder
from ddtl.schema.scores import SCORES
from ddtl.schema.section import Section
from ddtl.utils import console
from ddtl.utils.errors import UserError
from ddtl.utils.files import write_json, write_text

if TYPE_CHECKING:
    from ddtl.reports.html.page import Table


class CompareSettings(Section):
    """Settings of ``ddtl compare``."""

    score: Literal[SCORES] = Field("roc_auc", description="the score that is judged")  # type: ignore[valid-type]
    level: float = Field(
        0.95, ge=0.5, lt=1, description="of the intervals; a difference is claimed at a p-value below 1 - level"
    )
    replicates: int = Field(
        2000, ge=100, le=1_000_000, description="without effect: nothing is resampled; earlier commands still run"
    )
    split: Literal["test", "val"] = Field("test", description="validation, where no test set was scored")
    json_: OutputFile | None = Field(
        None, alias="json", description="write everything that was computed, for all scores"
    )
    markdown: OutputFile | None = Field(None, description="write the tables and the sentences")
    html: OutputFile | None = Field(
        None, description="write a page: the same with ROC curves, their bands, and the epochs of training"
    )


COMMAND = Command(
    "compare",
    CompareSettings,
    intro="Compare finished runs on the same test images, paired by patient, and say what may be claimed.",
    examples=(
        ("compare runs/covid19ct/densenet121-… runs/covid19ct/squeezenet1_1-…", ""),
        ("compare runs/covid19ct/*/", "every pair; p-values adjusted after Holm"),
        ("compare A/evaluations/sarscov2ct-grouped B/evaluations/sarscov2ct-grouped", ""),
    ),
    notes=(
        "Runs that differ in the seed alone are one method: means over seeds are compared, with what patients and "
        "seeds "
        "change in the interval. All runs must have been tested on the same images. docs/comparing.md says how it is "
        "computed.",
    ),
    exit_codes="0 compared, 2 a mistake (the message says what)",
)


def main(argv: list[str]) -> int:
    """Run ``ddtl compare`` with the words that follow it; return the exit code.

    Raises:
        UserError: a mistake in the command, or runs that cannot be compared.
    """
    if COMMAND.wants_help(argv):
        return 0
    words = COMMAND.read(argv, problems=_problems)
    settings, folders = words.settings, [named_folder(word, ("run",)) for word in words.rest]
    from ddtl.evaluation.comparison.comparison import compare
    from ddtl.reports.comparison import claims, runs as compared, tables as comparison_tables
    from ddtl.reports.comparison.page import render_comparison

    runs = compared.read(folders, settings.split)
    result = compare(runs.methods, score=settings.score, level=settings.level)
    tables = [comparison_tables.of_methods(runs, result), comparison_tables.of_pairs(result)]
    sentences, notes = claims.claims(result.pairs), claims.caveats(runs, result.pairs)
    show(console.out, tables, sentences, notes)
    try:
        if settings.json_ is not None:
            write_json(settings.json_, comparison_tables.record(runs, result))
        if settings.markdown is not None:
            write_text(settings.markdown, comparison_tables.markdown(tables, sentences, notes))
        if settings.html is not None:
            write_text(settings.html, render_comparison(runs, result))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written ({error.strerror}). Name another file.") from error
    return 0


def show(out: Console, tables: Sequence[Table], sentences: Sequence[str], notes: Sequence[str]) -> None:
    """Tables, claims and caveats."""
    from ddtl.reports.comparison.tables import for_terminal

    for table in tables:
        out.print(for_terminal(table), soft_wrap=False)
    for sentence in sentences:
        out.print(escape(sentence))
    for note in notes:
        out.print(f"! {escape(note)}", style="yellow")


def _problems(settings: CompareSettings, words: tuple[str, ...]) -> list[str]:
    """Return what is wrong with the runs, and with files in their folders."""
    runs = [named_folder(word, ("run",)).resolve() for word in words]
    found = [
        f"{key}={path}: a run's folder contains its record alone. Name a file in another folder."
        for key, path in (("json", settings.json_), ("markdown", settings.markdown), ("html", settings.html))
        if path is not None and path.absolute().parent.resolve() in runs
    ]
    if len(runs) < 2:
        found.append("`ddtl compare` needs two runs or more: name each, as runs/covid19ct/densenet121-….")
    return found
