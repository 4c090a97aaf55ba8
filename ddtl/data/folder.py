"""A person's own images in one folder a class: ``dataset=folder``."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ddtl.config.suggest import did_you_mean
from ddtl.data.manifest import Manifest, Sample
from ddtl.data.published import IMAGE_SUFFIXES, named
from ddtl.data.table import classes_override, nfc, read_table, tell_order
from ddtl.errors import UserError

# What systems leave between images: macOS archives, Synology's thumbnails. Hidden files are passed over anyway.
_NOT_DATA = {"__MACOSX", "@eaDir"}
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}

logger = logging.getLogger(__name__)


def build_manifest(
    name: str, root: Path, classes: Sequence[str] | None, patient_regex: str | None, patients: Path | None
) -> Manifest:
    """The images under ``root``, without a split.

    Args:
        name: under which results are filed.
        root: holds a folder for each class, which holds images, at any depth.
        classes: the class folders in order, the positive one last; None takes all of them by alphabet.
        patient_regex: finds the patient in a sample id, which is the path under ``root``: the group called
            ``patient``, else the first group, else the whole match.
        patients: a CSV with the columns ``sample_id`` and ``patient_id``.

    Raises:
        UserError: folders are not as said above, names cannot be used, or the patients do not fit the images.
    """
    images = _class_images(root, classes)
    if classes is None:
        tell_order(name, list(images))
    found = {sample_id: path for of_class in images.values() for sample_id, path in of_class}
    patient_of: Mapping[str, str | None] = {}
    if patient_regex is not None:
        patient_of = _patients_by_regex(name, patient_regex, sorted(found))
    elif patients is not None:
        patient_of = _patients_by_table(patients, found)
    manifest = Manifest(
        dataset=name,
        classes=tuple(images),
        samples=tuple(
            Sample(sample_id, path, label, patient_id=patient_of.get(sample_id))
            for label, of_class in enumerate(images.values())
            for sample_id, path in of_class
        ),
        grouping="patient" if any(patient_of.values()) else "none",
    )
    _tell_patients_of_several_classes(manifest)
    return manifest


def _class_images(root: Path, classes: Sequence[str] | None) -> dict[str, list[tuple[str, Path]]]:
    """Sample id and path of each image, by class in the order of labels."""
    entries = list(_entries(root))
    folders = {nfc(entry.name): Path(entry.path) for entry in entries if entry.is_dir()}
    wanted = sorted(folders) if classes is None else [nfc(text) for text in classes]
    lacking = [text for text in wanted if text not in folders]
    if lacking:
        hint = did_you_mean(lacking[0], folders)
        raise UserError(
            f"dataset.classes: {root} holds no folder {lacking[0]!r}.{hint} "
            f"There {'are' if folders else 'is'} {', '.join(sorted(folders)) or 'none'}."
        )
    walked = {os.path.realpath(path) for path in (root, *folders.values())}
    images = {text: _images(root, folders[text], walked) for text in wanted}
    filled = [text for text in wanted if images[text]]
    for text in wanted:
        if not images[text]:
            raise UserError(_empty(folders[text], filled))
    if len(wanted) < 2:
        raise UserError(
            f"dataset.root={root}: needs a folder of images for each of two classes or more; it holds "
            f"{wanted[0] if wanted else 'no folder'}."
        )
    if classes is None and {text.lower() for text in wanted} <= _SPLIT_NAMES:
        raise UserError(
            f"dataset.root={root}: its folders {', '.join(wanted)} look like splits, not classes. Give the folder that "
            "holds the class folders, or use dataset=table, where the column split says which image belongs to which."
        )
    astray = [e.name for e in entries if e.name not in folders and Path(e.name).suffix.lower() in IMAGE_SUFFIXES]
    if astray:
        logger.warning(
            "%s: %d images lie beside the class folders: %s. They are ignored.", root, len(astray), named(astray)
        )
    return images


def _images(root: Path, folder: Path, walked: set[str]) -> list[tuple[str, Path]]:
    """The images in a folder and those below, each folder once: a link back to one that was seen leads nowhere."""
    found: list[tuple[str, Path]] = []
    for entry in _entries(folder):
        path = Path(entry.path)
        if entry.is_dir():
            real = os.path.realpath(path)
            if real not in walked:
                walked.add(real)
                found += _images(root, path, walked)
        elif path.suffix.lower() in IMAGE_SUFFIXES:  # a broken link, too: decoding will name it
            found.append((_sample_id(path, root), path))
    return found


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, by name, without what systems put there."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror or error}.") from error
    return (entry for entry in found if not entry.name.startswith(".") and entry.name not in _NOT_DATA)


def _sample_id(path: Path, root: Path) -> str:
    try:
        return nfc(path.relative_to(root).as_posix().encode().decode())
    except UnicodeEncodeError:
        raise UserError(f"{os.fsencode(path)!r}: the file's name is not UTF-8. Rename it.") from None


def _empty(folder: Path, filled: Sequence[str]) -> str:
    """Why a folder is no class, and what to do."""
    suffixes = Counter(path.suffix.lower() or "no ending" for path in folder.rglob("*") if path.is_file())
    found = ", ".join(f"{n} × {suffix}" for suffix, n in suffixes.most_common(3))
    fix = f" or list the class folders: {classes_override(filled)}" if len(filled) > 1 else ""
    instead = f"but {found}" if found else "and no other file"
    return (
        f"{folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}) {instead}. If it is a class, put its images "
        f"there; if not, remove it{fix}."
    )


def _patients_by_regex(name: str, pattern: str, sample_ids: Sequence[str]) -> dict[str, str | None]:
    patient_of = {sample_id: _found(re.search(pattern, sample_id)) for sample_id in sample_ids}
    without = [sample_id for sample_id, patient in patient_of.items() if patient is None]
    if len(without) == len(sample_ids):
        raise UserError(
            f"dataset.patient_regex={pattern}: finds no patient in any of {len(sample_ids)} paths, which look like "
            f"{sample_ids[0]!r}. Change it, or set dataset.patient_regex=null."
        )
    if without:
        logger.warning(
            "%s: dataset.patient_regex=%s finds no patient in %d of %d paths: %s. Each counts as a patient of its own.",
            name,
            pattern,
            len(without),
            len(sample_ids),
            named(without),
        )
    return patient_of


def _found(match: re.Match[str] | None) -> str | None:
    if match is None:
        return None
    groups = match.re.groupindex
    return match["patient" if "patient" in groups else 1 if match.re.groups else 0] or None


def _patients_by_table(table: Path, found: Mapping[str, Path]) -> dict[str, str | None]:
    """The patient of each image, by a CSV that names every image; a cell may be empty."""
    patient_of: dict[str, str | None] = {}
    for row in read_table(table, ("sample_id", "patient_id")):
        sample_id, patient = row.text("sample_id"), row.known("patient_id")
        if patient_of.setdefault(sample_id, patient) != patient:
            raise UserError(
                f"{table}, line {row.line}: gives {sample_id!r} the patient {patient!r}, a line before "
                f"{patient_of[sample_id]!r}. Leave one of them."
            )
    without = [sample_id for sample_id in sorted(found) if sample_id not in patient_of]
    unknown = [sample_id for sample_id in patient_of if sample_id not in found]
    if without:
        also = f" {len(unknown)} of its lines are of no image: {named(unknown)}." if unknown else ""
        raise UserError(
            f"dataset.patients={table}: lacks {len(without)} of {len(found)} images: {named(without)}.{also} "
            "A sample_id is the path under dataset.root. Add the lines; where nobody knows the patient, leave "
            "patient_id empty."
        )
    if unknown:
        logger.warning("%s: %d lines are of no image and are ignored: %s.", table, len(unknown), named(unknown))
    return patient_of


def _tell_patients_of_several_classes(manifest: Manifest) -> None:
    """A patient can have slices of two classes; two patients with one number, found by a pattern, are a slip."""
    classes: dict[str, set[int]] = defaultdict(set)
    for sample in manifest.samples:
        if sample.patient_id is not None:
            classes[sample.patient_id].add(sample.label)
    several = sorted(patient for patient, labels in classes.items() if len(labels) > 1)
    if several:
        logger.info(
            "%s: %d patients have images of several classes: %s. If these are different people with one number, let "
            "the class be a part of it, as in dataset.patient_regex='^[^/]+/P\\d+'.",
            manifest.dataset,
            len(several),
            named(several),
        )
