"""Sweeps and studies: many runs from one call."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddtl.api.session import as_text, as_typed, as_words, command
from ddtl.records import study as study_record, sweep as sweep_record
from ddtl.utils.errors import TrainingFailure, UserError

if TYPE_CHECKING:
    import pandas as pd

    from ddtl.sweeps.plan.settings import Plan


class Sweep:
    """A sweep: trials with different settings, compared on validation.

    Attributes:
        path: its folder.
        record: its ``sweep.json``; ``record["final"]`` is the comparison on the test set, where there was one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        try:
            self.record: dict[str, Any] = sweep_record.read(self.path)
        except FileNotFoundError:
            raise UserError(
                f"{self.path}: there is no {sweep_record.NAME} in it. The call that made the sweep resumes it, and "
                "writes it."
            ) from None

    @property
    def trials(self) -> pd.DataFrame:
        """A row for each trial: number, state, the objectives (the score is of validation, by image; ``seconds`` of
        training), epochs, seconds (``seconds in all`` next to that objective), the settings in which trials differ as
        they are typed, the name of the run's folder, and of a failed trial the reason.
        """
        import pandas as pd

        names, rows = self._objectives(), []
        shared = _shared([trial["overrides"] for trial in self.record["trials"]])
        for trial in self.record["trials"]:
            values = trial["values"] or [None] * len(names)
            own = [word for word in trial["overrides"] if word not in shared]
            reason = " ".join(filter(None, [(trial["reason"] or "").replace("_", " "), trial["words"]]))
            about = (trial.get("epochs"), trial["seconds"], " ".join(own), trial.get("run") or "", reason)
            rows.append((trial["number"], trial["state"], *values, *about))
        trained = "seconds" if "seconds" not in names else "seconds in all"
        columns = ["trial", "state", *names, "epochs", trained, "settings", "run", "reason"]
        return _numbers(pd.DataFrame(rows, columns=columns), [*names, "epochs", trained])

    @property
    def results(self) -> pd.DataFrame:
        """A row for each setting with a completed trial, the best first: its mean objectives over the trials that
        differ by chance alone (seed, fold), the score's standard deviation (``sd``), lowest and highest, the numbers
        of these trials, and how many were begun.

        The best of many is so by chance in part: its score on validation is too high. The test set tells.
        """
        import pandas as pd

        from ddtl.reports.sweep.record import Sweep as Shown

        names = self._objectives()
        found = Shown(self.record).settings
        shared = _shared([trial["overrides"] for trial in self.record["trials"]])
        rows = [
            (
                " ".join(word for word in one.words if word not in shared), *one.means, one.deviation,
                min(one.scores), max(one.scores), list(one.trials), one.of,
            )
            for one in found
        ]  # fmt: skip
        columns = ["settings", *names, "sd", "lowest", "highest", "trials", "of"]
        return _numbers(pd.DataFrame(rows, columns=columns), [*names, "sd", "lowest", "highest"])

    def _objectives(self) -> list[str]:
        monitor = self.record["monitor"]
        return [{"score": monitor, "seconds": "seconds"}[objective] for objective in self.record["objective"]]

    def __repr__(self) -> str:
        return f"Sweep({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """Return the settings as a table, the best first, for notebooks."""
        return _html(self.path, self.results)


class Study:
    """A study: runs, each scored on all its test sets.

    Attributes:
        path: its folder.
        record: its ``study.json``: each run with its settings and its folder, and why it has none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        try:
            self.record: dict[str, Any] = dict(study_record.read(self.path))
        except FileNotFoundError:
            raise UserError(
                f"{self.path}: there is no {study_record.NAME} in it. Name a study's folder, as runs/studies/NAME."
            ) from None

    @cached_property
    def results(self) -> pd.DataFrame:
        """A row for each score of what was trained on each test set: its ``mean`` over the seeds with confidence limits
        (``low``, ``high``: for other patients and other seeds), their standard deviation (``sd``), the drop against
        the in-domain test set with its limits, and how many seeds, units and images it is of.

        ``threshold`` is ``source``, or ``refitted`` for scores at the threshold of the target's validation images. A
        score without value has NaN, and ``reason`` says which runs are missing. The study's ``scores.csv`` is the same.
        """
        import pandas as pd

        from ddtl.reports.study import cells, export

        table = export.every_score(cells.read(self.path))
        numbers = [name for name in table.columns if name not in _TEXTS]
        found = _numbers(pd.DataFrame(table.rows, columns=list(table.columns)), numbers)
        found["in_domain"] = found["in_domain"] == "true"
        return found

    def __repr__(self) -> str:
        return f"Study({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """Return the ROC AUC of what was trained on each test set as a table, for notebooks."""
        found = self.results.query("score == 'roc_auc' and threshold == 'source'")
        varied = [name for name in _AXES if found[name].nunique() > 1]
        return _html(self.path, found[[*(varied or ["source"]), "target", "mean", "low", "high", "sd", "seeds"]])


_AXES = ("source", "method", "protocol", "schedule", "patients")
_TEXTS = ("source", "method", "protocol", "schedule", "target", "in_domain", "threshold", "score", "unit", "reason")


def sweep(*words: str, **settings: Any) -> Sweep:
    """Train variants, compare them on validation, and score the choice on the test set, as ``sweep.py`` does; resume
    it where it was stopped.

    Args:
        words: as on the command line: ``"search=lr_unfreeze"``, ``"optimizer.lr=1e-4,1e-3"``, ``"seed=0,1,2"``.
        settings: the same as keywords; keys with a dot as ``**{"engine.workers": 4}``. A tuple is several values:
            ``**{"optimizer.lr": (1e-4, 1e-3)}``.

    Raises:
        UserError: a mistake in the settings, or data that are not as requested.
        TrainingFailure: trials failed, so that the command would end with exit code 1.
        KeyboardInterrupt: Ctrl-C, once the running trials have reached their next checkpoint; a second one ends them
            at once. The same call resumes the sweep.
    """
    from ddtl.commands import sweep as searching
    from ddtl.studies import settings as study_settings
    from ddtl.sweeps.plan import settings as sweep_settings

    typed = _typed(words, settings)
    if study_settings.is_requested(typed):
        raise UserError("study=…: is a study. Call ddtl.study with the same settings.")
    plan: Plan = sweep_settings.read(typed)
    _require_no_preview(plan.settings.preview)
    with _sweeping(typed):
        searching.announce_notes(plan.notes)
        failed = searching.search(plan)
    if failed:
        raise _failure(plan.folder, "trials")
    return Sweep(plan.folder)


def study(*words: str, **settings: Any) -> Study:
    """Train the runs of a study and score each on all its test sets, as ``sweep.py study=…`` does; resume it where it
    was stopped.

    Args:
        words: as on the command line: ``"study=cross_dataset"``, ``"study.seeds=5"``.
        settings: the same as keywords; keys with a dot as ``**{"study.datasets": ["covid19ct", "sarscov2ct"]}``.

    Raises:
        UserError: a mistake in the settings, or data that are not as requested.
        TrainingFailure: a run or an evaluation failed, so that the command would end with exit code 1.
        KeyboardInterrupt: Ctrl-C, once the running trainings have reached their next checkpoint; a second one ends them
            at once. The same call resumes the study.
    """
    from ddtl.commands import study as studying, sweep as searching
    from ddtl.studies import settings as study_settings

    typed = _typed(words, settings)
    if not study_settings.is_requested(typed):
        raise UserError("ddtl.study needs the kind of the study: ddtl.study(study='cross_dataset', …)")
    plan = study_settings.read(typed)
    _require_no_preview(plan.settings.preview)
    with _sweeping(typed):
        searching.announce_notes(plan.notes)
        failed = studying.run(plan)
    if failed:
        raise _failure(plan.folder, "runs or evaluations")
    return Study(plan.folder)


def _typed(words: Sequence[str], settings: dict[str, Any]) -> tuple[str, ...]:
    from ddtl.sweeps.plan.sweep_settings import is_own
    from ddtl.utils import ranks
    from ddtl.utils.redaction import move_to_environment

    ranks.require_one_process("sweep.py")
    if threading.current_thread() is not threading.main_thread():
        raise UserError("sweeps and studies answer signals, which only the main thread gets. Call it there.")
    as_typed(words, settings)  # refuses what is given twice
    several = {key: value for key, value in settings.items() if isinstance(value, tuple) and not is_own(f"{key}=")}
    grid = [f"{key}={','.join(map(as_text, values))}" for key, values in several.items()]
    others = {key: value for key, value in settings.items() if key not in several}
    return move_to_environment([*words, *as_words(others), *grid])


@contextmanager
def _sweeping(typed: Sequence[str]) -> Iterator[None]:
    from ddtl.sweeps.workers import processes

    try:
        with command("sweep.py", typed):
            yield
    finally:
        processes.end_server()


def _require_no_preview(preview: int | None) -> None:
    if preview is not None:
        raise UserError("preview=…: prints trials and runs none. Leave it out, or type it: python sweep.py … preview=3")


def _shared(trials: Sequence[Sequence[str]]) -> set[str]:
    """Return the words that all trials have; none where there is one trial."""
    return set.intersection(*map(set, trials)) if len(trials) > 1 else set()


def _failure(folder: Path, what: str) -> TrainingFailure:
    return TrainingFailure(
        f"{folder}: {what} failed, as the lines above say. What there is: ddtl.load({str(folder)!r}). The same call "
        "resumes what is not done."
    )


def _numbers(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the table with numbers in the columns, NaN where there is none."""
    import pandas as pd

    for name in columns:
        table[name] = pd.to_numeric(table[name].replace("", None))
    return table


def _html(folder: Path, table: pd.DataFrame) -> str:
    from html import escape

    shown: str = table.to_html(index=False, na_rep="–", float_format=lambda value: f"{value:.3f}")
    return f"<p><b>{escape(folder.name)}</b></p>{shown}"
