"""The tables of a run's report, each from the record alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddtl.reports.comparison import claims
from ddtl.reports.html import format
from ddtl.reports.html.page import Cell, Table
from ddtl.reports.run import sentences
from ddtl.reports.run.stored import Stored, patients
from ddtl.schema.scores import PER_CLASS, SCORES, TITLES
from ddtl.schema.units import GROUPS
from ddtl.utils import wording

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
            columns[f"{_SPLITS[split]}, {wording.count(by_patient['patients'], 'patient')}"] = by_patient
        columns[f"{_SPLITS[split]}, {wording.count(found['images'], 'image')}"] = found
    rows: Rows = [[TITLES[name], *(format.cell(found, name) for found in columns.values())] for name in SCORES]
    macro = "" if stored.binary else "Means over the classes, each against all others (macro). "
    bare = any(cell.text != format.NONE and not cell.note for row in rows for cell in row if isinstance(cell, Cell))
    few = "No brackets: too few patients or groups bear the score." if bare and "interval" in stored.record else ""
    parts = (
        sentences.intervals(stored.record),
        sentences.coverage(stored),
        sentences.clustering(stored),
        few,
        sentences.aggregation(stored.scores),
    )
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
        [TITLES.get(name, name), format.score(value), format.cell(stored.scores, name)]
        for name, value in found["scores"].items()
    ]
    note = f"Their protocol: {found['protocol']}. Here: {stored.record['protocol']}."
    return Table(
        _marked(stored, f"Beside {found['source']}"), ["test score", "published", "here, by image"], rows, note
    )


def per_class(stored: Stored) -> Table:
    """More than two classes: each against all others."""
    found = stored.scores["per_class"]
    titles = [TITLES[name] for name in PER_CLASS]
    rows: Rows = [
        [name, *(format.cell(part, key) for key in PER_CLASS), f"{part['images']:,}"] for name, part in found.items()
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
        [name, *(Cell(f"{n:,}", wording.percent(n / sum(row)) if sum(row) else "", n / (sum(row) or 1)) for n in row)]
        for name, row in zip(classes, counts, strict=True)
    ]
    return Table(caption, ["true class", *(f"called {name}" for name in classes)], rows)


def predictive_values(stored: Stored) -> Table | None:
    """PPV and NPV where the disease is more or less common than here."""
    unit = stored.unit if stored.main.get("predictive_values") else "image"
    holder = stored.main if unit == stored.unit else stored.scores
    found = holder.get("predictive_values")
    if not found:
        return None
    rows: Rows = [
        [wording.percent(row["prevalence"]), *(Cell(format.score(row[name]), _limits(row, name)) for name in _VALUES)]
        for row in found
    ]
    limits = " In brackets: confidence intervals for a known prevalence." if "ppv_interval" in found[0] else ""
    note = (
        f"From the sensitivity ({format.score(holder['sensitivity'])}) and specificity "
        f"({format.score(holder['specificity'])}) by {unit}, by Bayes' theorem.{limits} The share of positives in a "
        "dataset is seldom that in the clinic (evaluation.prevalences sets the rows)."
    )
    return Table(f"Predictive values by prevalence, by {unit}", ["prevalence", "PPV", "NPV"], rows, note)


_VALUES = ("ppv", "npv")


def _limits(row: Mapping[str, Any], name: str) -> str:
    return format.interval(row.get(f"{name}_interval"))


def calibration(stored: Stored) -> list[Table]:
    """Calibration error before and after the corrections that were fitted on validation, by image and by patient."""
    found = stored.scores.get("calibration")
    if not found:
        return []
    fitted = stored.record.get("calibration") or {}
    notes = " ".join(sentences.sentence(note) for note in fitted.get("notes", ()))
    made = f"Corrections are fitted on validation. {notes}".strip()
    tables = [_calibration(stored, found, fitted, "image", made)]
    by_patient = (patients(stored.scores) or {}).get("calibration")
    if by_patient:
        tables.append(_calibration(stored, by_patient, fitted, "patient", sentences.aggregation(stored.scores)))
    return tables


def _calibration(stored: Stored, found: Mapping[str, Any], fitted: Mapping[str, Any], unit: str, note: str) -> Table:
    lines = "line" in found
    named: list[tuple[str, Mapping[str, Any]]] = [("as predicted", found)]
    if found.get("temperature") and fitted.get("temperature") is not None:
        limits = format.interval(fitted.get("temperature_interval"))
        named.append((f"temperature {fitted['temperature']:.3g} {limits}".rstrip(), found["temperature"]))
    if found.get("platt") and fitted.get("platt"):
        platt = fitted["platt"]
        named.append((f"Platt: slope {platt['slope']:.3g}, intercept {platt['intercept']:.3g}", found["platt"]))
    rows: Rows = [[name, *_errors(part), *(_line(part) if lines else [])] for name, part in named]
    columns = ["probabilities", "ECE, equal widths", "ECE, equal counts", "Brier score"]
    explained = "ECE: expected calibration error, 0 is best."
    if lines:
        columns += ["intercept", "slope", "p"]
        explained += (
            " In brackets: what a perfectly calibrated network with as many images and these probabilities shows by "
            "chance, on average and in 95 % of test sets at most. A calibrated network has intercept 0 and slope 1; p "
            "is of both together."
        )
    caption = _marked(stored, f"Calibration by {unit}, {_SPLITS[stored.split]}")
    return Table(caption, columns, rows, f"{explained} {note}".strip())


def _errors(found: Mapping[str, Any]) -> list[str | Cell]:
    floor = found.get("floor") or {}
    cells: list[str | Cell] = []
    for name in ("ece", "ece_mass", "brier"):
        chance = floor.get(name)
        by_chance = f"({format.score(chance['mean'])}, {format.score(chance['high'])})" if chance else ""
        cells.append(Cell(format.score(found[name]), by_chance))
    return cells


def _line(found: Mapping[str, Any]) -> list[str | Cell]:
    line = found.get("line")
    if line is None:
        return [format.NONE] * 3
    cells: list[str | Cell] = []
    for name in ("intercept", "slope"):
        part = line[name]
        if part is None:
            cells.append(format.NONE)
        else:
            limits = format.interval(part) if None not in part.values() else ""
            cells.append(Cell(format.score(part["value"]), limits))
    return [*cells, claims.p_value(line["p_value"])]


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
    rows: Rows = [[what, *(format.cell(holder, name) for name in names)] for what, holder in holders.items()]
    note = f"File facts: {wording.listed(list(facts['features']))}." if facts.get("features") else ""
    notes = " ".join(filter(None, [note, sentences.baselines_setting(stored.record)]))
    return Table(_marked(stored, "By image, on the test set"), ["", *(TITLES[name] for name in names)], rows, notes)


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
