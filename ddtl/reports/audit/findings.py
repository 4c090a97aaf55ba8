"""What an audit found, the gravest first, each with what to do about it and what it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ddtl.reports.audit.facts import Audited
from ddtl.reports.html.format import capitalised
from ddtl.reports.html.page import Block, Fold, Section, Table, Text
from ddtl.reports.sections.findings import notice

_NAMED = 200  # images or patients of a finding that the page lists


def section(found: Audited) -> Section:
    """Return a notice for each finding."""
    findings = found.record["findings"]
    if not findings:
        return Section("Findings", [Text("Nothing was found. What was checked is listed below.", "good")])
    blocks: list[Block] = []
    for finding in findings:
        blocks.append(notice(finding, ", ".join(finding["datasets"]), finding["fix"]))
        blocks += _details(finding["details"])
    return Section("Findings", blocks)


def _details(details: Mapping[str, Any]) -> list[Block]:
    """Return what a finding names: images with reasons, patients with splits, a message."""
    blocks: list[Block] = []
    for what, found in details.items():
        if isinstance(found, str):
            blocks.append(Fold(capitalised(what), [Text(found)]))
            continue
        rows = [[name, _words(value)] for name, value in list(found.items())[:_NAMED]]
        note = f"The first {_NAMED} of {len(found):,}; audit.json names all." if len(found) > _NAMED else ""
        blocks.append(Fold(f"Which {what}", [Table(capitalised(what), ["", ""], rows, note, words=[1])]))
    return blocks


def _words(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else value if isinstance(value, str) else json.dumps(value)
