"""The one contract between datasets and everything else: a table with a row for each image."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ddtl.schema.units import SPLITS
from ddtl.utils.errors import UserError

if TYPE_CHECKING:
    from ddtl.data.images.levels import CTWindow, Window

Grouping = Literal["patient", "near_duplicate", "none"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image.

    Attributes:
        sample_id: unique in its dataset and stable over machines (a name relative to the dataset's folder).
        path: where the image file is on this machine.
        label: index into ``Manifest.classes``.
        patient_id: who the image is of, or None where the dataset does not say.
        site: the hospital or source the image comes from.
        split: ``train``, ``val`` or ``test``; None until a protocol assigns one, and for images it excludes.
        cluster_id: images that are near-duplicates of each other share it; None where no clusters are known.
        window: how stored values of more than 8 bits become grey levels; None for a file that contains grey levels.
        series: the series of a slice, as a digest of its id; None where there is none.
        frame_of_reference: what the positions of a slice are measured from, likewise.
    """

    sample_id: str
    path: Path
    label: int
    patient_id: str | None = None
    site: str = "unknown"
    split: str | None = None
    cluster_id: str | None = None
    window: Window | CTWindow | None = None
    series: str | None = None
    frame_of_reference: str | None = None

    @property
    def number(self) -> int | None:
        """Of the slice in a file of several, from 0; None where the file is one image."""
        return getattr(self.window, "number", None)

    @property
    def group(self) -> str:
        """What no split may separate: the patient, else the near-duplicate cluster, else the image."""
        return self.patient_id or self.cluster_id or self.sample_id


@dataclass(frozen=True)
class Exclusions:
    """Images that a list took out of a dataset.

    Attributes:
        images: how many.
        list_digest: sha256 of the list's file.
    """

    images: int
    list_digest: str


@dataclass(frozen=True)
class Note:
    """A sentence that results on a dataset carry where it applies.

    Attributes:
        text: the sentence.
        protocols: the protocols that it is about; empty for all.
        samples: ids of the images that it is about; it applies while all of them are in the dataset.
        of_training: whether it is about what a model was trained on: nothing to say where a model that was trained on
            other images is only tested.
        is_doubt: whether it is logged where a run starts: something about the files that may be wrong.
        names: the files or patients that it is about. They are for the log and the run's own record, and for nobody
            else: the text is on pages that are sent on, and goes to W&B with them.
    """

    text: str
    protocols: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    of_training: bool = False
    is_doubt: bool = False
    names: str = ""

    @property
    def in_full(self) -> str:
        """The sentence with what it is about, for who sees the files anyway."""
        return f"{self.text} ({self.names})" if self.names else self.text


@dataclass(frozen=True)
class Manifest:
    """A dataset as a table.

    Attributes:
        dataset: the name under which results are filed.
        classes: class names by label. In a two-class task the last one is the positive class.
        samples: the rows. They are kept by sample id, whatever order they come in: what is drawn for an image in
            training depends on its row.
        grouping: what ``Sample.group`` means here. Results made without patients state it.
        protocol: how ``split`` came about; None while no split is assigned.
        published: the split that the dataset's authors published, by sample id; empty where there is none.
        notes: what results on this dataset must say; :meth:`applicable` has those that apply.
        fold: which part is the test, from 0, and of how many parts; None but for the protocol ``kfold``.
        left_out: what ``dataset.exclude`` took out; None where there is no such list.
        is_positive_known: whether the order of two classes is more than the alphabet's.
        labels: each label of the dataset's files, and the class that it is of; empty where they are the same.
    """

    dataset: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    grouping: Grouping
    protocol: str | None = None
    published: Mapping[str, str] | None = None
    notes: tuple[Note, ...] = ()
    fold: tuple[int, int] | None = None
    left_out: Exclusions | None = None
    is_positive_known: bool = True
    labels: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.samples:
            raise UserError(f"{self.dataset}: the dataset contains no image.")
        counts = Counter(sample.sample_id for sample in self.samples)
        twice = [name for name, n in counts.items() if n > 1]
        if twice:
            raise UserError(f"{self.dataset}: sample ids must be unique; {twice[0]!r} occurs {counts[twice[0]]} times.")
        wrong = next((s for s in self.samples if not 0 <= s.label < len(self.classes)), None)
        if wrong is not None:
            n = len(self.classes)
            raise UserError(f"{self.dataset}: {wrong.sample_id!r} has label {wrong.label}, but there are {n} classes.")
        object.__setattr__(self, "samples", tuple(sorted(self.samples, key=lambda s: s.sample_id)))

    @property
    def positive(self) -> str:
        """The class whose probability is scored."""
        return self.classes[-1]

    def __len__(self) -> int:
        return len(self.samples)

    def rows(self, split: str) -> list[int]:
        """Indices of the samples in ``split``, in manifest order."""
        return [i for i, sample in enumerate(self.samples) if sample.split == split]

    def applicable(self, *, trained_on: bool = True) -> list[Note]:
        """Return the notes that apply to the images, the protocol and the use.

        Args:
            trained_on: whether the model was trained on this dataset, or only tested on it.
        """
        of = {sample.sample_id for sample in self.samples} if any(note.samples for note in self.notes) else set()
        return [
            note
            for note in self.notes
            if (not note.protocols or self.protocol in note.protocols)
            and of.issuperset(note.samples)
            and (trained_on or not note.of_training)
        ]

    def sentences(self, *, trained_on: bool = True) -> list[str]:
        """Return the texts of the notes that apply, for records and pages."""
        return [note.text for note in self.applicable(trained_on=trained_on)]

    def doubts(self, *, trained_on: bool = True) -> list[str]:
        """Return the doubts that apply, in full: what is logged where a run starts."""
        return [note.in_full for note in self.applicable(trained_on=trained_on) if note.is_doubt]

    def named(self, *, trained_on: bool = True) -> dict[str, str]:
        """Return what the notes that apply are about, by their texts."""
        return {note.text: note.names for note in self.applicable(trained_on=trained_on) if note.names}

    def with_splits(
        self, assignment: Mapping[str, str | None], protocol: str, fold: tuple[int, int] | None = None
    ) -> Manifest:
        """The same table with ``split`` set from ``assignment`` (sample id -> split)."""
        samples = tuple(replace(s, split=assignment.get(s.sample_id)) for s in self.samples)
        return replace(self, samples=samples, protocol=protocol, fold=fold)

    def counts(self) -> dict[str, dict[str, Any]]:
        """By split: ``{"train": {"images": …, "groups": …, "classes": {class: images, …}}, …}``."""
        table: dict[str, dict[str, Any]] = {}
        for split in SPLITS:
            rows = [self.samples[i] for i in self.rows(split)]
            per_class = Counter(sample.label for sample in rows)
            table[split] = {
                "images": len(rows),
                "groups": len({sample.group for sample in rows}),
                "classes": {name: per_class[label] for label, name in enumerate(self.classes)},
            }
        return table

    def digest(self, file_hashes: Iterable[str]) -> str:
        """sha256 over everything in the table that can change a result; local paths cannot.

        Args:
            file_hashes: the sha256 of each image file, in manifest order. A sample's window counts with its file.
        """
        h = hashlib.sha256()
        for line in (self.dataset, *self.classes, self.grouping, str(self.protocol)):
            h.update(f"{line}\n".encode())
        for s, file_hash in zip(self.samples, file_hashes, strict=True):
            content = content_key(file_hash, s.window)
            h.update("\x1f".join((s.sample_id, str(s.label), s.group, s.site, str(s.split), content)).encode() + b"\n")
        return h.hexdigest()


def content_key(file_hash: str, window: Window | CTWindow | None) -> str:
    """What the pixels of an image come from: its file's sha256, and the window where there is one."""
    return file_hash if window is None else f"{file_hash}@{window}"
