"""The datasets of an audit, and its command."""

from __future__ import annotations

from ddtl.reports.audit.facts import Audited
from ddtl.reports.html.page import Code, Section, Table


def section(found: Audited) -> Section:
    """Return a row for each dataset, and the command."""
    return Section("Data", [_datasets(found), Code(found.record["command"])])


def _datasets(found: Audited) -> Table:
    rows = []
    for one in found.record["datasets"]:
        excluded = one["excluded"]
        rows.append(
            [
                one["dataset"],
                one["protocol"] or "no split",
                f"{one['images']:,}",
                f"{one['patients']:,}" if one["patients"] else "not named",
                ", ".join(one["classes"]),
                f"{excluded['images']:,}" if excluded else "0",
                one["digest"][:12],
            ]
        )
    columns = ["dataset", "protocol", "images", "patients", "classes", "excluded before", "digest"]
    note = "A run whose record shows the same digest was trained on these images and this split."
    return Table("What was audited", columns, rows, note, words=[1, 4])
