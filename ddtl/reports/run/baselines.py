"""A run next to what needs no image: a classifier of file metadata, and the majority class."""

from __future__ import annotations

from ddtl.reports.html import format
from ddtl.reports.html.page import Block, Rows, Section, Table, Text
from ddtl.reports.run import sentences
from ddtl.reports.run.stored import Stored
from ddtl.schema.scores import TITLES
from ddtl.utils import wording

_SHOWN = ("roc_auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity")


def section(stored: Stored) -> Section:
    """Return what the baselines show about the model, and their scores."""
    finding = sentences.shortcut(stored.record, stored.scores)
    blocks: list[Block] = [] if finding is None else [Text(finding[1], "bad" if finding[0] else "plain")]
    found = stored.record.get("baselines")
    if not found:
        return Section("Baselines", blocks)
    scores = {"this model": stored.scores}
    metadata = found.get("file_facts") or {}
    if metadata and "why_not" not in metadata:
        scores["file metadata, no pixels"] = metadata
    if nearest := found.get("nearest"):
        what = wording.count(nearest["neighbours"], "nearest training image")
        scores[f"{what} by the same features"] = nearest
    if found.get("majority"):
        scores["always the majority class"] = found["majority"]
    rows: Rows = [[what, *(format.cell(one, name) for name in _SHOWN)] for what, one in scores.items()]
    features = f"File metadata used: {wording.listed(list(metadata['features']))}." if metadata.get("features") else ""
    note = " ".join(filter(None, [features, sentences.baselines_setting(stored.record)]))
    columns = ["", *(TITLES[name] for name in _SHOWN)]
    return Section("Baselines", [*blocks, Table(stored.marked("By image, on the test set"), columns, rows, note)])
