"""``ddtl report``: the pages of finished runs, sweeps, studies and audits, rewritten from their records."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from ddtl.audits import record as audits
from ddtl.commands.arguments import Command
from ddtl.commands.run_names import named_folder
from ddtl.records import audit as audit_record, run as results_of, study_folder as study_record
from ddtl.reports.audit import report
from ddtl.reports.html.masking import cells_without_names, sweep_without_words, without_names
from ddtl.reports.run import report as run_report, stored
from ddtl.reports.run.write import write_page
from ddtl.reports.study import cells, report as study_report
from ddtl.reports.sweep import record, report as sweep_report
from ddtl.schema.section import Section
from ddtl.utils import console
from ddtl.utils.errors import UserError
from ddtl.utils.files import write_json, write_text


class ReportSettings(Section):
    """Settings of ``ddtl report``."""

    images: bool = Field(True, description="false excludes the images that `ddtl explain` has made")
    share: bool = Field(
        False,
        description="true writes share.html next to it, to be sent to others: no image of a patient, no name of an "
        "image "
        "or a patient; of a run, a sweep, a study or an audit",
    )


COMMAND = Command(
    "report",
    ReportSettings,
    intro="Write the report of a finished run, of a sweep or of a study again, from what its folder holds; or one to "
    "be "
    "shared.",
    examples=(
        ("report RUN [RUN …]", "RUN: a run's folder, as runs/covid19ct/densenet121-full-s0-0123456789"),
        ("report RUN/evaluations/EVALUATION", "the report of an evaluation on other data"),
        ("report SWEEP", "SWEEP: a sweep's folder, as runs/sweeps/covid19ct-lr"),
        ("report STUDY", "STUDY: a study's folder, as runs/studies/cross_dataset-phantom-a-phantom-b"),
    ),
    notes=(
        "What an audit of the run's images has found since (`ddtl audit`) is added to its record. Each folder gets "
        "report.html (one file that needs no network); that of a run methods.md too (a methods section and a CLAIM "
        "checklist, to be completed), that of a study its tables as text, Markdown, LaTeX and CSV. Nothing is computed "
        "on images, and no test set is used.",
    ),
    exit_codes="0 written, 2 a folder contains no finished run, no sweep, no study and no audit",
)


def main(argv: Sequence[str]) -> int:
    """Run ``ddtl report`` with the words that follow it; return the exit code.

    Raises:
        UserError: a mistake in the command, or a folder without a finished run or a sweep.
    """
    if COMMAND.wants_help(argv):
        return 0
    words = COMMAND.read(argv, problems=_problems)
    images, share = words.settings.images, words.settings.share
    problems = []
    for word in words.rest:
        try:
            folder = named_folder(word)
            _state_audit(folder.resolve())
            console.line(f"report: {write_to_share(folder) if share else write(folder, images)}")
        except UserError as problem:
            problems.append(str(problem))
        except FileNotFoundError:  # the current folder is gone: reported where every command ends
            raise
        except OSError as error:
            copy = shlex.join(["cp", "-r", word, "."])
            problems.append(
                f"{word}: the report cannot be written there ({error.strerror or error}). Make the folder writable, or "
                f"name a copy of it: {copy}"
            )
    if problems:
        raise UserError("\n".join(problems))
    return 0


def _problems(settings: ReportSettings, folders: tuple[str, ...]) -> list[str]:
    return [] if folders else ["ddtl report: name the folder of a run, a sweep or a study."]


def _state_audit(folder: Path) -> None:
    """Put into a run's record what the newest audit of its images found, where there is one."""
    try:
        results = results_of.read(folder)
    except (OSError, UserError):
        return  # whoever reads the record says what is wrong with it
    run = folder.parents[1] if folder.parent.name == "evaluations" else folder
    if "digest" not in results or len(run.parents) < 2:
        return
    found = audits.newest(run.parents[1], results["dataset"], results["digest"])
    if found is not None and found != results.get("audit"):
        write_json(folder / "results.json", {**results, "audit": found})


def write(folder: Path, images: bool = True) -> Path:
    """Write ``report.html`` into a folder, ``methods.md`` into that of a run and tables into that of a study, too.

    Args:
        folder: of a run, a sweep or a study.
        images: whether the page of a run that `ddtl explain` has seen shows its images.

    Returns:
        The page's path.

    Raises:
        UserError: the folder contains no finished run, no sweep and no study.
    """
    page = folder / "report.html"
    if (folder / record.RECORD).exists():
        write_text(page, sweep_report.render_sweep(record.read(folder)))
        return page
    if (folder / study_record.NAME).exists():
        return study_report.write(folder)
    if (folder / audits.RECORD).exists():
        raise UserError(
            f"{folder}: is that of an audit. `ddtl audit` writes its page, from the images; share=true writes one "
            "without them."
        )
    if (folder / "plan.json").exists():
        raise UserError(f"{folder}: the sweep has no {record.RECORD} yet. Its own command resumes it, and writes it.")
    return write_page(folder, images)


def write_to_share(folder: Path) -> Path:
    """Write ``share.html`` into a folder: its page without images, and without names of images and patients.

    Returns:
        The page's path.

    Raises:
        UserError: the folder contains no finished run, no sweep, no study and no audit.
    """
    if (folder / record.RECORD).exists():
        html = sweep_report.render_sweep(sweep_without_words(record.read(folder)))
    elif (folder / study_record.NAME).exists():
        html = study_report.render_study(cells_without_names(cells.read(folder)))
    elif (folder / audits.RECORD).exists():
        html = report.page_to_share(audit_record.read(folder, whole=True))
    else:
        html = run_report.render_run(without_names(stored.read(folder)), images=False)
    page = folder / "share.html"
    write_text(page, html)
    return page
