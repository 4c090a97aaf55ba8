"""Audits of datasets: what makes a score mean less than it seems."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddtl.api.session import as_typed, command
from ddtl.audits.record import RECORD
from ddtl.records import audit as audit_record
from ddtl.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("severity", "check", "datasets", "finding", "meaning", "fix")


class Audit:
    """An audit of one or more datasets.

    Attributes:
        path: its folder, with ``report.html``, ``pairs.csv`` and the lists of images to exclude.
        record: its ``audit.json``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        try:
            self.record: dict[str, Any] = dict(audit_record.read(self.path, whole=True))
        except FileNotFoundError:
            raise UserError(
                f"{self.path}: there is no {RECORD} in it. Name an audit's folder, as runs/audits/NAME."
            ) from None

    @property
    def findings(self) -> pd.DataFrame:
        """A row for each finding, the gravest first: its severity (``fail``, ``warn`` or ``note``), the check, the
        datasets, the finding in a few words, what it means, and what to do. No row where nothing was found.
        """
        import pandas as pd

        rows = [
            (one["severity"], one["check"], ", ".join(one["datasets"]), one["title"], one["sentence"], one["fix"])
            for one in self.record["findings"]
        ]
        return pd.DataFrame(rows, columns=list(_COLUMNS))

    @property
    def exclude(self) -> dict[str, Path]:
        """The list of images to exclude of each dataset, as ``dataset.exclude`` takes it."""
        from ddtl.commands.audit import exclude_lists

        return exclude_lists(self.path, [one["dataset"] for one in self.record["datasets"]])

    def __repr__(self) -> str:
        return f"Audit({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """Return the findings as a table, for notebooks."""
        from html import escape

        found = self.findings.drop(columns="check")
        shown = found.to_html(index=False) if len(found) else "<p>nothing found</p>"
        return f"<p><b>{escape(self.path.name)}</b></p>{shown}"


def audit(*words: str, **settings: Any) -> Audit:
    """Look for duplicates, leaks between splits, label conflicts and shortcuts in datasets, as ``ddtl audit`` does.

    Nothing is trained on a network, no image is changed, and no use of a test set is counted.

    Args:
        words: as on the command line: names of datasets, ``"dataset=covid19ct"``; ``"dataset.…"`` behind a dataset is
            of that one alone.
        settings: the same as keywords, which follow the words.

    Raises:
        UserError: a mistake in the settings, images that are not here or are broken.
    """
    from ddtl.commands import audit as auditing

    if "strict" in settings:
        raise UserError("strict=…: is the exit code of the command. Leave it out, and read Audit.findings.")
    typed = as_typed(words, settings)
    request = auditing.parse(typed)
    with command("ddtl", ["audit", *typed]):
        auditing.audit_datasets(request, typed)
    return Audit(request.folder)
