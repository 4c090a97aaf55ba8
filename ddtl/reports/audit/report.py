"""The page of an audit: a pure function of its record and of the pictures of its worst pairs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from ddtl.reports.html import format, reproduce
from ddtl.reports.html.masking import Names
from ddtl.reports.html.page import (
    Block,
    Cell,
    Code,
    Fold,
    Headline,
    Notice,
    Page,
    Photo,
    Photos,
    Picture,
    Row,
    Section,
    Table,
    Text,
    render,
)
from ddtl.reports.run import sentences
from ddtl.reports.run.audit_section import LABELS, TONES
from ddtl.utils import wording

if TYPE_CHECKING:
    from ddtl.reports.audit.pairs import Shown

Record = Mapping[str, Any]

_NAMED = 200  # images or patients of a finding that the page lists
_PRIVATE = "This page shows images and file names of the dataset. Keep it where the images themselves may be."


def page_to_share(record: Record) -> str:
    """The page as HTML, without images and without names of images, patients and files."""
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
    """The images and patients that a finding names."""
    for found in details.values():
        if isinstance(found, Mapping):
            yield from found


def _counted(details: Mapping[str, Any]) -> dict[str, str]:
    """How many images or patients a finding names, instead of their names."""
    named = {what: found for what, found in details.items() if isinstance(found, Mapping)}
    return {what: f"{len(found):,}, by name in audit.json" for what, found in named.items()}


def page(record: Record, shown: Sequence[Shown], warnings: Sequence[str] = (_PRIVATE,)) -> str:
    """The page as HTML."""
    names = [one["dataset"] for one in record["datasets"]]
    sections: dict[str, Sequence[Block]] = {
        "Findings": _findings(record),
        "Duplicates": _duplicates(record, shown),
        "Shortcuts": _probes(record),
        "Differences between classes": _differences(record),
        "What was checked": [_checked(record), *_excluded(record)],
        "Data": [_datasets(record), Code(record["command"])],
    }
    with_text = sum(end.with_text for pair in shown for end in pair.ends)
    if with_text:
        what = wording.count(with_text, "of the pictures below seems", "of the pictures below seem")
        warnings = [*warnings, f"{what} to hold text or arrows beside the body. {sentences.LOOK_AT_EACH}"]
    return render(
        Page(
            eyebrow="ddtl audit",
            title=wording.listed(names),
            subtitle=f"{record['when'][:10]} · ddtl {record['ddtl']} · {record['seconds']:.0f} seconds",
            headlines=_headlines(record),
            warnings=warnings,
            sections=[Section(title, blocks) for title, blocks in sections.items() if blocks],
        )
    )


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


def _findings(record: Record) -> list[Block]:
    if not record["findings"]:
        return [Text("Nothing was found. What was looked for stands below.", "good")]
    blocks: list[Block] = []
    for finding in record["findings"]:
        label = f"{LABELS[finding['severity']]} · {', '.join(finding['datasets'])}"
        tone = TONES[finding["severity"]]
        blocks.append(Notice(label, sentences.capitalised(finding["title"]), finding["sentence"], finding["fix"], tone))
        blocks += _details(finding["details"])
    return blocks


def _details(details: Mapping[str, Any]) -> list[Block]:
    """What a finding names: images with reasons, patients with splits, a message."""
    blocks: list[Block] = []
    for what, found in details.items():
        if isinstance(found, str):
            blocks.append(Fold(sentences.capitalised(what), [Text(found)]))
            continue
        rows = [[name, _words(value)] for name, value in list(found.items())[:_NAMED]]
        note = f"The first {_NAMED} of {len(found):,}; audit.json names all." if len(found) > _NAMED else ""
        blocks.append(Fold(f"Which {what}", [Table(sentences.capitalised(what), ["", ""], rows, note, words=[1])]))
    return blocks


def _duplicates(record: Record, shown: Sequence[Shown]) -> list[Block]:
    total = record["pairs"]["total"]
    if not total:
        return [Text("No two images show the same picture, not even flipped or turned.", "good")]
    text = (
        f"Pairs of images that show the same picture: {total:,}. {record['pairs']['same file']:,} the same "
        f"file, {record['pairs']['same pixels']:,} the same pixels in another file, {record['pairs']['near']:,} nearly "
        "the same (saved again, resized, cropped, flipped or turned). Pairs are found by a difference hash in all "
        "eight orientations and kept where the pictures themselves agree."
    )
    some = f" The worst {len(shown)} are shown." if len(shown) < total else ""
    photos = [
        Photos(pair.title, [Photo(end.uri, end.name, end.where) for end in pair.ends], pair.how) for pair in shown
    ]
    return [Text(f"{text}{some} pairs.csv has all of them."), Row(photos)] if photos else [Text(text)]


def _probes(record: Record) -> list[Block]:
    blocks: list[Block] = []
    for dataset in _names(record):
        probes = [p for p in record["probes"] if p["dataset"] == dataset and p["roc_auc"] is not None]
        if not probes:
            continue
        rows = [
            [
                p["view"],
                Cell(format.score(p["roc_auc"]), _interval(p["low"], p["high"])),
                Cell(format.score(p["accuracy"]), _interval(p["accuracy_low"], p["accuracy_high"])),
                format.score(p["majority"]),
                Cell(format.score(p["shuffled"]["mean"]), format.interval(p["shuffled"])) if p["shuffled"] else "–",
                f"{p['images']:,}",
                p["verdict"],
            ]
            for p in probes
        ]
        scored = {
            "test": "the test split, learned from the others",
            "held-out half": "half of the patients or groups, learned from the others",
        }
        note = (
            f"Scored on {scored[probes[0]['protocol']]}; in brackets 95 % intervals by patient or group. A shortcut is "
            "a view in which nothing can be the disease and which beats its own control: the same probe with shuffled "
            "labels. Where disease may show in a view, its score says how far one gets without a network."
        )
        columns = ["given alone", "ROC AUC", "accuracy", "commonest class", "labels shuffled", "images", "verdict"]
        power = next(one.get("power") for one in record["datasets"] if one["dataset"] == dataset)
        if power and power["sentence"]:
            blocks.append(Text(f"{dataset}: {power['sentence']}"))
        blocks.append(Picture(f"{dataset}: what tells the classes apart", _forest(probes), ""))
        blocks.append(
            Table(f"What a classifier scores that is given this alone, {dataset}", columns, rows, note, words=[6])
        )
        given = [[p["view"], p["about"]] for p in probes]
        blocks.append(Fold("What each is given", [Table("Given alone", ["", ""], given, words=[1])]))
    return blocks


def _differences(record: Record) -> list[Block]:
    blocks: list[Block] = []
    for dataset in _names(record):
        found = [d for d in record["differences"] if d["dataset"] == dataset]
        against: dict[str, list[Mapping[str, Any]]] = {}
        for d in found:
            against.setdefault(f"{d['of_class']} against {d['others']}", []).append(d)
        blocks += [_difference_table(f"{dataset}: {classes}", each) for classes, each in against.items()]
    return blocks


def _difference_table(caption: str, found: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            d["quantity"] + (f" ({d['unit']})" if d["unit"] else ""),
            Cell(_figure(d["median"]), f"mean {_figure(d['mean'])}"),
            Cell(_figure(d["median_others"]), f"mean {_figure(d['mean_others'])}"),
            Cell(f"{d['delta']:+.2f}", _interval(d["low"], d["high"])),
            _p(d["p_adjusted"]),
            d["size"],
        ]
        for d in found
    ]
    first = found[0]
    columns = ["quantity", first["of_class"], first["others"], "Cliff's delta", "p", "effect"]
    note = (
        "Medians, with means behind them. Cliff's delta: how much more often an image of the class has the larger "
        "value than the smaller, -1 to 1; in brackets its 95 % interval by patient or group. p after Holm, over all "
        "quantities."
    )
    return Table(caption, columns, rows, note, words=[5])


def _checked(record: Record) -> Table:
    rows = [
        [one["check"], ", ".join(one["datasets"]), "yes" if one["done"] else f"no: {one['why_not']}"]
        for one in record["checked"]
    ]
    note = (
        "Not looked for, because no program can: labels that are wrong without a duplicate, patients that nobody "
        "names, and whether the classes were collected in the same way."
    )
    return Table("Checks", ["what", "dataset", "checked"], rows, note, words=[1, 2])


def _excluded(record: Record) -> list[Block]:
    counts = [f"{one['dataset']}: {wording.count(one['to_leave_out'], 'image')}" for one in record["datasets"]]
    return [Text(f"The exclude list. {record['rule']} {'; '.join(counts)}.")]


def _datasets(record: Record) -> Table:
    rows = []
    for one in record["datasets"]:
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
    columns = ["dataset", "protocol", "images", "patients", "classes", "left out before", "digest"]
    note = "A run whose record shows the same digest was trained on these images and this split."
    return Table("What was audited", columns, rows, note, words=[1, 4])


def _forest(probes: Sequence[Mapping[str, Any]]) -> str:
    """ROC AUC of each probe with its interval, as an SVG; its texts are escaped."""
    left, width, row, top = 230, 420, 26, 8
    height = top + row * len(probes) + 28

    def x(value: float) -> float:
        return left + width * min(max(value, 0.0), 1.0)

    told = "; ".join(f"{p['view']} {format.score(p['roc_auc'])}" for p in probes)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 60} {height}" role="img" width="710" '
        'font-family="system-ui,sans-serif" font-size="12" fill="currentColor">',
        f"<title>ROC AUC: {escape(told)}</title>",
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


def _names(record: Record) -> list[str]:
    return [one["dataset"] for one in record["datasets"]]


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else format.interval({"low": low, "high": high})


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _p(value: float | None) -> str:
    return format.NONE if value is None else "<0.001" if value < 0.001 else f"{value:.2g}"


def _words(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else value if isinstance(value, str) else json.dumps(value)
