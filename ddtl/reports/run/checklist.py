"""The 42 items of CLAIM (Mongan, Moy & Kahn 2020, Radiology: Artificial Intelligence 2:e200029), filled from a record.

What each item asks for is said in our own words. The items that no record can answer are blanks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddtl.reports.html import format
from ddtl.reports.run import paragraphs, sentences
from ddtl.reports.run.stored import Stored, patients
from ddtl.schema.scores import TITLES, title_of
from ddtl.utils import wording

# Number -> (part of the paper, what is asked for, what to fill in where the record does not know).
ITEMS: dict[int, tuple[str, str, str]] = {
    1: ("Title", "name the study as one of AI, and the kind of AI", ""),
    2: ("Abstract", "a structured summary", "abstract"),
    3: ("Introduction", "background, intended use and clinical role", "background and intended clinical use"),
    4: ("Introduction", "aims and hypotheses", "aims and hypotheses"),
    5: ("Study design", "prospective or retrospective", "prospective or retrospective"),
    6: ("Study design", "what the study is for: a new model, feasibility, non-inferiority, …", "goal of the study"),
    7: ("Data", "where the data come from", ""),
    8: ("Data", "who was eligible: criteria, places, dates", "inclusion and exclusion criteria, places and dates"),
    9: ("Data", "preprocessing", ""),
    10: ("Data", "which part of the data was used", ""),
    11: ("Data", "definitions of the data elements", "definitions, with common data elements where there are any"),
    12: ("Data", "de-identification", "how images were de-identified; ethics approval"),
    13: ("Data", "missing data", "images or patients left out for missing data"),
    14: ("Ground truth", "the reference standard, so that it can be repeated", "reference standard, e.g. RT-PCR"),
    15: ("Ground truth", "why this reference standard", "reasons for the reference standard"),
    16: ("Ground truth", "who annotated, and how qualified", "annotators and their qualification"),
    17: ("Ground truth", "annotation tools", "annotation tools"),
    18: ("Ground truth", "agreement between annotators", "inter- and intra-rater agreement"),
    19: ("Partitions", "intended sample size", "how the sample size was determined"),
    20: ("Partitions", "how data were divided, and in which shares", ""),
    21: ("Partitions", "at which level the parts are disjoint", ""),
    22: ("Model", "inputs, architecture, outputs", ""),
    23: ("Model", "software, with versions", ""),
    24: ("Model", "initial parameters", ""),
    25: ("Training", "augmentation, hyper-parameters, number of models", ""),
    26: ("Training", "how the final model was selected", ""),
    27: ("Training", "ensembles", ""),
    28: ("Evaluation", "measures of performance", ""),
    29: ("Evaluation", "statistical uncertainty and significance", ""),
    30: ("Evaluation", "robustness and sensitivity analysis", "further robustness analyses"),
    31: ("Evaluation", "explanations of the model, and their validation", "saliency maps or other explanations"),
    32: ("Evaluation", "test on external data", ""),
    33: ("Results", "flow of participants, as a diagram", "flow diagram with those left out and why"),
    34: ("Results", "demographic and clinical data of each part", "age, sex, disease severity by part"),
    35: ("Results", "performance on all parts", ""),
    36: ("Results", "diagnostic accuracy with its precision", ""),
    37: ("Results", "analysis of wrong cases", "what the wrongly classified images have in common"),
    38: ("Discussion", "limits: bias, uncertainty, generality", "further limits"),
    39: ("Discussion", "what it means for practice", "implications for practice"),
    40: ("Other", "registration", "registry and number"),
    41: ("Other", "where the protocol can be read", "where the study protocol is"),
    42: ("Other", "funding and the funders' role", "funding"),
}


def table(stored: Stored) -> str:
    """The checklist as a table in Markdown; blanks end the rows that a person must complete."""
    known = _known(stored)
    lines = ["| item | part | asks for | this study |", "| ---: | --- | --- | --- |"]
    for item, (part, asked, missing) in ITEMS.items():
        gap = paragraphs.blank(missing) if missing else ""
        answer = f"{known.get(item, '')} {gap}".strip() or paragraphs.blank(asked)
        lines.append(f"| {item} | {part} | {asked} | {answer} |")
    return "\n".join(lines)


def _known(stored: Stored) -> dict[int, str]:
    """What the record answers, already in Markdown."""
    record, e = stored.record, paragraphs.escaped
    return {
        1: f"Deep learning: transfer learning with {e(_model(stored))} for classification of chest CT images.",
        7: f"Dataset {e(record['dataset'])}. {paragraphs.blank('source and reference of the dataset')}",
        9: f"{paragraphs.preprocessing(stored)} {paragraphs.augmentation(stored)}",
        10: f"The {sum(part['images'] for part in stored.parts.values()):,} images of the parts in item 20.",
        20: f"{paragraphs.assignment(record)} {paragraphs.counts(stored)}",
        21: _disjoint(stored),
        22: f"{paragraphs.network(stored)} Output: a probability for each of {len(stored.classes)} classes.",
        23: paragraphs.software(stored),
        24: format.sentence(paragraphs.initial_weights(record)),
        25: f"{paragraphs.training(stored)} {paragraphs.blank('number of models, and how settings were chosen')}",
        26: paragraphs.selection(stored),
        27: _ensemble(stored),
        28: e(_measures(stored)),
        29: e(paragraphs.intervals(record)),
        30: e(_controls(stored)),
        32: _external(stored),
        35: f"{e(_performance(stored))} See the table of results.",
        36: e(_accuracy(record, stored)),
        37: e(_wrong(stored)),
        38: e(_limits(stored)),
    }


def _model(stored: Stored) -> str:
    return str(stored.config.get("model", {}).get("name", "a convolutional network"))


def _disjoint(stored: Stored) -> str:
    if stored.leaky:
        return "Image: images of one patient stand in several parts, so the scores are optimistic."
    return {
        "patient": "Patient.",
        "near_duplicate": "Group of near-duplicate images; patients are not known.",
        "none": "Image; patients are not known.",
    }[stored.record["grouping"]]


def _ensemble(stored: Stored) -> str:
    ema = stored.config.get("trainer", {}).get("ema")
    return f"None; a running mean of one model's weights (decay {ema:g})." if ema else "None: a single model."


def _measures(stored: Stored) -> str:
    main = ", ".join(title_of(name) for name in TITLES)
    return f"{main}. {sentences.threshold(stored.record, stored.config)} {sentences.aggregation(stored.scores)}".strip()


def _controls(stored: Stored) -> str:
    baselines = stored.record.get("baselines") or {}
    majority = (baselines.get("majority") or {}).get("accuracy")
    always = f"Always calling the commonest class has accuracy {majority:.3f}." if majority is not None else ""
    return f"{sentences.shortcut_text(stored)} {always}".strip()


def _external(stored: Stored) -> str:
    if stored.trained_on:
        source = paragraphs.escaped(stored.trained_on["dataset"])
        return f"This record is one: trained on {source}, tested on {paragraphs.escaped(stored.record['dataset'])}."
    return f"Not in this record. {paragraphs.blank('test on a dataset from elsewhere (ddtl evaluate RUN dataset=…)')}"


def _performance(stored: Stored) -> str:
    parts = []
    for split, name in (("test", "test"), ("val", "validation")):
        found = stored.record.get(split)
        if found:
            shown = patients(found) or found
            unit = "patient" if shown is not found else "image"
            parts.append(f"ROC AUC on {name}, by {unit}: {format.with_interval(shown, 'roc_auc')}")
    return f"{'; '.join(parts)}."


def _accuracy(record: Mapping[str, Any], stored: Stored) -> str:
    names = ("accuracy", "sensitivity", "specificity")
    parts = [f"{title_of(name)} {format.with_interval(stored.main, name)}" for name in names]
    where = "test" if stored.split == "test" else "validation"
    at = f", threshold {record['threshold']:.3g}" if stored.binary else ""
    return f"By {stored.unit} on {where}{at}: {wording.listed(parts)}."


def _wrong(stored: Stored) -> str:
    if not stored.binary:
        return "The confusion matrix stands in report.html."
    c = stored.main["confusion"]
    wrong = [wording.count(c["fp"], "false positive"), wording.count(c["fn"], "false negative")]
    return f"By {stored.unit}: {wording.listed(wrong)}."


def _limits(stored: Stored) -> str:
    return " ".join(sentences.warnings(stored))
