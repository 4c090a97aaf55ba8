"""The page about one run: a pure function of what the run's folder holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import yaml

from ddtl.evaluation import calibration as calibrating
from ddtl.evaluation.decision import decision_band, decision_curve
from ddtl.evaluation.patients import WhyNot, by_patient
from ddtl.reports.html import figures, format, reproduce
from ddtl.reports.html.curves import Band, Curves, curves
from ddtl.reports.html.page import Block, Code, Figure, Fold, Headline, Page, Row, Section, Table, Text, render
from ddtl.reports.run import audit_section, cases, data_card, schedule, sentences, strip, tables
from ddtl.reports.run.stored import Stored, patients
from ddtl.schema.scores import TITLES, by_image
from ddtl.schema.units import GROUPS
from ddtl.utils import wording

_REPLICATES = 500  # of the bands: they are looked at, not read off
_THRESHOLDS = np.linspace(0.01, 0.99, 99)


def render_run(stored: Stored, images: bool = True) -> str:
    """The page as HTML; without ``images`` no picture of a patient is on it."""
    return render(page(stored, images))


def page(stored: Stored, images: bool = True) -> Page:
    """The page, part by part."""
    sections: dict[str, Sequence[Block]] = {
        "Scores": _scores(stored),
        "Curves": _curves(stored),
        "Threshold": _threshold(stored),
        "Patients": strip.blocks(stored),
        "Calibration": _calibration(stored),
        "Baselines": _baselines(stored),
        "Cases": cases.blocks(stored) if images else [],
        "Audit": audit_section.blocks(stored),
        "Schedule": schedule.blocks(stored),
        "Training": _training(stored),
        "Data": data_card.blocks(stored),
        "Repeat it": _repeat(stored),
    }
    return Page(
        eyebrow="ddtl evaluation" if stored.trained_on else "ddtl run",
        title=_title(stored),
        subtitle=_subtitle(stored),
        headlines=_headlines(stored),
        caveat=sentences.leaked(stored),
        warnings=[*sentences.warnings(stored), *audit_section.warnings(stored)],
        sections=[Section(title, blocks) for title, blocks in sections.items() if blocks],
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
        f"seed {record['seed']}" if "seed" in record else "",
        f"run {stored.trained_on['run']}" if stored.trained_on else stored.folder.name,
    ]
    return " · ".join(filter(None, parts))


def _headlines(stored: Stored) -> list[Headline]:
    record, main = stored.record, stored.main
    split = "test" if stored.split == "test" else "validation"
    by = f"{split}, by {stored.unit}"
    at = f" at threshold {record['threshold']:.3g}" if stored.binary else ""
    known = patients(stored.scores)
    images = wording.count(stored.scores["images"], "image")
    groups = f"{stored.scores['groups']:,} {GROUPS[record['grouping']]}" if record["grouping"] != "none" else ""
    return [
        _headline(main, "roc_auc", f"ROC AUC, {by}", record),
        _headline(main, "accuracy", f"Accuracy{at}, {by}", record),
        Headline(
            f"{split.capitalize()} set",
            wording.count(known["patients"], "patient") if known else images,
            images if known else groups or "patients are not known",
        ),
        Headline("Protocol", record["protocol"], "leaky: optimistic" if stored.leaky else _kept_apart(stored)),
    ]


def _headline(scores: Any, name: str, label: str, record: Any) -> Headline:
    found = format.interval_of(scores, name)
    if found is None:
        return Headline(label, format.score(scores[name]), format.cell(scores, name).note)
    level = wording.percent(record["interval"]["level"])
    return Headline(label, format.score(scores[name]), f"{level} CI {format.interval(found)[1:-1]}")


def _kept_apart(stored: Stored) -> str:
    return {
        "patient": "no patient in two splits",
        "near_duplicate": "no near-duplicates in two splits",
        "none": "patients are not known",
    }[stored.record["grouping"]]


def _scores(stored: Stored) -> list[Block]:
    blocks: list[Block] = [tables.scores(stored)]
    methods = tables.interval_methods(stored)
    if methods is not None:
        blocks.append(Fold("How the intervals were made", [methods]))
    if not stored.binary:
        blocks.append(tables.per_class(stored))
    published = tables.published(stored)
    return blocks if published is None else [*blocks, published]


def _curves(stored: Stored) -> list[Block]:
    drawn = _drawn(stored) if stored.binary else _one_vs_rest(stored)
    if not drawn:
        return [Text("There are no curves: the images are all of one class.")]
    point, recall, prevalence = _operating_point(stored.main["confusion"]) if stored.binary else (None, None, None)
    seen = f"ROC AUC by {stored.unit} {format.with_interval(stored.main, 'roc_auc')}"
    precise = f"average precision by {stored.unit} {format.with_interval(stored.main, 'average_precision')}"
    band = _band_note(stored) if stored.binary else ""
    dotted = " Dotted: the share of positives, which is what chance reaches." if stored.binary else ""
    return [
        Row(
            [
                Figure("ROC curve", figures.roc(drawn, point), f"ROC curve: {seen}.", band),
                Figure(
                    "Precision-recall curve",
                    figures.precision_recall(drawn, prevalence, recall),
                    f"Precision-recall curve: {precise}.",
                    f"{band}{dotted}".strip(),
                ),
            ]
        )
    ]


def _operating_point(c: Mapping[str, int]) -> tuple[tuple[float, float] | None, tuple[float, float] | None, float]:
    """Where the threshold lies on the ROC and on the precision-recall curve, and the share of positives."""
    positives, negatives, called = c["tp"] + c["fn"], c["fp"] + c["tn"], c["tp"] + c["fp"]
    roc = (c["fp"] / negatives, c["tp"] / positives) if positives and negatives else None
    precision_recall = (c["tp"] / positives, c["tp"] / called) if positives and called else None
    return roc, precision_recall, positives / (positives + negatives)


def _drawn(stored: Stored) -> dict[str, Curves]:
    """By patient, with its band, then by image; or by image alone, with its band."""
    level = stored.record.get("interval", {}).get("level", 0.95)
    found: dict[str, Curves | None] = {}
    labels, p, clusters = _unit_arrays(stored)
    found[f"by {stored.unit}"] = curves(labels, p, clusters, level=level, replicates=_REPLICATES)
    if stored.unit == "patient":
        rows = stored.predictions.of(stored.split)
        found["by image"] = curves(rows.label, rows.probabilities[:, 1])
    return {name: part for name, part in found.items() if part is not None}


def _one_vs_rest(stored: Stored) -> dict[str, Curves]:
    rows = stored.predictions.of(stored.split)
    found = {
        name: curves((rows.label == k).astype(int), rows.probabilities[:, k]) for k, name in enumerate(rows.classes)
    }
    return {name: part for name, part in found.items() if part is not None}


def _unit_arrays(stored: Stored, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities and clusters of the headline's unit."""
    rows = stored.predictions.of(stored.split)
    rows = replace(rows, logits=rows.logits / temperature)
    if stored.unit == "patient":
        table = by_patient(rows, stored.main["aggregation"], stored.record["threshold"])
        assert not isinstance(table, WhyNot), table.reason
        return table.label, table.p, table.patient_id
    return rows.label, rows.probabilities[:, 1], rows.group


def _band_note(stored: Stored) -> str:
    drawn = GROUPS[stored.record["grouping"]] if stored.record["grouping"] != "none" else "images"
    level = wording.percent(stored.record.get("interval", {}).get("level", 0.95))
    return f"Band: the middle {level} of {_REPLICATES} bootstrap draws of {drawn}, at each point by itself."


def _threshold(stored: Stored) -> list[Block]:
    blocks: list[Block] = [Text(sentences.threshold(stored.record, stored.config))]
    counts: list[Table] = tables.confusions(stored)
    blocks.append(Row(counts) if len(counts) > 1 else counts[0])
    if not stored.binary:
        return blocks
    values = tables.predictive_values(stored)
    curve = _decision(stored)
    side = [block for block in (curve, values) if block is not None]
    return [*blocks, Row(side)] if side else blocks


def _decision(stored: Stored) -> Figure | None:
    if stored.main.get("aggregation") == "vote" or not _has_both(stored):
        return None  # a share of votes is no probability to weigh harm and benefit by
    rows = {"model": _unit_arrays(stored)}
    temperature = (stored.record.get("calibration") or {}).get("temperature")
    if temperature:
        rows["model, temperature-scaled"] = _unit_arrays(stored, temperature)
    lines = {name: decision_curve(labels, p, _THRESHOLDS) for name, (labels, p, _) in rows.items()}
    level = stored.record.get("interval", {}).get("level", 0.95)
    limits = decision_band(*rows["model"], _THRESHOLDS, level)
    band = f" Band: {wording.percent(level)} intervals of the model, at each threshold by itself." if limits else ""
    return Figure(
        f"Decision curve, by {stored.unit}",
        figures.decision_curve(lines, stored.record["threshold"], limits and Band(*limits)),
        "Decision curve: net benefit of acting on the model against acting on everyone and on nobody.",
        "Net benefit: true positives, less false positives at the worth that the threshold gives them, as a share of "
        f"all {'patients' if stored.unit == 'patient' else 'images'}. It holds for the prevalence of this dataset. "
        f"Dotted: the threshold in use.{_net_benefit(stored)}{band}",
    )


def _net_benefit(stored: Stored) -> str:
    """Net benefit at the threshold in use, with its interval; empty where the record does not say."""
    found = stored.main.get("net_benefit")
    if not found or found["model"] is None:
        return ""
    limits = f" {format.interval(found['interval'])}".rstrip()
    everyone = format.score(found["treat_all"])
    return f" There it is {format.score(found['model'])}{limits} as predicted, and {everyone} of acting on everyone."


def _has_both(stored: Stored) -> bool:
    return sum(n > 0 for n in stored.scores["classes"].values()) > 1


def _calibration(stored: Stored) -> list[Block]:
    found = tables.calibration(stored)
    if not found:
        return []
    rows = stored.predictions.of(stored.split)
    temperature = (stored.record.get("calibration") or {}).get("temperature")
    shown = {"as predicted": rows.probabilities}
    if temperature:
        shown[f"temperature {temperature:.3g}"] = calibrating.apply_temperature(rows.logits, temperature)
    x, y = ("predicted probability", "share of positives") if stored.binary else ("confidence", "accuracy")
    bins = {}
    for name, probabilities in shown.items():
        if stored.binary:
            bins[name] = calibrating.reliability(rows.label, probabilities[:, 1])
        else:
            bins[name] = calibrating.reliability(*calibrating.top_label(rows.label, probabilities))
    figure = Figure(
        "Reliability",
        figures.reliability(bins, x, y),
        f"Reliability diagram: {x} against {y}, before and after temperature scaling.",
        "On the dotted line probabilities are right. Below: images in each bin.",
    )
    counts = [
        [f"{part.low:.1f}–{part.high:.1f}", f"{part.mean_p:.3f}", f"{part.share_positive:.3f}", f"{part.count:,}"]
        for part in bins["as predicted"]
    ]
    numbers_of_it = Table("As predicted, bin by bin", ["bin", f"mean {x}", y, "images"], counts)
    judged: list[Block] = [Text(text) for text in sentences.calibration(stored)]
    return [*judged, Row([figure, numbers_of_it]), *found]


def _baselines(stored: Stored) -> list[Block]:
    table, finding = tables.baselines(stored), sentences.shortcut(stored)
    blocks: list[Block] = [] if finding is None else [Text(finding[1], "bad" if finding[0] else "plain")]
    return blocks if table is None else [*blocks, table]


def _training(stored: Stored) -> list[Block]:
    if not stored.metrics or not {"monitor", "best_epoch"} <= stored.record.keys():
        return []
    monitor, best = stored.record["monitor"], stored.record["best_epoch"]
    title = monitor.partition("/")[2]
    value = next((row.get(monitor) for row in stored.metrics if row["epoch"] == best), None)
    seconds = sum(row.get("seconds", 0) for row in stored.metrics)
    took = f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
    losses = Figure(
        "Loss",
        figures.epochs(stored.metrics, ["train/loss", "val/loss"], "loss", best),
        f"Training and validation loss over {len(stored.metrics)} epochs.",
    )
    curves_ = [losses]
    if monitor != "val/loss":
        shown = figures.epochs(stored.metrics, [monitor], by_image(TITLES.get(title, title)), best)
        name = by_image(monitor)
        curves_.append(Figure(f"What chose the epoch: {name}", shown, f"{name} over the epochs."))
    scored = f"Epoch {best + 1} had the best {by_image(monitor)} ({format.score(value)}) and is the one scored."
    if "averaged_epochs" in stored.record:
        scored = f"Scored is the mean of the weights after each of the last {stored.record['averaged_epochs']}."
    return [Text(f"{wording.count(len(stored.metrics), 'epoch')} in {took}. {scored}"), Row(curves_)]


def _repeat(stored: Stored) -> list[Block]:
    command = reproduce.command(stored.environment)
    blocks: list[Block] = []
    if command is not None:
        before = "The command that trained the model. " if stored.trained_on else ""
        blocks += [
            Text(f"{before}What concerns only the machine that it ran on, such as paths and loggers, is left out."),
            Code(command),
        ]
    if stored.config:
        text = yaml.safe_dump(reproduce.settings(stored.config), sort_keys=False, allow_unicode=True, width=100)
        blocks.append(
            Fold("All settings of the training" if stored.trained_on else "All settings", [Code(text.rstrip())])
        )
    blocks.append(Fold("Machine and software", [tables.environment(stored)]))
    return blocks
