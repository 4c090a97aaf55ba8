"""What a classifier scores that is given one property of the images alone: whether the classes differ in a shortcut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddtl.reports.audit.facts import Audited
from ddtl.reports.html import format
from ddtl.reports.html.page import Block, Cell, Estimate, Fold, Forest, Section, Table, Text, Tone
from ddtl.utils import wording

_TONES: Mapping[str, Tone] = {"shortcut": "bad", "may carry disease": "main"}


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
        _forest(dataset, probes),
        Table(f"What a classifier scores that is given this alone, {dataset}", columns, rows, note, words=[6]),
        Fold("What each is given", [Table("Given alone", ["", ""], given, words=[1])]),
    ]


def _forest(dataset: str, probes: Sequence[Mapping[str, Any]]) -> Forest:
    """Draw the ROC AUC of each probe with its interval: what was found first, and of it the highest."""
    order = list(_TONES)
    ordered = sorted(
        probes, key=lambda p: (order.index(p["verdict"]) if p["verdict"] in order else len(order), -p["roc_auc"])
    )
    rows = [
        Estimate(
            p["view"],
            p["roc_auc"],
            p["low"],
            p["high"],
            f"{format.score(p['roc_auc'])} {format.limits(p['low'], p['high'])}".rstrip(),
            _TONES.get(p["verdict"], "other"),
        )
        for p in ordered
    ]
    found = [p["view"] for p in ordered if p["verdict"] == "shortcut"]
    shown = f"Red, a shortcut: {wording.listed(found)}. " if found else "No view is shown to be a shortcut. "
    return Forest(
        f"{dataset}: what separates the classes",
        "ROC AUC of a classifier that is given this alone",
        rows,
        (0, 0.25, 0.5, 0.75, 1),
        0.5,
        f"{shown}Blue: may be the disease itself. Grey: nothing found. Dashed: chance.",
    )
