"""A run's folder, or that of an evaluation on other data, as a report reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ddtl.evaluation.intervals.clusters import Design
from ddtl.evaluation.patients import PatientTable, WhyNot, by_patient
from ddtl.evaluation.predictions import Predictions
from ddtl.records import epochs, predictions as prediction_table, run as results, settings, small
from ddtl.utils.errors import UserError
from ddtl.utils.files import require_run_folder

SPLITS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Stored:
    """What is on disk about a run.

    Attributes:
        folder: of it only the name is shown.
        record: ``results.json``.
        predictions: of validation and test.
        metrics: a row an epoch; none for an evaluation on other data, which trains nothing.
        config, environment: of the run; empty where they are not there.
        day: when its last epoch ended; empty where that is not known.
    """

    folder: Path
    record: Mapping[str, Any]
    predictions: Predictions
    metrics: list[dict[str, Any]]
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    day: str = ""

    @property
    def split(self) -> str:
        """The split that the headline is about: the test, or validation where the test was left alone."""
        return "test" if "test" in self.record else "val"

    @property
    def scores(self) -> Mapping[str, Any]:
        """The record of that split."""
        scores: Mapping[str, Any] = self.record[self.split]
        return scores

    @property
    def classes(self) -> list[str]:
        return list(self.record["classes"])

    @property
    def binary(self) -> bool:
        return len(self.record["classes"]) == 2

    @property
    def trained_on(self) -> Mapping[str, Any] | None:
        """Where the model comes from, if it was evaluated on other data than its own."""
        return self.record.get("trained_on")

    @property
    def parts(self) -> Mapping[str, Any]:
        """The splits that played a part, with their counts: of other data than the model's own the test set alone."""
        splits = self.record["splits"]
        return {"test": splits["test"]} if self.trained_on else splits

    @property
    def leaky(self) -> bool:
        """Whether the split lets the model see in training what it is tested on."""
        torn = self.record["protocol"] == "random" and not self.trained_on
        return torn or bool(self.record.get("leaked_share"))

    @cached_property
    def unit(self) -> str:
        """What the headline counts: ``patient`` where patients are known, else ``image``."""
        return "patient" if patients(self.scores) is not None else "image"

    @property
    def main(self) -> Mapping[str, Any]:
        """The scores of the headline."""
        return patients(self.scores) or self.scores

    @property
    def level(self) -> float:
        """The confidence level of the intervals."""
        return float(self.record.get("interval", {}).get("level", 0.95))

    def marked(self, caption: str) -> str:
        """Return the caption of a table of scores, with a mark where a leaky split makes them optimistic."""
        return f"{caption} (leaky split: optimistic)" if self.leaky else caption

    def by_patient(self) -> PatientTable:
        """Return the patients of the headline's split, where it is by patient."""
        table = by_patient(self.predictions.of(self.split), self.main["aggregation"], self.record["threshold"])
        assert not isinstance(table, WhyNot), table.reason
        return table

    def unit_arrays(self, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return labels, probabilities of the positive class and clusters of the headline's units, each (N,).

        Args:
            temperature: what the logits are divided by.
        """
        if self.unit == "image":
            rows = self.predictions.of(self.split)
            rows = replace(rows, logits=rows.logits / temperature)
            return rows.label, rows.probabilities[:, 1], rows.group
        scaled = replace(self.predictions, logits=self.predictions.logits / temperature)
        table = replace(self, predictions=scaled).by_patient()
        return table.label, table.p, table.patient_id


def patients(scores: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the scores by patient of a split; None where there are none."""
    found = scores.get("patients")
    return found if found and "why_not" not in found else None


def design_of(record: Mapping[str, Any]) -> Design:
    """Return how the test set was collected, by ``results.json``; records of earlier versions do not say."""
    found: Design = (record.get("interval") or {}).get("design", "case_control")
    return found


def read(folder: Path) -> Stored:
    """Read what a finished run left.

    Raises:
        UserError: there is no such folder, no run in it, or none that is finished; or a file is damaged.
    """
    require_run_folder(folder)
    try:
        record = results.read(folder)
    except FileNotFoundError:
        raise UserError(f"{folder}: {_why_unfinished(folder)}") from None
    if "interval" in record:  # records of the first versions lack it
        results.require(folder / results.NAME, record, "interval.level")
    home = folder.parents[1] if "trained_on" in record and folder.parent.name == "evaluations" else folder
    machine = next((f for f in (folder, home) if (f / "environment.json").exists()), home)
    try:
        table = prediction_table.read(folder / "predictions.csv")
    except FileNotFoundError as error:
        raise UserError(
            f"{folder}: predictions.csv is missing. The command that made the run writes it again."
        ) from error
    results.match(folder / "predictions.csv", table, record, ["test" if "test" in record else "val"])
    return Stored(
        folder=folder,
        record=record,
        predictions=table,
        metrics=epochs.of_epochs(folder),
        config=settings.read(home),
        environment=small.environment(machine),
        day=small.last_epoch_on(home),
    )


def _why_unfinished(folder: Path) -> str:
    if (folder / "metrics.jsonl").exists():
        return "the run is not finished, so there is nothing to report. The same command resumes it."
    inside = sorted(path.parent.name for path in folder.glob("*/results.json"))
    if inside:
        return f"this contains runs and is not one. Name one or more of them, such as {folder / inside[0]}."
    return "is not the folder of a run: there is no results.json in it."
