"""The page of an audit: a pure function of its record and of the images of its worst pairs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ddtl.reports.audit import checks, datasets, differences, duplicates, findings, shortcuts
from ddtl.reports.audit.facts import Audited
from ddtl.reports.html import format
from ddtl.reports.html.masking import Names
from ddtl.reports.html.page import Headline, Page, make_sections, render
from ddtl.reports.run import sentences
from ddtl.reports.sections import reproduce
from ddtl.reports.sections.findings import LABELS
from ddtl.utils import wording

if TYPE_CHECKING:
    from ddtl.reports.audit.pairs import PairView

Record = Mapping[str, Any]

# A section is one file: its numbers, its words and its charts.
SECTIONS = (
    findings.section,
    duplicates.section,
    shortcuts.section,
    differences.section,
    checks.section,
    datasets.section,
)

_REASONS = 3  # of the first sentence
_PRIVATE = "This page shows images and file names of the dataset. Keep it where the images themselves may be."


def page_to_share(record: Record) -> str:
    """Return the page as HTML, without images and without names of images, patients and files."""
    names = Names(name for finding in record["findings"] for name in _named(finding["details"]))
    findings = [
        {**names.masked({**finding, "details": {}}), "details": _counted(finding["details"])}
        for finding in record["findings"]
    ]
    try:
        command = reproduce.command({"command": shlex.split(record["command"])})
    except ValueError:  # a quote that is not closed: no shell takes it
        command = None
    return page({**record, "findings": findings, "command": command or "ddtl audit"}, (), ())


def _named(details: Mapping[str, Any]) -> Iterator[str]:
    """Return the images and patients that a finding names."""
    for found in details.values():
        if isinstance(found, Mapping):
            yield from found


def _counted(details: Mapping[str, Any]) -> dict[str, str]:
    """Return how many images or patients a finding names, instead of their names."""
    named = {what: found for what, found in details.items() if isinstance(found, Mapping)}
    return {what: f"{len(found):,}, by name in audit.json" for what, found in named.items()}


def page(
    record: Record,
    shown: Sequence[PairView],
    warnings: Sequence[str] = (_PRIVATE,),
    lists: Mapping[str, str] | None = None,
) -> str:
    """Return the page as HTML.

    Args:
        record: ``audit.json``.
        shown: the worst pairs as images.
        warnings: what comes before everything else.
        lists: the path of each dataset's exclude list; none on a page to share.
    """
    found = Audited(record, shown, lists or {})
    with_text = sum(end.with_text for pair in shown for end in pair.ends)
    if with_text:
        what = wording.count(with_text, "of the images below seems", "of the images below seem")
        warnings = [*warnings, f"{what} to contain text or arrows outside the body. {sentences.CHECK_EACH}"]
    return render(
        Page(
            eyebrow="ddtl audit",
            title=wording.listed(found.names),
            subtitle=f"{record['when'][:10]} · ddtl {record['ddtl']} · {record['seconds']:.0f} seconds",
            answer=_answer(record),
            headlines=_headlines(record),
            warnings=warnings,
            sections=make_sections(SECTIONS, found),
        )
    )


def _answer(record: Record) -> str:
    """Return what was found in a sentence: whether scores on these images can be trusted, and the gravest reasons."""
    of = {severity: [f["title"] for f in record["findings"] if f["severity"] == severity] for severity in LABELS}
    if of["fail"]:
        shown = of["fail"][:_REASONS]
        more = [f"{len(of['fail']) - len(shown)} more"] if len(of["fail"]) > len(shown) else []
        return f"Scores on these images cannot be trusted as they are: {wording.listed([*shown, *more])}."
    unchecked = sum(not one["done"] for one in record["checked"])
    without = f" {wording.count(unchecked, 'check was', 'checks were')} not possible." if unchecked else ""
    if of["warn"]:
        return f"No check failed; {wording.count(len(of['warn']), 'warning')} to read before a score is used.{without}"
    return f"No check failed, and there is no warning.{without}"


def _headlines(record: Record) -> list[Headline]:
    counts = {severity: sum(f["severity"] == severity for f in record["findings"]) for severity in LABELS}
    leaked, tests = (sum(one[key] for one in record["datasets"]) for key in ("leaked_test_images", "test_images"))
    pairs = record["pairs"]
    shown = [
        Headline(
            "Findings",
            wording.count(counts["fail"], "failure") if counts["fail"] else "no failure",
            f"{wording.count(counts['warn'], 'warning')}, {wording.count(counts['note'], 'note')}",
        ),
        Headline(
            "Duplicates",
            wording.count(pairs["total"], "pair"),
            f"{pairs['same file']:,} of identical files",
        ),
        Headline(
            "Test images with a copy in training or validation",
            wording.percent(leaked / tests) if tests else format.NONE,
            f"{leaked:,} of {tests:,}" if tests else "no test split",
        ),
    ]
    facts = [p for p in record["probes"] if p["verdict"] == "shortcut" and p["roc_auc"] is not None]
    if facts:
        worst = max(facts, key=lambda probe: probe["roc_auc"])
        shown.append(Headline("Worst shortcut, ROC AUC", format.score(worst["roc_auc"]), worst["view"]))
    else:
        shown.append(Headline("Shortcuts", "none found", wording.count(len(record["probes"]), "probe")))
    return shown
