"""The page about one run: a pure function of what the run's folder contains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddtl.reports.html import format
from ddtl.reports.html.page import Headline, Page, make_sections, render
from ddtl.reports.run import (
    answer,
    audit_section,
    baselines,
    calibration,
    cases,
    curves,
    data_card,
    history,
    reproduce,
    schedule,
    scores,
    sentences,
    strip,
    threshold,
)
from ddtl.reports.run.stored import SPLITS, Stored, patients
from ddtl.schema.units import GROUPS
from ddtl.utils import wording

# A section is one file: its numbers, its words and its charts.
SECTIONS = (
    answer.section,
    scores.section,
    curves.section,
    threshold.section,
    strip.section,
    calibration.section,
    baselines.section,
    cases.section,
    audit_section.section,
    schedule.section,
    history.section,
    data_card.section,
    reproduce.section,
)

_NEVER_SPLIT = {
    "patient": "no patient in two splits",
    "near_duplicate": "no near-duplicates in two splits",
    "none": "patients are not known",
}


def render_run(stored: Stored, images: bool = True) -> str:
    """Return the page as HTML; without ``images`` no image of a patient is on it."""
    return render(page(stored, images))


def page(stored: Stored, images: bool = True) -> Page:
    """Return the page, section by section."""
    return Page(
        eyebrow="ddtl evaluation" if stored.trained_on else "ddtl run",
        title=_title(stored),
        subtitle=_subtitle(stored),
        answer=answer.sentence(stored),
        headlines=_headlines(stored),
        caveat=sentences.leaked(stored),
        warnings=[*sentences.warnings(stored), *audit_section.warnings(stored)],
        sections=make_sections([of for of in SECTIONS if images or of is not cases.section], stored),
    )


def _title(stored: Stored) -> str:
    model, dataset = stored.config.get("model", {}).get("name", "model"), stored.record["dataset"]
    if stored.trained_on:
        return f"{model} trained on {stored.trained_on['dataset']}, tested on {dataset}"
    return f"{model} on {dataset}"


def _subtitle(stored: Stored) -> str:
    record, config = stored.record, stored.config
    parts = [
        f"finetune {config['finetune']['name']}" if "finetune" in config else "",
        f"weights {record['weights']['source']}" if "weights" in record else "",
        wording.count(len(stored.metrics), "epoch") if stored.metrics else "",
        f"{config['dataset']['image_size']} px" if "image_size" in config.get("dataset", {}) else "",
        stored.day,
        f"seed {record['seed']}" if "seed" in record else "",
        f"run {stored.trained_on['run']}" if stored.trained_on else stored.folder.name,
    ]
    return " · ".join(filter(None, parts))


def _headlines(stored: Stored) -> list[Headline]:
    record, main, split = stored.record, stored.main, SPLITS[stored.split]
    at = f" at threshold {record['threshold']:.3g}" if stored.binary else ""
    known = patients(stored.scores)
    images = wording.count(stored.scores["images"], "image")
    groups = f"{stored.scores['groups']:,} {GROUPS[record['grouping']]}" if record["grouping"] != "none" else ""
    return [
        _score(main, "roc_auc", f"ROC AUC, {split}, by {stored.unit}", stored),
        _score(main, "accuracy", f"Accuracy{at}, {split}, by {stored.unit}", stored),
        Headline(
            f"{split.capitalize()} set",
            wording.count(known["patients"], "patient") if known else images,
            images if known else groups or "patients are not known",
        ),
        Headline(
            "Protocol",
            record["protocol"],
            "leaky: optimistic" if stored.leaky else _NEVER_SPLIT[record["grouping"]],
        ),
    ]


def _score(scores: Mapping[str, Any], name: str, label: str, stored: Stored) -> Headline:
    found, mark = format.interval_of(scores, name), "leaky split" if stored.leaky else ""
    if found is None:
        return Headline(label, format.score(scores[name]), format.cell(scores, name).note, mark)
    return Headline(
        label, format.score(scores[name]), f"{format.level(stored.level)} CI {format.interval(found)[1:-1]}", mark
    )
