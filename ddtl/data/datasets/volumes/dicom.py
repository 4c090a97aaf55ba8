"""CT series as DICOM files: ``dataset=dicom``. Whose slices they are is read from the headers, not from paths.

Ids of patients, studies and series stay in memory: records, logs and pages get digests of them.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from ddtl.data.datasets.volumes import dicom_patients
from ddtl.data.datasets.volumes.labels import Labels, read_labels
from ddtl.data.datasets.volumes.slices import chosen, with_lung
from ddtl.data.download.published import named
from ddtl.data.images import dicom
from ddtl.data.images.dicom import Slice
from ddtl.data.images.dicom_header import START, SUFFIXES, is_dicom
from ddtl.data.images.image_file import BadImageError, read_start
from ddtl.data.manifest import Manifest, Note, Sample
from ddtl.schema.run import DatasetConfig
from ddtl.utils import spawn, threads
from ddtl.utils.errors import UserError
from ddtl.utils.progress import Progress
from ddtl.utils.reading import walk
from ddtl.utils.wording import count, listed

KEYS = ("patient_id", "study", "series", "slice")  # columns of dataset.labels, from the coarsest to the finest
KEY_VARIABLE = "DDTL_PATIENT_KEY"

_FEW = 400  # files whose headers are read sooner than a second process has started
_AT_A_TIME = 64  # files handed to a process
_SHOWN = 10  # bad files that a message names
_GAP = 1.5  # usual distances between slices, above which one is missing
_UPRIGHT = 0.7  # the least cosines of a slice whose rows go from right to left and columns from front to back
_APART = 0.01  # mm: slices closer than this are in one place

logger = logging.getLogger(__name__)


def digest(text: str, what: str, length: int = 10) -> str:
    """Return what an id is called outside this process: the start of its HMAC-SHA256, in hexadecimal digits.

    The key is the text of ``DDTL_PATIENT_KEY``, empty where it is not set: then whoever has a list of ids can find
    those that are in a dataset.

    Args:
        text: the id.
        what: of what: the same text as two kinds of ids has two digests.
        length: digits.
    """
    key = os.environ.get(KEY_VARIABLE, "").encode()
    return hmac.new(key, f"{what}\0{text}".encode(errors="replace"), hashlib.sha256).hexdigest()[:length]


@dataclass
class _Series:
    """The slices of a series, from the feet up.

    Attributes:
        name: digests of patient and series.
        patient: digest; None where nobody knows.
        slices: path and header of each.
    """

    name: str
    patient: str | None
    slices: list[tuple[str, Slice]] = field(default_factory=list)

    def sort(self) -> None:
        """Put slices by position, by number where one has none; one acquisition after the other where both cover it."""
        where = [part.position for _, part in self.slices]
        by_place = None not in where
        in_turns = by_place and len({round(z / _APART) for z in where if z is not None}) < len(where)

        def key(item: tuple[str, Slice]) -> tuple[float, float, float, str]:
            path, part = item
            turn = (part.acquisition or 0) if in_turns else 0
            number = float("inf") if part.number is None else part.number
            return turn, part.position if by_place and part.position is not None else 0.0, number, path

        self.slices.sort(key=key)

    def faults(self) -> Iterator[str]:
        """Yield what is unusual about the series, as kinds of faults."""
        parts = [part for _, part in self.slices]
        if len({part.direction for part in parts}) > 1:
            yield "mix orientations"
        acquisitions = {part.acquisition for part in parts} - {None}
        if 1 < len(acquisitions) < len(parts):
            yield "contain several acquisitions"
        places = sorted(part.position for part in parts if part.position is not None)
        if len(places) < len(parts):
            yield "contain slices without a position"
        steps = [after - before for before, after in pairwise(places)]
        if any(step < _APART for step in steps):
            yield "contain several slices in one place"
        apart = [step for step in steps if step >= _APART]
        if apart and max(apart) > _GAP * median(apart):
            yield "have gaps"


def build_manifest(c: DatasetConfig, progress: Progress | None = None) -> Manifest:
    """Return the slices under ``dataset.root`` that ``dataset.labels`` gives a label, without a split.

    Args:
        c: the settings.
        progress: called with (done, total) while headers are read, and while lungs are searched for.

    Raises:
        UserError: there is no slice, files cannot be read, or the labels do not fit.
    """
    assert c.root is not None, "checked with the configuration"
    assert c.labels is not None, "as above"
    root, table = Path(c.root).expanduser(), Path(c.labels).expanduser()
    labels = read_labels(c.name, table, KEYS, c.classes, c.class_map)
    slices, notes = _read(root, c.name, table, progress)
    series, shared, more = _in_series(slices)
    notes += more
    ambiguous: set[int] = set()
    used: set[int] = set()
    samples: list[Sample] = []
    published: dict[str, str] = {}
    unlabelled = 0
    candidates: list[Sample] = []
    for one in series:
        places = range(len(one.slices)) if c.slices == "lung" else chosen(c.slices, c.slice_step, len(one.slices))
        for place in places:
            path, part = one.slices[place]
            label = labels.find(_keys(part))
            if label is not None and part.patient in shared and label is labels.rows.get((KEYS[0], part.patient)):
                ambiguous.add(label.line)
            if label is None:
                unlabelled += 1
                continue
            used.add(label.line)
            name = f"{one.name}/{place + 1:04d}"
            sample = Sample(
                sample_id=name,
                path=Path(path),
                label=labels.index(label),
                patient_id=one.patient,
                site=label.site,
                series=digest(part.series, "series") if part.series else one.name,
                frame_of_reference=digest(part.frame, "frame of reference") if part.frame else None,
            )
            candidates.append(sample)
            if label.split is not None:
                published[name] = label.split
    if ambiguous:
        raise UserError(
            f"{table}: a PatientID that is a placeholder, or of several people as birth dates, sexes or issuers say, "
            f"is in line {', '.join(map(str, sorted(ambiguous)[:_SHOWN]))}. Name the study or the series there."
        )
    samples = with_lung(candidates, c.slice_step, progress) if c.slices == "lung" else candidates
    _require(c, labels, samples, candidates, len(slices), root)
    if unlabelled:
        text = f"dataset.labels has no row for {count(unlabelled, 'slice')}: not used."
        notes.append(Note(text, is_doubt=True))
    if published and c.protocol != "official":
        text = "The column split of dataset.labels is used with dataset.protocol=official alone."
        notes.append(Note(text, is_doubt=True))
    there = {sample.sample_id for sample in samples}
    return Manifest(
        dataset=c.name,
        classes=labels.classes,
        samples=tuple(samples),
        grouping="patient" if any(sample.patient_id for sample in samples) else "none",
        published={name: split for name, split in published.items() if name in there} or None,
        notes=(*notes, *labels.unused(used)),
        is_positive_known=labels.is_positive_known,
        labels=tuple(sorted((label, of) for label, of in labels.of_label.items() if of in labels.classes)),
    )


def _keys(part: Slice) -> list[tuple[str, str]]:
    """Columns of the table and the slice's texts in them, the finest first."""
    texts = (part.patient, part.study, part.series, part.instance)
    return [(key, text) for key, text in zip(KEYS[::-1], texts[::-1], strict=True) if text]


def _require(
    c: DatasetConfig, labels: Labels, samples: Sequence[Sample], candidates: Sequence[Sample], slices: int, root: Path
) -> None:
    """Refuse labels that fit no slice, or a choice of slices that leaves none of a class."""
    if not candidates and isinstance(c.slices, tuple):
        raise UserError(f"dataset.slices={list(c.slices)}: no series has a labelled slice of such a number.")
    if not candidates:
        raise UserError(
            f"dataset.labels={labels.path}: none of its rows names one of the {slices:,} slices under {root}. Columns "
            f"are {', '.join(KEYS)}, with ids as the headers have them; a spreadsheet drops zeros before a number."
        )
    labels.require_classes(c.name, {sample.label for sample in samples})


def _read(
    root: Path, dataset: str, table: Path, progress: Progress | None
) -> tuple[list[tuple[str, Slice]], list[Note]]:
    """Path and header of each slice under a folder, and what else is there.

    Raises:
        UserError: there is none, or files are damaged.
    """
    found = [entry.path for files in walk(root, _unreadable, wanted=_is_wanted) for entry in files]
    own = os.path.realpath(table)
    there = [path for path in found if os.path.exists(path)]
    paths = [path for path in there if os.path.realpath(path) != own]
    slices: list[tuple[str, Slice]] = []
    others: Counter[str] = Counter({"links to nothing": len(found) - len(there)} if len(there) < len(found) else {})
    kinds: Counter[str] = Counter()
    bad: list[tuple[str, str]] = []
    for path, (part, kind, reason) in zip(paths, _headers(paths, progress), strict=True):
        if reason:
            bad.append((path, reason))
        elif kind == _NOT_DICOM:
            others[Path(path).suffix.lower() or "without a suffix"] += 1
        elif kind:
            kinds[kind] += 1
        elif part is not None:
            slices.append((path, _interned(part)))
    if bad:
        lines = [f"{dataset}: {len(bad)} of {len(paths)} files under {root} cannot be used:"]
        lines += [f"  {path} {reason}" for path, reason in bad[:_SHOWN]]
        lines += [f"  ... and {len(bad) - _SHOWN} more"] * (len(bad) > _SHOWN)
        raise UserError("\n".join([*lines, "Replace these files, or move them out of dataset.root."]))
    notes = list(_passed_over(kinds, others))
    if not slices:
        more = f" {notes[0].text}" if notes else ""
        raise UserError(
            f"dataset.root={root}: contains no axial CT slice as DICOM in {count(len(paths), 'file')}.{more}"
        )
    burned = sum(part.is_burned_in for _, part in slices)
    if burned:
        verb = "says" if burned == 1 else "say"
        text = f"{count(burned, 'slice')} {verb} that text is burned into the pixels (BurnedInAnnotation)"
        notes.append(Note(f"{text}: it may name the patient, and a model may read it.", is_doubt=True))
    return slices, notes


def _passed_over(kinds: Counter[str], others: Counter[str]) -> Iterator[Note]:
    if kinds:
        shown = listed([count(n, kind, _PLURAL.get(kind)) for kind, n in sorted(kinds.items())])
        text = f"Files besides axial CT slices are not used: {shown}."
        yield Note(text, is_doubt=True)
    if others:
        shown = ", ".join(f"{n} × {suffix}" for suffix, n in sorted(others.items()))
        yield Note(
            f"{count(others.total(), 'file')} under dataset.root are not DICOM: not used ({shown}).", is_doubt=True
        )


def _interned(part: Slice) -> Slice:
    """The same, with one copy in memory of each text that many slices have."""
    person = tuple((sys.intern(what), sys.intern(value)) for what, value in part.person)
    return replace(
        part,
        patient=sys.intern(part.patient),
        study=sys.intern(part.study),
        series=sys.intern(part.series),
        frame=sys.intern(part.frame),
        person=person,
    )


_NOT_DICOM = "not DICOM"
_DIRECTORY = "DICOMDIR"
_PLURAL = {
    "object without an image": "objects without an image",
    "image of another modality": "images of another modality",
    "map of another quantity": "maps of another quantity",
    dicom.PROJECTION: "projections or subtractions",
    "reformat that is not axial": "reformats that are not axial",
}


def _unreadable(folder: Path, why: str) -> None:
    raise UserError(f"{folder} {why}. Move it out of the dataset, or let this user read it.")


def _is_wanted(name: str) -> bool:
    return not name.startswith(".") and name not in {"__MACOSX", "@eaDir"}


_Found = tuple[Slice | None, str, str]  # a header, or what the file is instead, or why it cannot be read


def _headers(paths: Sequence[str], progress: Progress | None) -> Iterator[_Found]:
    """What each file is, in order; by all cores where there are many."""
    done = 0
    for part in _parts_of_headers(paths):
        yield from part
        done += len(part)
        if progress is not None:
            progress(done, len(paths))


def _parts_of_headers(paths: Sequence[str]) -> Iterator[list[_Found]]:
    parts = [paths[start : start + _AT_A_TIME] for start in range(0, len(paths), _AT_A_TIME)]
    done, processes = 0, min(threads.cores(), 8)
    if len(paths) >= _FEW and processes > 1:
        try:
            for part in spawn.mapped(_read_part, parts, processes=processes):
                done += 1
                yield part
        except BrokenProcessPool:  # one was ended, as memory ran out: this process reads the rest
            logger.debug("no further process could be started; headers are read by this one")
    yield from map(_read_part, parts[done:])


def _read_part(paths: Sequence[str]) -> list[_Found]:
    return [_read_one(Path(path)) for path in paths]


def _read_one(path: Path) -> _Found:
    if not is_dicom(read_start(path, START)) and path.suffix.lower() not in SUFFIXES:
        return None, _NOT_DICOM, ""
    try:
        part = dicom.read_slice(path)
    except BadImageError as error:
        return None, error.kind, "" if error.kind else _without_content(error.reason)
    if part is None:
        return None, _DIRECTORY, ""
    if part.is_capture:
        return None, dicom.CAPTURE, ""
    if part.is_projection:
        return None, dicom.PROJECTION, ""
    return part, "", ""


def _without_content(reason: str) -> str:
    """A reason without what a parser quotes of the file."""
    return "is cut off or damaged" if reason.startswith("is cut off or damaged") else reason


def _in_series(slices: list[tuple[str, Slice]]) -> tuple[list[_Series], set[str], list[Note]]:
    """Series in order of their names, PatientIDs that are not one person's, and what is unusual. A slice that is there
    twice is used once.
    """
    found = dicom_patients.identify([part for _, part in slices])
    notes = _notes_of_patients(found)
    series: dict[tuple[str, str, str], _Series] = {}
    seen: set[tuple[str, ...]] = set()
    copies = 0
    for (path, part), patient in zip(slices, found.patients, strict=True):
        key = (patient, part.study, part.series or os.path.dirname(path))
        if part.instance:
            instance = (*key, part.instance, str(part.position), str(part.number))
            if instance in seen:
                copies += 1
                continue
            seen.add(instance)
        if key not in series:
            of = f"P{digest(patient, 'patient')}" if patient else None
            name = f"{of or 'unknown'}/{digest(chr(0).join(key[1:]), 'series', 8)}"
            series[key] = _Series(name, of)
        series[key].slices.append((path, part))
    if copies:
        verb = "is" if copies == 1 else "are"
        text = f"{count(copies, 'slice')} {verb} there twice (SOPInstanceUID) and used once."
        notes.append(Note(text, is_doubt=True))
    whose: dict[str, set[str]] = defaultdict(set)
    for (_, part), patient in zip(slices, found.patients, strict=True):
        if part.series:
            whose[part.series].add(patient)
    mixed = sorted(f"P{digest(one, 'patient')}" for patients in whose.values() if len(patients) > 1 for one in patients)
    if mixed:
        text = f"{count(len(set(mixed)), 'patient')} have a series (SeriesInstanceUID) that another one has too"
        text += ": one person may have two PatientIDs, in training and in test. `ddtl audit` names them."
        notes.append(Note(text, is_doubt=True, names=named(sorted(set(mixed)))))
    turned = sum(bool(part.direction) and min(part.direction[0], part.direction[4]) < _UPRIGHT for _, part in slices)
    if turned:
        verb = "is" if turned == 1 else "are"
        text = f"{count(turned, 'slice')} {verb} not stored from right to left and front to back"
        text += " (ImageOrientationPatient), and shown as stored."
        notes.append(Note(text, is_doubt=True))
    faults: dict[str, list[str]] = defaultdict(list)
    for one in series.values():
        one.sort()
        for fault in one.faults():
            faults[fault].append(one.name)
    for fault, names in faults.items():
        text = f"{len(names)} of {len(series)} series {fault}."
        notes.append(Note(text, is_doubt=True, names=named(sorted(names))))
    return sorted(series.values(), key=lambda one: one.name), set(found.shared), notes


def _notes_of_patients(found: dicom_patients.Identified) -> list[Note]:
    notes = []
    if found.shared:
        names = [f"P{digest(name, 'patient')}" for name in found.shared if name]
        verb = "is" if len(found.shared) == 1 else "are"
        text = f"{count(len(found.shared), 'PatientID')} {verb} empty, a placeholder or of several people"
        notes.append(Note(f"{text}: their studies are taken as patients.", is_doubt=True, names=named(names)))
    if found.spellings:
        names = [f"P{digest(name, 'patient')}" for ids in found.spellings for name in ids]
        text = f"{count(len(names), 'PatientID')} differ from another one in spelling alone and are taken as different"
        notes.append(Note(f"{text} patients.", is_doubt=True, names=named(names)))
    return notes
