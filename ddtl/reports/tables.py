"""The tables of a run's report, each from the record alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddtl.evaluation.names import PER_CLASS, SCORES
from ddtl.reports import numbers, sentences
from ddtl.reports.page import Cell, Table
from ddtl.reports.stored import GROUPS, Stored, patients

Rows = list[list[str | Cell]]

_SPLITS = {"train": "training", "val": "validation", "test": "test"}


def scores(stored: Stored) -> Table:
    """Every score by patient and by image, on test and validation, with intervals."""
    columns: dict[str, Mapping[str, Any]] = {}
    for split in ("test", "val"):
        found = stored.record.get(split)
        if found is None:
            continue
        by_patient = patients(found)
        if by_patient is not None:
            columns[f"{_SPLITS[split]}, {numbers.count(by_patient['patients'], 'patient')}"] = by_patient
        columns[f"{_SPLITS[split]}, {numbers.count(found['images'], 'image')}"] = found
    rows: Rows = [[numbers.TITLES[name], *(numbers.cell(found, name) for found in columns.values())] for name in SCORES]
    macro = "" if stored.binary else "Means over the classes, each against all others (macro). "
    bare = any(cell.text != numbers.NONE and not cell.note for row in rows for cell in row if isinstance(cell, Cell))
    few = "No brackets: too few patients or groups bear the score." if bare and "interval" in stored.record else ""
    parts = (sentences.intervals(stored.record), sentences.coverage(stored), few, sentences.aggregation(stored.scores))
    note = macro + " ".join(filter(None, parts))
    return Table(_marked(stored, f"Scores{_at(stored)}"), ["score", *columns], rows, note)


def interval_methods(stored: Stored) -> Table | None:
    """How the interval of each score was made."""
    rows = sentences.interval_methods(stored.record)
    return Table("How the intervals were made", ["scores", "method"], rows, words=[1]) if rows else None


def published(stored: Stored) -> Table | None:
    """Numbers of a paper beside those by image, where the settings name some."""
    found = stored.config.get("run", {}).get("published")
    if not found or "test" not in stored.record or stored.trained_on:
        return None
    rows: Rows = [
        [numbers.TITLES.get(name, name), numbers.score(value), numbers.cell(stored.scores, name)]
        for name, value in found["scores"].items()
    ]
    note = f"Their protocol: {found['protocol']}. Here: {stored.record['protocol']}."
    return Table(
        _marked(stored, f"Beside {found['source']}"), ["test score", "published", "here, by image"], rows, note
    )


def per_class(stored: Stored) -> Table:
    """More than two classes: each against all others."""
    found = stored.scores["per_class"]
    titles = [numbers.TITLES[name] for name in PER_CLASS]
    rows: Rows = [
        [name, *(numbers.cell(part, key) for key in PER_CLASS), f"{part['images']:,}"] for name, part in found.items()
    ]
    caption = _marked(stored, f"Each class against all others, {_SPLITS[stored.split]}")
    return Table(caption, ["class", *titles, "images"], rows)


def confusions(stored: Stored) -> list[Table]:
    """True against called class, by patient where patients are known and by image."""
    if not stored.binary:
        found = stored.scores["confusion"]
        return [_confusion("By image", found["classes"], found["counts"])]
    tables = []
    for caption, holder in (("By patient", patients(stored.scores)), ("By image", stored.scores)):
        if holder is not None:
            c = holder["confusion"]
            tables.append(_confusion(caption, stored.classes, [[c["tn"], c["fp"]], [c["fn"], c["tp"]]]))
    return tables


def _confusion(caption: str, classes: list[str], counts: list[list[int]]) -> Table:
    rows: Rows = [
        [name, *(Cell(f"{n:,}", numbers.percent(n / sum(row)) if sum(row) else "", n / (sum(row) or 1)) for n in row)]
        for name, row in zip(classes, counts, strict=True)
    ]
    return Table(caption, ["true class", *(f"called {name}" for name in classes)], rows)


def predictive_values(stored: Stored) -> Table | None:
    """PPV and NPV where the disease is more or less common than here."""
    found = stored.scores.get("predictive_values")
    if not found:
        return None
    rows = [[numbers.percent(row["prevalence"]), numbers.score(row["ppv"]), numbers.score(row["npv"])] for row in found]
    note = (
        f"From the sensitivity ({numbers.score(stored.scores['sensitivity'])}) and specificity "
        f"({numbers.score(stored.scores['specificity'])}) by image, by Bayes' theorem. The share of positives in a "
        "dataset is seldom that in the clinic (evaluation.prevalences sets the rows)."
    )
    return Table("Predictive values by prevalence", ["prevalence", "PPV", "NPV"], rows, note)


def calibration(stored: Stored) -> Table | None:
    """Calibration error before and after the corrections that validation taught."""
    found = stored.scores.get("calibration")
    if not found:
        return None
    fitted = stored.record.get("calibration") or {}
    temperature, platt = fitted.get("temperature"), fitted.get("platt")
    rows = [["as predicted", *_errors(found)]]
    if found.get("temperature") and temperature is not None:
        rows.append([f"temperature {temperature:.3g}", *_errors(found["temperature"])])
    if found.get("platt") and platt:
        rows.append(
            [f"Platt: slope {platt['slope']:.3g}, intercept {platt['intercept']:.3g}", *_errors(found["platt"])]
        )
    notes = " ".join(sentences.sentence(note) for note in fitted.get("notes", ()))
    return Table(
        _marked(stored, f"Calibration by image, {_SPLITS[stored.split]}"),
        ["probabilities", "ECE, equal widths", "ECE, equal counts", "Brier score"],
        rows,
        f"ECE: expected calibration error, 0 is best. Corrections are fitted on validation. {notes}".strip(),
    )


def _errors(found: Mapping[str, Any]) -> list[str]:
    return [numbers.score(found[name]) for name in ("ece", "ece_mass", "brier")]


def baselines(stored: Stored) -> Table | None:
    """The model beside what needs no model."""
    found = stored.record.get("baselines")
    if not found:
        return None
    names = ("roc_auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity")
    holders = {"this model": stored.scores}
    facts = found.get("file_facts") or {}
    if facts and "why_not" not in facts:
        holders["file facts, no pixels"] = facts
    if found.get("majority"):
        holders["always the commonest class"] = found["majority"]
    rows: Rows = [[what, *(numbers.cell(holder, name) for name in names)] for what, holder in holders.items()]
    note = f"File facts: {numbers.listed(list(facts['features']))}." if facts.get("features") else ""
    notes = " ".join(filter(None, [note, sentences.baselines_setting(stored.record)]))
    return Table(
        _marked(stored, "By image, on the test set"), ["", *(numbers.TITLES[name] for name in names)], rows, notes
    )


def splits(stored: Stored) -> Table:
    """Images, groups and classes of each part."""
    groups = GROUPS[stored.record["grouping"]]
    rows = [
        [
            _SPLITS[split],
            f"{n['images']:,}",
            f"{n['groups']:,}",
            *(f"{n['classes'][name]:,}" for name in stored.classes),
        ]
        for split, n in stored.parts.items()
    ]
    caption = f"{stored.record['dataset']}, protocol {stored.record['protocol']}"
    return Table(caption, ["split", "images", groups, *stored.classes], rows, sentences.excluded(stored.record))


def environment(stored: Stored) -> Table:
    """Machine and software."""
    found = stored.environment
    facts = {
        "Python": found.get("python"),
        "system": found.get("platform"),
        "processor": found.get("cpu"),
        "cores": found.get("cores"),
        "threads": found.get("threads"),
        "GPUs": ", ".join(found.get("gpus") or []) or "none",
        "precision": stored.record.get("precision"),
        **stored.record.get("versions", {}),
    }
    rows = [[name, str(value)] for name, value in facts.items() if value is not None]
    return Table("Where it ran", ["", ""], rows, words=[1])


def _at(stored: Stored) -> str:
    return f" at threshold {stored.record['threshold']:.3g}" if stored.binary else ""


def _marked(stored: Stored, caption: str) -> str:
    return f"{caption} (leaky split: optimistic)" if stored.leaky else caption
