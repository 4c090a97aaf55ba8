"""Reading what the public datasets share: an index table in the package, and image files in a folder of the user's."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ddtl.data.manifest import Grouping, Manifest, Note, Sample
from ddtl.utils.errors import UserError

CLASSES = ("non-COVID", "COVID")

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
_NAMED = 3  # missing files that a message names


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One image of a public dataset, as its index table has it.

    Attributes:
        sample_id: ``class folder/file name``.
        label: index into ``CLASSES``.
        patient_id, split, cluster_id: None where the dataset does not say.
        site: the source of the image.
        size: bytes of the file as published.
        sha256: of the file as published.
        dhash: the image's difference hash, see ``ddtl/data/images/perceptual_hash.py``.
    """

    sample_id: str
    label: int
    patient_id: str | None
    site: str
    split: str | None
    cluster_id: str | None
    size: int
    sha256: str
    dhash: int


@dataclass(frozen=True)
class Origin:
    """A public dataset: where its images come from and what results on them must state.

    Attributes:
        name: of the dataset, its folder under the data folder and its index table.
        title: what the dataset is called in the literature.
        repository, commit: a public copy of the images, ``https://github.com/<repository>`` at a fixed commit.
        folder: the folder of the repository that contains the class folders.
        other_sources: other places that publish it, as the end of a sentence.
        licence: under which its images are published.
        grouping: what an image's group is.
        notes: notes that results on it must contain.
    """

    name: str
    title: str
    repository: str
    commit: str
    folder: str
    other_sources: str
    licence: str
    grouping: Grouping
    notes: tuple[Note, ...]


def read_index(name: str) -> tuple[IndexRow, ...]:
    """The index table of a public dataset, by sample id."""
    table = resources.files("ddtl.data").joinpath("index", f"{name}.csv")
    with table.open(encoding="utf-8") as file:
        return tuple(
            IndexRow(
                sample_id=line["sample_id"],
                label=int(line["label"]),
                patient_id=line["patient_id"] or None,
                site=line["site"],
                split=line["split"] or None,
                cluster_id=line["cluster_id"] or None,
                size=int(line["bytes"]),
                sha256=line["sha256"],
                dhash=int(line["dhash"], 16),
            )
            for line in csv.DictReader(file)
        )


def published_manifest(origin: Origin, data_dir: Path) -> Manifest:
    """The manifest of a public dataset, without splits.

    Raises:
        UserError: the dataset's folder is absent or contains none of its images, or some of them are missing.
    """
    root = data_dir / origin.name
    rows = read_index(origin.name)
    found = image_files(root, rows)
    missing = [row.sample_id for row in rows if row.sample_id not in found]
    if missing:
        raise UserError(_missing(origin, data_dir, missing, len(rows)))
    extra = _extra_files(sorted(found - {row.sample_id for row in rows}))
    return Manifest(
        dataset=origin.name,
        classes=CLASSES,
        samples=tuple(_sample(root, row) for row in rows),
        grouping=origin.grouping,
        published={row.sample_id: row.split for row in rows if row.split} or None,
        notes=(*origin.notes, *extra),
    )


def image_files(root: Path, rows: Iterable[IndexRow]) -> set[str]:
    """Sample ids of the image files in the class folders under ``root``: one listing a folder, no stat of each file.

    Raises:
        UserError: a folder cannot be read.
    """
    found: set[str] = set()
    for folder in class_folders(rows):
        try:
            with os.scandir(root / folder) as entries:
                names = [entry.name for entry in entries if entry.is_file()]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UserError(f"{root / folder} cannot be read: {error.strerror or error}.") from error
        found.update(f"{folder}/{name}" for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES)
    return found


def class_folders(rows: Iterable[IndexRow]) -> list[str]:
    """The folders that contain the images, a class each."""
    return sorted({row.sample_id.partition("/")[0] for row in rows})


def fetch_advice(origin: Origin) -> str:
    """What a person can do where the images are not here and cannot be fetched; lines to put behind an error."""
    layout = " and ".join(f"{origin.name}/{folder}/" for folder in class_folders(read_index(origin.name)))
    return (
        "What to do:\n"
        "- You have the images: set paths.data_dir=FOLDER or the variable DDTL_DATA to the folder that contains "
        f"{layout} with the published file names.\n"
        f"- Another machine can download: they are in {origin.folder}/ of https://github.com/{origin.repository} "
        f"at commit {origin.commit}{origin.other_sources}. Bring the archive "
        f"https://github.com/{origin.repository}/archive/{origin.commit}.zip here, then "
        f"`ddtl data fetch {origin.name} from=ARCHIVE.zip` (a folder will do, too).\n"
        "- A mirror in your net: set paths.data_mirror=URL or the variable DDTL_DATA_MIRROR; it serves "
        f"{origin.name}/<class folder>/<file>.\n"
        "To try things out first: dataset=phantom needs no download."
    )


def too_deep(origin: Origin, data_dir: Path) -> str:
    """A hint where ``data_dir`` is the dataset's own folder instead of the one above it; else nothing."""
    rows = read_index(origin.name)
    if (data_dir / origin.name).is_dir() or image_files(data_dir, rows).isdisjoint(row.sample_id for row in rows):
        return ""
    folder = class_folders(rows)[0]
    return f" {data_dir} itself contains {folder}/: rename it to {origin.name} and give the folder above it."


def named(sample_ids: Sequence[str]) -> str:
    """The first few of some files, and how many more there are."""
    more = f" and {len(sample_ids) - _NAMED} more" if len(sample_ids) > _NAMED else ""
    return ", ".join(repr(sample_id) for sample_id in sample_ids[:_NAMED]) + more


def _sample(root: Path, row: IndexRow) -> Sample:
    return Sample(
        sample_id=row.sample_id,
        path=root / row.sample_id,
        label=row.label,
        patient_id=row.patient_id,
        site=row.site,
        cluster_id=row.cluster_id,
    )


def _missing(origin: Origin, data_dir: Path, missing: list[str], total: int) -> str:
    root = (data_dir / origin.name).absolute()
    if len(missing) == total:
        what = f"no images in {root}.{too_deep(origin, data_dir)}"
    else:
        what = f"{len(missing)} of {total} images are missing under {root}: {named(missing)}."
    return f"{origin.title}: {what}\n`ddtl data fetch {origin.name}` fetches what is missing.\n{fetch_advice(origin)}"


def _extra_files(extra: list[str]) -> list[Note]:
    if not extra:
        return []
    text = "1 image file is" if len(extra) == 1 else f"{len(extra)} image files are"
    return [Note(f"{text} not part of the published dataset and not used.", is_doubt=True, names=named(extra))]
