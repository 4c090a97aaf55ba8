"""What a record says, in sentences: shared by the page and by the methods text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from ddtl.evaluation import test_use
from ddtl.evaluation.intervals.coverage import measured_coverage
from ddtl.evaluation.intervals.interval import DESCRIPTIONS
from ddtl.reports.html import format
from ddtl.reports.run.stored import Stored, patients
from ddtl.schema.scores import TITLES, by_image, title_of
from ddtl.schema.units import GROUPS, UNITS
from ddtl.utils import wording

_SMALL = 100  # patients: below, intervals are too wide to tell good models apart

# What is to be done about pictures in which text was seen (ddtl.audit.burned_in).
LOOK_AT_EACH = (
    "It may be a name or a date: look at each before the page is passed on, or pass on that of `ddtl report` with "
    "share=true, which has no pictures."
)
_ASKED = {
    "fixed": "was fixed {when} (evaluation.threshold)",
    "youden": "is where sensitivity + specificity is highest on validation (Youden's index)",
    "sensitivity": "is the highest at which the sensitivity on validation is at least {target}",
    "specificity": "is the lowest at which the specificity on validation is at least {target}",
    "sensitivity_guaranteed": "is the highest at which the lower limit of the sensitivity is at least {target}",
    "specificity_guaranteed": "is the lowest at which the lower limit of the specificity is at least {target}",
}


def warnings(stored: Stored) -> list[str]:
    """What a reader must know before the numbers, the gravest first."""
    record = stored.record
    found = []
    if stored.split == "val" and stored.trained_on is None:
        unscored = test_use.before(record) or "No test set was scored."
        found.append(
            f"{unscored} These are validation scores, and the best epoch was chosen on the same images: they are "
            "optimistic. evaluation.test=true scores the test set."
        )
    if stored.split == "test" and not test_use.is_first(record):
        found.append(
            f"This is {test_use.label(record)}. {test_use.history(record)} What was decided after an earlier use makes "
            "the scores optimistic."
        )
    found += [format.sentence(warning) for warning in record["warnings"]]
    finding = shortcut(stored)
    if finding is not None and finding[0]:
        found.append(finding[1])
    return [*found, *_small(stored)]


def independent_units(scores: Mapping[str, Any], unit: str) -> int:
    """How many patients, groups or images the scores of a split rest on."""
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
    wide = format.interval_of(stored.main, "roc_auc")
    width = (
        ""
        if wide is None
        else f" The interval of the ROC AUC is {wide['high'] - wide['low']:.2f} wide. To find whether another score "
        "on the same images differs needs a paired comparison."
    )
    return [f"Small {'test' if stored.split == 'test' else 'validation'} set: {n} {what}.{width}"]


def threshold(record: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> str:
    """Where the threshold came from.

    Args:
        record: ``results.json``.
        config: the run's settings at its first start; None or empty where they are not known.
    """
    if len(record["classes"]) > 2:
        return "There is no threshold: an image is called the class with the highest probability."
    target = record.get("threshold_target")
    asked = _ASKED[record.get("threshold_rule", "fixed")].format(
        target="" if target is None else f"{target:g}", when=_fixed_when(record, config or {})
    )
    reached, note = record.get("threshold_on_val"), record.get("threshold_note")
    there = (
        f" On validation {record.get('threshold_unit') or 'image'}s it gave sensitivity "
        f"{format.score(reached['sensitivity'])} and specificity {format.score(reached['specificity'])}."
        if reached
        else ""
    )
    more = f" {format.sentence(note)}" if note else ""
    return f"The threshold {record['threshold']:.3g} {asked}.{there}{_for_others(record)}{more}"


def _for_others(record: Mapping[str, Any]) -> str:
    """What a chosen threshold promises for other patients; empty where the record does not say."""
    found, target = record.get("threshold_expected"), record.get("threshold_target")
    if not found:
        return ""
    level = wording.percent((record.get("interval") or {}).get("level", 0.95))
    rates = [
        f"{name} {format.score(found[name]['mean'])} {format.interval(found[name])}"
        for name in ("sensitivity", "specificity")
    ]
    text = f" For other patients from the same source, expect {wording.listed(rates)}."
    if found["kept"] is None or target is None:
        return text
    rule = record.get("threshold_rule", "")
    name = rule.removesuffix("_guaranteed")
    if rule != name:
        return (
            f"{text} The {name} is {target:g} or more for other patients with {level} confidence, whatever the "
            "distribution of the probabilities, if patients are independent; that the same patients chose the epoch is "
            "not taken into account."
        )
    return f"{text} The probability that their {name} is {target:g} or more is about {wording.percent(found['kept'])}."


def calibration(stored: Stored) -> list[str]:
    """Whether the probabilities are shown to be wrong, by image and by patient; nothing in records from before."""
    found = []
    for unit, holder in (("image", stored.scores), ("patient", patients(stored.scores) or {})):
        measured = holder.get("calibration") or {}
        if "line" in measured and "floor" in measured:
            found.append(calibrated_sentence(unit, measured))
    return found


def calibrated_sentence(unit: str, found: Mapping[str, Any]) -> str:
    line, chance = found["line"], found["floor"]["ece"]
    size = (
        f"ECE {format.score(found['ece'])}; a perfectly calibrated network of this size shows "
        f"{format.score(chance['mean'])} on average and up to {format.score(chance['high'])} in 95 % of test sets"
    )
    p = line["p_value"]
    intercept, slope = line["intercept"], line["slope"]
    if p is None or None in (intercept, slope) or None in (*intercept.values(), *slope.values()):
        why = f" ({line['why_not']})" if line["why_not"] else ""
        return f"By {unit}, intercept and slope are not tested{why}. {size}."
    if p >= 0.05:
        return f"By {unit}, the probabilities are not shown to be miscalibrated, nor to be calibrated ({size})."
    parts = []
    if slope["high"] < 1:
        parts.append("too extreme")
    elif slope["low"] > 1:
        parts.append("not extreme enough")
    if intercept["low"] > 0:
        parts.append("too low")
    elif intercept["high"] < 0:
        parts.append("too high")
    how = f": they are {wording.listed(parts)}" if parts else ""
    return (
        f"By {unit}, the probabilities are miscalibrated{how} (intercept {format.score(intercept['value'])} "
        f"{format.interval(intercept)}, slope {format.score(slope['value'])} {format.interval(slope)}; {size})."
    )


def _fixed_when(record: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """When a fixed threshold was set: before training where the run began with it and was scored with no other one."""
    at_first = config.get("evaluation", {}).get("threshold")
    is_same = test_use.is_first(record) if at_first is None else at_first == record["threshold"]
    if is_same and not test_use.has_changed(record, "evaluation.threshold"):
        return "before training"
    earlier = test_use.total(record) - 1
    if earlier < 1:
        return "by hand, after training"
    return f"by hand, after {wording.count(earlier, 'use')} of this test set"


def intervals(record: Mapping[str, Any]) -> str:
    """What the intervals are, and what they assume."""
    made = record.get("interval")
    if not made:
        return "This record has no intervals."
    return (
        f"In brackets: {wording.percent(made['level'])} confidence intervals over {interval_unit(record)}. "
        f"{format.sentence(made['assumes'])}"
    )


def coverage(stored: Stored) -> str:
    """How often, in simulation, an interval like that of the headline's ROC AUC held the truth."""
    made, found = stored.record.get("interval"), format.interval_of(stored.main, "roc_auc")
    if not made or found is None or (made["level"], made["method"]) != (0.95, "default") or made["unit"] == "image":
        return ""
    estimate = stored.main["roc_auc"]
    if not stored.binary or estimate is None or found["method"] != "score":  # another method: of an earlier version
        return ""
    table = stored.predictions.of(stored.split)
    patients_, positives = (len(np.unique(table.group[of])) for of in (np.ones(len(table), bool), table.label == 1))
    unit: Literal["image", "patient"] = "patient" if stored.unit == "patient" else "image"
    like = measured_coverage("roc_auc", unit, estimate, patients_, positives, len(table))
    if like is None:
        return ""
    return (
        f"In simulated test sets like this one ({like.patients} patients, {like.positives} of them positive, ROC AUC "
        f"{like.truth:.2f}) the 95 % interval of the ROC AUC by {stored.unit} held the truth in "
        f"{100 * like.share:.1f} % of cases."
    )


def clustering(stored: Stored) -> str:
    """How many independent images the images of the split are worth for the ROC AUC, where patients have several."""
    found = ((stored.scores.get("clustering") or {}).get("scores") or {}).get("roc_auc")
    if found is None or found["design_effect"] <= 1:
        return ""
    return (
        f"By image, those of one patient are alike: for the ROC AUC {stored.scores['images']:,} images tell as much as "
        f"{found['effective_images']:,.0f} independent ones (design effect {found['design_effect']:.1f}, correlation "
        f"within a patient {found['correlation']:.2f})."
    )


def interval_unit(record: Mapping[str, Any]) -> str:
    """What the intervals take for independent."""
    return UNITS[record["interval"]["unit"]][1]


def interval_methods(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What made the intervals: (scores, method) in words, apart for images and patients where that differs."""
    used: dict[str, dict[str, None]] = {}  # method -> the scores, by image and by patient, in order
    by: dict[tuple[str, str], set[str]] = {}
    for split in ("test", "val"):
        scores = record.get(split) or {}
        for unit, holder in (("image", scores), ("patient", patients(scores) or {})):
            for name, found in (holder.get("intervals") or {}).items():
                if found is not None:
                    used.setdefault(found["method"], {})[title_of(name)] = None
                    by.setdefault((found["method"], title_of(name)), set()).add(unit)
    several = len({unit for units in by.values() for unit in units}) > 1
    rows = []
    for method, titles in used.items():
        for units, suffix in (({"image", "patient"}, ""), ({"image"}, " by image"), ({"patient"}, " by patient")):
            here = [title for title in titles if by[method, title] == units]
            if here:
                rows.append((wording.listed(here) + suffix * several, _described(record, method)))
    return rows


def _described(record: Mapping[str, Any], method: str) -> str:
    text = DESCRIPTIONS.get(method, method)
    return f"{text}, {record['interval']['replicates']:,} replicates" if "bootstrap" in text else text


def monitor(name: str) -> str:
    """A monitored score in words, with its unit: ``val/roc_auc`` is the ROC AUC by image."""
    score = name.partition("/")[2]
    return by_image(title_of(score) if score in TITLES else score)


def aggregation(scores: Mapping[str, Any]) -> str:
    """How images became patients; or why they did not; empty where the record does not say."""
    found = scores.get("patients")
    if not found:
        return ""
    if "why_not" in found:
        return f"By patient: {format.NONE} {format.sentence(found['why_not'], capital=False)}"
    how = {
        "mean": "A patient's probability is the mean over the patient's images.",
        "max": "A patient's probability is the highest of the patient's images.",
        "vote": "A patient is called positive where at least half of the patient's images are.",
    }[found["aggregation"]]
    mixed = found.get("mixed") or 0
    left_out = (
        f" {wording.count(mixed, 'patient')} with images of both classes {'is' if mixed == 1 else 'are'} left out."
        if mixed
        else ""
    )
    return how + left_out


def shortcut(stored: Stored) -> tuple[bool, str] | None:
    """Whether facts about the files alone, with no pixel seen, explain the model's score.

    Returns:
        (it is a reason to worry, the sentence); None where no such baseline was scored.
    """
    facts = (stored.record.get("baselines") or {}).get("file_facts")
    if not facts:
        return None
    if "why_not" in facts:
        return False, f"File facts were not scored: {format.sentence(facts['why_not'], capital=False)}"
    found, model = facts.get("roc_auc"), stored.scores.get("roc_auc")
    if found is None or model is None:
        return None
    chance, own = format.interval_of(facts, "roc_auc"), format.interval_of(stored.scores, "roc_auc")
    shown = f" {format.interval(chance)}" if chance else ""
    begin = f"A classifier that sees only file metadata, and no pixel, scores ROC AUC {found:.3f}{shown}"
    by_image = f"the model's {format.with_interval(stored.scores, 'roc_auc')} by image"
    # Paired by patient where the record has it; records of earlier versions have the two intervals alone.
    paired = (facts.get("difference") or {}).get("interval")
    above = paired["low"] > 0 if paired else found < (own["low"] if own else model)
    below = paired["high"] < 0 if paired else bool(chance and own and chance["low"] > own["high"])
    difference = f" (model minus metadata {format.interval(paired)}, paired by patient)" if paired else ""
    by_chance = (chance["low"] if chance else found) <= 0.5
    if below and by_chance:
        than, therefore = "not shown to be better than chance, yet better than", (
            "That is about the model, which is worse than chance or weak, and shows no shortcut."
        )  # fmt: skip
    elif below or not (above or by_chance):
        than, therefore = "better than" if below else "not shown to be below", (
            "The dataset has a shortcut, and this score does not show that the model has learned to see the disease."
        )  # fmt: skip
    elif not above:
        than, therefore = "not shown to be better than chance, nor to be below", (
            "Whether the model sees more than file metadata is not shown."
        )  # fmt: skip
    elif by_chance:
        than, therefore = "not shown to be better than chance, and below", (
            "A part of that score may still come from the files: few patients tell no weak classifier from chance."
        )  # fmt: skip
    else:
        than, therefore = "better than chance, though below", (
            "The files tell something about the class, and a part of the model's score may come from it."
        )  # fmt: skip
    return below or not (above or by_chance), f"{begin}: {than} {by_image}{difference}. {therefore}"


def shortcut_text(stored: Stored) -> str:
    """The same as a sentence alone; empty where nothing is known."""
    found = shortcut(stored)
    return "" if found is None else found[1]


def baselines_setting(record: Mapping[str, Any]) -> str:
    """Where the baselines' threshold and level are not the model's; empty where they are."""
    facts = (record.get("baselines") or {}).get("file_facts") or {}
    level, own = facts.get("level"), record.get("interval", {}).get("level")
    threshold_ = "Baselines are scored at threshold 0.5." if record.get("threshold", 0.5) != 0.5 else ""
    interval = f"Their intervals are {wording.percent(level)} confidence intervals." if level not in (None, own) else ""
    if interval and not threshold_:
        interval = interval.replace("Their", "The baselines'")
    return f"{threshold_} {interval}".strip()


def leaked(stored: Stored) -> str:
    """The mark that a leaky split puts on every number; empty where the split is sound."""
    if not stored.leaky:
        return ""
    share = stored.record.get("leaked_share")
    what = {"patient": "a patient", "near_duplicate": "a near-duplicate"}.get(stored.record["grouping"], "a group")
    known = f": {wording.percent(share)} of the test images have {what} in training or validation" if share else ""
    return f"Leaky split{known}. Every score on this page is optimistic."


def excluded(record: Mapping[str, Any]) -> str:
    """That a list took images out of the dataset; empty where there was none."""
    found = record.get("excluded")
    if not found:
        return ""
    return (
        f"Left out by a list (dataset.exclude, sha256 {found['list_digest'][:12]}): "
        f"{wording.count(found['images'], 'image')}, which no count and no score includes."
    )
