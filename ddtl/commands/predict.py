"""``ddtl predict``: a trained run on new images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from rich.markup import escape
from rich.table import Table

from ddtl.commands.arguments import PATHS, Command, OutputFolder, Words
from ddtl.commands.run_names import run_folder
from ddtl.data.loading.samplers import Shares
from ddtl.inference.output import IMAGE_ROWS, JSON, OOD
from ddtl.schema.run import Config
from ddtl.schema.section import Section
from ddtl.utils import console
from ddtl.utils.errors import EXIT_FAILURE, UserError
from ddtl.utils.reading import printable, read_object
from ddtl.utils.wording import count

if TYPE_CHECKING:
    import numpy as np

    from ddtl.inference.predict import Tally


class PredictSettings(Section):
    """Settings of ``ddtl predict``."""

    output: OutputFolder = Field(
        Path("predictions"), description="the folder of predictions.csv, predictions.json and patients.csv"
    )
    overwrite: bool = Field(False, description="true replaces those of an earlier prediction")
    patients: Literal["", "folder"] = Field(
        "",
        description="folder: the images of a folder are one patient's; else the patient in the DICOM headers "
        "(PatientID, or the study where that is a placeholder)",
    )
    false_alarms: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="share of images like the validation images that may be reported as out of distribution",
    )
    batch_size: int | None = Field(None, ge=1, le=4096, description="images at once; else what the run was scored with")
    accelerator: Literal["auto", "cpu", "gpu"] = Field("auto", description="the device")
    precision: Literal["run", "32", "bf16-mixed", "16-mixed"] = Field("run", description="run: as the run was scored")


_SHOWN = 20  # images, of which each has a line at the terminal

COMMAND = Command(
    "predict",
    PredictSettings,
    intro="Predict new images with a trained run. For research: this is not a medical device, and not for diagnosis.",
    examples=(
        ("predict RUN scan.png", "RUN: a run's folder, as runs/covid19ct/densenet121-full-s0-0123456789"),
        ("predict RUN folder/ other/ study.dcm", "folders at any depth; PNG, JPEG, TIFF, BMP, DICOM slices and series"),
        ("predict RUN scans/ patients=folder", "the images of a folder are one patient's"),
    ),
    notes=(
        "Images are prepared as in training; DICOM slices go through the lung window (-600, 1500 HU). Threshold, "
        "temperature and the patient rule are those of the run's results.json. The run's own images are needed once, "
        "to measure which distances from the training images are usual. What cannot be read is named and excluded.",
    ),
    exit_codes="0 all images predicted, 1 some excluded, 2 a mistake in the command, 129/130/143 stopped",
    passes=PATHS,
)


def main(argv: Sequence[str]) -> int:
    """Run ``ddtl predict`` with the words that follow it; return the exit code.

    Raises:
        UserError: a mistake in the command, a run that is not finished, or no image.
    """
    if COMMAND.wants_help(argv):
        return 0
    path = run_folder("predict", argv)
    words = COMMAND.read(argv[1:], problems=problems)
    tally, classes = predict_files(path, words)
    if tally.predicted.total() <= _SHOWN:
        console.out.print(_each(read_object(words.settings.output / JSON), classes))
    _show(tally, classes, words.settings.output)
    return EXIT_FAILURE if tally.bad else 0


def predict_files(
    path: Path,
    words: Words[PredictSettings],
    arrays: Sequence[np.ndarray] = (),
    patients: Mapping[str, str] | None = None,
) -> tuple[Tally, Sequence[str]]:
    """Predict the files that the words name and write the tables.

    Args:
        path: the run's folder.
        words: what the command takes behind it.
        arrays: images that are in memory, instead of files.
        patients: whom the images of a word show, where that is known.

    Returns:
        What became of the images, and the classes.

    Raises:
        UserError: a run that is not finished, or no image.
    """
    from ddtl.inference import output as writing
    from ddtl.inference.inputs import find, of_arrays
    from ddtl.records import run as results_of
    from ddtl.records.run_folder import RunFolder
    from ddtl.training.rescore import load_run

    settings, folder = words.settings, RunFolder(path)
    saved, results = load_run(folder)
    results_of.require(folder.results, results, "evaluation.patient")
    there = writing.existing(settings.output)
    if there and not settings.overwrite:
        raise UserError(
            f"{settings.output} contains {', '.join(there)} already. Name another output=FOLDER, or replace them with "
            "overwrite=true."
        )
    if arrays:
        found = of_arrays(arrays)
    else:
        with console.progress("examining the files") as bar:
            found = find(words.rest, by_folder=settings.patients == "folder", progress=bar, patients=patients)
    from ddtl.utils.memory import tune_allocator

    tune_allocator()
    from ddtl.inference.predict import predict

    tally = predict(
        folder, on_this_machine(saved, results, words), results, found, settings.output,
        batch_size=settings.batch_size or scored_batch(saved), false_alarms=settings.false_alarms,
    )  # fmt: skip
    if found.others:
        by_number = sorted(found.others.items(), key=lambda item: (-item[1], item[0]))
        kinds = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in by_number[:5])
        n = found.others.total()
        verbs = "is not an image and was" if n == 1 else "are not images and were"
        console.line(f"{count(n, 'file')} in the folders {verbs} passed over ({kinds})")
    return tally, results["classes"]


def problems(settings: PredictSettings, words: tuple[str, ...]) -> list[str]:
    """Return what the words lack, a line each."""
    return [] if words else ["ddtl predict needs images behind the run: files or folders."]


def on_this_machine(saved: Config, results: Mapping[str, Any], words: Words[PredictSettings]) -> Config:
    """Return the run's configuration with this machine's paths, one process, and the precision that is requested."""
    from ddtl.training import rescore

    settings = words.settings
    wanted = results["precision"] if settings.precision == "run" else settings.precision
    precision = 32 if wanted in ("32", "32-true") else wanted
    return rescore.on_this_machine(saved, words.passed, settings.accelerator, precision)


def scored_batch(config: Config) -> int:
    """Return how many images went through the network at once when the run was scored."""
    t = config.trainer
    return Shares(config.dataset.batch_size, t.devices * t.num_nodes, 0, t.accumulate).evaluated


def _each(found: Mapping[str, Any], classes: Sequence[str]) -> Table:
    """Return a row for each image: its file, probability, decision, and whether it is out of distribution."""
    positive = classes[1:] if len(classes) == 2 else classes
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("file", overflow="fold")
    for name in positive:
        table.add_column(f"P({escape(name)})", justify="right")
    threshold = found["threshold"]
    decision = "decision" if threshold is None else f"decision at {threshold:.3g}"
    for heading in (decision, "out of distribution"):
        table.add_column(heading)
    for row in found[IMAGE_ROWS]:
        shares = (f"{row[f'probability_{name}']:.3f}" for name in positive)
        ood = {True: "yes", False: "no", None: "–"}[row[OOD]]
        table.add_row(escape(printable(row["file"])), *shares, escape(row["decision"]), ood)
    return table


def _show(tally: Tally, classes: Sequence[str], output: Path) -> None:
    total = tally.predicted.total()
    parts = ", ".join(f"{tally.predicted[name]} {name}" for name in classes)
    patients = f" (of {count(tally.patients, 'patient')})" if tally.patients else ""
    console.out.print(escape(f"{count(total, 'image')}: {parts}{patients}"))
    if tally.cut is not None and total:
        expected = f"of images like the validation images at most {tally.cut.expected:.1%} are expected"
        console.out.print(
            f"{tally.ood} of {total} {'is' if tally.ood == 1 else 'are'} out of distribution ({expected})"
        )
        if _many(tally, total):
            console.out.print(
                "! That is more than chance: the network was not trained on images like these, and its answers to "
                "them may mean nothing.",
                style="yellow",
            )
    if tally.bad:
        console.out.print(
            f"! {count(len(tally.bad), 'file was', 'files were')} excluded; predictions.json names each", style="yellow"
        )
    console.out.print(escape(f"written to {output}"))


def _many(tally: Tally, total: int) -> bool:
    """Return whether so many far images come by chance less than once in a thousand times, were they independent."""
    from scipy.stats import binom

    assert tally.cut is not None
    return bool(binom.sf(tally.ood - 1, total, tally.cut.expected) < 0.001)
