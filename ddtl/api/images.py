"""What ``Run.predict`` takes for images: files, arrays, or a table of files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ddtl.utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    Image: TypeAlias = str | Path | np.ndarray
    Images: TypeAlias = Image | Sequence[Image] | pd.DataFrame


@dataclass(frozen=True)
class Given:
    """Images that were given: files or arrays, never both.

    Attributes:
        files: paths, as words of the command.
        arrays: images in memory.
        patients: whom a file shows, by its word; None where no table names patients.
    """

    files: list[str] = field(default_factory=list)
    arrays: list[np.ndarray] = field(default_factory=list)
    patients: dict[str, str] | None = None


def read_images(images: Sequence[Any], patients: str) -> Given:
    """Return what was given as images.

    Args:
        images: as they were given: files, arrays, lists of either, or one table of files.
        patients: the setting of ``ddtl predict`` that says where patients are known from; empty where none is.

    Raises:
        UserError: they are none, files and arrays at once, or contradict the setting.
    """
    import numpy as np
    import pandas as pd

    if any(isinstance(given, pd.DataFrame) for given in images):
        if len(images) > 1:
            raise UserError("predict takes one DataFrame and nothing next to it. Join them: pandas.concat([…])")
        return _of_table(images[0], patients)
    flat = list(_flat(images))
    wrong = next((one for one in flat if not isinstance(one, str | Path | np.ndarray)), None)
    if wrong is not None:
        raise UserError(
            f"predict takes files and arrays, and no {type(wrong).__name__}. Most libraries' images are made arrays of "
            "by numpy.asarray(image)"
        )
    arrays = [one for one in flat if isinstance(one, np.ndarray)]
    if any(isinstance(one, np.ma.MaskedArray) for one in arrays):
        raise UserError("predict takes no masked array: what is below the mask? Fill it: array.filled(0)")
    if arrays and len(arrays) < len(flat):
        raise UserError("predict takes files or arrays, and not both at once. Call it once for each.")
    if arrays and patients:
        raise UserError(
            f"patients={patients}: an array is in no folder. Leave it out; to name patients, give a DataFrame of files "
            "with the columns path and patient_id."
        )
    return Given([] if arrays else [str(one) for one in flat], arrays)


def _flat(images: Iterable[Any]) -> Iterable[Any]:
    for one in images:
        if isinstance(one, list | tuple):
            yield from _flat(one)
        else:
            yield one


def _of_table(table: pd.DataFrame, patients: str) -> Given:
    if "path" not in table.columns:
        raise UserError(
            "predict: the DataFrame has no column path. Rename that of the files: "
            'table.rename(columns={"file": "path"})'
        )
    whose = [_name(value) for value in table["patient_id"]] if "patient_id" in table.columns else [""] * len(table)
    if patients and any(whose):
        raise UserError(
            f"patients={patients}: the column patient_id names the patients already. Leave one of them out."
        )
    files: dict[str, str] = {}
    for row, (value, patient) in enumerate(zip(table["path"], whose, strict=True)):
        if not isinstance(value, str | Path) or not str(value):
            raise UserError(f"predict: row {row} of the DataFrame has no path. Drop it: table.dropna(subset=['path'])")
        if files.setdefault(str(value), patient) != patient:
            raise UserError(f"{value}: is in the DataFrame for two patients. Name it once, for the one it shows.")
    twice = table["path"][table["path"].astype(str).duplicated()]
    if len(twice):
        raise UserError(
            f"{twice.iloc[0]}: is in the DataFrame twice. Name each file once: table.drop_duplicates('path')"
        )
    return Given(list(files), patients=files)


def _name(value: Any) -> str:
    """Return a patient's id as text; empty where it is missing. Numbers with gaps among them are floats in pandas."""
    import pandas as pd

    if pd.isna(value):
        return ""
    is_whole = isinstance(value, float) and math.isfinite(value) and value.is_integer()
    return str(int(value)) if is_whole else str(value)
