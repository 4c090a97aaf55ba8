"""Reading what the public datasets share: an index table in the package, and image files in a folder of the user's."""

from __future__ import annotations

import csv
import logging
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ddtl.data.manifest import Grouping, Manifest, Sample
from ddtl.errors import UserError

CLASSES = ("non-COVID", "COVID")

_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
_NAMED = 3  # missing files that a message names

logger = logging.getLogger(__name__)


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
    """

    sample_id: str
    label: int
    patient_id: str | None
    site: str
    split: str | None
    cluster_id: str | None
    size: int
    sha256: str


@dataclass(frozen=True)
class Origin:
    """A public dataset: where its images come from and what must be said about results on them.

    Attributes:
        name: of the dataset, its folder under the data folder and its index table.
        title: what the dataset is called in the literature.
        repository, commit: a public copy of the images, ``https://github.com/<repository>`` at a fixed commit.
        folder: the folder of the repository that holds the class folders.
        elsewhere: other places that publish it, as the end of a sentence.
        grouping: what an image's group is.
        notes: sentences that every result must carry.
    """

    name: str
    title: str
    repository: str
    commit: str
    folder: str
    elsewhere: str
    grouping: Grouping
    notes: tuple[str, ...]


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
            )
            for line in csv.DictReader(file)
        )


def published_manifest(origin: Origin, data_dir: Path) -> Manifest:
    """The manifest of a public dataset, without splits.

    Raises:
        UserError: the dataset's folder is absent or holds none of its images, or some of them are missing.
    """
    root = data_dir / origin.name
    rows = read_index(origin.name)
    found = _find_images(root, sorted({_class_folder(row) for row in rows}))
    missing = [row.sample_id for row in rows if row.sample_id not in found]
    if len(missing) == len(rows):
        raise UserError(_absent(origin, data_dir))
    if missing:
        raise UserError(_incomplete(origin, root, missing, len(rows)))
    _warn_of_extra_files(origin, root, sorted(found - {row.sample_id for row in rows}))
    return Manifest(
        dataset=origin.name,
        classes=CLASSES,
        samples=tuple(_sample(root, row) for row in rows),
        grouping=origin.grouping,
        published={row.sample_id: row.split for row in rows if row.split} or None,
        notes=origin.notes,
    )


def require_folder(origin: Origin, data_dir: Path) -> None:
    """Only that the dataset's folder is there, which takes no time.

    Raises:
        UserError: it is absent; the message names the ways on.
    """
    if not (data_dir / origin.name).is_dir():
        raise UserError(_absent(origin, data_dir))


def _sample(root: Path, row: IndexRow) -> Sample:
    return Sample(
        sample_id=row.sample_id,
        path=root / row.sample_id,
        label=row.label,
        patient_id=row.patient_id,
        site=row.site,
        cluster_id=row.cluster_id,
    )


def _class_folder(row: IndexRow) -> str:
    return row.sample_id.partition("/")[0]


def _find_images(root: Path, class_folders: list[str]) -> set[str]:
    """Sample ids of the image files under ``root``: one listing a folder instead of a look at each file."""
    found: set[str] = set()
    for folder in class_folders:
        try:
            with os.scandir(root / folder) as entries:
                names = [entry.name for entry in entries if entry.is_file()]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UserError(f"{root / folder} cannot be read: {error.strerror or error}.") from error
        found.update(f"{folder}/{name}" for name in names if os.path.splitext(name)[1].lower() in _IMAGE_SUFFIXES)
    return found


def _absent(origin: Origin, data_dir: Path) -> str:
    folders = sorted({_class_folder(row) for row in read_index(origin.name)})
    layout = " and ".join(f"{origin.name}/{folder}/" for folder in folders)
    message = f"{origin.title}: no images in {(data_dir / origin.name).absolute()}."
    if any((data_dir / folder).is_dir() for folder in folders):
        message += f" {data_dir} itself holds {folders[0]}/: rename it to {origin.name} and give the folder above it."
    return (
        f"{message}\n"
        f"- If you have them: set paths.data_dir=FOLDER or the environment variable DDTL_DATA to the folder that holds "
        f"{origin.name}/. Expected are {layout} with the published file names.\n"
        f"- If not: they are published in folder {origin.folder}/ of https://github.com/{origin.repository} at commit "
        f"{origin.commit}{origin.elsewhere}.\n"
        f"- To try things out first: dataset=phantom needs no download."
    )


def _incomplete(origin: Origin, root: Path, missing: list[str], total: int) -> str:
    named = ", ".join(repr(name) for name in missing[:_NAMED])
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return (
        f"{origin.title}: {len(missing)} of {total} images are missing under {root.absolute()}: {named}{more}. "
        f"Put them there under these names, from folder {origin.folder}/ of https://github.com/{origin.repository} at "
        f"commit {origin.commit}."
    )


def _warn_of_extra_files(origin: Origin, root: Path, extra: list[str]) -> None:
    if extra:
        logger.warning(
            "%s: %d image file(s) under %s are not part of the published dataset and are ignored; the first is %r.",
            origin.name,
            len(extra),
            root,
            extra[0],
        )
