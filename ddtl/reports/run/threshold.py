"""The threshold of a run: where it came from, which images and patients it errs on, and what acting on it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddtl.evaluation.decision import NetBenefit, decision_band, decision_curve
from ddtl.reports.html import format
from ddtl.reports.html.curves import Band
from ddtl.reports.html.figures import REFERENCE, Spec, band, chart, scale, share, stroke, vertical
from ddtl.reports.html.page import Block, Cell, Figure, Row, Rows, Section, Table, Text
from ddtl.reports.run import sentences
from ddtl.reports.run.stored import Stored, patients
from ddtl.utils import wording

_THRESHOLDS = np.linspace(0.01, 0.99, 99)
_VALUES = ("ppv", "npv")


def section(stored: Stored) -> Section:
    """Return the rule, the confusion matrices, the decision curve and the predictive values."""
    counts = _confusions(stored)
    blocks: list[Block] = [Text(sentences.threshold(stored.record, stored.config))]
    blocks.append(Row(counts) if len(counts) > 1 else counts[0])
    if stored.binary:
        right = [block for block in (_decision(stored), _predictive_values(stored)) if block is not None]
        blocks += [Row(right)] if right else []
    return Section("Threshold", blocks)


def _confusions(stored: Stored) -> list[Table]:
    """Return true against predicted class, by patient where patients are known and by image."""
    if not stored.binary:
        found = stored.scores["confusion"]
        return [_confusion("By image", found["classes"], found["counts"])]
    tables = []
    for caption, scores in (("By patient", patients(stored.scores)), ("By image", stored.scores)):
        if scores is not None:
            c = scores["confusion"]
            tables.append(_confusion(caption, stored.classes, [[c["tn"], c["fp"]], [c["fn"], c["tp"]]]))
    return tables


def _confusion(caption: str, classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Table:
    rows: Rows = [[name, *(_count(n, sum(row)) for n in row)] for name, row in zip(classes, counts, strict=True)]
    return Table(caption, ["true class", *(f"predicted {name}" for name in classes)], rows)


def _count(n: int, of: int) -> Cell:
    """Return ``36 of 42 (86 %)``."""
    return Cell(f"{n:,} of {of:,}", f"({wording.percent(n / of)})" if of else "", n / (of or 1))


def _predictive_values(stored: Stored) -> Table | None:
    """Return PPV and NPV where the disease is more or less common than here."""
    unit = stored.unit if stored.main.get("predictive_values") else "image"
    scores = stored.main if unit == stored.unit else stored.scores
    found = scores.get("predictive_values")
    if not found:
        return None
    rows: Rows = [
        [
            wording.percent(row["prevalence"]),
            *(Cell(format.score(row[name]), format.interval(row.get(f"{name}_interval"))) for name in _VALUES),
        ]
        for row in found
    ]
    limits = " In brackets: confidence intervals for a known prevalence." if "ppv_interval" in found[0] else ""
    note = (
        f"From the sensitivity ({format.score(scores['sensitivity'])}) and specificity "
        f"({format.score(scores['specificity'])}) by {unit}, by Bayes' theorem.{limits} The share of positives in a "
        "dataset is seldom that in the clinic (evaluation.prevalences sets the rows)."
    )
    return Table(f"Predictive values by prevalence, by {unit}", ["prevalence", "PPV", "NPV"], rows, note)


def _decision(stored: Stored) -> Figure | None:
    """Return the decision curve; a share of votes is not a probability to weigh harm and benefit by."""
    if stored.main.get("aggregation") == "vote" or sum(n > 0 for n in stored.scores["classes"].values()) < 2:
        return None
    rows = {"model": stored.unit_arrays()}
    temperature = (stored.record.get("calibration") or {}).get("temperature")
    if temperature:
        rows["model, temperature-scaled"] = stored.unit_arrays(temperature)
    lines = {name: decision_curve(labels, p, _THRESHOLDS) for name, (labels, p, _) in rows.items()}
    limits = decision_band(*rows["model"], _THRESHOLDS, stored.level)
    level = format.level(stored.level)
    about = f" Band: {level} intervals of the model, at each threshold by itself." if limits else ""
    return Figure(
        f"Decision curve, by {stored.unit}",
        _decision_spec(lines, stored.record["threshold"], limits and Band(*limits)),
        "Decision curve: net benefit of acting on the model against acting on everyone and on nobody.",
        "Net benefit: true positives, less false positives at the worth that the threshold gives them, as a share of "
        f"all {stored.unit}s. It is valid for the prevalence of this dataset. "
        f"Dotted: the threshold in use.{_net_benefit(stored)}{about}",
    )


def _net_benefit(stored: Stored) -> str:
    """Return the net benefit at the threshold in use, with its interval; empty where the record has none."""
    found: Mapping[str, Any] | None = stored.main.get("net_benefit")
    if not found or found["model"] is None:
        return ""
    limits = f" {format.interval(found['interval'])}".rstrip()
    everyone = format.score(found["treat_all"])
    return f" There it is {format.score(found['model'])}{limits} as predicted, and {everyone} of acting on everyone."


def _decision_spec(rows: Mapping[str, Sequence[NetBenefit]], threshold: float, limits: Band | None) -> Spec:
    """Draw the net benefit of the model, by name, against predicting everyone and nobody positive.

    Args:
        rows: from :func:`ddtl.evaluation.decision.decision_curve`, all at the same thresholds.
        threshold: the one in use, marked.
        limits: of the first model, at the same thresholds.
    """
    first = next(iter(rows.values()))
    t = np.array([row.threshold for row in first])
    # What runs far below zero adds nothing, and would leave no height for the rest.
    best = max([row.model or 0.0 for found in rows.values() for row in found] + [first[0].treat_all or 0.0, 0.01])
    traces = [
        *band(limits, x=t),
        stroke(t, [row.treat_all for row in first], "everyone", color=REFERENCE, dash="dash", width=1),
        stroke(t, [row.treat_none for row in first], "nobody", color=REFERENCE, dash="dot", width=1),
        *(stroke(t, [row.model for row in found], name, i) for i, (name, found) in enumerate(rows.items())),
    ]
    x = {**share("threshold probability"), "range": [0, float(t[-1])]}
    spec = chart(traces, x, {**scale("net benefit"), "range": [-0.35 * best, 1.08 * best]}, legend="outside")
    if threshold <= t[-1]:
        spec["layout"]["shapes"] = [vertical(threshold)]
    return spec
