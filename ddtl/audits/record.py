"""The result of an audit: its findings, and where its record is. A record is plain JSON."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ddtl.records import audit
from ddtl.utils.reading import Unreadable

logger = logging.getLogger(__name__)

Severity = Literal["fail", "warn", "note"]
SEVERITIES: tuple[Severity, ...] = ("fail", "warn", "note")  # the gravest first

AUDITS = "audits"  # the folder of all audits, under paths.runs_dir
RECORD = "audit.json"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or that a reader of results must know.

    Attributes:
        check: what was searched for, in a word or two.
        severity: ``fail``: no result on these images and this split holds. ``warn``: results may not mean what they
            seem to. ``note``: to be known.
        datasets: in which it was found.
        title, sentence, fix: what it is, what was measured, what to do. They name no image and no patient, for reports
            of runs repeat them and may be sent to others.
        details: what else the page and the record contain; images and patients among it.
    """

    check: str
    severity: Severity
    datasets: tuple[str, ...]
    title: str
    sentence: str
    fix: str
    details: Mapping[str, Any] = field(default_factory=dict)


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Return the gravest first, else as they come."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def newest(runs_dir: Path, dataset: str, digest: str) -> dict[str, Any] | None:
    """Return what the newest audit of just these images and this split found, for the record of a run.

    Args:
        runs_dir: the folder of all runs, which contains that of the audits.
        dataset: name under which results are filed.
        digest: of the manifest: rows, split and image files.

    Returns:
        ``{"when", "ddtl", "checks", "power", "findings": [{"check", "severity", "title", "sentence"}, …]}``: how many
        checks were made, what "nothing found" means for shortcuts (None where that is not known), and the findings
        about this dataset, none of which names an image; None where there is no such audit.
    """
    found = [
        record
        for path in sorted((runs_dir / AUDITS).glob(f"*/{RECORD}"))
        if (record := _read(path)) is not None
        and any((one["dataset"], one["digest"]) == (dataset, digest) for one in record["datasets"])
    ]
    if not found:
        return None
    record = max(found, key=lambda record: str(record["when"]))
    power = next(one.get("power") for one in record["datasets"] if one["dataset"] == dataset)
    kept = ("check", "severity", "title", "sentence")
    return {
        "when": record["when"],
        "ddtl": record["ddtl"],
        "checks": sum(dataset in one["datasets"] and one["done"] for one in record["checked"]),
        "power": power and power["sentence"],
        "findings": [
            {key: finding[key] for key in kept} for finding in record["findings"] if dataset in finding["datasets"]
        ],
    }


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return audit.read(path.parent)
    except (OSError, Unreadable):
        logger.warning("%s is damaged and is passed over; `ddtl audit` rewrites it.", path)
        return None
