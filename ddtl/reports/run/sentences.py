"""A record in sentences: shared by the page, the methods text and the model card. No sentence is markup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from ddtl.evaluation import test_use
from ddtl.evaluation.intervals.coverage import measured_coverage
from ddtl.evaluation.intervals.interval import DESCRIPTIONS
from ddtl.reports.html import format
from ddtl.reports.prose import Words
from ddtl.reports.run.stored import SPLITS, Stored, patients
from ddtl.schema.scores import TITLES, title_of, with_unit
from ddtl.schema.units import GROUPS, UNITS
from ddtl.utils import wording

_WORDS = Words("sentences.txt.jinja")
_SMALL = 100  # patients: below, intervals are too wide to distinguish good models

# What to do about images in which text was found (ddtl.audits.burned_in).
CHECK_EACH = (
    "It may be a name or a date: check each image before the page is shared, or share that of `ddtl report` with "
    "share=true, which has no images."
)


def warnings(stored: Stored) -> list[str]:
    """Return what a reader must know before the numbers, the gravest first."""
    record = stored.record
    found = []
    if stored.split == "val" and stored.trained_on is None:
        found.append(_WORDS.validation_only(test_use.before(record), "averaged_epochs" in record))
    if stored.split == "test" and not test_use.is_first(record):
        found.append(_WORDS.repeated_use(test_use.label(record), test_use.history(record)))
    found += map(format.sentence, record["warnings"])
    finding = shortcut(stored.record, stored.scores)
    if finding is not None and finding[0]:
        found.append(finding[1])
    return [*found, *_small(stored)]


def independent_units(scores: Mapping[str, Any], unit: str) -> int:
    """Return how many patients, groups or images the scores of a split rest on."""
    by_patient = patients(scores)
    if unit == "patient" and by_patient is not None:
        return int(by_patient["patients"])
    return int(scores["images"] if unit == "image" else scores["groups"])


def _small(stored: Stored) -> list[str]:
    unit = stored.record.get("interval", {}).get("unit", "patient")
    n = independent_units(stored.scores, unit)
    if n >= _SMALL:
        return []
    what = GROUPS[stored.record["grouping"]] if unit != "image" else "images"
    interval = format.interval_of(stored.main, "roc_auc")
    width = None if interval is None else interval["high"] - interval["low"]
    return [_WORDS.small_set(SPLITS[stored.split], n, what, width)]


def threshold(record: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> str:
    """Return where the threshold came from.

    Args:
        record: ``results.json``.
        config: the run's settings at its first start; None or empty where they are not known.
    """
    if len(record["classes"]) > 2:
        return _WORDS.no_threshold()
    target, note = record.get("threshold_target"), record.get("threshold_note")
    rule = record.get("threshold_rule", "fixed")
    return _WORDS.threshold(
        value=record["threshold"],
        rule=rule,
        target=None if target is None else f"{target:g}",
        fixed=_uses_before_fixing(record, config or {}),
        on_val=record.get("threshold_on_val"),
        unit=record.get("threshold_unit") or "image",
        expected=_expected(record, rule),
        note=format.sentence(note) if note else "",
    )


def _expected(record: Mapping[str, Any], rule: str) -> dict[str, Any] | None:
    """Return what a chosen threshold promises for other patients; None where the record does not say."""
    found = record.get("threshold_expected")
    if not found:
        return None
    return {
        "rates": {name: found[name] for name in ("sensitivity", "specificity")},
        "rate": rule.removesuffix("_guaranteed"),
        "guaranteed": rule.endswith("_guaranteed"),
        "kept": found["kept"],
        "level": (record.get("interval") or {}).get("level", 0.95),
    }


def _uses_before_fixing(record: Mapping[str, Any], config: Mapping[str, Any]) -> int | None:
    """Return how often the test set had been used when a fixed threshold was set; None where that was before training.

    It was where the run began with the threshold and was scored with no other one.
    """
    at_first = config.get("evaluation", {}).get("threshold")
    is_same = test_use.is_first(record) if at_first is None else at_first == record["threshold"]
    changed = any(line.startswith("evaluation.threshold:") for line in test_use.list_changes(record))
    if is_same and not changed:
        return None
    return max(0, test_use.total(record) - 1)


def calibration(stored: Stored) -> list[str]:
    """Return whether the probabilities are shown to be wrong, by image and by patient; nothing for older records."""
    found = []
    for unit, scores in (("image", stored.scores), ("patient", patients(stored.scores) or {})):
        measured = scores.get("calibration") or {}
        if "line" in measured and "floor" in measured:
            found.append(calibrated_sentence(unit, measured))
    return found


def calibrated_sentence(unit: str, found: Mapping[str, Any]) -> str:
    """Return the verdict of the test on intercept and slope, with the calibration error and what chance shows."""
    line = found["line"]
    p, intercept, slope = line["p_value"], line["intercept"], line["slope"]
    verdict, wrong = "miscalibrated", []
    if p is None or None in (intercept, slope) or None in (*intercept.values(), *slope.values()):
        verdict = "not tested"
    elif p >= 0.05:
        verdict = "not shown"
    else:
        directions = {
            "too extreme": slope["high"] < 1,
            "not extreme enough": slope["low"] > 1,
            "too low": intercept["low"] > 0,
            "too high": intercept["high"] < 0,
        }
        wrong = [name for name, is_so in directions.items() if is_so]
    return _WORDS.calibrated(
        unit=unit,
        verdict=verdict,
        wrong=wrong,
        why_not=line["why_not"],
        error=found["ece"],
        chance=found["floor"]["ece"],
        intercept=intercept,
        slope=slope,
    )


def intervals(record: Mapping[str, Any]) -> str:
    """Return what the intervals are, and what they assume."""
    made = record.get("interval")
    if not made:
        return "This record has no intervals."
    return _WORDS.intervals(made["level"], interval_unit(record), made["assumes"])


def coverage(stored: Stored) -> str:
    """Return how often, in simulation, an interval like that of the headline's ROC AUC contained the true value."""
    made, found = stored.record.get("interval"), format.interval_of(stored.main, "roc_auc")
    if not made or found is None or (made["level"], made["method"]) != (0.95, "default") or made["unit"] == "image":
        return ""
    estimate = stored.main["roc_auc"]
    if not stored.binary or estimate is None or found["method"] != "score":  # another method: of an earlier version
        return ""
    table = stored.predictions.of(stored.split)
    n, positives = (len(np.unique(table.group[of])) for of in (np.ones(len(table), bool), table.label == 1))
    unit: Literal["image", "patient"] = "patient" if stored.unit == "patient" else "image"
    like = measured_coverage("roc_auc", unit, estimate, n, positives, len(table))
    return "" if like is None else _WORDS.coverage(like.patients, like.positives, like.truth, unit, like.share)


def clustering(stored: Stored) -> str:
    """Return how many independent images those of the split are worth for the ROC AUC, where patients have several."""
    found = ((stored.scores.get("clustering") or {}).get("scores") or {}).get("roc_auc")
    if found is None or found["design_effect"] <= 1:
        return ""
    effective, effect = found["effective_images"], found["design_effect"]
    return _WORDS.clustering(stored.scores["images"], effective, effect, found["correlation"])


def interval_unit(record: Mapping[str, Any]) -> str:
    """Return what the intervals take for independent."""
    return UNITS[record["interval"]["unit"]][1]


def interval_methods(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what made the intervals: (scores, method) in words, apart for images and patients where that differs."""
    used: dict[str, dict[str, set[str]]] = {}  # method -> score -> by image, by patient, in order
    for split in ("test", "val"):
        scores = record.get(split) or {}
        for unit, holder in (("image", scores), ("patient", patients(scores) or {})):
            for name, found in (holder.get("intervals") or {}).items():
                if found is not None:
                    used.setdefault(found["method"], {}).setdefault(title_of(name), set()).add(unit)
    several = len({unit for titles in used.values() for units in titles.values() for unit in units}) > 1
    rows = []
    for method, titles in used.items():
        for units, suffix in (({"image", "patient"}, ""), ({"image"}, " by image"), ({"patient"}, " by patient")):
            of = [title for title, by in titles.items() if by == units]
            if of:
                rows.append((wording.listed(of) + suffix * several, _described(record, method)))
    return rows


def _described(record: Mapping[str, Any], method: str) -> str:
    text = DESCRIPTIONS.get(method, method)
    return f"{text}, {record['interval']['replicates']:,} replicates" if "bootstrap" in text else text


def monitor(name: str) -> str:
    """Return a monitored score in words, with its unit: ``val/roc_auc`` is the ROC AUC by image."""
    score = name.partition("/")[2]
    return with_unit(title_of(score) if score in TITLES else score)


def aggregation(scores: Mapping[str, Any]) -> str:
    """Return how images became patients; or why they did not; empty where the record does not say."""
    found = scores.get("patients")
    if not found:
        return ""
    if "why_not" in found:
        return f"There are no scores by patient: {format.sentence(found['why_not'], capital=False)}"
    return _WORDS.aggregation(found["aggregation"], found.get("mixed") or 0)


def shortcut(record: Mapping[str, Any], scores: Mapping[str, Any]) -> tuple[bool, str] | None:
    """Return whether file metadata alone, with no pixel seen, explains the model's score.

    Args:
        record: of a run.
        scores: of the split that it reports.

    Returns:
        (it is a reason to worry, the sentence); None where no such baseline was scored.
    """
    metadata = (record.get("baselines") or {}).get("file_facts")
    if not metadata:
        return None
    if "why_not" in metadata:
        return False, _WORDS.metadata_not_scored(format.sentence(metadata["why_not"], capital=False))
    found, model = metadata.get("roc_auc"), scores.get("roc_auc")
    if found is None or model is None:
        return None
    interval = format.interval_of(metadata, "roc_auc")
    paired = (metadata.get("difference") or {}).get("interval")
    against = against_metadata(record, scores)
    above, below = against == "above", against == "below"
    is_chance = (interval["low"] if interval else found) <= 0.5
    if below and is_chance:
        verdict = "weak model"
    elif below or not (above or is_chance):
        verdict = "shortcut, better" if below else "shortcut"
    elif not above:
        verdict = "unknown"
    else:
        verdict = "weak metadata" if is_chance else "both"
    return not above, _WORDS.metadata(verdict, found, interval, format.with_interval(scores, "roc_auc"), paired)


def against_metadata(
    record: Mapping[str, Any], scores: Mapping[str, Any]
) -> Literal["above", "below", "not shown"] | None:
    """Return where the model's ROC AUC by image is against that of file metadata; None where that was not scored."""
    metadata = (record.get("baselines") or {}).get("file_facts") or {}
    found, model = metadata.get("roc_auc"), scores.get("roc_auc")
    if found is None or model is None:
        return None
    interval, own = format.interval_of(metadata, "roc_auc"), format.interval_of(scores, "roc_auc")
    # Paired by patient where the record has it; records of earlier versions have the two intervals alone.
    paired = (metadata.get("difference") or {}).get("interval")
    above = paired["low"] > 0 if paired else found < (own["low"] if own else model)
    below = paired["high"] < 0 if paired else bool(interval and own and interval["low"] > own["high"])
    return "above" if above else "below" if below else "not shown"


def answer(stored: Stored) -> str:
    """Return the finding of a run in a sentence: its ROC AUC, against chance and against file metadata."""
    value, interval = stored.main.get("roc_auc"), format.interval_of(stored.main, "roc_auc")
    if value is None:
        return _WORDS.no_answer(SPLITS[stored.split], stored.record["dataset"])
    limits = None if interval is None or interval["low"] is None or interval["high"] is None else interval
    verdict = "no interval"
    if limits is not None:
        verdict = "above" if limits["low"] > 0.5 else "below" if limits["high"] < 0.5 else "not shown"
    return _WORDS.answer(
        leaky=stored.leaky,
        split=SPLITS[stored.split],
        dataset=stored.record["dataset"],
        trained_on=(stored.trained_on or {}).get("dataset"),
        unit=stored.unit,
        value=value,
        interval=limits,
        level=stored.level,
        verdict=verdict,
        metadata=against_metadata(stored.record, stored.scores),
    )


def shortcut_text(stored: Stored) -> str:
    """Return the same as a sentence alone; empty where nothing is known."""
    found = shortcut(stored.record, stored.scores)
    return "" if found is None else found[1]


def baselines_setting(record: Mapping[str, Any]) -> str:
    """Return where the baselines' threshold and level are not the model's; empty where they are."""
    metadata = (record.get("baselines") or {}).get("file_facts") or {}
    level, own = metadata.get("level"), record.get("interval", {}).get("level")
    return _WORDS.baselines_setting(record.get("threshold", 0.5) != 0.5, None if level == own else level)


def leaked(stored: Stored) -> str:
    """Return the mark that a leaky split puts on every number; empty where the split is sound."""
    if not stored.leaky:
        return ""
    return _WORDS.leaked(stored.record.get("leaked_share"), stored.record["grouping"])


def excluded(record: Mapping[str, Any]) -> str:
    """Return that a list took images out of the dataset; empty where there was none."""
    found = record.get("excluded")
    return _WORDS.excluded(found["list_digest"][:12], found["images"]) if found else ""
