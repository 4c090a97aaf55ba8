"""What ``import ddtl`` offers to scripts and notebooks: the jobs of the commands, and their records as tables.

Each function does what the command of its name does, with the same code: a run that was trained here is resumed by
``train.py`` and the other way round. Settings are those of the command line.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ddtl.records import predictions as stored_predictions, run as run_record, settings as stored_settings
from ddtl.schema.scores import SCORES, title_of
from ddtl.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

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
        empty. A score without value or without limits has NaN there.
        """
        import pandas as pd

        return pd.DataFrame(list(_score_rows(self.results)), columns=_COLUMNS)

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

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """Return the scores as a table, for notebooks."""
        from html import escape

        shown = self.scores()
        shown = shown[shown["class"] == ""].drop(columns=["class", "method"])
        shown["score"] = shown["score"].map(title_of)
        table: str = shown.to_html(index=False, na_rep="–", float_format=lambda value: f"{value:.3f}")
        return f"<p><b>{escape(self.path.name)}</b></p>{table}"


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

    def predict(self, *files: str | Path, unit: Unit = "image", **settings: Any) -> pd.DataFrame:
        """Return the run's predictions for images, as ``ddtl predict`` makes them.

        Args:
            files: images, DICOM files, and folders of them.
            unit: a row for each image, or for each patient where patients are known.
            settings: those of ``ddtl predict``, such as ``patients="folder"`` or ``batch_size=16``.

        Returns:
            The command's table. Its ``attrs["skipped"]`` names the files that could not be used, with reasons.

        Raises:
            UserError: no image, or a mistake in the settings.
        """
        import pandas as pd

        from ddtl.commands import predict
        from ddtl.inference.output import IMAGE_ROWS, JSON, PATIENT_ROWS
        from ddtl.utils.reading import read_object

        if "output" in settings:
            raise UserError("predict returns its table. To write files: ddtl predict RUN FILES output=FOLDER")
        with tempfile.TemporaryDirectory() as folder:
            words = predict.COMMAND.read(
                [*map(str, files), *as_words(settings), f"output={folder}"], problems=predict.problems
            )
            predict.predict_files(self.path, words)
            found = read_object(Path(folder) / JSON)
        table = pd.DataFrame(found[PATIENT_ROWS if unit == "patient" else IMAGE_ROWS])
        table.attrs["skipped"] = found["skipped"]
        return table

    def evaluate(self, *words: str, **settings: Any) -> Scored:
        """Score the run in another way, or on another dataset, as ``ddtl evaluate`` does.

        Each different scoring of a test set is a further use of it, and counted.

        Args:
            words: such as ``"dataset=sarscov2ct"``.
            settings: the same as keywords; keys with a dot as ``**{"evaluation.threshold": "youden"}``.

        Returns:
            The record: this run's, made again, or that of the other dataset.
        """
        from ddtl.commands import evaluate

        done = evaluate.evaluate(self.path, [*words, *as_words(settings)])
        return Run(done.folder) if (done.folder / "config.yaml").exists() else Scored(done.folder)


def train(*words: str, **settings: Any) -> Run:
    """Train, score and record a run as ``train.py`` does; resume it where it was stopped.

    Args:
        words: as on the command line: ``"dataset=covid19ct"``, ``"optimizer.lr=1e-3"``.
        settings: the same as keywords; keys with a dot as ``**{"optimizer.lr": 1e-3}``.

    Raises:
        UserError: a mistake in the settings, or data, weights or hardware that are not as requested.
        TrainingFailure: training broke; the same call resumes it from the last epoch.
    """
    from ddtl.commands import train as command
    from ddtl.config.load import load as load_config

    config = load_config([*words, *as_words(settings)])
    if config.trainer.devices * config.trainer.num_nodes > 1:
        raise UserError(
            "several processes are started by the command alone. Type `python train.py …` with these settings, or set "
            "trainer.devices=1 trainer.num_nodes=1"
        )
    return Run(command.run(config).folder)


def load(run: str | Path, folder: str | Path | None = None) -> Run:
    """Return a finished run.

    Args:
        run: its folder, or a part of the name of just one run in the runs folder.
        folder: the runs folder; None for ``paths.runs_dir``.

    Raises:
        UserError: there is none, or several are called so; or it is not a finished run.
    """
    from ddtl.commands.runs import find_row
    from ddtl.dashboard.index import Index

    path = Path(run).expanduser()
    if not path.is_dir():
        root = _runs_folder(folder)
        row = find_row(root, [row for row in Index(root).rows() if row.kind == "run"], str(run))
        path = root / row.path
    return Run(path)


def compare(*runs: Run | str | Path, score: str = "roc_auc", split: str = "test", level: float = 0.95) -> pd.DataFrame:
    """Return the paired differences between runs on the same images, as ``ddtl compare`` computes them.

    Args:
        runs: two or more. Runs that differ only in their seed count as one method.
        score: the one by which is judged.
        split: ``test`` or ``val``.
        level: of the confidence limits.

    Returns:
        A row for each pair of methods and score: both values, their difference and its limits; for ``score`` the p of
        the test and the one adjusted for the number of pairs (Holm). ``attrs`` has ``claims``, what that test allows
        to be claimed, and ``caveats``.

    Raises:
        UserError: the runs cannot be compared.
    """
    import pandas as pd

    from ddtl.commands.compare import COMMAND
    from ddtl.evaluation.comparison.comparison import compare as compare_methods
    from ddtl.reports.comparison import claims, runs as compared

    paths = [run.path if isinstance(run, Scored) else Path(run).expanduser() for run in runs]
    words = [*map(str, paths), *as_words({"score": score, "split": split, "level": level})]
    settings = COMMAND.read(words).settings
    found = compared.read(paths, settings.split)
    result = compare_methods(found.methods, score=settings.score, level=settings.level)
    nan = float("nan")
    rows = []
    for pair in result.pairs:
        for name, of_score in pair.differences.items():
            low, high = (of_score.interval.low, of_score.interval.high) if of_score.interval else (nan, nan)
            p, holm_p = (pair.p, pair.holm_p) if name == pair.score else (nan, nan)
            rows.append((pair.a, pair.b, name, of_score.a, of_score.b, of_score.value, low, high, p, holm_p))
    columns = ("a", "b", "score", "score_a", "score_b", "difference", "low", "high", "p", "holm_p")
    table = pd.DataFrame(rows, columns=columns)
    table.attrs |= {"claims": claims.claims(result.pairs), "caveats": claims.caveats(found, result.pairs)}
    return table


def runs(folder: str | Path | None = None) -> pd.DataFrame:
    """Return a row for each run, evaluation, sweep, study and audit of a runs folder, the latest first.

    Args:
        folder: the runs folder; None for ``paths.runs_dir``.
    """
    from dataclasses import fields

    import pandas as pd

    from ddtl.dashboard.index import FolderRow, Index

    rows = Index(_runs_folder(folder)).rows()
    return pd.DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(FolderRow)])


def as_words(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as words of the command line: ``{"optimizer.lr": 0.001}`` as ``["optimizer.lr=0.001"]``."""
    return [f"{key}={_value(value)}" for key, value in settings.items()]


_PLAIN = re.compile(r"[A-Za-z_/~][\w./@%+-]*", re.ASCII)
_OTHER_TYPES = ("true", "false", "null", "inf", "nan")  # words that Hydra's grammar takes for no text


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(_value, value)) + "]"
    if isinstance(value, int | float) or (_PLAIN.fullmatch(str(value)) and str(value).lower() not in _OTHER_TYPES):
        return str(value)
    # Hydra's grammar: backslashes count double in front of a quote, and at the end, alone.
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + (found[2] and "\\'"), str(value))
    return f"'{escaped}'"


def _runs_folder(folder: str | Path | None) -> Path:
    if folder is not None:
        return Path(folder).expanduser()
    from ddtl.config.load import load as load_config

    return Path(load_config([], writes=False).paths.runs_dir)


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
