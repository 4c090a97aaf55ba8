"""What a run's images are: where they come from, how they were split, what is known against their use."""

from __future__ import annotations

from collections import Counter

from ddtl.data.datasets.registry import ORIGINS
from ddtl.reports.html.page import Section, Table, Text
from ddtl.reports.run import sentences
from ddtl.reports.run.stored import SPLITS, Stored
from ddtl.schema.units import GROUPS
from ddtl.utils import wording

_GROUPING = {
    "patient": "patients, whole ones in each split",
    "near_duplicate": "groups of near-duplicate images; patients are not known",
    "none": "none: patients are not known, images are taken one by one",
}


def section(stored: Stored) -> Section:
    """Return the card, the splits by class, and the dataset's own caveats."""
    return Section("Data", [_card(stored), _splits(stored), *_notes(stored)])


def _card(stored: Stored) -> Table:
    record = stored.record
    kind = str(stored.config.get("dataset", {}).get("kind", ""))
    origin = ORIGINS.get(record["dataset"]) or (ORIGINS.get(kind) if not stored.trained_on else None)
    images = sum(part["images"] for part in stored.parts.values())
    facts = {
        "dataset": record["dataset"] if origin is None else f"{origin.title} ({record['dataset']})",
        "kind": "synthetic: drawn by a program" if record["dataset"] == "phantom" else None,
        "source": origin and f"github.com/{origin.repository}, commit {origin.commit[:12]}{origin.other_sources}",
        "licence": origin and origin.licence,
        "images": f"{images:,}",
        "classes": wording.listed(stored.classes),
        "positive class": record.get("positive"),
        "protocol": f"{record['protocol']}{', leaky: scores are optimistic' if stored.leaky else ''}",
        "never split": _GROUPING[record["grouping"]],
        "sites in the scored split": _sites(stored),
        "excluded": sentences.excluded(record) or None,
        "fingerprint": f"{record['digest'][:16]}…, of files, labels and split" if record.get("digest") else None,
        "audit": _audit(stored),
    }
    rows = [[name, value] for name, value in facts.items() if value]
    return Table("Data card", ["", ""], rows, words=[1])


def _splits(stored: Stored) -> Table:
    rows = [
        [SPLITS[split], f"{n['images']:,}", f"{n['groups']:,}", *(f"{n['classes'][name]:,}" for name in stored.classes)]
        for split, n in stored.parts.items()
    ]
    caption = f"{stored.record['dataset']}, protocol {stored.record['protocol']}"
    columns = ["split", "images", GROUPS[stored.record["grouping"]], *stored.classes]
    return Table(caption, columns, rows, sentences.excluded(stored.record))


def _sites(stored: Stored) -> str | None:
    rows = stored.predictions.of(stored.split)
    names = sorted({str(site) for site in rows.site.tolist()} - {""})
    counts = [f"{name} {sum(rows.site == name):,}" for name in names]
    more = [f"{len(counts) - 12} more"] if len(counts) > 12 else []
    return wording.listed([*counts[:12], *more]) if counts else None


def _audit(stored: Stored) -> str:
    audit = stored.record.get("audit")
    if audit is None:
        return "none of just these images and this split"
    counts = Counter(finding["severity"] for finding in audit["findings"])
    named = {"fail": "failure", "warn": "warning", "note": "note"}
    parts = [wording.count(counts[key], name) for key, name in named.items() if counts[key]]
    return f"{audit['when'][:10]}: {wording.listed(parts) if parts else 'nothing found'}"


def _notes(stored: Stored) -> list[Text]:
    origin = ORIGINS.get(stored.record["dataset"])
    if origin is None:
        return []
    # Those that apply to the images, the split and the use are among the record's warnings.
    notes = [note.text for note in origin.notes if note.text in stored.record["warnings"]]
    return [Text(f"Known about it: {' '.join(notes)}")] if notes else []
