"""``ddtl compare RUN RUN …``: finished runs against each other on the same test images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from ddtl.config.command_line import own_settings
from ddtl.schema.scores import SCORES
from ddtl.utils import console
from ddtl.utils.errors import UserError
from ddtl.utils.files import write_json, write_text
from ddtl.utils.suggest import did_you_mean

if TYPE_CHECKING:
    from ddtl.reports.html.page import Table

HELP = f"""\
Compare finished runs on the same test images, paired by patient, and say what may be claimed.

  ddtl compare runs/covid19ct/densenet121-… runs/covid19ct/squeezenet1_1-…
  ddtl compare runs/covid19ct/*/           every pair; p-values adjusted after Holm
  ddtl compare A/evaluations/sarscov2ct-grouped B/evaluations/sarscov2ct-grouped

Runs that differ in the seed alone are one method: means over seeds are compared, with what patients and seeds change in
the interval. All runs must have been tested on the same images. Settings:

  score=roc_auc      the score that is judged: {", ".join(SCORES[:5])},
                     {", ".join(SCORES[5:])}
  level=0.95         of the intervals; a difference is claimed at a p-value below 1 - level
  replicates=2000    without effect: nothing is resampled any more; earlier commands still run
  split=test         val compares validation, where no test was scored
  json=FILE          write everything that was computed, for all scores
  markdown=FILE      write the tables and the sentences
  html=FILE          write a page: the same with ROC curves, their bands, and the epochs of training

docs/comparing.md says how it is computed. Exit codes: 0 compared, 2 a mistake (the message says what).
"""


@dataclass(frozen=True)
class Settings:
    """What was asked for."""

    runs: tuple[Path, ...]
    score: str = "roc_auc"
    level: float = 0.95
    replicates: int = 2000  # without effect: of the bootstrap of earlier versions, whose commands still run
    split: str = "test"
    json: Path | None = None
    markdown: Path | None = None
    html: Path | None = None


def main(argv: list[str]) -> int:
    """What follows ``ddtl compare`` on the command line; returns the exit code.

    Raises:
        UserError: a mistake in the command, or runs that cannot be compared.
    """
    if not argv or {"--help", "-h"} & set(argv):
        sys.stdout.write(HELP)
        return 0
    settings = parse(argv)
    from ddtl.evaluation.comparison.comparison import compare
    from ddtl.reports.comparison import claims
    from ddtl.reports.comparison import runs as compared
    from ddtl.reports.comparison import tables as comparison_tables
    from ddtl.reports.comparison.page import render_comparison

    runs = compared.read(settings.runs, settings.split)
    result = compare(runs.methods, score=settings.score, level=settings.level)
    tables = [comparison_tables.of_methods(runs, result), comparison_tables.of_pairs(result)]
    sentences, notes = claims.claims(result.pairs), claims.caveats(runs, result.pairs)
    show(console.out, tables, sentences, notes)
    try:
        if settings.json is not None:
            write_json(settings.json, comparison_tables.record(runs, result))
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


def parse(argv: Sequence[str]) -> Settings:
    """The command line, all mistakes in one message.

    Raises:
        UserError: there are mistakes.
    """
    values, rest, problems = own_settings(argv, _READ)
    runs = []
    for word in rest:
        key, equals, _ = word.partition("=")
        if not equals or Path(word).exists():
            runs.append(Path(word).expanduser())
        else:
            problems.append(
                f"{word}: not a setting of `ddtl compare`.{did_you_mean(key, _READ)} There are {', '.join(_READ)}."
            )
    for key in ("json", "markdown", "html"):
        if key in values and values[key].absolute().parent.resolve() in [run.resolve() for run in runs]:
            problems.append(f"{key}={values[key]}: a run's folder holds its record alone. Name a file elsewhere.")
    if len(runs) < 2 and not problems:
        problems.append(
            "`ddtl compare` needs two runs or more: name the folder of each, as runs/covid19ct/densenet121-…."
        )
    if problems:
        raise UserError("\n".join(problems))
    return Settings(tuple(runs), **values)


def _score(text: str) -> str:
    if text not in SCORES:
        raise ValueError(f"no such score.{did_you_mean(text, SCORES)} There are {', '.join(SCORES)}.")
    return text


def _level(text: str) -> float:
    level = _number(text, float)
    if not 0.5 <= level < 1:
        raise ValueError("must be at least 0.5 and below 1, as 0.95.")
    return level


def _replicates(text: str) -> int:
    count = _number(text, int)
    if not 100 <= count <= 1_000_000:
        raise ValueError("must be a whole number from 100 to 1000000; 2000 is usual.")
    return int(count)


def _number(text: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"is no {'whole ' if kind is int else ''}number.") from None


def _split(text: str) -> str:
    if text not in ("test", "val"):
        raise ValueError("there are test and val.")
    return text


def _file(text: str) -> Path:
    path = Path(text).expanduser()
    if not text or path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError("name a file in a folder that is there.")
    return path


_READ: Mapping[str, Callable[[str], Any]] = {
    "score": _score,
    "level": _level,
    "replicates": _replicates,
    "split": _split,
    "json": _file,
    "markdown": _file,
    "html": _file,
}
