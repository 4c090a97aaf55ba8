"""Runs against each other on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ddtl.api.runs import Run, Scored
from ddtl.api.session import as_path, as_words
from ddtl.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


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
    from ddtl.commands.run_names import named_folder
    from ddtl.evaluation.comparison.comparison import compare as compare_methods
    from ddtl.reports.comparison import claims, runs as compared

    paths = [run.path if isinstance(run, Scored) else named_folder(str(as_path(run)), ("run",)) for run in runs]
    if len(paths) < 2:
        raise UserError("compare takes two runs or more.")
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
