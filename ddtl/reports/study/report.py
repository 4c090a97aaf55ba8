"""The page about a study, from its record and the predictions that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddtl.reports.html.page import Headline, Page, Section, make_sections, render
from ddtl.reports.study import answer, calibration, cells, embeddings, export, learning_curve, reproduce, roc, tables
from ddtl.reports.study.cells import SCORE, Cell, Cells
from ddtl.reports.study.format import score_of, unit_of_scores
from ddtl.reports.sweep.record import without_folders
from ddtl.schema.scores import title_of
from ddtl.utils import wording
from ddtl.utils.files import write_text

# Below the tables; a section is one file: its numbers, its words and its charts.
SECTIONS = (roc.section, calibration.section, embeddings.section, reproduce.section)

_HEADLINES = 4
_FEW_SEEDS = 3


def write(folder: Path) -> Path:
    """Write the page into a study's folder, and its tables as text, Markdown, LaTeX and CSV next to it.

    Raises:
        UserError: the folder contains no study, or its record is damaged.
    """
    found = cells.read(folder)
    shown = tables.tables(found, SCORE)
    for suffix, form in export.FORMATS.items():
        write_text(folder / f"tables.{suffix}", form(shown))
    write_text(folder / "scores.csv", export.as_csv(export.every_score(found)))
    path = folder / "report.html"
    write_text(path, render_study(found))
    return path


def render_study(found: Cells) -> str:
    """Return the page as HTML."""
    return render(page(found))


def page(found: Cells) -> Page:
    """Return the page, section by section."""
    study = found.study
    first, *others = (replace(table, stacked=True) for table in tables.tables(found, SCORE))
    seeds = max((cell.expected for cell in found.cells), default=0)
    parts = [study["study"], wording.count(len(study["jobs"]), "run"), wording.count(seeds, "seed")]
    return Page(
        eyebrow="ddtl study",
        title=study["name"],
        subtitle=" · ".join(parts),
        answer=answer.sentence(found),
        headlines=_headlines(found),
        warnings=_warnings(found),
        sections=[
            Section("Result", [first, *learning_curve.blocks(found)]),
            *([Section("More results", others)] if others else []),
            *make_sections(SECTIONS, found),
        ],
    )


def _headlines(found: Cells) -> list[Headline]:
    headlines = []
    for cell in [cell for cell in found.cells if cell.measured is not None][:_HEADLINES]:
        shown = score_of(cell, SCORE)
        assert not isinstance(shown, str), "it is measured"
        where = found.name(cell.row) if cell.is_in_domain else f"{found.name(cell.row)} → {cell.target}"
        value, _, spread = shown.text.partition(" ± ")
        note = f"± {spread} {shown.note}" if spread else shown.note
        headlines.append(Headline(f"{title_of(SCORE)} {unit_of_scores([cell])}, {where}", value, note))
    return headlines


def _warnings(found: Cells) -> list[str]:
    warnings = []
    lost = [cell for cell in found.cells if cell.lost]
    if lost:
        runs = wording.count(len(lost), "cell lacks", "cells lack")
        warnings.append(f"{runs} runs or all of them; the reasons are below the tables. They are in no mean.")
    if found.study["ended"] is None:
        warnings.append("The study had not ended when this was written. The same command resumes it.")
    seeds = max((cell.expected for cell in found.cells), default=0)
    if seeds < _FEW_SEEDS:
        warnings.append(
            f"{wording.count(seeds, 'seed')}: how much of a difference is chance can hardly be seen. study.seeds=5 "
            "adds more, and computes only what is new."
        )
    leaky = sorted({_place(found, cell) for cell in found.cells for record in cell.records if _leaks(record)})
    if leaky:
        which = wording.listed(leaky)
        warnings.append(f"Patients of the test images are also in training, so these scores are optimistic: {which}.")
    records = [record for cell in found.cells for record in cell.records]
    of_datasets = [_of_dataset(record, str(text)) for record in records for text in record.get("warnings", ())]
    return [*warnings, *dict.fromkeys(of_datasets)]


def _of_dataset(record: Mapping[str, Any], text: str) -> str:
    """Return a warning with the dataset that it is about."""
    name = str(record["dataset"])
    return without_folders(text if name in text else f"{name}: {text}")


def _leaks(record: Mapping[str, Any]) -> bool:
    return bool(record.get("leaked_share")) or (record["protocol"] == "random" and "trained_on" not in record)


def _place(found: Cells, cell: Cell) -> str:
    return found.name(cell.row) if cell.is_in_domain else f"{found.name(cell.row)} on {cell.target}"
