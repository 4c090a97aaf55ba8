"""What an audit found, the gravest first, each with what to do about it and what it names."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ddtl.config.overrides import format_value, in_shell
from ddtl.reports.audit.facts import Audited
from ddtl.reports.html.format import capitalised
from ddtl.reports.html.page import Block, Code, Fold, Section, Table, Text
from ddtl.reports.sections.findings import notice
from ddtl.utils import wording

_SENTENCE = re.compile(r"(?<=[.:]) (?=[A-Z])")
_NAMED = 200  # images or patients of a finding that the page lists


def section(found: Audited) -> Section:
    """Return a notice for each finding."""
    findings = found.record["findings"]
    if not findings:
        return Section("Findings", [Text("Nothing was found. What was checked is listed below.", "good")])
    blocks: list[Block] = []
    for group in _merged(findings):
        first = _as_one(group)
        blocks.append(notice(first, ", ".join(first["datasets"]), first["fix"]))
        for finding in group:
            blocks += _details(finding["details"])
    return Section("Findings", [*blocks, *_exclude(found)])


def _merged(findings: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return the findings in order; views of the images that the same is found of are together."""
    groups: dict[object, list[Mapping[str, Any]]] = {}
    for i, finding in enumerate(findings):
        _, colon, what = finding["title"].partition(": ")
        is_view = finding["check"].startswith("view: ") and colon
        same = (finding["severity"], tuple(finding["datasets"]), finding["fix"], what) if is_view else i
        groups.setdefault(same, []).append(finding)
    return list(groups.values())


def _as_one(group: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return findings as one: the views in its title, and the sentences that all of them share once, at the end."""
    if len(group) == 1:
        return group[0]
    views = wording.listed([finding["title"].partition(": ")[0] for finding in group])
    texts = [_SENTENCE.split(finding["sentence"]) for finding in group]
    common = [text for text in texts[0] if all(text in other for other in texts)]
    own = [text for each in texts for text in each if text not in common]
    title = f"{views}: {group[0]['title'].partition(': ')[2]}"
    return {**group[0], "title": title, "sentence": " ".join([*own, *common])}


def _exclude(found: Audited) -> list[Block]:
    """Return the command that trains without the images of the exclude list, of each dataset that has some."""
    blocks: list[Block] = []
    for one in found.record["datasets"]:
        if one["to_leave_out"] and one["dataset"] in found.lists:
            n = wording.count(one["to_leave_out"], "image")
            words = [*_words_of(found, one["dataset"]), _override("dataset.exclude", found.lists[one["dataset"]])]
            about = f"{one['dataset']}, without the {n} of its exclude list:"
            blocks += [Text(about), Code(" ".join(["python train.py", *words]))]
    return blocks


def _words_of(found: Audited, dataset: str) -> list[str]:
    """Return the settings that name a dataset: of a single one those of the audit's own command."""
    try:
        typed = shlex.split(found.record["command"])[2:] if len(found.names) == 1 else []
    except ValueError:  # a quote that is not closed: no shell takes it
        typed = []
    own = [word for word in typed if word.startswith("dataset") and not word.startswith("dataset.exclude=")]
    return [in_shell(word) for word in own] or [_override("dataset", dataset)]


def _override(key: str, value: str) -> str:
    return in_shell(f"{key}={format_value(value, quoted=True)}")


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
