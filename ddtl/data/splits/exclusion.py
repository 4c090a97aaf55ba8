"""Images that a list takes out of a dataset: ``dataset.exclude=FILE``, such as ``ddtl audit`` writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ddtl.data.datasets.table import nfc, read_table
from ddtl.data.download.published import named
from ddtl.data.manifest import Exclusions, Manifest, Note
from ddtl.utils import reading
from ddtl.utils.errors import UserError
from ddtl.utils.files import text_of_cell


def leave_out(manifest: Manifest, path: Path) -> Manifest:
    """The dataset without the images whose ``sample_id`` is in a CSV; its notes state it.

    A list without a line leaves the dataset as it is.

    Raises:
        UserError: the list cannot be read, names images that the dataset does not have, or leaves none.
    """
    listed = {row.text("sample_id") for row in read_table(path, ("sample_id",), empty=True)}
    of = {nfc(sample.sample_id): sample for sample in manifest.samples}
    listed = {name if name in of else text_of_cell(name) for name in listed}
    unknown = sorted(listed - of.keys())
    if unknown:
        raise UserError(
            f"dataset.exclude={path}: {len(unknown)} of the {len(listed)} images that it lists are not in "
            f"{manifest.dataset}: {named(unknown)}. The list is of another dataset, or files were renamed since. Set "
            f"dataset.exclude=null, or have `ddtl audit` write a new list."
        )
    kept = tuple(sample for name, sample in of.items() if name not in listed)
    if not kept:
        raise UserError(
            f"dataset.exclude={path}: lists all {len(of)} images of {manifest.dataset}, and none would be left. "
            "Take lines out of it, or set dataset.exclude=null."
        )
    left_out = Exclusions(len(listed), reading.sha256(path, reading.TABLE))
    note = (
        f"{len(listed)} of the dataset's {len(of)} images are excluded by a list (dataset.exclude, sha256 "
        f"{left_out.list_digest[:12]})."
    )
    return replace(manifest, samples=kept, notes=(*manifest.notes, Note(note)), left_out=left_out)
