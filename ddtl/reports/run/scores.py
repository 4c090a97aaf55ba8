"""Every score of a run with its interval, those of each class, and a paper's numbers where its settings name some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddtl.reports.html import format
from ddtl.reports.html.page import Block, Cell, Fold, Rows, Section, Table
from ddtl.reports.run import sentences
from ddtl.reports.run.stored import SPLITS, Stored, patients
from ddtl.schema.scores import PER_CLASS, SCORES, TITLES
from ddtl.utils import wording

_ALIKE = (
    "Design effect: the variance between patients over that of as many independent images; the correlation gives it."
    " Effective images: as many independent ones tell as much."
)


def section(stored: Stored) -> Section:
    """Return the table of scores, then how its intervals were computed, the classes and the paper."""
    blocks: list[Block] = [table(stored)]
    methods = sentences.interval_methods(stored.record)
    if methods:
        about = Table("How the intervals were made", ["scores", "method"], methods, words=[1])
        blocks.append(Fold("How the intervals were made", [about]))
    alike = _clustering(stored)
    if alike:
        blocks.append(Fold("How alike a patient's images are", alike))
    if not stored.binary:
        blocks.append(_per_class(stored))
    return Section("Scores", [*blocks, *_published(stored)])


def table(stored: Stored) -> Table:
    """Return every score by patient and by image, on test and validation, with intervals."""
    columns: dict[str, Mapping[str, Any]] = {}
    for split in ("test", "val"):
        found = stored.record.get(split)
        if found is None:
            continue
        by_patient = patients(found)
        if by_patient is not None:
            columns[f"{SPLITS[split]}, {wording.count(by_patient['patients'], 'patient')}"] = by_patient
        columns[f"{SPLITS[split]}, {wording.count(found['images'], 'image')}"] = found
    rows: Rows = [[TITLES[name], *(format.cell(found, name) for found in columns.values())] for name in SCORES]
    macro = "" if stored.binary else "Means over the classes, each against all others (macro). "
    bare = any(cell.text != format.NONE and not cell.note for row in rows for cell in row if isinstance(cell, Cell))
    few = "No brackets: too few patients or groups for an interval." if bare and "interval" in stored.record else ""
    parts = (
        sentences.intervals(stored.record),
        sentences.coverage(stored),
        sentences.clustering(stored),
        few,
        sentences.aggregation(stored.scores),
    )
    at = f" at threshold {stored.record['threshold']:.3g}" if stored.binary else ""
    note = macro + " ".join(filter(None, parts))
    return Table(stored.marked(f"Scores{at}"), ["score", *columns], rows, note, stacked=len(columns) > 3)


def _clustering(stored: Stored) -> list[Table]:
    """Return what the images of test and validation are worth for each score, where patients have several."""
    tables: list[Table] = []
    for split in ("test", "val"):
        part = stored.record.get(split)
        found = (part or {}).get("clustering")
        if part is None or found is None:
            continue
        rows: Rows = [
            [
                TITLES[name],
                f"{one['design_effect']:.2f}",
                f"{one['correlation']:.2f}",
                f"{one['effective_images']:,.0f}",
            ]
            for name, one in ((name, found["scores"].get(name)) for name in SCORES)
            if one is not None
        ]
        caption = f"{SPLITS[split]}, {wording.count(part['images'], 'image')}"
        columns = ["score by image", "design effect", "correlation within a patient", "effective images"]
        tables.append(Table(stored.marked(caption), columns, rows, _ALIKE))
    return tables


def _per_class(stored: Stored) -> Table:
    """Return more than two classes, each against all others."""
    rows: Rows = [
        [name, *(format.cell(part, key) for key in PER_CLASS), f"{part['images']:,}"]
        for name, part in stored.scores["per_class"].items()
    ]
    caption = stored.marked(f"Each class against all others, {SPLITS[stored.split]}")
    return Table(caption, ["class", *(TITLES[name] for name in PER_CLASS), "images"], rows)


def _published(stored: Stored) -> list[Block]:
    """Return a paper's numbers next to those by image, where the settings name some."""
    found = stored.config.get("run", {}).get("published")
    if not found or "test" not in stored.record or stored.trained_on:
        return []
    rows: Rows = [
        [TITLES.get(name, name), format.score(value), format.cell(stored.scores, name)]
        for name, value in found["scores"].items()
    ]
    note = f"Their protocol: {found['protocol']}. Here: {stored.record['protocol']}."
    caption = stored.marked(f"Next to {found['source']}")
    return [Table(caption, ["test score", "published", "here, by image"], rows, note)]
