"""CT volumes as NIfTI files: ``dataset=nifti``. A table names the files, their labels and patients."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ddtl.data.datasets import patient_ids
from ddtl.data.datasets.kind import window_of
from ddtl.data.datasets.volumes.labels import Label, Labels, read_labels
from ddtl.data.datasets.volumes.slices import chosen, with_lung
from ddtl.data.download.published import named
from ddtl.data.images import nifti
from ddtl.data.images.image_file import BadImageError
from ddtl.data.images.levels import CTWindow
from ddtl.data.images.nifti import Volume
from ddtl.data.manifest import Manifest, Note, Sample
from ddtl.schema.run import DatasetConfig
from ddtl.utils.errors import UserError
from ddtl.utils.progress import Progress
from ddtl.utils.reading import walk
from ddtl.utils.wording import count

KEYS = ("path",)
SUFFIXES = (".nii", ".nii.gz")

_SHOWN = 10  # bad files that a message names


def build_manifest(c: DatasetConfig, progress: Progress | None = None) -> Manifest:
    """Return the slices of the volumes that ``dataset.labels`` lists, without a split.

    Args:
        c: the settings.
        progress: called with (done, total) while headers are read, and while lungs are searched for.

    Raises:
        UserError: files are absent or cannot be used, or the table is wrong.
    """
    assert c.root is not None, "checked with the configuration"
    assert c.labels is not None, "as above"
    root = Path(c.root).expanduser()
    table = Path(c.labels).expanduser()
    labels = read_labels(c.name, table, KEYS, c.classes, c.class_map, ("patient_id", "site", "split"))
    files = {text: root / os.path.expanduser(text) for _, text in labels.rows}
    absent = [text for text, path in files.items() if not path.is_file()]
    if absent:
        raise UserError(
            f"dataset.labels={table}: {len(absent)} of {len(files)} files are not there, first {files[absent[0]]} "
            f"(line {labels.rows['path', absent[0]].line}). Paths start at dataset.root, here {root}."
        )
    seen: dict[str, str] = {}
    for text, path in files.items():
        before = seen.setdefault(os.path.realpath(path), text)
        if before != text:
            lines = sorted(labels.rows["path", one].line for one in (before, text))
            raise UserError(
                f"dataset.labels={table}: lines {lines[0]} and {lines[1]} name the same file. Keep one of them."
            )
    samples: list[Sample] = []
    published: dict[str, str] = {}
    raw: dict[str, str | None] = {}
    for text, volume in _volumes(c.name, files, progress).items():
        label = labels.rows["path", text]
        for sample in _samples(c, text, files[text], volume, label, labels):
            samples.append(sample)
            raw[sample.sample_id] = label.patient
            if label.split is not None:
                published[sample.sample_id] = label.split
    if c.slices == "lung":
        samples = with_lung(samples, c.slice_step, progress)
    labels.require_classes(c.name, {sample.label for sample in samples})
    patient_of, notes = patient_ids.resolve(raw, c.patient_ids, f"{table}, column patient_id", "column patient_id")
    used = {sample.sample_id for sample in samples}
    more = _unlisted(root, files)
    unnamed = len({sample.path for sample in samples if patient_of[sample.sample_id] is None})
    if unnamed:
        verb = "has" if unnamed == 1 else "have"
        text = f"{count(unnamed, 'volume')} {verb} no patient_id: each is taken for a patient of its own."
        more.append(Note(text, is_doubt=True))
    if published and c.protocol != "official":
        text = "The column split of dataset.labels is used with dataset.protocol=official alone."
        more.append(Note(text, is_doubt=True))
    return Manifest(
        dataset=c.name,
        classes=labels.classes,
        samples=tuple(
            replace(s, patient_id=patient_of[s.sample_id] or s.sample_id.rpartition("/")[0]) for s in samples
        ),
        grouping="patient",
        published={name: split for name, split in published.items() if name in used} or None,
        notes=(*notes, *more),
        is_positive_known=labels.is_positive_known,
        labels=tuple(sorted((label, of) for label, of in labels.of_label.items() if of in labels.classes)),
    )


def _volumes(dataset: str, files: Mapping[str, Path], progress: Progress | None) -> dict[str, Volume]:
    """The header of each file.

    Raises:
        UserError: files cannot be used; all of them are counted.
    """
    found: dict[str, Volume] = {}
    bad: list[BadImageError] = []
    for done, (text, path) in enumerate(sorted(files.items()), start=1):
        try:
            found[text] = nifti.read_header(path)
        except BadImageError as error:
            bad.append(error)
        if progress is not None:
            progress(done, len(files))
    if bad:
        lines = [f"{dataset}: {len(bad)} of {len(files)} volumes cannot be used:"]
        lines += [f"  {error}" for error in bad[:_SHOWN]]
        lines += [f"  ... and {len(bad) - _SHOWN} more"] * (len(bad) > _SHOWN)
        raise UserError("\n".join([*lines, "Replace these files, or remove their rows from dataset.labels."]))
    return found


def _samples(c: DatasetConfig, text: str, path: Path, volume: Volume, label: Label, labels: Labels) -> Iterator[Sample]:
    window = window_of(c)
    assert isinstance(window, CTWindow), "of this kind of dataset"
    for place in chosen(c.slices, c.slice_step, volume.slices):
        yield Sample(
            sample_id=f"{text}/{place + 1:04d}",
            path=path,
            label=labels.index(label),
            site=label.site,
            window=replace(window, number=place),
        )


def _unlisted(root: Path, files: Mapping[str, Path]) -> list[Note]:
    """A doubt where there are volumes that the table does not name."""
    listed = {os.path.realpath(path) for path in files.values()}
    found = [
        entry.path
        for entries in walk(root, lambda folder, why: None, wanted=lambda name: not name.startswith("."))
        for entry in entries
        if entry.name.lower().endswith(SUFFIXES) and os.path.realpath(entry.path) not in listed
    ]
    if not found:
        return []
    text = f"dataset.labels has no row for {count(len(found), 'NIfTI file')} under dataset.root: not used."
    return [Note(text, is_doubt=True, names=named([Path(path).name for path in found]))]
