"""The page about a study, from its record and the predictions that it names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddtl.evaluation import calibration
from ddtl.records.study_folder import PLAIN
from ddtl.reports.html import format
from ddtl.reports.html.page import Block, Code, Figure, Fold, Headline, Page, Row, Section, Table, Text, render
from ddtl.reports.study import cells, embeddings, export, figures, tables
from ddtl.reports.study.cells import Cell, Cells
from ddtl.reports.study.format import by_unit, score_of
from ddtl.reports.study.score_table import every_score
from ddtl.reports.sweep.record import without_folders
from ddtl.schema.run import OWN_FILES
from ddtl.schema.scores import title_of
from ddtl.utils import wording
from ddtl.utils.files import write_text

_SCORE = "roc_auc"
_HEADLINES = 4
_CURVES = 6  # on one chart
_FEW_SEEDS = 3


def write(folder: Path) -> Path:
    """Write the page into a study's folder, and its tables as text, Markdown, LaTeX and CSV beside it; the page's path.

    Raises:
        UserError: the folder holds no study, or its record is damaged.
    """
    found = cells.read(folder)
    shown = tables.tables(found, _SCORE)
    for suffix, form in export.FORMATS.items():
        write_text(folder / f"tables.{suffix}", form(shown))
    write_text(folder / "scores.csv", export.as_csv(every_score(found)))
    path = folder / "report.html"
    write_text(path, render_study(found))
    return path


def render_study(found: Cells) -> str:
    """The page as HTML."""
    return render(page(found))


def page(found: Cells) -> Page:
    """The page, part by part."""
    study = found.study
    first, *others = tables.tables(found, _SCORE)
    sections: dict[str, Sequence[Block]] = {
        "Result": [first, *_curve(found)],
        "Beside it": others,
        "ROC curves": _rocs(found),
        "Calibration": _calibration(found),
        "Where the datasets lie": _embeddings(found),
        "Repeat it": _repeat(found),
    }
    seeds = max((cell.expected for cell in found.cells), default=0)
    parts = [study["study"], wording.count(len(study["jobs"]), "run"), wording.count(seeds, "seed")]
    return Page(
        eyebrow="ddtl study",
        title=study["name"],
        subtitle=" · ".join(parts),
        headlines=_headlines(found),
        warnings=_warnings(found),
        sections=[Section(title, blocks) for title, blocks in sections.items() if blocks],
    )


def _headlines(found: Cells) -> list[Headline]:
    headlines = []
    for cell in [cell for cell in found.cells if cell.measured is not None][:_HEADLINES]:
        shown = score_of(cell, _SCORE)
        assert not isinstance(shown, str), "it is measured"
        where = found.name(cell.row) if cell.home else f"{found.name(cell.row)} → {cell.target}"
        value, _, spread = shown.text.partition(" ± ")
        note = f"± {spread} {shown.note}" if spread else shown.note
        headlines.append(Headline(f"{title_of(_SCORE)} {by_unit([cell])}, {where}", value, note))
    return headlines


def _warnings(found: Cells) -> list[str]:
    warnings = []
    lost = [cell for cell in found.cells if cell.lost]
    if lost:
        runs = wording.count(len(lost), "cell lacks", "cells lack")
        warnings.append(f"{runs} runs or all of them; the reasons stand below the tables. They are in no mean.")
    if found.study["ended"] is None:
        warnings.append("The study had not ended when this was written. The same command goes on with it.")
    seeds = max((cell.expected for cell in found.cells), default=0)
    if seeds < _FEW_SEEDS:
        warnings.append(
            f"{wording.count(seeds, 'seed')}: how much of a difference is luck can hardly be seen. study.seeds=5 adds "
            "more, and computes only what is new."
        )
    leaky = sorted({_place(found, cell) for cell in found.cells for record in cell.records if _leaks(record)})
    if leaky:
        warnings.append(
            f"Patients of the test images were learned from, so these scores are optimistic: {wording.listed(leaky)}."
        )
    told = [_of_dataset(record, text) for cell in found.cells for record in cell.records for text in _said(record)]
    return [*warnings, *dict.fromkeys(told)]


def _said(record: Mapping[str, Any]) -> list[str]:
    return [str(text) for text in record.get("warnings", ())]


def _of_dataset(record: Mapping[str, Any], text: str) -> str:
    """A warning with the dataset that it is about."""
    name = str(record["dataset"])
    return without_folders(text if name in text else f"{name}: {text}")


def _leaks(record: Mapping[str, Any]) -> bool:
    return bool(record.get("leaked_share")) or (record["protocol"] == "random" and "trained_on" not in record)


def _place(found: Cells, cell: Cell) -> str:
    return found.name(cell.row) if cell.home else f"{found.name(cell.row)} on {cell.target}"


def _curve(found: Cells) -> list[Block]:
    """The learning curve, where the study is one."""
    if found.study["study"] != "learning_curve":
        return []
    points = []
    for cell in found.cells:
        groups = cell.records[0].get("splits", {}).get("train", {}).get("groups") if cell.records else None
        if cell.measured is not None and groups is not None:
            points.append((int(groups), cell.measured))
    if len(points) < 2:
        return []
    points.sort(key=lambda point: point[0])
    title = title_of(_SCORE)
    seen = ", ".join(f"{n}: {format.score(measured.scores[_SCORE].value)}" for n, measured in points)
    caption = "The band is the interval of the mean, for other patients and other seeds, at each number by itself."
    spec = figures.learning_curve(points, _SCORE, f"test {title}")
    return [Figure(f"{title} by training patients", spec, f"{title} by training patients: {seen}.", caption)]


def _rocs(found: Cells) -> list[Block]:
    """A chart for each test set."""
    charts: list[Figure] = []
    for target in found.targets:
        at = sorted((cell for cell in found.cells if cell.target == target), key=lambda cell: not cell.home)
        runs = {cell.folders: cell for cell in reversed(at)}  # ways that share their runs here share their curve
        at = [cell for cell in at if runs[cell.folders] is cell]
        known = {found.name(cell.row): cell.measured for cell in at if cell.measured is not None}
        shown = dict(list(known.items())[:_CURVES])
        spec = figures.roc(shown)
        if spec is None:
            continue
        more = f" The first {_CURVES} of {len(known)}." if len(known) > _CURVES else ""
        areas = ", ".join(f"{name} {format.score(one.scores[_SCORE].value)}" for name, one in shown.items())
        caption = (
            "Sensitivities are means over the seeds at each specificity; the bands, of the first two, are "
            f"{wording.percent(found.settings.level)} limits for other patients and seeds, point by point.{more}"
        )
        charts.append(Figure(f"Tested on {target}", spec, f"ROC curves on {target}; areas: {areas}.", caption))
    return _side_by_side(charts)


def _calibration(found: Cells) -> list[Block]:
    """How far probabilities that are right at home are right elsewhere: plain rows that have been elsewhere."""
    charts: list[Figure] = []
    rows: list[list[Any]] = []
    for row in found.rows:
        at = [cell for cell in found.cells if cell.row == row and cell.measured is not None]
        known = {cell.target: cell.measured for cell in at if cell.measured and cell.measured.method.runs[0].binary}
        if len(known) < 2 or row.method != PLAIN:
            continue
        alt = f"Reliability of what learned from {row.source}, on {wording.listed(list(known))}."
        charts.append(
            Figure(found.name(row), figures.calibration_shift(known), alt, "All seeds together; bars: images.")
        )
        for target, measured in known.items():
            runs = measured.method.runs
            labels = runs[0].predictions.label
            errors = [calibration.ece(labels, run.p) for run in runs]
            known_errors = [error for error in errors if error is not None]
            mean_p = sum(float(run.p.mean()) for run in runs) / len(runs)
            error = sum(known_errors) / len(runs) if len(known_errors) == len(runs) else None
            place = [found.name(row), target, format.score(mean_p), format.score(float(labels.mean()))]
            rows.append([*place, format.score(error), str(len(runs))])
    if not charts:
        return []
    note = "Means over the seeds, before any correction. ECE: expected calibration error in 15 bins of equal width."
    columns = ["", "tested on", "mean probability", "share of positives", "ECE", "seeds"]
    return [*_side_by_side(charts), Table("What is predicted, and what is so", columns, rows, note, (1,))]


def _embeddings(found: Cells) -> list[Block]:
    """Test images in the feature space of a network of each source."""
    charts = []
    for embedded in embeddings.read(found):
        counts = ", ".join(f"{len(labels)} of {target}" for target, labels in embedded.labels.items())
        caption = (
            "One network of the first seed: features before its head, principal components of all these test images, "
            "each test set weighing the same. Where colours lie apart the network sees the dataset before the disease."
        )
        title = f"Seen by what learned from {embedded.source}"
        alt = f"Test images on two principal components: {counts}."
        charts.append(Figure(title, embeddings.figure(embedded), alt, caption))
    return _side_by_side(charts)


def _side_by_side(charts: Sequence[Figure]) -> list[Block]:
    return [Row(charts[i : i + 2]) if len(charts[i : i + 2]) > 1 else charts[i] for i in range(0, len(charts), 2)]


def _repeat(found: Cells) -> list[Block]:
    study = found.study
    shared = {key: value for key, value in study["identity"].items() if key.removeprefix("dataset.") not in OWN_FILES}
    settings = {key: value for key, value in study["settings"].items() if key != "own"}
    told_settings = json.dumps({"study": settings, "shared": shared}, indent=2, ensure_ascii=False)
    lines = dict.fromkeys(without_folders(job["line"]) for job in study["jobs"])
    told = f"{len(lines)} runs; `ddtl evaluate` scored each on the other test sets."
    return [
        Text("tables.txt, tables.md and tables.tex beside this page hold its tables, scores.csv every score."),
        Fold("Settings", [Code(without_folders(told_settings))]),
        Fold("Each run", [Text(told), Code("\n".join(lines))]),
    ]
