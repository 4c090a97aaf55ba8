"""The table of labels of CT volumes, ``dataset.labels``, by patient, study, series, slice or file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddtl.data.datasets import classes as class_names
from ddtl.data.datasets.table import Row, read_table
from ddtl.data.manifest import SPLITS, Note
from ddtl.utils.errors import UserError
from ddtl.utils.suggest import did_you_mean
from ddtl.utils.wording import count

_SHOWN = 10  # problems that a message names


@dataclass(frozen=True)
class Label:
    """What a row of the table says.

    Attributes:
        line: of the row in its file.
        label: as it is written.
        split: ``train``, ``val`` or ``test``; None where the row names none.
        site: the hospital or source.
        patient: the column ``patient_id``, where it is not a key.
    """

    line: int
    label: str
    split: str | None
    site: str
    patient: str | None = None


@dataclass(frozen=True)
class Labels:
    """The table ``dataset.labels``.

    Attributes:
        path: of the file.
        rows: by column and its text, as ``("series", "1.2.3")``.
        classes: in the order of labels, the positive one last.
        is_positive_known: whether the order of two classes is more than the alphabet's.
        of_label: the class of each label.
    """

    path: Path
    rows: Mapping[tuple[str, str], Label]
    classes: tuple[str, ...]
    is_positive_known: bool
    of_label: Mapping[str, str]

    def find(self, keys: Sequence[tuple[str, str]]) -> Label | None:
        """Return the row of the first of some keys that has one."""
        return next((found for key in keys if (found := self.rows.get(key)) is not None), None)

    def index(self, label: Label) -> int:
        """Return the class of a row, as an index into ``classes``."""
        return self.classes.index(self.of_label[label.label])

    def require_classes(self, dataset: str, present: set[int]) -> None:
        """Refuse a choice of slices that leaves none of a class.

        Args:
            dataset: its name.
            present: the classes of the slices that are used, as indices into ``classes``.

        Raises:
            UserError: one is lacking.
        """
        lacking = [name for number, name in enumerate(self.classes) if number not in present]
        if lacking:
            raise UserError(
                f"{dataset}: no slice that is used has the class {lacking[0]!r}. Correct dataset.labels, or set "
                "another dataset.slices."
            )

    def unused(self, used: set[int]) -> list[Note]:
        """Return a doubt where rows name nothing that is there.

        Args:
            used: lines of the rows that do.
        """
        lines = sorted({row.line for row in self.rows.values()} - used)
        if not lines:
            return []
        shown = ", ".join(map(str, lines[:_SHOWN])) + ", …" * (len(lines) > _SHOWN)
        verb = "names" if len(lines) == 1 else "name"
        return [
            Note(
                f"dataset.labels: {count(len(lines), 'row')} {verb} nothing that is used (line {shown}).", is_doubt=True
            )
        ]


def read_labels(
    dataset: str,
    path: Path,
    keys: Sequence[str],
    classes: Sequence[str] | None,
    class_map: Mapping[str, str] | None,
    optional: Sequence[str] = ("site", "split"),
) -> Labels:
    """Return the labels of patients, studies, series, slices or files.

    Args:
        dataset: its name.
        path: a CSV with the column ``label`` and one or more of ``keys``; of several keys in a row the last counts.
        keys: names of columns, from the coarsest to the finest.
        classes: the classes in order, the positive one last; None finds the negative one of two by its name.
        class_map: the class of each label with another name.
        optional: further columns that are read.

    Raises:
        UserError: the table cannot be used. Messages name lines, not what is in them: ids of patients are nobody's
            business.
    """
    rows = read_table(path, ("label",), (*keys, *optional))
    if not any(row.text(key) for row in rows for key in keys):
        raise UserError(f"{path}: has none of the columns {', '.join(keys)}. Add the one by which labels are given.")
    labels = {row.text("label") for row in rows} - {""}
    of_label = class_names.mapped(labels, class_map, str(path))
    names, is_known = class_names.ordered(of_label, classes)
    problems: list[str] = []
    found: dict[tuple[str, str], Label] = {}
    for row in rows:
        problems += _take(row, keys, of_label, names, found)
    problems += [f"no row has the label {name!r} of dataset.classes" for name in names if name not in of_label.values()]
    if len(names) < 2:
        problems.append(f"two classes are needed, and the only label is {', '.join(map(repr, names)) or 'empty'}")
    if problems:
        shown = problems[:_SHOWN] + [f"... and {len(problems) - _SHOWN} more"] * (len(problems) > _SHOWN)
        raise UserError("\n  ".join([f"{path} cannot be used as it is:", *shown]) + "\nCorrect the table.")
    class_names.check_names({k: v for k, v in of_label.items() if v in names}, str(path), class_map)
    if classes is None:
        class_names.report_order(dataset, names, is_known)
    return Labels(path, found, names, is_known, of_label)


def _take(
    row: Row, keys: Sequence[str], of_label: Mapping[str, str], classes: Sequence[str],
    found: dict[tuple[str, str], Label],
) -> list[str]:  # fmt: skip
    """Add a row to those that were found; what is wrong with it."""
    named = [(key, row.text(key)) for key in keys if row.text(key)]
    label, split = row.text("label"), row.optional("split")
    problems = []
    if not named or not label:
        what = "label" if named else f"each of {', '.join(keys)}"
        return [f"line {row.line}: {what} is empty"]
    if of_label[label] not in classes:
        problems.append(
            f"line {row.line}: the label {label!r} is not among dataset.classes=[{', '.join(classes)}]."
            f"{did_you_mean(label, classes)}"
        )
    if split is not None and split not in SPLITS:
        problems.append(f"line {row.line}: the split is none of {', '.join(SPLITS)}")
    patient = row.optional("patient_id") if "patient_id" in row.cells and "patient_id" not in keys else None
    this = Label(row.line, label, split, row.optional("site") or "unknown", patient)
    before = found.setdefault(named[-1], this)
    if (before.label, before.split, before.site, before.patient) != (this.label, this.split, this.site, this.patient):
        problems.append(f"line {row.line}: says something else of the {named[-1][0]} than line {before.line}")
    return problems
