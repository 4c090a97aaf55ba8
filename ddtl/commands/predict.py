"""``ddtl predict``: a trained run on new pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.markup import escape

from ddtl.config.command_line import own_settings
from ddtl.data.loading.samplers import Shares
from ddtl.schema.run import Config
from ddtl.utils import console
from ddtl.utils.errors import EXIT_FAILURE, UserError
from ddtl.utils.files import output_folder
from ddtl.utils.suggest import did_you_mean

if TYPE_CHECKING:
    from ddtl.inference.predict import Tally

HELP = """\
Predict new pictures with a trained run. For research: this is no medical device, and not for diagnosis.

  ddtl predict RUN scan.png                     RUN: a run's folder, as runs/covid19ct/densenet121-full-s0-0123456789
  ddtl predict RUN folder/ other/ study.dcm     folders at any depth; PNG, JPEG, TIFF, BMP, DICOM slices and series
  ddtl predict RUN scans/ patients=folder       the pictures of a folder are one patient's

  output=FOLDER         for predictions.csv, predictions.json and patients.csv; else ./predictions
  overwrite=true        replace those of an earlier prediction
  patients=folder       of which pictures a patient's score is made; else what DICOM files say (PatientID, or the study
                        where that is a placeholder)
  false_alarms=0.05     share of pictures like the validation images that may be called far from the training images
  batch_size=32         pictures at once; else what the run was scored with
  accelerator=auto      auto, cpu or gpu
  precision=run         run (as the run was scored), 32, bf16-mixed or 16-mixed
  paths.data_dir=…, paths.cache_dir=…, dataset images and cache, as for train.py: needed once for a run, to learn how
                        far from its training images a picture can be

Pictures are prepared as in training; DICOM slices go through the lung window (-600, 1500 HU). Threshold, temperature
and the patient rule are those of the run's results.json. What cannot be read is named and left out.

Exit codes: 0 all pictures predicted, 1 some left out, 2 a mistake in the command, 129/130/143 stopped.
"""

_PATHS = ("paths.data_dir", "paths.cache_dir")


@dataclass(frozen=True)
class Settings:
    """What was asked for."""

    run: Path
    pictures: tuple[str, ...]
    paths: tuple[str, ...] = ()
    output: Path = field(default_factory=lambda: Path("predictions"))
    overwrite: bool = False
    patients: Literal["", "folder"] = ""
    false_alarms: float = 0.05
    batch_size: int | None = None
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["run", "32", "bf16-mixed", "16-mixed"] = "run"


def main(argv: Sequence[str]) -> int:
    """What follows ``ddtl predict``; returns the exit code.

    Raises:
        UserError: a mistake in the command, a run that is not finished, or no picture.
    """
    if not argv or {"--help", "-h"} & set(argv):
        sys.stdout.write(HELP)
        return 0
    from ddtl.inference import output as writing
    from ddtl.inference.inputs import find
    from ddtl.records import run as results_of
    from ddtl.records.run_folder import RunFolder
    from ddtl.training.rescore import stored_run

    settings = parse(argv)
    folder = RunFolder(settings.run)
    saved, results = stored_run(folder)
    results_of.require(folder.results, results, "evaluation.patient")
    there = writing.existing(settings.output)
    if there and not settings.overwrite:
        raise UserError(
            f"{settings.output} holds {', '.join(there)} already. Name another output=FOLDER, or replace them with "
            "overwrite=true."
        )
    with console.progress("looking at the files") as bar:
        found = find(settings.pictures, by_folder=settings.patients == "folder", progress=bar)
    from ddtl.utils.memory import keep_freed_memory

    keep_freed_memory()
    from ddtl.inference.predict import predict

    tally = predict(
        folder, on_this_machine(saved, results, settings), results, found, settings.output,
        batch_size=settings.batch_size or scored_batch(saved), false_alarms=settings.false_alarms,
    )  # fmt: skip
    if found.others:
        by_number = sorted(found.others.items(), key=lambda item: (-item[1], item[0]))
        kinds = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in by_number[:5])
        console.line(f"{found.others.total()} files in the folders are no pictures and were passed over ({kinds})")
    _show(tally, results["classes"], settings.output)
    return EXIT_FAILURE if tally.bad else 0


def parse(argv: Sequence[str]) -> Settings:
    """The run, the pictures and the settings, all mistakes in one message.

    Raises:
        UserError: there are mistakes.
    """
    named, *words = argv
    values, others, problems = own_settings(words, _READ)
    pictures, paths = [], []
    for word in others:
        key, equals, _ = word.partition("=")
        if equals and key in _PATHS:
            paths.append(word)
        elif word.startswith("-") or (equals and not Path(word).exists()):
            known = (*_READ, *_PATHS)
            problems.append(f"{word}: no such setting.{did_you_mean(key, known)} There are {', '.join(known)}.")
        else:
            pictures.append(word)
    if not pictures and not problems:
        problems.append("ddtl predict needs pictures behind the run: files or folders.")
    if problems:
        raise UserError("\n".join(problems))
    return Settings(Path(named).expanduser(), tuple(pictures), tuple(paths), **values)


def on_this_machine(saved: Config, results: Mapping[str, Any], settings: Settings) -> Config:
    """The run's configuration with this machine's paths, one process, and the precision that is asked for."""
    from ddtl.training import rescore

    asked = results["precision"] if settings.precision == "run" else settings.precision
    precision = 32 if asked in ("32", "32-true") else asked
    return rescore.on_this_machine(saved, settings.paths, settings.accelerator, precision)


def scored_batch(config: Config) -> int:
    """How many images went through the network at once when the run was scored."""
    t = config.trainer
    return Shares(config.dataset.batch_size, t.devices * t.num_nodes, 0, t.accumulate).evaluated


def _show(tally: Tally, classes: Sequence[str], output: Path) -> None:
    total = tally.called.total()
    parts = ", ".join(f"{tally.called[name]} {name}" for name in classes)
    patients = f", {tally.patients} patients" if tally.patients else ""
    console.out.print(escape(f"{total} pictures{patients}: {parts}"))
    if tally.cut is not None and total:
        expected = f"of pictures like the validation images at most {tally.cut.expected:.1%} are expected"
        console.out.print(f"{tally.far} of {total} are far from the training images ({expected})")
        if _many(tally, total):
            console.out.print(
                "! That is more than chance: the network has not learned from pictures like these, and its answers to "
                "them may mean nothing.",
                style="yellow",
            )
    if tally.bad:
        console.out.print(f"! {len(tally.bad)} files were left out; predictions.json names each", style="yellow")
    console.out.print(escape(f"written to {output}"))


def _many(tally: Tally, total: int) -> bool:
    """Whether so many far pictures come by chance less than once in a thousand times, were they independent."""
    from scipy.stats import binom

    assert tally.cut is not None
    return bool(binom.sf(tally.far - 1, total, tally.cut.expected) < 0.001)


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be {' or '.join(allowed)}.")
        return text

    return read


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        raise ValueError("is no number; a share is written as 0.05.") from None
    if not 0 < share < 1:
        raise ValueError("must be above 0 and below 1, as 0.05.")
    return share


def _batch(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise ValueError("must be a whole number from 1 to 4096.")
    return int(text)


_READ: Mapping[str, Callable[[str], Any]] = {
    "output": output_folder,
    "overwrite": lambda text: _one_of("true", "false")(text) == "true",
    "patients": _one_of("folder"),
    "false_alarms": _share,
    "batch_size": _batch,
    "accelerator": _one_of("auto", "cpu", "gpu"),
    "precision": _one_of("run", "32", "bf16-mixed", "16-mixed"),
}
