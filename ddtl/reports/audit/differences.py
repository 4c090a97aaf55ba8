"""How images of the classes of a dataset differ in what can be measured without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddtl.reports.audit.facts import Audited
from ddtl.reports.html import format
from ddtl.reports.html.page import Block, Cell, Fold, Section, Table, Text


def section(found: Audited) -> Section:
    """Return a table for each dataset, and for each class that is compared in it."""
    against: dict[str, list[Mapping[str, Any]]] = {}
    for dataset in found.names:
        for one in found.record["differences"]:
            if one["dataset"] == dataset:
                against.setdefault(f"{dataset}: {one['of_class']} against {one['others']}", []).append(one)
    made = [block for caption, each in against.items() for block in _tables(caption, each)]
    return Section("Differences between classes", made)


def _tables(caption: str, found: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Return what differs, and what does not behind a line that names it."""
    differs = [d for d in found if d["size"] != "none"]
    alike = [d for d in found if d["size"] == "none"]
    blocks: list[Block] = (
        [_table(caption, differs)] if differs else [Text(f"{caption}: no difference was found.", "good")]
    )
    if alike:
        names = ", ".join(d["quantity"] for d in alike)
        blocks.append(Fold(f"No effect: {names}", [_table(f"{caption}: no effect", alike)]))
    return blocks


def _table(caption: str, found: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            d["quantity"] + (f" ({d['unit']})" if d["unit"] else ""),
            Cell(_measured(d["median"]), f"mean {_measured(d['mean'])}"),
            Cell(_measured(d["median_others"]), f"mean {_measured(d['mean_others'])}"),
            Cell(f"{d['delta']:+.2f}", format.limits(d["low"], d["high"])),
            format.p_value(d["p_adjusted"]),
            d["size"],
        ]
        for d in found
    ]
    first = found[0]
    columns = ["quantity", first["of_class"], first["others"], "Cliff's delta", "p", "effect"]
    note = (
        "Medians, with means after them. Cliff's delta: how much more often an image of the class has the larger "
        "value than the smaller, -1 to 1; in brackets its 95 % interval by patient or group. p after Holm, over all "
        "quantities."
    )
    return Table(caption, columns, rows, note, words=[5])


def _measured(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
