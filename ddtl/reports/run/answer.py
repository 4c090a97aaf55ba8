"""What a run found, before everything else: its scores on one axis with those of what sees no pixel, and chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddtl.reports.html import format
from ddtl.reports.html.page import Block, Estimate, Forest, Row, Section, Tone, ticks_around
from ddtl.reports.run import sentences
from ddtl.reports.run.stored import SPLITS, Stored, patients
from ddtl.schema.scores import TITLES

_CHANCE = 0.5  # the ROC AUC of a guess


def sentence(stored: Stored) -> str:
    """Return the finding in a sentence."""
    return sentences.answer(stored)


def section(stored: Stored) -> Section:
    """Return the ROC AUC next to chance, and the accuracy next to that of the majority class."""
    baselines = stored.record.get("baselines") or {}
    made: list[Forest] = []
    for name in ("roc_auc", "accuracy"):
        share = (baselines.get("majority") or {}).get("accuracy") if name == "accuracy" else _CHANCE
        rows = _rows(stored, baselines, name)
        if rows and share is None:
            share = _majority_share(stored)
        if not rows or share is None:
            continue
        dashed = "chance" if name == "roc_auc" else f"always the majority class, {format.score(share)}"
        title = stored.marked(f"{format.capitalised(TITLES[name])}, {SPLITS[stored.split]}")
        caption = f"With {format.level(stored.level)} intervals. Dashed: {dashed}."
        made.append(Forest(title, TITLES[name], rows, ticks_around(rows, share), share, caption))
    blocks: list[Block] = [Row(made)] if len(made) > 1 else list(made)
    return Section("Result", blocks)


def _rows(stored: Stored, baselines: Mapping[str, Any], name: str) -> list[Estimate]:
    by_patient, metadata = patients(stored.scores), baselines.get("file_facts") or {}
    found: list[tuple[str, Mapping[str, Any], Tone]] = [("this model, by image", stored.scores, "main")]
    if by_patient:
        found.insert(0, ("this model, by patient", by_patient, "main"))
    if metadata and "why_not" not in metadata:
        found.append(("file metadata, by image", metadata, "other"))
    return [_estimate(title, scores, name, tone) for title, scores, tone in found if scores.get(name) is not None]


def _estimate(title: str, scores: Mapping[str, Any], name: str, tone: Tone) -> Estimate:
    limits = format.interval_of(scores, name) or {"low": None, "high": None}
    return Estimate(title, scores[name], limits["low"], limits["high"], format.with_interval(scores, name), tone)


def _majority_share(stored: Stored) -> float | None:
    """Return the share of the split that its majority class has: the accuracy of always predicting it."""
    counts = list(stored.scores["classes"].values())
    return max(counts) / sum(counts) if sum(counts) else None
