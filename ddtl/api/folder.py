"""What is in the runs folder: listed, opened, and scored again by its name."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddtl.api.audits import Audit
from ddtl.api.runs import Run, Scored
from ddtl.api.session import as_path, runs_folder
from ddtl.api.sweeps import Study, Sweep
from ddtl.records import study, sweep
from ddtl.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def load(run: str | Path, folder: str | Path | None = None) -> Any:
    """Return a finished run, an evaluation of one, a sweep, a study or an audit.

    Args:
        run: its folder, or a part of the name of just one run, sweep, study or audit in the runs folder.
        folder: the runs folder; None for ``paths.runs_dir``.

    Returns:
        A :class:`Run`, a :class:`Scored` for an evaluation, a :class:`Sweep`, a :class:`Study` or an :class:`Audit`.

    Raises:
        UserError: there is none, or several are called so; or it is a run that is not finished.
    """
    from ddtl.commands.runs import find_row
    from ddtl.dashboard.index import Index

    path = as_path(run)
    if not path.is_dir():
        root = runs_folder(folder)
        rows = [row for row in Index(root).rows() if row.kind in ("run", "sweep", "study", "audit")]
        exact = [row for row in rows if row.name == str(run)]
        path = root / find_row(root, exact if len(exact) == 1 else rows, str(run)).path
    if (path / sweep.NAME).exists() or (path / "plan.json").exists():
        return Sweep(path)
    if (path / study.NAME).exists():
        return Study(path)
    if (path / "audit.json").exists():
        return Audit(path)
    is_evaluation = (path / "results.json").exists() and not (path / "config.yaml").exists()
    return Scored(path) if is_evaluation else Run(path)


def runs(folder: str | Path | None = None) -> pd.DataFrame:
    """Return a row for each run, evaluation, sweep, study and audit of a runs folder, the latest first.

    Args:
        folder: the runs folder; None for ``paths.runs_dir``.
    """
    from dataclasses import fields

    import pandas as pd

    from ddtl.dashboard.index import FolderRow, Index

    rows = Index(runs_folder(folder)).rows()
    return pd.DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(FolderRow)])


def evaluate(run: Run | str | Path, *words: str, **settings: Any) -> Scored:
    """Score a run in another way, or on another dataset; see :meth:`Run.evaluate`.

    Args:
        run: the run, its folder, or a part of the name of just one in the runs folder.
        words: such as ``"dataset=sarscov2ct"``.
        settings: the same as keywords.

    Raises:
        UserError: there is no such run, or a mistake in the settings.
    """
    found = run if isinstance(run, Run) else load(run)
    if not isinstance(found, Run):
        raise UserError(f"{found.path}: is not a run: there is no network in it. Name the folder of a run.")
    return found.evaluate(*words, **settings)
