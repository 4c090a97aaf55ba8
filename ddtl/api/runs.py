"""Runs: trained, scored, shown, and applied to new images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ddtl.api import plots
from ddtl.api.images import read_images
from ddtl.api.session import as_typed, as_words, command
from ddtl.evaluation import test_use
from ddtl.records import predictions as stored_predictions, run as run_record, settings as stored_settings
from ddtl.reports import terminal
from ddtl.schema.scores import SCORES, title_of
from ddtl.utils import console
from ddtl.utils.errors import TrainingFailure, UserError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from ddtl.api.images import Images
    from ddtl.schema.run import Config

Unit = Literal["image", "patient"]


class Scored:
    """The record of a scored network: of a run, or of a run on another test set.

    Attributes:
        path: its folder.
        results: its ``results.json``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        try:
            self.results: dict[str, Any] = run_record.read(self.path)
        except FileNotFoundError:
            raise UserError(
                f"{self.path}: is not the folder of a finished run. The command that made it resumes it."
            ) from None

    def scores(self) -> pd.DataFrame:
        """Return a row for each split, unit and score: value, confidence limits, and the method that made these.

        Where there are more than two classes, ``class`` names the one that is held against all others; else it is
        empty. A score without value or without limits has NaN there. ``attrs["warnings"]`` says what makes all of them
        doubtful, such as a leaky split.
        """
        import pandas as pd

        table = pd.DataFrame(list(_score_rows(self.results)), columns=_COLUMNS)
        table.attrs["warnings"] = terminal.doubts(self.results)
        return table

    @property
    def predictions(self) -> pd.DataFrame:
        """A row for each image of validation and test, by which the scores were computed: split, ``sample_id``, group,
        ``patient_id`` (empty where it is not known), site, label, and each class's logit and probability.
        """
        import pandas as pd

        table = stored_predictions.read(self.path / "predictions.csv")
        columns: dict[str, Any] = {
            "split": table.split, "sample_id": table.sample_id, "group": table.group, "patient_id": table.patient_id,
            "site": table.site, "label": [table.classes[label] for label in table.label],
        }  # fmt: skip
        columns |= {f"logit_{name}": table.logits[:, i] for i, name in enumerate(table.classes)}
        columns |= {f"probability_{name}": table.probabilities[:, i] for i, name in enumerate(table.classes)}
        return pd.DataFrame(columns)

    def report(self, *, share: bool = False) -> Path:
        """Write the page and return its path.

        Args:
            share: a page without images, and without names of images and patients.
        """
        from ddtl.commands import report

        return report.write_to_share(self.path) if share else report.write(self.path)

    def plot_roc(self) -> go.Figure:
        """Return the ROC curve of the page as a Plotly figure: sensitivity against 1 - specificity, both from 0 to 1.

        By patient where patients are known, with the band in which the curves of other patients would be, and by
        image. The ROC AUC with its confidence limits is below the title. Of more than two classes, each is held
        against all others. The split is the test set; validation where the test set was not scored.

        Raises:
            UserError: the images are all of one class.
        """
        return plots.roc(self.path)

    def plot_calibration(self) -> go.Figure:
        """Return the reliability diagram of the page as a Plotly figure.

        Above: the share of positive images (0 to 1) against their mean predicted probability (0 to 1), in ten bins of
        equal width, as predicted and at the temperature; of more than two classes, accuracy against confidence. Below:
        images in each bin. Under the title: the expected calibration error with what chance shows, and the intercept
        and slope of the calibration line with their 95 % confidence limits.

        Raises:
            UserError: the record contains no calibration.
        """
        return plots.calibration(self.path)

    def plot_patients(self) -> go.Figure:
        """Return every patient of the split as a Plotly figure: probability (0 to 1) against the patient's place by it.

        Large: the patient's score; small: the images; dotted: the threshold. Sensitivity and specificity by patient,
        with their confidence limits, are below the title. Patients are numbered, and not named.

        Raises:
            UserError: patients are not known, or there are more than two classes.
        """
        return plots.patients(self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """Return the scores as a table below what makes them doubtful, for notebooks."""
        from html import escape

        shown = self.scores()
        shown = shown[shown["class"] == ""].drop(columns=["class", "method"])
        shown["score"] = shown["score"].map(title_of)
        table: str = shown.to_html(index=False, na_rep="–", float_format=lambda value: f"{value:.3f}")
        marks = "".join(f"<p>! {escape(doubt)}</p>" for doubt in terminal.doubts(self.results))
        return f"<p><b>{escape(self.path.name)}</b></p>{marks}{table}"


class Run(Scored):
    """A finished run.

    Attributes:
        path: its folder.
        results: its ``results.json``.
        config: with what it was trained.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.config: Config = stored_settings.config(self.path)

    def predict(self, *images: Images, unit: Unit = "image", **settings: Any) -> pd.DataFrame:
        """Return the run's predictions for images, as ``ddtl predict`` makes them.

        Args:
            images: files (images, DICOM files, and folders of them); or arrays of uint8 or uint16, (H, W) or (H, W, 3);
                or lists of either; or a DataFrame with a column ``path`` and, where patients are known, ``patient_id``.
                An array is taken for what a PNG file of these pixels is taken for, and its ``file`` is ``array 0``, by
                its number.
            unit: a row for each image, or for each patient where patients are known.
            settings: those of ``ddtl predict``, such as ``patients="folder"`` or ``batch_size=16``.

        Returns:
            The command's table: of an image its file, logits, probabilities (0 to 1), decision, and its distance from
            the training images. Images are in order, and the slices of a DICOM series in theirs. Its
            ``attrs["skipped"]`` names the images that could not be used, with reasons: they have no row; and
            ``attrs["warnings"]`` what is doubtful, such as images of which the patient is not known.

        Raises:
            UserError: no image, an array that is none, or a mistake in the settings.
        """
        import pandas as pd

        from ddtl.commands import predict
        from ddtl.inference.output import IMAGE_ROWS, JSON, PATIENT_ROWS
        from ddtl.utils.reading import read_object

        if "output" in settings:
            raise UserError("predict returns its table. To write files: ddtl predict RUN FILES output=FOLDER")
        if unit not in ("image", "patient"):
            raise UserError(f"unit={unit!r}: is neither 'image' nor 'patient'.")
        given = read_images(images, settings.get("patients", ""))
        with tempfile.TemporaryDirectory() as folder:
            typed = [*given.files, *as_words(settings), f"output={folder}"]
            words = predict.COMMAND.read(typed, problems=(lambda *_: []) if given.arrays else predict.problems)
            with command("ddtl", ["predict", str(self.path), *typed]):
                predict.predict_files(self.path, words, given.arrays, given.patients)
            found = read_object(Path(folder) / JSON)
        rows = found[PATIENT_ROWS if unit == "patient" else IMAGE_ROWS]
        if not rows:
            why = "no image names its patient" if found[IMAGE_ROWS] else "no image could be used"
            reason = f": {found['skipped'][0]['reason']}" if found["skipped"] else ""
            raise UserError(f"predict: {why}{reason}")
        table = pd.DataFrame(rows)
        table.attrs["skipped"] = found["skipped"]
        table.attrs["warnings"] = [one["warning"] for one in found["warnings"]]
        return table

    def explain(self, n: int = 8, **settings: Any) -> HeatMaps:
        """Make Grad-CAM heat maps of right and wrong decisions on the test set, as ``ddtl explain`` does.

        They replace earlier ones in the run's folder ``explain/``, and the run's page shows them. No use of a test set
        is counted: the images are those that were scored already.

        Args:
            n: the most images of each kind of decision (true and false positives and negatives), 1 to 200.
            settings: those of ``ddtl explain``, such as ``layer="block3"`` or ``randomised=0``.

        Raises:
            UserError: a mistake in the settings, images that are not here, or captum that is not installed.
        """
        from ddtl.commands import explain

        typed = [f"images={n}", *as_words(settings)]
        words = explain.COMMAND.read(typed, problems=_no_rest)
        with command("ddtl", ["explain", str(self.path), *typed]):
            record, _ = explain.explain_run(self.path, words)
        return HeatMaps(self.path / "explain", record)

    def export(self, **settings: Any) -> Path:
        """Write the network as ONNX with its metadata and its model card, as ``ddtl export`` does.

        Args:
            settings: those of ``ddtl export``: ``format="safetensors"``, ``output=FOLDER``, ``images=200``.

        Returns:
            The folder that contains ``model.onnx`` (or ``model.safetensors``), ``model.json`` and ``card.md``.

        Raises:
            UserError: a mistake in the settings, images that are not here, or onnx that is not installed.
            TrainingFailure: the ONNX file differs from the network by over 1e-4, and was not kept.
        """
        from ddtl.commands import export

        words = export.COMMAND.read(as_words(settings), problems=_no_rest)
        with command("ddtl", ["export", str(self.path), *as_words(settings)]):
            folder = export.export_run(self.path, words)
        if folder is None:
            raise TrainingFailure(
                f"{self.path}: the ONNX file differs from the network by more than {export.LARGEST:g}, and was not "
                "kept. Export the weights instead: run.export(format='safetensors')"
            )
        return folder

    def evaluate(self, *words: str, **settings: Any) -> Scored:
        """Score the run in another way, or on another dataset, as ``ddtl evaluate`` does.

        Each different scoring of a test set is a further use of it, and counted.

        Args:
            words: such as ``"dataset=sarscov2ct"``.
            settings: the same as keywords; keys with a dot as ``**{"evaluation.threshold": "youden"}``.

        Returns:
            The record: this run's, made again, or that of the other dataset.

        Raises:
            UserError: a mistake in the settings, or a run that cannot be evaluated so.
        """
        from ddtl.commands import evaluate as evaluating

        typed = as_typed(words, settings)
        with command("ddtl", ["evaluate", str(self.path), *typed]):
            done = evaluating.evaluate(self.path, typed)
            _show_doubts(done.results)
        return Run(done.folder) if (done.folder / "config.yaml").exists() else Scored(done.folder)


@dataclass(frozen=True)
class HeatMaps:
    """What ``Run.explain`` wrote.

    Attributes:
        path: the folder.
        record: ``explain.json``: each image with its true and predicted label, and how reliable the maps are.
    """

    path: Path
    record: dict[str, Any]

    @property
    def sheets(self) -> dict[str, Path]:
        """The contact sheet (PNG) of each kind of decision that occurs, such as ``false_negatives``."""
        return {group["key"]: self.path / group["sheet"] for group in self.record["groups"] if group["sheet"]}

    @property
    def images(self) -> list[Path]:
        """Every image next to the same image under its heat map (WebP), kind by kind."""
        return [self.path / image["picture"] for group in self.record["groups"] for image in group["images"]]


def train(*words: str, **settings: Any) -> Run:
    """Train, score and record a run as ``train.py`` does; resume it where it was stopped.

    Args:
        words: as on the command line: ``"dataset=covid19ct"``, ``"optimizer.lr=1e-3"``.
        settings: the same as keywords; keys with a dot as ``**{"optimizer.lr": 1e-3}``.

    Raises:
        UserError: a mistake in the settings, or data, weights or hardware that are not as requested.
        TrainingFailure: training broke; the same call resumes it from the last epoch.
        KeyboardInterrupt: Ctrl-C, or a notebook's stop button; the same call resumes it from the last epoch.
    """
    from ddtl.commands import train as training
    from ddtl.config.load import load as load_config

    wrong = next((word for word in words if not isinstance(word, str)), None)
    if wrong is not None:
        raise UserError(
            f"{wrong!r}: a word such as 'seed=1' is wanted; a dict of settings is given as train(**settings)."
        )
    typed = as_typed(words, settings)
    config = load_config(typed)
    if config.trainer.devices * config.trainer.num_nodes > 1:
        raise UserError(
            "several processes are started by the command alone. Type `python train.py …` with these settings, or set "
            "trainer.devices=1 trainer.num_nodes=1"
        )
    with command("train.py", typed):
        run = Run(training.run(config).folder)
        _show_doubts(run.results)
        return run


def _show_doubts(results: Mapping[str, Any]) -> None:
    """Show which use of the test set this was, and what makes the scores doubtful."""
    if "test" in results:
        console.line(test_use.label(results))
    for doubt in terminal.doubts(results):
        console.line(f"! {doubt}")


def _no_rest(settings: object, words: tuple[str, ...]) -> list[str]:
    return [f"{word}: is not a setting." for word in words]


_COLUMNS = ("split", "unit", "class", "score", "value", "low", "high", "method")


def _score_rows(results: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for split in ("val", "test"):
        found = results.get(split)
        if found is None:
            continue
        yield from _rows_of(split, "image", "", found)
        if found.get("patients"):
            yield from _rows_of(split, "patient", "", found["patients"])
        for name, of_class in found.get("per_class", {}).items():
            yield from _rows_of(split, "image", name, of_class)


def _rows_of(split: str, unit: Unit, of_class: str, found: Mapping[str, Any]) -> Iterable[tuple[Any, ...]]:
    intervals = found.get("intervals") or {}
    nan = float("nan")
    for name in SCORES:
        if name in found:
            limits = intervals.get(name) or {"low": nan, "high": nan, "method": ""}
            value = nan if found[name] is None else found[name]
            yield split, unit, of_class, name, value, limits["low"], limits["high"], limits["method"]
