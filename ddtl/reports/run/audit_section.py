"""What the audit of a run's dataset found, for the run's page and its methods text; or how to have it audited."""

from __future__ import annotations

from ddtl.reports.html.page import Block, Code, Section, Text
from ddtl.reports.run import sentences
from ddtl.reports.run.stored import Stored
from ddtl.reports.sections import reproduce
from ddtl.reports.sections.findings import notice
from ddtl.utils import wording


def section(stored: Stored) -> Section:
    """Return every finding, or the command that finds them."""
    return Section("Audit", _blocks(stored))


def _blocks(stored: Stored) -> list[Block]:
    audit = stored.record.get("audit")
    if audit is None:
        text = (
            "These images and their split were not audited for duplicates, leaks, label conflicts and shortcuts "
            "before this record was written. This does it; `ddtl report` then adds what it found:"
        )
        return [Text(text), Code(command(stored))]
    begin = f"Audited on {audit['when'][:10]} by ddtl {audit['ddtl']}, {wording.count(audit['checks'], 'check')}"
    power = [Text(f"Of shortcuts that were not found: {audit['power']}")] if audit.get("power") else []
    if not audit["findings"]:
        return [Text(f"{begin}: nothing found.", "good"), *power]
    return [Text(f"{begin}, on just these images and this split."), *power, *map(notice, audit["findings"])]


def warnings(stored: Stored) -> list[str]:
    """Return the findings with which no score is valid."""
    audit = stored.record.get("audit") or {"findings": []}
    return [f"The audit of the dataset found: {f['sentence']}" for f in audit["findings"] if f["severity"] == "fail"]


def text(stored: Stored) -> str:
    """Return the same in sentences for a methods section."""
    audit = stored.record.get("audit")
    if audit is None:
        return f"The images were not audited for duplicates, leaks and shortcuts ({command(stored)})."
    found = " ".join(f["sentence"] for f in audit["findings"] if f["severity"] != "note")
    begin = f"Images and split were audited for duplicates, leaks, label conflicts and shortcuts (ddtl {audit['ddtl']})"
    power = f" {audit['power']}" if audit.get("power") else ""
    if found:
        return f"{begin}: {found}{power}"
    worry = sentences.shortcut(stored.record, stored.scores)
    by_baseline = " by it; the run's own baseline of file metadata did" if worry is not None and worry[0] else ""
    return f"{begin}; nothing was found{by_baseline}.{power}"


def command(stored: Stored) -> str:
    """Return the command for an audit of just these images and this split."""
    return reproduce.audit_command(stored.config, stored.environment, is_external=stored.trained_on is not None)
