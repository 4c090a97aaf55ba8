"""Pairs of images of an audit that show the same, the worst of them side by side."""

from __future__ import annotations

from ddtl.reports.audit.facts import Audited
from ddtl.reports.html.page import Block, Photo, Photos, Row, Section, Text


def section(found: Audited) -> Section:
    """Return how many pairs there are, and the worst of them."""
    return Section("Duplicates", _blocks(found))


def _blocks(found: Audited) -> list[Block]:
    record, shown = found.record, found.shown
    total = record["pairs"]["total"]
    if not total:
        return [Text("No two images show the same, not even flipped or rotated.", "good")]
    text = (
        f"Pairs of images that show the same: {total:,}. {record['pairs']['same file']:,} the same "
        f"file, {record['pairs']['same pixels']:,} the same pixels in another file, {record['pairs']['near']:,} nearly "
        "the same (saved again, resized, cropped, flipped or rotated). Pairs are found by a difference hash in all "
        "eight orientations and accepted where the pixels agree."
    )
    some = f" The worst {len(shown)} are shown." if len(shown) < total else ""
    photos = [
        Photos(pair.title, [Photo(end.uri, end.name, end.where) for end in pair.ends], pair.how) for pair in shown
    ]
    return [Text(f"{text}{some} pairs.csv has all of them."), Row(photos)] if photos else [Text(text)]
