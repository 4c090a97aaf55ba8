"""How far probabilities that are right on the source's test set are right on others."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddtl.evaluation import calibration
from ddtl.evaluation.calibration import Bin
from ddtl.evaluation.comparison.matrix import Measured
from ddtl.evaluation.comparison.paired_predictions import unit_of
from ddtl.records.study_folder import PLAIN
from ddtl.reports.html import format
from ddtl.reports.html.page import Figure, Section, Table, side_by_side
from ddtl.reports.sections import reliability
from ddtl.reports.study.cells import Cells
from ddtl.utils import wording


def section(found: Cells) -> Section:
    """Return a chart for each row of the plain method that has several test sets, and a table of all."""
    charts: list[Figure] = []
    rows: list[list[Any]] = []
    for row in found.rows:
        at = [cell for cell in found.cells if cell.row == row and cell.measured is not None]
        known = {cell.target: cell.measured for cell in at if cell.measured and cell.measured.method.runs[0].binary}
        if len(known) < 2 or row.method != PLAIN:
            continue
        alt = f"Reliability of what was trained on {row.source}, on {wording.listed(list(known))}."
        binned = {target: bins(measured) for target, measured in known.items()}
        spec = reliability.spec(
            binned, "predicted probability", "share of positives", {target: found.colour(target) for target in known}
        )
        charts.append(
            Figure(found.name(row), spec, alt, f"All seeds together. {reliability.NOTE} Below: images in each bin.")
        )
        rows += [[found.name(row), target, *_numbers(measured)] for target, measured in known.items()]
    if not charts:
        return Section("Calibration", [])
    note = "Means over the seeds, before any correction. ECE: expected calibration error in 15 bins of equal width."
    columns = ["", "tested on", "mean probability", "share of positives", "ECE", "seeds"]
    table = Table("Predicted probabilities and shares of positives", columns, rows, note, (1,))
    return Section("Calibration", [*side_by_side(charts), table])


def bins(measured: Measured) -> list[Bin]:
    """Return the bins of the reliability diagram, all runs together."""
    runs = measured.method.runs
    p = np.concatenate([run.p for run in runs])
    labels, clusters = runs[0].predictions.label, unit_of(runs[0].predictions)[1]
    return calibration.reliability(np.tile(labels, len(runs)), p, clusters=np.tile(clusters, len(runs)))


def _numbers(measured: Measured) -> list[str]:
    """Return mean probability, share of positives, calibration error and number of seeds."""
    runs = measured.method.runs
    labels = runs[0].predictions.label
    errors = [calibration.ece(labels, run.p) for run in runs]
    known = [error for error in errors if error is not None]
    mean_p = sum(float(run.p.mean()) for run in runs) / len(runs)
    error = sum(known) / len(runs) if len(known) == len(runs) else None
    return [format.score(mean_p), format.score(float(labels.mean())), format.score(error), str(len(runs))]
