"""What an audit checked, and what its exclude list takes out."""

from __future__ import annotations

from ddtl.reports.audit.facts import Audited
from ddtl.reports.html.page import Section, Table, Text
from ddtl.utils import wording


def section(found: Audited) -> Section:
    """Return the checks, and the rule of the exclude list."""
    record = found.record
    counts = [f"{one['dataset']}: {wording.count(one['to_leave_out'], 'image')}" for one in record["datasets"]]
    excluded = Text(f"The exclude list. {record['rule']} {'; '.join(counts)}.")
    return Section("What was checked", [_checks(found), excluded])


def _checks(found: Audited) -> Table:
    rows = [
        [one["check"], ", ".join(one["datasets"]), "yes" if one["done"] else f"no: {one['why_not']}"]
        for one in found.record["checked"]
    ]
    note = (
        "Not checked, because no program can: labels that are wrong without a duplicate, patients that are not "
        "named, and whether the classes were collected in the same way."
    )
    return Table("Checks", ["what", "dataset", "checked"], rows, note, words=[1, 2])
