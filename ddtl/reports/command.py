"""``ddtl report``: the page and the methods text of finished runs, written anew from their records."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ddtl import console
from ddtl.errors import UserError
from ddtl.files import write_text
from ddtl.reports import methods, run_report, stored

HELP = """\
Write the report of a finished run anew, from what its folder holds.

  ddtl report RUN [RUN …]                   RUN: a run's folder, as runs/covid19ct/densenet121-full-s0-0123456789
  ddtl report RUN/evaluations/EVALUATION    the report of an evaluation on other data

Each folder gets report.html (one file that needs no network and may be sent to others) and methods.md (a methods
section and a CLAIM checklist, to be completed). Nothing is computed on images, and no look at a test set is taken.

Exit codes: 0 written, 2 a folder holds no finished run.
"""


def main(argv: Sequence[str]) -> int:
    """What follows ``ddtl report`` on the command line; returns the exit code.

    Raises:
        UserError: a mistake in the command, or a folder without a finished run.
    """
    if not argv or {"--help", "-h"} & set(argv):
        sys.stdout.write(HELP)
        return 0
    options = [word for word in argv if word.startswith("-")]
    if options:
        raise UserError(f"ddtl report {options[0]}: no such option. It takes the folders of runs.")
    problems = []
    for word in argv:
        try:
            console.line(f"report: {write(Path(word).expanduser())}")
        except UserError as problem:
            problems.append(str(problem))
    if problems:
        raise UserError("\n".join(problems))
    return 0


def write(folder: Path) -> Path:
    """Write ``report.html`` and ``methods.md`` into a run's folder; the path of the page.

    Raises:
        UserError: the folder holds no finished run.
    """
    found = stored.read(folder)
    write_text(folder / "methods.md", methods.render(found))
    page = folder / "report.html"
    write_text(page, run_report.render_run(found))
    return page
