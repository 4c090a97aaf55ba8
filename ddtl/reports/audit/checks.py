"""What an audit checked, and what its exclude list takes out."""

from __future__ import annotations

from ddtl.reports.audit.facts import Audited
from ddtl.reports.html.page import Block, Section, Table, Text
from ddtl.utils import wording


def section(found: Audited) -> Section:
    """Return the checks, and the rule of the exclude list."""
    record = found.record
    counts = [f"{one['dataset']}: {wording.count(one['to_leave_out'], 'image')}" for one in record["datasets"]]
    excluded = Text(f"The exclude list. {record['rule']} {'; '.join(counts)}.")
    return Section("What was checked", [*_checks(found), excluded])


def _checks(found: Audited) -> list[Block]:
    """Return what was checked in a line for each dataset, and a table of what was not and why."""
    checked = found.record["checked"]
    done: dict[str, list[str]] = {}
    for one in checked:
        if one["done"]:
            done.setdefault(", ".join(one["datasets"]), []).append(one["check"])
    lines = [Text(f"Checked of {names}: {'; '.join(checks)}.") for names, checks in done.items()]
    rows = [[one["check"], ", ".join(one["datasets"]), f"no: {one['why_not']}"] for one in checked if not one["done"]]
    table = [Table("Not checked", ["what", "dataset", "checked"], rows, words=[1, 2])] if rows else []
    note = Text(
        "Not checked, because no program can: labels that are wrong without a duplicate, patients that are not "
        "named, and whether the classes were collected in the same way."
    )
    return [*lines, *table, note]
