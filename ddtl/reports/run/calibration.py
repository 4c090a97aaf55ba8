"""Whether the probabilities of a run are right: the verdict, the reliability diagram, and errors with corrections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddtl.evaluation import calibration
from ddtl.evaluation.calibration import Bin
from ddtl.reports.html import format
from ddtl.reports.html.page import Cell, Figure, Row, Rows, Section, Table, Text
from ddtl.reports.run import sentences
from ddtl.reports.run.stored import SPLITS, Stored, patients
from ddtl.reports.sections import reliability


def section(stored: Stored) -> Section:
    """Return the sentences, the diagram next to its bins, and a table by image and by patient."""
    tables = _tables(stored)
    if not tables:
        return Section("Calibration", [])
    verdict = [Text(text) for text in sentences.calibration(stored)]
    return Section("Calibration", [*verdict, Row([figure(stored), _table_of_bins(stored)]), *tables])


def _table_of_bins(stored: Stored) -> Table:
    bins = _bins(stored)
    x, y = _axes(stored)
    counts: Rows = [
        [
            f"{part.low:.1f}–{part.high:.1f}",
            f"{part.mean_p:.3f}",
            Cell(f"{part.share_positive:.3f}", format.limits(*part.limits) if part.limits else ""),
            f"{part.count:,}",
        ]
        for part in bins["as predicted"]
    ]
    return Table("As predicted, bin by bin", ["bin", f"mean {x}", y, "images"], counts)


def figure(stored: Stored) -> Figure:
    """Return the reliability diagram."""
    x, y = _axes(stored)
    return Figure(
        "Reliability",
        reliability.spec(_bins(stored), x, y),
        f"Reliability diagram: {x} against {y}, before and after temperature scaling.",
        f"On the dotted line probabilities are right. {reliability.NOTE} Below: images in each bin.",
    )


def _axes(stored: Stored) -> tuple[str, str]:
    return ("predicted probability", "share of positives") if stored.binary else ("confidence", "accuracy")


def _bins(stored: Stored) -> dict[str, list[Bin]]:
    """Return the bins of the images' probabilities, as predicted and at the temperature."""
    rows = stored.predictions.of(stored.split)
    temperature = (stored.record.get("calibration") or {}).get("temperature")
    shown = {"as predicted": rows.probabilities}
    if temperature:
        shown[f"temperature {temperature:.3g}"] = calibration.apply_temperature(rows.logits, temperature)
    bins = {}
    for name, probabilities in shown.items():
        if stored.binary:
            bins[name] = calibration.reliability(rows.label, probabilities[:, 1], clusters=rows.group)
        else:
            right, p = calibration.top_label(rows.label, probabilities)
            bins[name] = calibration.reliability(right, p, clusters=rows.group)
    return bins


def _tables(stored: Stored) -> list[Table]:
    """Return the errors before and after the corrections that were fitted on validation, by image and by patient."""
    found = stored.scores.get("calibration")
    if not found:
        return []
    notes = (stored.record.get("calibration") or {}).get("notes", ())
    fitted = " ".join(["Corrections are fitted on validation.", *map(format.sentence, notes)])
    tables = [_table(stored, found, "image", fitted)]
    by_patient = (patients(stored.scores) or {}).get("calibration")
    if by_patient:
        tables.append(_table(stored, by_patient, "patient", sentences.aggregation(stored.scores)))
    return tables


def _table(stored: Stored, found: Mapping[str, Any], unit: str, note: str) -> Table:
    fitted = stored.record.get("calibration") or {}
    named: list[tuple[str, Mapping[str, Any]]] = [("as predicted", found)]
    if found.get("temperature") and fitted.get("temperature") is not None:
        limits = format.interval(fitted.get("temperature_interval"))
        named.append((f"temperature {fitted['temperature']:.3g} {limits}".rstrip(), found["temperature"]))
    if found.get("platt") and fitted.get("platt"):
        platt = fitted["platt"]
        named.append((f"Platt: slope {platt['slope']:.3g}, intercept {platt['intercept']:.3g}", found["platt"]))
    has_line = "line" in found
    rows = [[name, *_errors(part), *(_line(part) if has_line else [])] for name, part in named]
    columns = ["probabilities", "ECE, equal widths", "ECE, equal counts", "Brier score"]
    explained = "ECE: expected calibration error, 0 is best."
    if has_line:
        columns += ["intercept", "slope", "p"]
        explained += (
            " In brackets: what a perfectly calibrated network with as many images and these probabilities shows by "
            "chance, on average and in 95 % of test sets at most. A calibrated network has intercept 0 and slope 1; p "
            "is of both together."
        )
    caption = stored.marked(f"Calibration by {unit}, {SPLITS[stored.split]}")
    return Table(caption, columns, rows, f"{explained} {note}".strip())


def _errors(found: Mapping[str, Any]) -> list[Cell]:
    floor = found.get("floor") or {}
    cells = []
    for name in ("ece", "ece_mass", "brier"):
        chance = floor.get(name)
        by_chance = f"({format.score(chance['mean'])}, {format.score(chance['high'])})" if chance else ""
        cells.append(Cell(format.score(found[name]), by_chance))
    return cells


def _line(found: Mapping[str, Any]) -> list[str | Cell]:
    line = found.get("line")
    if line is None:
        return [format.NONE] * 3
    return [_parameter(line["intercept"]), _parameter(line["slope"]), format.p_value(line["p_value"])]


def _parameter(found: Mapping[str, Any] | None) -> str | Cell:
    if found is None:
        return format.NONE
    limits = format.interval(found) if None not in found.values() else ""
    return Cell(format.score(found["value"]), limits)
