"""Images through the network, a batch at a time: what is held in memory does not grow with their number."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddtl.data.datasets.kind import window_of
from ddtl.data.images.harmonize import Harmonizer, harmonizer_of_files
from ddtl.data.images.image_file import BadImageError
from ddtl.data.images.levels import CTWindow, Window
from ddtl.inference import network, ood as far
from ddtl.inference.embeddings import reference
from ddtl.inference.inputs import Found, InputFile, decode_all, printable_path
from ddtl.inference.ood import Cut, Reference
from ddtl.inference.output import OOD, Tables
from ddtl.inference.scores import Patients, Rule, columns, row
from ddtl.records import small
from ddtl.records.run_folder import RunFolder
from ddtl.schema.run import Config
from ddtl.training.evaluate_external import reference_histogram
from ddtl.utils import console, reading, threads
from ddtl.utils.errors import UserError

log = logging.getLogger(__name__)

NOTE = "For research. This is not a medical device: not for diagnosis."
_NAMED = 10  # bad files that are named at the terminal; the JSON names all


@dataclass
class Tally:
    """What became of the images.

    Attributes:
        predicted: images by predicted class.
        ood: how many are out of distribution.
        cut: where that begins; None where it could not be measured.
        why_not: why it could not.
        bad: what was excluded.
        patients: how many were scored.
        doubts: files by what is doubtful about them.
    """

    predicted: Counter[str] = field(default_factory=Counter)
    ood: int = 0
    cut: Cut | None = None
    why_not: str = ""
    bad: list[BadImageError] = field(default_factory=list)
    patients: int = 0
    doubts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, entry: Mapping[str, Any]) -> None:
        """Count the row of an image."""
        self.predicted[entry["decision"]] += 1
        self.ood += bool(entry[OOD])

    def skip(self, error: BadImageError) -> None:
        """Leave a file out, and report it."""
        self.bad.append(error)
        if len(self.bad) <= _NAMED:
            log.warning("excluded: %s", error)

    def warn(self) -> None:
        """Report each doubt once, with how many files it concerns."""
        for doubt, files in self.doubts.items():
            more = f" (and {len(files) - 1} more files)" if len(files) > 1 else ""
            log.warning("%s %s%s", reading.printable(files[0]), doubt, more)


@dataclass(frozen=True)
class _Yardstick:
    """What images are compared with, and from where on they are out of distribution."""

    reference: Reference
    cut: Cut

    @classmethod
    def of(cls, reference: Reference, false_alarms: float) -> _Yardstick:
        return cls(reference, reference.cut(false_alarms))

    def measure(self, features: np.ndarray) -> list[dict[str, Any]]:
        """Return the columns of the tables for each of (B, D) features."""
        return [
            _ood_columns(distance, distance > self.cut.distance)
            for distance in self.reference.distances(features).tolist()
        ]


def _ood_columns(distance: float | None = None, is_ood: bool | None = None) -> dict[str, Any]:
    return {"distance": distance, OOD: is_ood}


def predict(
    folder: RunFolder, config: Config, results: Mapping[str, Any], found: Found, to: Path, *,
    batch_size: int, false_alarms: float,
) -> Tally:  # fmt: skip
    """Predict the images and write the tables.

    Args:
        folder: of the finished run.
        config: the run's, with this machine's paths and the accelerator and precision that are requested.
        results: the run's ``results.json``.
        found: the images.
        to: folder for the tables.
        batch_size: images that go through the network at once.
        false_alarms: the share of images like the validation images that may be reported as out of distribution.

    Raises:
        UserError: the run's weights are damaged, nothing can be written, or new files cannot be harmonised as its own.
    """
    rule = Rule.of(results)
    net, digest = network.load(folder, config, len(rule.classes))
    predictor = network.Predictor(net, config, _harmonizer(folder, config))
    console.line(f"{predictor.machine.reason}: {predictor.machine.accelerator}, {predictor.machine.precision}")
    tally = Tally()
    yardstick: _Yardstick | None = None
    try:
        yardstick = _Yardstick.of(reference(folder, config, digest, predictor, batch_size), false_alarms)
        tally.cut = yardstick.cut
    except UserError as reason:
        tally.why_not = " ".join(str(reason).split())
        log.warning("whether images are out of distribution is not known: %s", tally.why_not)
    try:
        _, known = small.trained_on(folder.split)
    except UserError as reason:
        known = set[str]()
        log.warning("whether the run trained on these images is not known: %s", reason)
    for warning in found.warnings:
        log.warning("%s", warning)
    for error in found.bad:
        tally.skip(error)
    head = _head(folder, results, rule, digest, predictor, batch_size) | {OOD: _about(yardstick, tally)}
    patients = Patients(rule)
    names = ["file", "patient_id", "series", "position_mm", *columns(rule), "decision", "distance", OOD]
    in_turns = predictor.device.type == "cpu"
    blas = threads.single_blas_thread() if in_turns else nullcontext()
    with Tables(to, names, head) as tables, console.progress("predicting") as bar, predictor.autocast(), blas:
        for files, images in _batches(found, known, config, batch_size, in_turns, tally, bar):
            logits, features = predictor(images)
            measured = yardstick.measure(features) if yardstick else [_ood_columns()] * len(images)
            for file, its, ood_ in zip(files, logits, measured, strict=True):
                if not np.isfinite(its).all():
                    tally.skip(BadImageError(file.path, "makes the network's output infinite or no number"))
                    continue
                entry = _about_file(file) | row(rule, its) | ood_
                tables.add(entry)
                patients.add(entry)
                tally.add(entry)
        rows = patients.rows()
        tally.patients = len(rows)
        skipped = [{"file": printable_path(error.path), "reason": error.reason} for error in tally.bad]
        warnings = [{"warning": warning, "files": []} for warning in found.warnings]
        warnings += [{"warning": doubt, "files": files} for doubt, files in tally.doubts.items()]
        tables.finish(rows, {"skipped": skipped, "warnings": warnings})
    tally.warn()
    return tally


def _batches(
    found: Found,
    known: Collection[str],
    config: Config,
    batch_size: int,
    in_turns: bool,
    tally: Tally,
    bar: console.Progress,
) -> Iterator[tuple[list[InputFile], list[np.ndarray]]]:
    """Yield full batches of what can be decoded, and a last one of the rest."""
    total = len(found.files)
    files: list[InputFile] = []
    images: list[np.ndarray] = []
    workers = min(threads.cores(), 8)
    size, window = config.dataset.image_size, _window(config)
    ahead = batch_size if in_turns else 2 * batch_size
    images_of = decode_all(found.files, size, ahead, workers, window, known=known, in_turns=in_turns)
    for done, one in enumerate(images_of, start=1):
        if isinstance(one.image, BadImageError):
            tally.skip(one.image)
        else:
            files.append(one.file)
            images.append(one.image)
            for note in one.notes:
                tally.doubts[note].append(one.file.name)
        if len(images) == batch_size or (done == total and images):
            yield files, images
            files, images = [], []
        bar(done, total)


def _harmonizer(folder: RunFolder, config: Config) -> Harmonizer | None:
    """Return what the run did to the grey levels of its own images.

    Raises:
        UserError: it cannot be known for new files, or the run lacks its histogram.
    """
    return harmonizer_of_files(config.dataset, lambda: reference_histogram(folder))


def _window(config: Config) -> Window | CTWindow | None:
    """Through which the run's own images were decoded: the one that all its sources of such images share."""
    c = config.dataset
    sources = c.of_sources().values() if c.kind == "pooled" else [c]
    windows = {window_of(source) for source in sources} - {None}
    return windows.pop() if len(windows) == 1 else None


def _about_file(file: InputFile) -> dict[str, Any]:
    part = file.slice
    return {
        "file": file.name,
        "patient_id": file.patient or None,
        "series": part.series if part else None,
        "position_mm": part.position if part else file.position,
    }


def _head(
    folder: RunFolder, results: Mapping[str, Any], rule: Rule, digest: str, predictor: network.Predictor, batch: int
) -> dict[str, Any]:
    """Return what a reader of the predictions must know."""
    return {
        "note": NOTE,
        "run": folder.path.name,
        "trained_on": {key: results[key] for key in ("dataset", "protocol")},
        "weights": digest,
        "classes": list(rule.classes),
        "positive": results["positive"],
        "threshold": rule.threshold if rule.binary else None,
        "threshold_rule": results["threshold_rule"] if rule.binary else "argmax",
        "temperature": rule.temperature,
        "calibration_notes": results["calibration"]["notes"],
        "patient_aggregation": rule.aggregation if rule.binary else None,
        "precision": predictor.machine.precision,
        "accelerator": predictor.machine.accelerator,
        "batch_size": batch,
    }


def _about(yardstick: _Yardstick | None, tally: Tally) -> dict[str, Any]:
    if yardstick is None:
        return {"why_not": tally.why_not}
    cut = yardstick.cut
    return {
        "distance": f"to the {far.NEIGHBOUR}th nearest training image, between unit features of the last feature map",
        "training_images": len(yardstick.reference.train),
        "cut": cut.distance,
        "false_alarms_expected": cut.expected,
        "false_alarms_on_validation": cut.on_val,
        "validation_images": cut.val_images,
    }
