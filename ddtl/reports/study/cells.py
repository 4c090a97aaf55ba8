"""``study.json`` and the folders that it names, as cells: one for each row of the tables on each test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ddtl.evaluation import calibration
from ddtl.evaluation.comparison.matrix import Drop, Measured, MeasurementSettings, drop, measure, pool_folds
from ddtl.evaluation.comparison.paired_predictions import Method, RunPredictions
from ddtl.evaluation.comparison.repeated import mean
from ddtl.records import run as results, study_controls, study_folder as record
from ddtl.records.checking import inside
from ddtl.records.study_controls import Controls
from ddtl.records.study_folder import Evaluation, JobRecord, Study
from ddtl.reports.html.figures import place_of
from ddtl.reports.run import stored
from ddtl.reports.sweep.record import without_folders
from ddtl.schema.scores import SCORES
from ddtl.utils.errors import UserError
from ddtl.utils.reading import Unreadable

USUAL = MeasurementSettings()
SCORE = "roc_auc"  # what the page is about
_AXES = ("source", "method", "protocol", "schedule", "patients")


@dataclass(frozen=True)
class Row:
    """What was trained, seeds and folds aside; the axes of ``records.study.Labels``."""

    source: str
    method: str
    protocol: str
    schedule: str
    patients: int | float | None


@dataclass(frozen=True)
class Lost:
    """What is in no number: which runs (``seed 3``), and why."""

    which: str
    reason: str


@dataclass(frozen=True)
class Temperature:
    """What a network's logits are divided by, and the Brier score of the probabilities then."""

    value: float
    brier: float


@dataclass(frozen=True)
class Cell:
    """The runs of a row on one test set.

    Attributes:
        row, target: its place in the tables.
        is_in_domain: whether it is the test set of what was trained on. That of a run which continued from the weights
            of another dataset is not.
        expected: how many seeds it is of when all is well.
        seeds: those that it is of.
        lost: the others, which are in no number here.
        measured: means over the seeds; None where there is none.
        refitted: the same with the thresholds that were fitted to the target's validation images, where they were.
        temperatures, refitted_temperatures: of the runs where they have one; from the validation images of the source,
            and of the target.
        drop: the in-domain score minus this one, over ``drop_seeds`` seeds; None in-domain, and without one.
        val: means of the scores on the validation images of what was trained on.
        records: of the runs, as their folders contain them; ``folders`` are those.
        excluded: how many test images were excluded, as they are in what was trained on.
        folds: of how many folds each seed is pooled.
    """

    row: Row
    target: str
    is_in_domain: bool
    expected: int
    seeds: tuple[int, ...]
    lost: tuple[Lost, ...]
    measured: Measured | None
    refitted: Measured | None
    temperatures: tuple[Temperature, ...]
    refitted_temperatures: tuple[Temperature, ...]
    drop: dict[str, Drop] | None
    drop_seeds: int
    val: dict[str, float | None]
    records: tuple[Mapping[str, Any], ...]
    folders: tuple[Path, ...] = ()
    excluded: int = 0
    folds: int | None = None


@dataclass(frozen=True)
class Cells:
    """A study's record and its cells, in the order of its jobs."""

    study: Study
    cells: list[Cell]
    settings: MeasurementSettings
    controls: Controls

    @property
    def rows(self) -> list[Row]:
        return list(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def targets(self) -> list[str]:
        return list(dict.fromkeys(cell.target for cell in self.cells))

    def place(self, row: Row) -> int:
        """Return the place in the legend of what was trained: a colour for each dataset, a dash for each method on it.

        With one dataset alone, the colours are for its methods.
        """
        sources = list(dict.fromkeys(one.source for one in self.rows))
        same = [one for one in self.rows if one.source == row.source]
        if len(sources) == 1:
            return same.index(row)
        return place_of(self.colour(row.source), same.index(row))

    def colour(self, dataset: str) -> int:
        """Return the place of a dataset among the colours: the same in every chart of a page."""
        known = dict.fromkeys([*(row.source for row in self.rows), *self.targets])
        return list(known).index(dataset)

    @property
    def varying(self) -> list[str]:
        """The fewest axes that distinguish all rows: a protocol that comes with its dataset is not among them."""
        rows = self.rows
        axes = [axis for axis in _AXES if len({getattr(row, axis) for row in rows}) > 1]
        for axis in ("protocol", "schedule", "method", "patients"):
            others = [other for other in axes if other != axis]
            if len({tuple(getattr(row, other) for other in others) for row in rows}) == len(rows):
                axes = others
        return axes

    def at(self, row: Row, target: str) -> Cell | None:
        """Return the cell of a row on a test set; None where the study has none."""
        return next((cell for cell in self.cells if (cell.row, cell.target) == (row, target)), None)

    def name(self, row: Row) -> str:
        """Return what distinguishes a row from the others."""
        axes = self.varying
        if row.patients is None and len(axes) > 1:
            axes = [axis for axis in axes if axis != "patients"]  # all of them, as a reader takes for granted
        return ", ".join(_spelled(axis, getattr(row, axis)) for axis in axes) or row.source


@dataclass(frozen=True)
class _Run:
    """A run's answers on one test set, and again with the refitted threshold; what it knows of itself.

    Attributes:
        answers, refitted: the second None where nothing was refitted.
        temperature, again: that of the source, and that which was refitted; None where there is none.
        record: of the evaluation, from its folder.
        val: the run's scores on validation.
        excluded: how many images were excluded.
    """

    answers: RunPredictions
    refitted: RunPredictions | None
    temperature: Temperature | None
    again: Temperature | None
    record: Mapping[str, Any]
    folder: Path
    val: Mapping[str, Any]
    excluded: int


def read(folder: Path, settings: MeasurementSettings = USUAL) -> Cells:
    """Return every cell of the study, from the predictions that its record names; nothing is predicted.

    A run or an evaluation that is missing, failed, or damaged by now, enters no number and is listed in ``Cell.lost``.

    Args:
        folder: of the study.
        settings: of the intervals.

    Raises:
        UserError: the folder contains no study, or its record is damaged.
    """
    study = record.read(folder)
    controls = study_controls.read(folder)
    members: dict[tuple[Row, str], list[tuple[JobRecord, Evaluation]]] = {}
    for job in study["jobs"]:
        for evaluation in job["evaluations"]:
            members.setdefault((_row(job), evaluation["target"]), []).append((job, evaluation))
    cells = [
        _cell(place, jobs, record.runs_dir(folder), settings, controls.twice(place[0].source, place[1]))
        for place, jobs in members.items()
    ]
    in_domain = {cell.row: cell for cell in cells if cell.is_in_domain}
    return Cells(study, [_with_drop(cell, in_domain, settings) for cell in cells], settings, controls)


def _row(job: JobRecord) -> Row:
    return Row(*(job["labels"][axis] for axis in _AXES))  # type: ignore[literal-required]


def _cell(
    place: tuple[Row, str],
    jobs: Sequence[tuple[JobRecord, Evaluation]],
    runs_dir: Path,
    settings: MeasurementSettings,
    twice: frozenset[str],
) -> Cell:
    row, target = place
    lost: list[Lost] = []
    found: dict[tuple[int, int | None], _Run] = {}
    for job, evaluation in jobs:
        seed, fold = job["labels"]["seed"], job["labels"]["fold"]
        try:
            found[seed, fold] = _run(job, evaluation, runs_dir, twice)
        except UserError as reason:
            which = f"seed {seed}" if fold is None else f"seed {seed}, fold {fold}"
            lost.append(Lost(which, without_folders(str(reason))))
    folds = sorted({fold for job, _ in jobs if (fold := job["labels"]["fold"]) is not None})
    runs = _pooled(found, len(folds)) if folds else {seed: run for (seed, _), run in found.items()}
    measured = refitted = None
    try:
        measured = _measured([run.answers for run in runs.values()], settings)
        refitted = _measured([run.refitted for run in runs.values() if run.refitted is not None], settings)
    except UserError as reason:
        lost.append(Lost("all seeds", without_folders(str(reason))))
    full = refitted is not None and len(refitted.method.runs) == len(runs)
    return Cell(
        row=row,
        target=target,
        is_in_domain=target == row.source,
        expected=len({job["labels"]["seed"] for job, _ in jobs}),
        seeds=tuple(runs) if measured is not None else (),
        lost=tuple(lost),
        measured=measured,
        refitted=refitted if full else None,
        temperatures=tuple(run.temperature for run in runs.values() if run.temperature is not None),
        refitted_temperatures=tuple(run.again for run in runs.values() if run.again is not None),
        drop=None,
        drop_seeds=0,
        val={name: mean([run.val.get(name) for run in found.values()]) for name in SCORES},
        records=tuple(run.record for run in found.values()),
        folders=tuple(run.folder for run in found.values()),
        excluded=next((run.excluded for run in runs.values()), 0),
        folds=len(folds) or None,
    )


def _run(job: JobRecord, evaluation: Evaluation, runs_dir: Path, twice: frozenset[str]) -> _Run:
    """Return what one evaluation left.

    Raises:
        UserError: nothing, and why.
    """
    if job["run"] is None or evaluation["folder"] is None:
        raise UserError(job["reason"] or evaluation["reason"] or "not run yet; the study's command resumes it")
    found = stored.read(inside(runs_dir, evaluation["folder"]))
    if "test" not in found.record:
        raise UserError("its results.json lacks test")
    test = found.predictions.of("test")
    is_scored = ~np.isin(test.sample_id, list(twice))
    if not is_scored.any():
        raise UserError("every test image is also in the training dataset")
    images = f"{found.record['dataset']}, protocol {found.record['protocol']}"
    name, design = f"seed {job['labels']['seed']}", stored.design_of(found.record)
    content = (found.record.get("contents") or {}).get("test")
    answers = RunPredictions(name, images, test.where(is_scored), found.record["threshold"], design, content)
    again = found.record.get("refitted") or {}
    refitted = replace(answers, threshold=again["threshold"]) if "threshold" in again and answers.binary else None
    temperature, refitted_temperature = (_temperature(answers, fitted) for fitted in (found.record, again))
    val = _val(inside(runs_dir, job["run"])) if "val" not in found.record else found.record["val"]
    return _Run(
        answers, refitted, temperature, refitted_temperature, found.record, found.folder, val, int((~is_scored).sum())
    )


def _temperature(answers: RunPredictions, fitted: Mapping[str, Any]) -> Temperature | None:
    """Return the temperature of a record, on these images."""
    value = (fitted.get("calibration") or {}).get("temperature")
    if value is None:
        return None
    found = calibration.summary(answers.predictions.label, answers.predictions.logits, value, None)
    return None if found is None else Temperature(value, found["temperature"]["brier"])


def _val(run: Path) -> Mapping[str, Any]:
    """Return the validation scores of a run; none where they cannot be read."""
    try:
        return results.read(run).get("val", {})
    except (OSError, Unreadable):
        return {}


def _pooled(found: Mapping[tuple[int, int | None], _Run], folds: int) -> dict[int, _Run]:
    """Return, by seed, the out-of-fold predictions of those seeds that have all folds."""
    parts: dict[int, list[_Run]] = {}
    for (seed, _), run in found.items():
        parts.setdefault(seed, []).append(run)
    return {
        seed: replace(
            runs[0],
            answers=pool_folds([run.answers for run in runs], f"seed {seed}"),
            refitted=None,
            temperature=None,
            again=None,
        )
        for seed, runs in parts.items()
        if len(runs) == folds
    }


def _measured(runs: Sequence[RunPredictions], settings: MeasurementSettings) -> Measured | None:
    return measure(Method("", tuple(runs)), settings) if runs else None


def _with_drop(cell: Cell, in_domain: Mapping[Row, Cell], settings: MeasurementSettings) -> Cell:
    """Return the cell with its drop against the test set of its source, over the seeds that both have."""
    own = in_domain.get(cell.row) or in_domain.get(replace(cell.row, patients=None))
    both = [] if own is None else [seed for seed in cell.seeds if seed in own.seeds]
    if cell.is_in_domain or own is None or not both:
        return cell
    on_own, on_other = (_of_seeds(one, both, settings) for one in (own, cell))
    return replace(cell, drop=drop(on_own, on_other, same_runs=True), drop_seeds=len(both))


def _of_seeds(cell: Cell, seeds: Sequence[int], settings: MeasurementSettings) -> Measured:
    assert cell.measured is not None, "it has seeds"
    if list(cell.seeds) == list(seeds):
        return cell.measured
    runs = dict(zip(cell.seeds, cell.measured.method.runs, strict=True))
    return measure(Method("", tuple(runs[seed] for seed in seeds)), settings)


def _spelled(axis: str, value: Any) -> str:
    if axis != "patients":
        return str(value)
    if value is None:
        return "all patients"
    return f"{value} patients" if value >= 1 else f"{100 * value:g} % of the patients"
