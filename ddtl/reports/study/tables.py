"""A study's cells as tables. Each says below it what ± means, of how many it is, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ddtl.evaluation.comparison.matrix import drop
from ddtl.reports.html import format
from ddtl.reports.html.page import Cell as PageCell, Rows, Table
from ddtl.reports.study.cells import Cell, Cells, Row
from ddtl.reports.study.format import (  # fmt: skip
    as_mapping,
    basis,
    copies,
    count_seeds,
    counts,
    lost,
    mean_of,
    score_of,
    shaded,
    temperature_of,
    unit_of_scores,
    value_of,
)
from ddtl.schema.scores import LOWER_IS_BETTER, TITLES, title_of
from ddtl.utils import wording

_SHOWN = ("roc_auc", "balanced_accuracy", "sensitivity", "specificity", "brier")
_BLIND = {"majority": "majority class, by image", "file_facts": "file metadata, no pixel, by image"}
_AT_THRESHOLD = ("balanced_accuracy", "sensitivity", "specificity")


def tables(found: Cells, score: str = "roc_auc") -> list[Table]:
    """Return all that a study's cells give rise to, the most important first."""
    kind = found.study["study"]
    if kind == "paper_vs_honest":
        return [protocols(found, score), listed(found)]
    if len(found.targets) == 1:
        made = [listed(found), selection(found, score)]
        return made if made[1].rows else made[:1]
    made = [matrix(found, score), drops(found, score), thresholds(found), selection(found, score)]
    return [table for table in made if table.rows]


def matrix(found: Cells, score: str) -> Table:
    """Return a row for each training dataset, a column for each test set; below them what sees no pixel."""
    rows: Rows = [
        [found.name(row), *(shaded(found.at(row, target), score) for target in found.targets)] for row in found.rows
    ]
    for name, title in (("majority", "majority class, by image, of"), ("file_facts", "file metadata, by image, of")):
        for source in dict.fromkeys(row.source for row in found.rows):
            cells = [_control(found, source, target, name, score) for target in found.targets]
            if any(cells):
                rows.append([f"{title} {source}", *cells])
    notes = [
        "Rows: what was trained on. Columns: what was tested on.",
        *basis(found.cells),
        "Majority class and file metadata (a random forest on format, size and bytes, no pixel) are of the row's "
        "images.",
        *copies(found),
        *lost(found, found.cells),
    ]
    title = f"{TITLES[score]} {unit_of_scores(found.cells)}".rstrip()
    return Table(f"{title} on every test set", ["", *found.targets], rows, " ".join(notes))


def drops(found: Cells, score: str) -> Table:
    """Return the drop of each row on external test sets; without a row that was tested on none."""
    rows: Rows = []
    used: list[Cell] = []
    rows_used: list[Row] = []
    external = {cell.target for cell in found.cells if not cell.is_in_domain}
    targets = [target for target in found.targets if target in external]
    for row in found.rows:
        cells = [None if cell is None or cell.is_in_domain else cell for cell in (found.at(row, t) for t in targets)]
        if any(cells):
            used += filter(None, cells)
            rows_used.append(row)
            rows.append([found.name(row), *("" if cell is None else _drop(cell, score) for cell in cells)])
    notes = [
        "The score on the in-domain test set minus that on the column's; the same networks on both. "
        f"The range is the {_level(found)} interval for other patients of both test sets and, with several seeds, "
        "other seeds.",
        counts(used),
        *lost(found, [cell for cell in found.cells if cell in used or (cell.is_in_domain and cell.row in rows_used)]),
    ]
    return Table(
        f"Drop of {title_of(score)} {unit_of_scores(used)} on external test sets (in-domain minus external)",
        ["", *targets],
        rows,
        " ".join(notes),
    )


def thresholds(found: Cells) -> Table:
    """Return the scores at a threshold on external test sets: at the source's, and at one refitted on the target."""
    rows: Rows = []
    used = [cell for cell in found.cells if not cell.is_in_domain]
    for cell in used:
        first = f"{found.name(cell.row)} on {cell.target}"
        whose = "source validation" if cell.row.patients is None else "target validation, where training continued"
        corrected = temperature_of(cell, cell.temperatures)
        rows.append([first, whose, *(score_of(cell, name) for name in _AT_THRESHOLD), *corrected])
        if cell.refitted is not None:
            scores = (mean_of(cell.refitted.scores[name], "") for name in _AT_THRESHOLD)
            corrected = temperature_of(cell, cell.refitted_temperatures)
            rows.append([first, "refitted on target validation", *scores, *corrected])
    labelled = {
        f"{cell.target} {again['val_images']}"
        for cell in used
        for again in [(cell.records[0].get("refitted") if cell.records else None) or {}]
        if "val_images" in again
    }
    notes = [
        "Refitted rows take labels of the target's validation images"
        + (f" ({', '.join(sorted(labelled))} images)" if labelled else "")
        + ": they are not what a hospital without labels would get. The temperature comes from the same images as the "
        "threshold; the Brier score is that of the probabilities at it (0.25 is that of always saying one half).",
        *basis(used),
        *lost(found, used),
    ]
    named = (title_of(name) for name in (*_AT_THRESHOLD, "brier"))
    columns = ["", "threshold and temperature from", *named]
    columns.insert(-1, "temperature")
    return Table(f"At a threshold, on external test sets, {unit_of_scores(used)}", columns, rows, " ".join(notes), (1,))


def selection(found: Cells, score: str) -> Table:
    """Return, of several methods on one dataset, the one that its validation chooses, and the best one."""
    rows: Rows = []
    used: list[Cell] = []
    sign = -1 if score in LOWER_IS_BETTER else 1
    for source in dict.fromkeys(row.source for row in found.rows):
        for target in found.targets:
            cells = [
                cell
                for row in found.rows
                if row.source == source and row.patients is None
                for cell in [found.at(row, target)]
                if cell is not None and (not cell.is_in_domain or len(found.targets) == 1)
            ]
            known = [cell for cell in cells if cell.val[score] is not None and value_of(cell, score) is not None]
            if len(known) < 2:
                continue
            used += cells
            chosen = max(known, key=lambda cell: sign * (cell.val[score] or 0.0))
            best = max(known, key=lambda cell: sign * (value_of(cell, score) or 0.0))
            for how, cell in (("source validation, by image", chosen), ("oracle: the target's test set", best)):
                rows.append([f"{source} on {target}", how, found.name(cell.row), score_of(cell, score)])
    notes = [
        "The oracle has seen the labels that it is scored by: an upper bound that cannot be reached. Methods "
        "that do not change the validation images tie there, and the first is taken.",
        *basis(used),
        *lost(found, used),
    ]
    shown = f"{title_of(score)} {unit_of_scores(used)}".rstrip()
    return Table("Which method to choose", ["", "chosen by", "", shown], rows, " ".join(notes), (1, 2))


def listed(found: Cells) -> Table:
    """Return every cell with several scores: for studies of one test set."""
    several = len(found.targets) > 1
    rows: Rows = [
        [
            f"{found.name(cell.row)} on {cell.target}" if several and "source" not in found.varying
            else found.name(cell.row),
            *(score_of(cell, name) for name in _SHOWN),
        ]
        for cell in found.cells
    ]  # fmt: skip
    if len({(cell.target, cell.row.protocol) for cell in found.cells}) == 1 and not found.cells[0].folds:
        in_domain = next((cell for cell in found.cells if cell.is_in_domain and cell.records), found.cells[0])
        for name, title in _BLIND.items():
            shown: list[str | PageCell] = [_in_domain(in_domain, name, score) for score in _SHOWN]
            if any(shown):
                rows.append([title, *shown])
    folds = next((cell.folds for cell in found.cells if cell.folds), None)
    pooled = (
        [f"Each image was tested by the network of its fold ({folds} folds), which classified it at its own threshold; "
         "the folds' predictions are pooled, and the interval is of all of them."] if folds else []
    )  # fmt: skip
    notes = [*pooled, *basis(found.cells), *lost(found, found.cells)]
    return Table(
        f"Scores {unit_of_scores(found.cells)}".rstrip(),
        ["", *(title_of(name) for name in _SHOWN)],
        rows,
        " ".join(notes),
    )


def protocols(found: Cells, score: str) -> Table:
    """Return the protocol of many papers next to one that never splits patients."""
    rows: Rows = []
    for cell in found.cells:
        random = found.at(replace(cell.row, protocol="random"), cell.target)
        blind, against = _in_domain(cell, "file_facts", score), _against(random, cell, score)
        rows.append([cell.target, cell.row.protocol, score_of(cell, score), blind, _leaked(cell), against])
    notes = [
        "File metadata: a random forest on format, size and bytes, no pixel. Leaked: the share of test images whose "
        "patient (or group of near-duplicates) is also in training. The last column is the score with protocol "
        "random minus this row's, with other networks and test sets; patients of both test sets and seeds are "
        "taken for independent of each other, which makes its interval rather too wide where patients are in both.",
        *basis(found.cells),
        *lost(found, found.cells),
    ]
    shown = f"{title_of(score)} {unit_of_scores(found.cells)}".rstrip()
    columns = ["", "protocol", shown, "file metadata by image", "leaked", "random minus this"]
    return Table("By the slice, and with patients never split", columns, rows, " ".join(notes), (1,))


def _drop(cell: Cell, score: str) -> str | PageCell:
    if cell.drop is None:
        return format.NONE
    found = cell.drop[score]
    more = count_seeds(cell.drop_seeds, cell.expected)
    return PageCell(
        format.score(found.value), ", ".join(filter(None, [format.interval(as_mapping(found.interval)), more]))
    )


def _against(random: Cell | None, cell: Cell, score: str) -> str | PageCell:
    if random is None or random is cell:
        return ""
    if random.measured is None or cell.measured is None:
        return format.NONE
    found = drop(random.measured, cell.measured, same_runs=False)[score]
    return PageCell(format.score(found.value), format.interval(as_mapping(found.interval)))


def _control(found: Cells, source: str, target: str, name: str, score: str) -> str | PageCell:
    """Return what was trained without pixels on the source; in-domain as the runs' own record has it."""
    if source != target:
        return _blind(found.controls.scores(source, target, name), score)
    cell = next((c for c in found.cells if c.is_in_domain and c.row.source == source and c.records), None)
    return "" if cell is None else _in_domain(cell, name, score)


def _in_domain(cell: Cell, name: str, score: str) -> str | PageCell:
    return _blind((cell.records[0].get("baselines") or {}).get(name) if cell.records else None, score)


def _blind(scores: Mapping[str, Any] | None, score: str) -> str | PageCell:
    if not scores:
        return ""
    return format.cell(scores, score) if "why_not" not in scores else PageCell(format.NONE, "not available")


def _leaked(cell: Cell) -> str:
    share = cell.records[0].get("leaked_share") if cell.records else None
    return format.NONE if share is None else wording.percent(share)


def _level(found: Cells) -> str:
    return format.level(found.settings.level)
