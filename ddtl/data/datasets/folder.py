"""A person's own images in one folder a class: ``dataset=folder``."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ddtl.data.datasets import classes as class_names, patient_ids
from ddtl.data.datasets.kind import DatasetKind, of_own_files
from ddtl.data.datasets.table import nfc, read_table
from ddtl.data.download.published import IMAGE_SUFFIXES, named
from ddtl.data.images.image_file import read_start
from ddtl.data.images.raster import starts_as_image
from ddtl.data.manifest import Manifest, Note, Sample
from ddtl.schema.run import Config, PatientIds
from ddtl.utils.errors import UserError
from ddtl.utils.progress import Progress
from ddtl.utils.reading import walk
from ddtl.utils.suggest import did_you_mean

# What systems leave between images: macOS archives, Synology's thumbnails. Hidden files are passed over anyway.
_NOT_DATA = {"__MACOSX", "@eaDir", "thumbs.db", "desktop.ini"}
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


def build_manifest(
    name: str,
    root: Path,
    classes: Sequence[str] | None,
    patient_regex: str | None,
    patients: Path | None,
    class_map: Mapping[str, str] | None = None,
    patient_id_mode: PatientIds = "check",
) -> Manifest:
    """Return the images under ``root``, without a split.

    Args:
        name: under which results are filed.
        root: has a folder for each class, with images at any depth.
        classes: the classes in order, the positive one last; None takes all folders, and finds the negative one of two
            classes by its name.
        patient_regex: finds the patient in a sample id, which is the path under ``root``: the group called
            ``patient``, else the first group, else the whole match.
        patients: a CSV with the columns ``sample_id`` and ``patient_id``.
        class_map: the class of each folder with another name.
        patient_id_mode: what ids with several spellings are, see
            :func:`ddtl.data.datasets.patient_ids.resolve`.

    Raises:
        UserError: folders are not as described above, names cannot be used, or the patients do not fit the images.
    """
    found = _find(root, classes, class_map)
    if classes is None:
        class_names.report_order(name, found.classes, found.is_positive_known)
    path_of = {sample_id: path for of_class in found.images.values() for sample_id, path in of_class}
    raw: Mapping[str, str | None] = dict.fromkeys(path_of)
    where = key = ""
    notes = [*found.notes]
    if patient_regex is not None:
        raw, doubts = _patients_by_regex(patient_regex, sorted(path_of))
        notes += doubts
        where, key = f"dataset.patient_regex={patient_regex}", "dataset.patient_regex"
    elif patients is not None:
        raw, doubts = _patients_by_table(patients, path_of)
        notes += doubts
        where, key = f"{patients}, column patient_id", "dataset.patients"
    patient_of, more = patient_ids.resolve(raw, patient_id_mode, where, key)
    return Manifest(
        dataset=name,
        classes=found.classes,
        samples=tuple(
            Sample(sample_id, path, label, patient_id=patient_of[sample_id])
            for label, class_name in enumerate(found.classes)
            for sample_id, path in found.images[class_name]
        ),
        grouping="patient" if any(patient_of.values()) else "none",
        notes=(*notes, *more),
        is_positive_known=found.is_positive_known,
        labels=found.labels,
    )


@dataclass(frozen=True)
class _Found:
    """What is under the class folders.

    Attributes:
        classes: in the order of labels.
        images: sample id and path of each image, by class.
        notes: what is doubtful about files that are not used.
        is_positive_known: whether the order of two classes is more than the alphabet's.
        labels: each folder and its class.
    """

    classes: tuple[str, ...]
    images: Mapping[str, list[tuple[str, Path]]]
    notes: list[Note]
    is_positive_known: bool
    labels: tuple[tuple[str, str], ...]


def _find(root: Path, classes: Sequence[str] | None, class_map: Mapping[str, str] | None) -> _Found:
    entries = list(_entries(root))
    folders = {nfc(_text(entry)): Path(entry.path) for entry in entries if entry.is_dir()}
    class_of = class_names.mapped(folders, class_map, f"dataset.root={root}")
    names, is_known = class_names.ordered(class_of, classes)
    lacking = [text for text in names if text not in class_of.values()]
    if lacking:
        hint = did_you_mean(lacking[0], class_of.values())
        raise UserError(
            f"dataset.classes: {root} has no folder {lacking[0]!r}.{hint} "
            f"There {'are' if folders else 'is'} {', '.join(sorted(folders)) or 'none'}."
        )
    wanted = [folder for folder in sorted(folders) if class_of[folder] in names]
    class_names.check_names({folder: class_of[folder] for folder in wanted}, f"dataset.root={root}", class_map)
    walked = {os.path.realpath(path) for path in (root, *folders.values())}
    others: Counter[tuple[str, str]] = Counter()
    images = {folder: _images(root, folders[folder], walked, folder, others) for folder in wanted}
    filled = [folder for folder in wanted if images[folder]]
    for folder in wanted:
        if not images[folder]:
            raise UserError(_empty(folders[folder], [class_of[text] for text in filled]))
    if len(names) < 2:
        raise UserError(
            f"dataset.root={root}: needs a folder of images for each of two classes or more; it has "
            f"{names[0] if names else 'no folder'}."
        )
    if classes is None and {text.lower() for text in wanted} <= _SPLIT_NAMES:
        raise UserError(
            f"dataset.root={root}: its folders {', '.join(wanted)} look like splits, not classes. Give the folder that "
            "has the class folders, or use dataset=table, where the column split says which image belongs to which."
        )
    astray = [
        e.name for e in entries if e.is_file() and (Path(e.name).suffix.lower() in IMAGE_SUFFIXES or _is_image(e))
    ]
    notes = _note_of_others(others)
    if astray:
        text = (
            f"Next to the class folders {'is 1 image' if len(astray) == 1 else f'are {len(astray)} images'}: not used."
        )
        notes.append(Note(text, is_doubt=True, names=named(astray)))
    of_class: dict[str, list[tuple[str, Path]]] = {name: [] for name in names}
    for folder in wanted:
        of_class[class_of[folder]] += images[folder]
    labels = tuple((folder, class_of[folder]) for folder in wanted)
    return _Found(names, of_class, notes, is_known, labels)


def _images(
    root: Path, folder: Path, walked: set[str], class_folder: str, others: Counter[tuple[str, str]]
) -> list[tuple[str, Path]]:
    """The images in a folder and those below, each folder once: a link back to one that was seen leads nowhere.

    Args:
        walked: real paths of the folders seen so far; added to.
        others: counts what is not an image, by ``class_folder`` and suffix; added to.
    """
    found: list[tuple[str, Path]] = []
    for entry in (entry for files in walk(folder, _unreadable, wanted=_is_wanted, seen=walked) for entry in files):
        path = Path(entry.path)
        if path.suffix.lower() in IMAGE_SUFFIXES or _is_image(entry):  # a broken link, too: decoding will name it
            found.append((_sample_id(path, root), path))
        elif entry.name.lower() not in _NOT_DATA:
            others[class_folder, path.suffix.lower() or "without a suffix"] += 1
    return found


def _unreadable(folder: Path, why: str) -> NoReturn:
    raise UserError(f"{folder} {why}. Move it out of the dataset, or let this user read it.")


def _is_wanted(name: str) -> bool:
    return not name.startswith(".") and name not in _NOT_DATA


def _is_image(entry: os.DirEntry[str]) -> bool:
    """Whether a file is an image by its content, whatever its name says."""
    return starts_as_image(read_start(Path(entry.path), 32))


def _note_of_others(others: Counter[tuple[str, str]]) -> list[Note]:
    if not others:
        return []
    folders = dict.fromkeys(folder for folder, _ in sorted(others))
    parts = [
        f"{folder}: {', '.join(f'{n} × {suffix}' for (of, suffix), n in sorted(others.items()) if of == folder)}"
        for folder in folders
    ]
    n = others.total()
    what = f"{n} files in the class folders are not images" if n > 1 else "1 file in the class folders is not an image"
    return [Note(f"{what}: not used ({'; '.join(parts)}).", is_doubt=True)]


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What is in a folder, by name, without what systems put there."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror or error}.") from error
    return (entry for entry in found if _is_wanted(entry.name))


def _sample_id(path: Path, root: Path) -> str:
    return nfc(_utf8(path.relative_to(root).as_posix(), path))


def _text(entry: os.DirEntry[str]) -> str:
    return _utf8(entry.name, Path(entry.path))


def _utf8(name: str, path: Path) -> str:
    try:
        return name.encode().decode()
    except UnicodeEncodeError:
        raise UserError(f"{os.fsencode(path)!r}: the name is not UTF-8. Rename it.") from None


def _empty(folder: Path, filled: Sequence[str]) -> str:
    """Why a folder is not a class, and what to do."""
    files = (entry for files in walk(folder, lambda folder, why: None) for entry in files)
    suffixes = Counter(Path(file.name).suffix.lower() or "no ending" for file in files if file.is_file())
    found = ", ".join(f"{n} × {suffix}" for suffix, n in suffixes.most_common(3))
    fix = f" or list the class folders: {class_names.classes_override(filled)}" if len(filled) > 1 else ""
    instead = f"but {found}" if found else "and no other file"
    return (
        f"{folder} contains no image ({', '.join(sorted(IMAGE_SUFFIXES))}) {instead}. If it is a class, put its images "
        f"there; if not, remove it{fix}."
    )


def _patients_by_regex(pattern: str, sample_ids: Sequence[str]) -> tuple[dict[str, str | None], list[Note]]:
    """The patient of each image, and what is doubtful about them."""
    patient_of = dict(zip(sample_ids, _searched(pattern, sample_ids), strict=True))
    without = [sample_id for sample_id, patient in patient_of.items() if patient is None]
    if len(without) == len(sample_ids):
        raise UserError(
            f"dataset.patient_regex={pattern}: finds no patient in any of {len(sample_ids)} paths, which look like "
            f"{sample_ids[0]!r}. Change it, or set dataset.patient_regex=null."
        )
    notes = []
    if without:
        text = f"dataset.patient_regex finds no patient in {len(without)} of {len(sample_ids)} paths."
        notes.append(Note(text, is_doubt=True, names=named(without)))
    # In one class: the same numbers in two classes may be of two people.
    found = [(name.partition("/")[0], patient) for name, patient in patient_of.items() if patient is not None]
    if len(set(found)) == len(found):
        text = f"dataset.patient_regex finds another patient in each of the {len(found)} images of a class"
        why = "where patients have several images, it finds a number of the image instead"
        notes.append(Note(f"{text}: {why}.", is_doubt=True))
    return patient_of, notes


def _searched(pattern: str, sample_ids: Sequence[str]) -> list[str | None]:
    """What a pattern finds in each path.

    One that repeats more than once can take longer than anybody waits, and may come with a run from a stranger: it is
    tried in a process of its own, which is ended after a while.
    """
    if len(re.findall(r"(?<!\\)[*+{]", pattern)) < 2:
        return [_found(re.search(pattern, sample_id)) for sample_id in sample_ids]
    seconds = _PATIENCE + len(sample_ids) / 1000
    code = f"import json, re, sys\n{inspect.getsource(_found)}\n{_SEARCH}"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code],
            input=json.dumps([pattern, list(sample_ids)]),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=seconds,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"dataset.patient_regex={pattern}: takes more than {seconds:.0f} seconds for {len(sample_ids)} paths, as "
            "patterns do that repeat what repeats. Write it without a * or + around another one."
        ) from None
    except subprocess.CalledProcessError as error:
        raise UserError(f"dataset.patient_regex={pattern}: cannot be used ({error.stderr.strip()[-200:]}).") from None
    found: list[str | None] = json.loads(done.stdout)
    return found


_PATIENCE = 10.0  # seconds
_SEARCH = """\
pattern, names = json.load(sys.stdin)
json.dump([_found(re.search(pattern, name)) for name in names], sys.stdout)
"""


def _found(match: re.Match[str] | None) -> str | None:
    if match is None:
        return None
    groups = match.re.groupindex
    return match["patient" if "patient" in groups else 1 if match.re.groups else 0] or None


def _patients_by_table(table: Path, found: Mapping[str, Path]) -> tuple[dict[str, str | None], list[Note]]:
    """The patient of each image, by a CSV that names every image, and what is doubtful; a cell may be empty."""
    patient_of: dict[str, str | None] = {}
    for row in read_table(table, ("sample_id", "patient_id")):
        sample_id, patient = row.text("sample_id"), row.text("patient_id") or None
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
    if not unknown:
        return patient_of, []
    lines = "1 line is of no image" if len(unknown) == 1 else f"{len(unknown)} lines are of no image"
    return patient_of, [Note(f"dataset.patients: {lines} and not used.", is_doubt=True, names=named(unknown))]


def _build(config: Config, progress: Progress | None = None) -> Manifest:
    c = config.dataset
    assert c.root is not None, "checked with the configuration"
    patients = None if c.patients is None else Path(c.patients).expanduser()
    root = Path(c.root).expanduser()
    manifest = build_manifest(c.name, root, c.classes, c.patient_regex, patients, c.class_map, c.patient_ids)
    return of_own_files(manifest, c)


KIND = DatasetKind(_build)
