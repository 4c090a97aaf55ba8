"""What a classifier scores that is given one property of the images alone: whether the classes differ in a shortcut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ddtl.reports.audit.facts import Audited
from ddtl.reports.html import format
from ddtl.reports.html.page import Block, Cell, Drawing, Fold, Section, Table, Text


def section(found: Audited) -> Section:
    """Return the probes of each dataset."""
    return Section("Shortcuts", [block for dataset in found.names for block in _probes(found.record, dataset)])


def _probes(record: Mapping[str, Any], dataset: str) -> list[Block]:
    probes = [p for p in record["probes"] if p["dataset"] == dataset and p["roc_auc"] is not None]
    if not probes:
        return []
    rows = [
        [
            p["view"],
            Cell(format.score(p["roc_auc"]), format.limits(p["low"], p["high"])),
            Cell(format.score(p["accuracy"]), format.limits(p["accuracy_low"], p["accuracy_high"])),
            format.score(p["majority"]),
            Cell(format.score(p["shuffled"]["mean"]), format.interval(p["shuffled"])) if p["shuffled"] else "–",
            f"{p['images']:,}",
            p["verdict"],
        ]
        for p in probes
    ]
    scored = {
        "test": "the test split, trained on the others",
        "held-out half": "half of the patients or groups, trained on the others",
    }
    note = (
        f"Scored on {scored[probes[0]['protocol']]}; in brackets 95 % intervals by patient or group. A shortcut is "
        "a view in which nothing can be the disease and which is better than its own control: the same probe with "
        "shuffled labels. Where disease may show in a view, its score says how far one gets without a network."
    )
    columns = ["given alone", "ROC AUC", "accuracy", "majority class", "labels shuffled", "images", "verdict"]
    power = next(one.get("power") for one in record["datasets"] if one["dataset"] == dataset)
    sentence = [Text(f"{dataset}: {power['sentence']}")] if power and power["sentence"] else []
    given = [[p["view"], p["about"]] for p in probes]
    return [
        *sentence,
        Drawing(f"{dataset}: what separates the classes", _forest(probes), ""),
        Table(f"What a classifier scores that is given this alone, {dataset}", columns, rows, note, words=[6]),
        Fold("What each is given", [Table("Given alone", ["", ""], given, words=[1])]),
    ]


def _forest(probes: Sequence[Mapping[str, Any]]) -> str:
    """Draw the ROC AUC of each probe with its interval, as an SVG; its texts are escaped."""
    left, width, row, top = 230, 420, 26, 8
    height = top + row * len(probes) + 28

    def x(value: float) -> float:
        return left + width * min(max(value, 0.0), 1.0)

    values = "; ".join(f"{p['view']} {format.score(p['roc_auc'])}" for p in probes)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 60} {height}" role="img" width="710" '
        'font-family="system-ui,sans-serif" font-size="12" fill="currentColor">',
        f"<title>ROC AUC: {escape(values)}</title>",
    ]
    for value in (0, 0.25, 0.5, 0.75, 1):
        dash = ' stroke-dasharray="4 3"' if value == 0.5 else ""
        colour = "var(--reference)" if value == 0.5 else "var(--grid)"
        parts.append(
            f'<path d="M{x(value):.1f} {top}V{height - 24}" stroke="{colour}"{dash}/>'
            f'<text x="{x(value):.1f}" y="{height - 8}" text-anchor="middle">{value:g}</text>'
        )
    for number, p in enumerate(probes):
        y = top + row * number + row / 2
        colour = {"shortcut": "var(--bad)", "may carry disease": "var(--series-1)"}.get(p["verdict"], "var(--muted)")
        line = (
            f'<path d="M{x(p["low"]):.1f} {y}H{x(p["high"]):.1f}" stroke="{colour}" stroke-width="2"/>'
            if p["low"] is not None
            else ""
        )
        parts.append(
            f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(p["view"])}</text>{line}'
            f'<circle cx="{x(p["roc_auc"]):.1f}" cy="{y}" r="4.5" fill="{colour}"/>'
        )
    return "".join([*parts, "</svg>"])
